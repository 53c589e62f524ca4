"""Tables of how fast a step is, and of how well sampled blocks predict the time of whole epochs."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from resnet_bench.analysis.series import Group
from resnet_bench.analysis.speed import StepSpeed, mode_checks, step_speeds
from resnet_bench.render.captions import dataset_text, group_machine_text
from resnet_bench.render.table import Table, significant


def steps(group: Group) -> Table | None:
    """A row for each network and engine that was timed, then rows for all five summed. None without epoch times."""
    rows = [_row(speed) for speed in step_speeds(group)]
    if not rows:
        return None
    columns = [
        "Network", "Engine", "Pipeline", "Step (ms)", "Updated (%)", "Bound (ms)", "Bound / step",
        "Times faster than plain",
    ]  # fmt: skip
    where = f"{dataset_text(group.dataset)}; {group_machine_text(group)}"
    caption = f"{where}. Median over interleaved blocks, in brackets the lowest and the highest."
    notes = [
        "Updated: share of the parameters that the mean step's optimiser went over; the rest, the weights of hidden "
        "units that had long answered no image, it would have left as they were.",
        "Bound: the least time here of a step that reads and updates so many parameters, from the bytes it must move "
        "and the operations it must do, at the rates measured at the start of the session, as by resnet-bench machine.",
        "Plain: the engine reference on the loader pipeline, as the paper ran; ratios are taken round by round.",
    ]
    return Table("Speed of a step, data included", columns, rows, caption, notes)


def modes(group: Group) -> Table | None:
    """A row for each network that was measured in whole epochs and in sampled blocks; None without such."""
    rows = [[c.architecture, c.engine, spread(c.full), spread(c.sampled), f"{c.ratio:.3f}"] for c in mode_checks(group)]
    if not rows:
        return None
    columns = ["Network", "Engine", "Whole epochs (s)", "Sampled (s)", "Sampled / whole"]
    where = f"{dataset_text(group.dataset)}; {group_machine_text(group)}"
    caption = f"{where}. Median, lowest and highest; the ratio is of the means."
    return Table("Sampled against whole epochs", columns, rows, caption)


def spread(values: Sequence[float]) -> str:
    """`4.1 [3.9, 4.4]`: median, lowest, highest; `–` for none."""
    if not values:
        return "–"
    middle = median(values)
    low, high = (significant(v, middle) for v in (min(values), max(values)))
    return f"{significant(middle)} [{low}, {high}]"


def _row(speed: StepSpeed) -> list[str]:
    bound, share = speed.bound_seconds, speed.updated_share
    return [
        speed.architecture or "all five, summed",
        speed.engine,
        speed.pipeline,
        spread([t * 1e3 for t in speed.step_seconds]),
        "–" if share is None else f"{share:.1%}".removesuffix("%"),
        significant(bound * 1e3) if bound else "–",
        f"{speed.bound_fraction:.2f}" if speed.bound_fraction else "–",
        spread(speed.times_faster),
    ]
