"""Whether another engine learns what `reference` learns: final accuracies of the same seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from resnet_bench.analysis.series import Group, Series, dataset_text, mean_of
from resnet_bench.render.table import Table

CONTROL = "reference"
OWN = ("engine", "pipeline", "workers")
"""What may differ between the runs: batches and initial weights depend on none of it."""


def table(group: Group) -> Table | None:
    """A row for each network and engine that trained with the same recipe as `reference`; None without such."""
    rows = []
    for control in group.series:
        others = [s for s in group.series if s.engine != CONTROL and _comparable(s, control)]
        if control.engine == CONTROL and others:
            rows += [_row(s, control) for s in (control, *others)]
    if not rows:
        return None
    columns = ["Network", "Engine", "Seeds", "Final accuracy (%)", "Minus reference (points)"]
    where = f"{dataset_text(group.dataset)}; {group.machine_text}"
    caption = f"{where}. Mean over the seeds, in brackets the lowest and the highest."
    notes = [
        "Minus reference: seed by seed, for a seed's initial weights and batches are the same with every engine; mean "
        "with its 95 % Student-t interval. One that holds 0 shows no difference; its width is what few seeds can miss."
    ]
    return Table("Accuracy of the engines", columns, rows, caption, notes)


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


def _row(series: Series, control: Series) -> list[str]:
    ours, theirs = _final(series, control)
    difference = "–" if series is control else _difference(ours, theirs)
    spread = f"{mean(ours):.1f} [{min(ours):.1f}, {max(ours):.1f}]"
    return [series.architecture, series.engine, str(len(ours)), spread, difference]


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    found = mean_of([a - b for a, b in zip(ours, theirs, strict=True)])
    if len(ours) == 1:
        return f"{found.estimate:+.1f}"
    return f"{found.estimate:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"
