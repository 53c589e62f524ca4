"""What a change does to the accuracy: of the network against the baseline, of the rate against a constant one.

Final accuracies are paired by seed, because a seed has the same batches everywhere, and with one network the same
initial weights. The mean of the differences has Student's t interval over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import stdev

from resnet_bench.analysis.conditions import MOST_PLANNED, Condition, step_down
from resnet_bench.analysis.series import Group, Series, paired_final_accuracies
from resnet_bench.intervals import LEAST_VALUES, mean_interval
from resnet_bench.schema import Interval

BASELINE = "baseline"

OF_SCHEDULE = ("schedule", "warmup_steps", "epochs")
"""Settings in which a training with a schedule differs from one with a constant rate."""

CONSTANT = "constant"
"""The schedule of the study."""

ERROR = 0.05
"""The probability with which any verdict of a table may be false."""

SMALL_EFFECT = 0.005
"""The effect, as a fraction of 1, for which the number of seeds is planned: half a point."""

CERTAIN = 1000
"""Any number of seeds tells an effect that is so many times the scatter; beyond it, the distribution of t overflows."""

POWER = 0.8
"""The probability with which so many seeds tell that effect. It is the usual one (Cohen 1988)."""


@dataclass(frozen=True)
class Effect:
    """Final accuracies with a change, against those without it.

    Attributes:
        series: the trainings with the change.
        control: those without it.
        accuracies: with the change, as fractions of 1, one for each seed that both have; at least `LEAST_VALUES`.
        differences: each minus that of the control with the same seed.
    """

    series: Series
    control: Series
    accuracies: Sequence[float]
    differences: Sequence[float]

    @cached_property
    def interval(self) -> Interval:
        """The mean difference with its 95 % interval."""
        return mean_interval(self.differences)

    def seeds_needed(self, together: int) -> int | None:
        """With how many seeds `SMALL_EFFECT` would be told, if seeds go on to scatter as these did.

        Args:
            together: effects that are judged together, this one among them.

        Returns:
            None for more than `MOST_PLANNED`.
        """
        return seeds_to_tell(SMALL_EFFECT, stdev(self.differences), ERROR / together)


def effects(group: Group) -> list[Effect]:
    """Every change of the group, with the series that lacks it, in the order of the series."""
    found = []
    for s in group.series:
        for control in (_baseline(s, group), _constant_rate(s, group)):
            if control is None or not (s.complete and control.complete):
                continue
            accuracies, without = paired_final_accuracies(s, control)
            if len(accuracies) >= LEAST_VALUES:
                found.append(Effect(s, control, accuracies, [a - b for a, b in zip(accuracies, without, strict=True)]))
    return found


def verdicts(found: Sequence[Effect]) -> dict[int, bool]:
    """Whether the accuracy is higher (True) or lower, by the number of the effect; without those that cannot be told.

    Any of the verdicts is false in at most `ERROR` of cases (Holm's method).
    """
    conditions = {i: Condition(effect.differences, low=0.0) for i, effect in enumerate(found)}
    return step_down({i: condition.answer for i, condition in conditions.items()}, ERROR)


def seeds_to_tell(effect: float, spread: float, error: float = ERROR) -> int | None:
    """The least number of pairs with which a two-sided paired t test finds an effect with the chance `POWER`.

    Args:
        effect: the true mean difference, above 0.
        spread: the standard deviation of the differences.
        error: the probability with which the test finds one where there is none.

    Returns:
        None for more than `MOST_PLANNED`.
    """
    from scipy import stats  # here, because it takes two seconds to import

    if spread < effect / CERTAIN:
        return LEAST_VALUES
    for pairs in range(LEAST_VALUES, MOST_PLANNED + 1):
        quantile = stats.t.ppf(1 - error / 2, pairs - 1)
        if 1 - stats.nct.cdf(quantile, pairs - 1, effect / spread * math.sqrt(pairs)) >= POWER:
            return pairs
    return None


def _baseline(series: Series, group: Group) -> Series | None:
    """The baseline under the same setting; None for the baseline itself, and where it was not trained."""
    if series.architecture == BASELINE:
        return None
    return next((s for s in group.series if s.architecture == BASELINE and s.setting == series.setting), None)


def _constant_rate(series: Series, group: Group) -> Series | None:
    """The same network with a constant rate: after the same warm-up if that was trained, else without one."""
    warmup = series.setting.get("warmup_steps")
    wanted = [] if series.setting.get("schedule") == CONSTANT else [warmup]
    wanted += [0] if warmup else []
    for steps in wanted:
        for s in group.series:
            rest = s.setting_without(*OF_SCHEDULE) == series.setting_without(*OF_SCHEDULE)
            constant = (s.setting.get("schedule"), s.setting.get("warmup_steps")) == (CONSTANT, steps)
            same_length = s.setting.get("epochs") == series.setting.get("epochs")
            if s.architecture == series.architecture and rest and constant and same_length:
                return s
    return None
