"""Whether another engine learns what `reference` learns: final accuracies of the same seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_bench.analysis.series import Group, Series, mean_of
from resnet_bench.schema import Interval

CONTROL = "reference"
OWN = ("engine", "pipeline", "workers")
"""What may differ between the runs: batches and initial weights depend on none of it."""


@dataclass(frozen=True)
class EngineAccuracy:
    """Final accuracies of one network with one engine.

    Attributes:
        accuracies: of the seeds that the control has too, in percent.
        difference: mean over the seeds of the accuracy minus that of `reference` with the same seed, in points, with
            its Student-t interval (of no width for one seed); None for `reference` itself.
    """

    architecture: str
    engine: str
    accuracies: Sequence[float]
    difference: Interval | None


def engine_accuracies(group: Group) -> list[EngineAccuracy]:
    """One for each network and engine that trained with the same recipe as `reference`, which comes first."""
    found = []
    for control in group.series:
        others = [s for s in group.series if s.engine != CONTROL and _comparable(s, control)]
        if control.engine == CONTROL and others:
            found += [_engine_accuracy(s, control) for s in (control, *others)]
    return found


def _engine_accuracy(series: Series, control: Series) -> EngineAccuracy:
    ours, theirs = _final(series, control)
    difference = None if series is control else mean_of([a - b for a, b in zip(ours, theirs, strict=True)])
    return EngineAccuracy(series.architecture, series.engine, ours, difference)


def _comparable(series: Series, control: Series) -> bool:
    """Whether both trained one network to the end of one recipe, from a seed that both have."""
    if series.architecture != control.architecture or not (series.complete and control.complete):
        return False
    same = series.setting_without(*OWN) == control.setting_without(*OWN)
    return same and bool(_final(series, control)[0])


def _final(series: Series, control: Series) -> tuple[list[float], list[float]]:
    """Final accuracies of the seeds that both have, in percent."""
    ours, theirs = ({r.seed: 100 * r.epochs[-1].test_accuracy for r in s.accuracies} for s in (series, control))
    shared = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in shared], [theirs[seed] for seed in shared]
