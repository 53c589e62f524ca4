"""What a change does to the accuracy: of the network against the baseline, of the rate against a constant one.

Final accuracies are paired by seed, because a seed has the same batches everywhere, and with one network the same
initial weights. The mean of the differences has Student's t interval over seeds. What the change costs stands beside
it: parameters, and the time of an epoch.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal, NamedTuple

from resnet_bench.analysis.conditions import MOST_PLANNED, Condition, step_down
from resnet_bench.analysis.ratios import independent_ratio
from resnet_bench.analysis.replicates import Origin, epoch_seconds, replicates
from resnet_bench.analysis.series import Group, Series, paired_final_accuracies
from resnet_bench.analysis.speed import Ratio, epoch_replicates, epoch_times, measured, ratio
from resnet_bench.analysis.turns import turns
from resnet_bench.intervals import LEAST_VALUES, deviation_interval, mean_interval
from resnet_bench.schema import Interval

BASELINE = "baseline"

OF_SCHEDULE = ("schedule", "warmup_steps", "epochs")
"""Settings in which a training with a schedule differs from one with a constant rate."""

RUNNING = ("pipeline", "workers", "threads")
"""Settings that change how long a step takes with and without a change, and hardly by how much the change does."""

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


class SeedsNeeded(NamedTuple):
    """With how many seeds an effect would be told; None for more than `MOST_PLANNED`.

    Attributes:
        estimate: if seeds go on to scatter as they did.
        low, high: if they scatter as little, or as much, as the 95 % interval of that scatter allows.
    """

    estimate: int | None
    low: int | None
    high: int | None


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

    @property
    def of_network(self) -> bool:
        """Whether it is of the network; else it is of the learning rate's course."""
        return self.series.architecture != self.control.architecture

    @property
    def parameters(self) -> int:
        """How many more the network has with the change."""
        return self.series.parameters - self.control.parameters

    @cached_property
    def interval(self) -> Interval:
        """The mean difference with its 95 % interval."""
        return mean_interval(self.differences)

    def seeds_needed(self, together: int) -> SeedsNeeded:
        """With how many seeds `SMALL_EFFECT` would be told.

        Args:
            together: effects that are judged together, this one among them.
        """
        spread = deviation_interval(self.differences)
        ends = (spread.estimate, spread.low, spread.high)
        return SeedsNeeded(*(seeds_to_tell(SMALL_EFFECT, end, ERROR / together) for end in ends))


Source = Literal["processes", "turns", "trainings"]


@dataclass(frozen=True)
class EpochTimes:
    """How long an epoch takes with a change, against one without it.

    Attributes:
        series, control: what was timed: the effect's own, or the same networks under another setting.
        seconds: with the change, the mean.
        ratio: with over without; None where times of both do not compare. That of trainings is not paired; its `count`
            is then that of the side with fewer.
        source: what the ratio is from: processes that measured both; processes of both that took turns in a duel;
            epochs of trainings, one training after the other. None where there is no ratio.
    """

    series: Series
    control: Series
    seconds: float
    ratio: Ratio | None
    source: Source | None


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


def times_of(effect: Effect, group: Group) -> EpochTimes | None:
    """The time of an epoch with the change and its ratio to the one without it; None where neither is known.

    Epoch-time results come first: those of the effect's own series, else of the same networks with the same engine
    under another setting of the group, the nearest one. Those of different sessions have no ratio, because the machine
    drifts from one to the next, unless a duel took them in turn. Only then do trainings that ran one after the other
    count, and last the time with the change alone.
    """
    own = effect.series, effect.control
    for series, control in [own, *_timed_elsewhere(effect, group)]:
        below, above = epoch_times(control), epoch_times(series)
        if values := replicates(above.items()):
            if paired := ratio(below, above):
                return EpochTimes(series, control, values.mean, paired, "processes")
            if paired := _ratio_in_turn(control, series):
                return EpochTimes(series, control, values.mean, paired, "turns")
    if found := _times_of_trainings(*own):
        return found
    alone = epoch_replicates(effect.series)
    return EpochTimes(*own, alone.mean, None, None) if alone else None


def _ratio_in_turn(control: Series, series: Series) -> Ratio | None:
    """Of times that a duel took in turn, by its rounds; None where none did."""
    below: dict[Origin, float] = {}
    above: dict[Origin, float] = {}
    for run, without in measured(control):
        for other, with_ in measured(series):
            for i, turn in enumerate(turns(run.machine, other.machine)):
                if turn.base in without.epoch_times and turn.other in with_.epoch_times:
                    place = Origin(run.machine["duel"]["id"], str(i))
                    below[place], above[place] = without.epoch_times[turn.base], with_.epoch_times[turn.other]
    return ratio(below, above)


def _timed_elsewhere(effect: Effect, group: Group) -> list[tuple[Series, Series]]:
    """Pairs that differ from the effect's own in how they ran; those of a network in the schedule too. Nearest first.

    What a schedule costs cannot be seen under another one.
    """
    free = {*RUNNING, *(OF_SCHEDULE if effect.of_network else ())}

    def like(wanted: Series) -> list[Series]:
        return [
            s
            for s in group.series
            if s.times
            and s.architecture == wanted.architecture
            and all(s.setting[k] == wanted.setting.get(k) for k in s.setting if k not in free)
        ]

    pairs = [
        (series, control)
        for series in like(effect.series)
        for control in like(effect.control)
        if all(series.setting.get(k) == control.setting.get(k) for k in free)
    ]
    return sorted(pairs, key=lambda pair: len(differing(pair[0], effect.series)))


def differing(series: Series, other: Series) -> tuple[str, ...]:
    """The settings in which two series differ; one that only one of them tells is none."""
    mine, theirs = series.setting, other.setting
    return tuple(k for k in mine if k in theirs and mine[k] != theirs[k])


def _times_of_trainings(series: Series, control: Series) -> EpochTimes | None:
    below, above = (
        replicates(value for r in s.timed_trainings for value in epoch_seconds(r, "")) for s in (control, series)
    )
    if not below or not above:
        return None
    without, with_ = (list(side.values.values()) for side in (below, above))
    value = math.exp(fmean(map(math.log, with_)) - fmean(map(math.log, without)))
    fewer = min(below, above, key=lambda side: len(side.values))
    found = Ratio(value, independent_ratio(without, with_), len(fewer.values), fewer.unit)
    return EpochTimes(series, control, above.mean, found, "trainings")


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

    def enough(pairs: int) -> bool:
        quantile = stats.t.ppf(1 - error / 2, pairs - 1)
        return bool(1 - stats.nct.cdf(quantile, pairs - 1, effect / spread * math.sqrt(pairs)) >= POWER)

    most = LEAST_VALUES
    while most < MOST_PLANNED and not enough(most):  # by doubling, because far beyond its mean `nct` overflows
        most = min(2 * most, MOST_PLANNED)
    planned = range(LEAST_VALUES, most + 1)
    first = bisect_left(planned, True, key=enough)
    return planned[first] if first < len(planned) else None


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
