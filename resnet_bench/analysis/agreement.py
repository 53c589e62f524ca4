"""Whether an engine learns what `reference` learns: final accuracies of the same seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_bench.analysis.series import Group, Series, mean_of
from resnet_bench.schema import Interval

CONTROL = "reference"
"""The engine that the others are compared with."""

MAY_DIFFER = ("engine", "pipeline", "workers")
"""Settings in which the two runs may differ: neither the batches nor the initial weights depend on them."""


@dataclass(frozen=True)
class EngineAccuracy:
    """Final accuracies of one network with one engine.

    Attributes:
        accuracies: in per cent, of the seeds that both this engine and `reference` trained.
        difference: mean over the seeds of the accuracy minus that of `reference` with the same seed, in percentage
            points, with its Student-t interval (of no width for one seed); None for `reference` itself.
    """

    architecture: str
    engine: str
    accuracies: Sequence[float]
    difference: Interval | None


def engine_accuracies(group: Group) -> list[EngineAccuracy]:
    """One for each network and engine that trained with the same recipe as `reference`; `reference` comes first."""
    found = []
    for control in group.series:
        others = [s for s in group.series if s.engine != CONTROL and _comparable(s, control)]
        if control.engine == CONTROL and others:
            found += [_engine_accuracy(s, control) for s in (control, *others)]
    return found


def _engine_accuracy(series: Series, control: Series) -> EngineAccuracy:
    own, control_own = _final(series, control)
    difference = None if series is control else mean_of([a - b for a, b in zip(own, control_own, strict=True)])
    return EngineAccuracy(series.architecture, series.engine, own, difference)


def _comparable(series: Series, control: Series) -> bool:
    """Whether both trained the same network to the end of the same recipe, with a seed in common."""
    if series.architecture != control.architecture or not (series.complete and control.complete):
        return False
    same = series.setting_without(*MAY_DIFFER) == control.setting_without(*MAY_DIFFER)
    return same and bool(_final(series, control)[0])


def _final(series: Series, control: Series) -> tuple[list[float], list[float]]:
    """Final accuracies of the seeds that both have, in percent."""
    own, control_own = ({r.seed: 100 * r.epochs[-1].test_accuracy for r in s.accuracies} for s in (series, control))
    shared = sorted(own.keys() & control_own.keys())
    return [own[seed] for seed in shared], [control_own[seed] for seed in shared]
