"""The final accuracy of each engine, beside that of `reference` with the same seeds."""

from __future__ import annotations

from statistics import mean

from resnet_bench.analysis.agreement import EngineAccuracy, engine_accuracies
from resnet_bench.analysis.series import Group
from resnet_bench.render.captions import dataset_text, group_machine_text
from resnet_bench.render.table import Table


def agreement(group: Group) -> Table | None:
    """A row for each network and engine; None where no engine can be compared with `reference`."""
    rows = [_row(found) for found in engine_accuracies(group)]
    if not rows:
        return None
    columns = ["Network", "Engine", "Seeds", "Final accuracy (%)", "Minus reference (points)"]
    where = f"{dataset_text(group.dataset)}; {group_machine_text(group)}"
    caption = f"{where}. Mean over the seeds, in brackets the lowest and the highest."
    notes = [
        "Minus reference: seed by seed, for a seed's initial weights and batches are the same with every engine; mean "
        "with its 95 % Student-t interval. One that holds 0 shows no difference; its width is what few seeds can miss."
    ]
    return Table("Accuracy of the engines", columns, rows, caption, notes)


def _row(found: EngineAccuracy) -> list[str]:
    a, difference = found.accuracies, found.difference
    spread = f"{mean(a):.1f} [{min(a):.1f}, {max(a):.1f}]"
    text = "–"
    if difference is not None:
        text = f"{difference.estimate:+.1f}"
        text += f" [{difference.low:+.1f}, {difference.high:+.1f}]" if len(a) > 1 else ""
    return [found.architecture, found.engine, str(len(a)), spread, text]
