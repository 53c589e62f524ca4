"""What the figures share: what their captions say, what a row of one network looks like, why one is left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from resnet_bench.analysis.replicates import Replicates
from resnet_bench.analysis.series import Group, Series
from resnet_bench.render import captions
from resnet_bench.render.axes import draw_replicates, network_style
from resnet_bench.render.captions import dataset_text, setting_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Lacking(Exception):
    """The results lack what a figure needs; the message completes «Figure 7 is left out: …»."""


def draw_row(axes: Axes, architecture: str, values: Replicates, row: float, factor: float) -> None:
    """Draw the mean of a network on a row of its own, with its interval, and each process as a point below."""
    color, marker, _ = network_style(architecture)
    axes.plot(factor * values.mean, row, color=color, marker=marker, markersize=7, zorder=3)
    draw_replicates(axes, values, row, row + 0.3, factor, color, horizontal=True)


def end_of(values: Replicates | None) -> float:
    """The largest value that is drawn of these: of a process, or the end of the interval."""
    if values is None:
        return 0.0
    return max(*values.values.values(), values.interval.high if values.interval else 0.0)


def replicates_text(found: Iterable[Replicates | None]) -> str:
    """What points and bars are, and where there is no bar."""
    drawn = [values for values in found if values]
    points = " and ".join(dict.fromkeys(map(captions.count_text, drawn)))
    bars = "; bars: 95 % intervals of their means" if any(values.interval for values in drawn) else ""
    return " ".join([f"Small points: {points}{bars}.", *captions.no_interval(drawn)])


def about(group: Group, series: Sequence[Series]) -> str:
    """Data set and machine of the group, and the settings of `series`, which are some of it."""
    part = replace(group, series=tuple(series))
    return f"{dataset_text(group.dataset)}; {captions.group_machine_text(group)}; {setting_text(part)}."


def context(group: Group) -> str:
    """`cifar100, 50,000 training images, on 13th Gen Intel(R) Core(TM) i5-1340P`, with `synthetic` and `subset`."""
    data = group.dataset
    kinds = [k for k, is_it in (("synthetic", data.synthetic), ("subset", data.subset)) if is_it and k != data.name]
    kind = f" ({', '.join(kinds)})" if kinds else ""
    machine = captions.cpu_text(group)
    text = f"{data.name}{kind}, {data.train_images:,} training images, {data.classes} classes, on {machine}"
    return printable(text)


def printable(text: str) -> str:
    """The text as matplotlib can draw it, which fails for half a surrogate pair."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
