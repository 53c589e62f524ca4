"""Whether an engine learns what `reference` learns: final accuracies of the same seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from resnet_bench.analysis.conditions import Condition
from resnet_bench.analysis.series import Group, Series, paired_final_accuracies
from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.schema import Interval

CONTROL = "reference"
"""The engine that the others are compared with."""

MAY_DIFFER = ("engine", "pipeline", "workers")
"""Settings in which the two runs may differ: neither the batches nor the initial weights depend on them."""

MARGIN = 0.01
"""Engines learn the same where their mean final accuracies differ by less than this fraction: one percentage point.

It was chosen before it was tested. It is half of the smallest difference but 0 that the study reports between two peaks
(2 points), and below the scatter from seed to seed (`conditions.TYPICAL_SPREAD`): whoever takes the other engine cannot
find another order of the networks because of it.
"""

ERROR = 0.05
"""The probability with which either statement, equivalent or different, may be false where it is just not true."""


@dataclass(frozen=True)
class Equivalence:
    """What two one-sided tests say about a mean difference and `MARGIN`.

    Attributes:
        interval: of the mean difference, with 90 % confidence, because each of its ends is one of the tests; None for
            fewer than `LEAST_VALUES` seeds.
        verdict: whether the whole interval lies within ± `MARGIN`, or the whole outside, or neither.
        more_seeds: about how many more seeds would tell, if mean and scatter stay; 0 where these tell, None where more
            than `conditions.MOST_PLANNED` would be needed.
    """

    interval: Interval | None
    verdict: Literal["equivalent", "different", "cannot tell"]
    more_seeds: int | None


def equivalence(differences: Sequence[float]) -> Equivalence:
    """Whether accuracies are the same, from their differences seed by seed, as fractions of 1; at least one."""
    within = Condition(differences, -MARGIN, MARGIN)
    answer = within.answer(2 * ERROR)
    interval = within.interval(2 * ERROR) if len(differences) >= LEAST_VALUES else None
    if answer is None:
        needed = within.needed(2 * ERROR)
        return Equivalence(interval, "cannot tell", None if needed is None else max(1, needed - len(differences)))
    return Equivalence(interval, "equivalent" if answer else "different", 0)


@dataclass(frozen=True)
class EngineAccuracy:
    """Final accuracies of one network with one engine.

    Attributes:
        series: the trainings.
        accuracies: fractions of 1, of the seeds that both this engine and `reference` trained.
        differences: each minus that of `reference` with the same seed; empty for `reference` itself.
    """

    series: Series
    accuracies: Sequence[float]
    differences: Sequence[float]

    @property
    def equivalence(self) -> Equivalence | None:
        """None for `reference` itself."""
        return equivalence(self.differences) if self.differences else None


def engine_accuracies(group: Group) -> list[EngineAccuracy]:
    """One for each network and engine that trained with the same recipe as `reference`; `reference` comes first."""
    found = []
    for control in group.series:
        others = [s for s in group.series if s.engine != CONTROL and _comparable(s, control)]
        if control.engine == CONTROL and others:
            found += [_engine_accuracy(s, control) for s in (control, *others)]
    return found


def _engine_accuracy(series: Series, control: Series) -> EngineAccuracy:
    own, control_own = paired_final_accuracies(series, control)
    differences = [] if series is control else [a - b for a, b in zip(own, control_own, strict=True)]
    return EngineAccuracy(series, own, differences)


def _comparable(series: Series, control: Series) -> bool:
    """Whether both trained the same network to the end of the same recipe, with a seed in common."""
    if series.architecture != control.architecture or not (series.complete and control.complete):
        return False
    same = series.setting_without(*MAY_DIFFER) == control.setting_without(*MAY_DIFFER)
    return same and bool(paired_final_accuracies(series, control)[0])
