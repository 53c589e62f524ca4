"""How networks and phases look in every figure, and what several figures draw on their axes.

Networks differ in colour (Okabe and Ito's palette, safe for colour-blind readers), marker and line style, phases in
colour and hatch, so that a black-and-white print can be read as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from resnet_bench import paper
from resnet_bench.analysis.replicates import Replicates
from resnet_bench.schema import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class NetworkStyle(NamedTuple):
    """Colour, marker and line style as matplotlib takes them."""

    color: str
    marker: str
    line: Any


class PhaseStyle(NamedTuple):
    """What the legend calls a phase; colour and hatch as matplotlib takes them."""

    label: str
    color: str
    hatch: str


INK, PAPER = "#000000", "#ffffff"
GRID, GREY = "#dddddd", "#666666"

NETWORK_STYLES = {
    "baseline": NetworkStyle(INK, "o", "-"),
    "fc1": NetworkStyle("#0050c0", "s", "--"),
    "fc3": NetworkStyle("#de6b00", "^", "-."),
    "blocks2": NetworkStyle("#009e8c", "D", (0, (6, 2))),
    "conv5x5": NetworkStyle("#8e2a7a", "v", (0, (4, 1, 1, 1, 1, 1))),
    "conv5x5-same": NetworkStyle("#5a3a00", "P", (0, (2, 1))),
    "blocks2-same": NetworkStyle("#9a54f0", "X", (0, (8, 1, 2, 1))),
    "baseline-se": NetworkStyle("#3f3e40", "h", (0, (1, 1))),
    "baseline-eca": NetworkStyle("#420d01", "p", (0, (3, 2, 1, 2))),
    "conv5x5-se": NetworkStyle("#68610d", "<", (0, (5, 1))),
}

OTHER_STYLE = NetworkStyle(GREY, "*", "-")
"""The style of a network that is not in `NETWORK_STYLES`."""

PHASE_STYLES = {
    "data": PhaseStyle("waiting for data", "#f2d98b", ""),
    "forward": PhaseStyle("forward", "#d5dbe3", "////"),
    "backward": PhaseStyle("backward", "#a3afbf", ".."),
    "optimizer": PhaseStyle("optimiser", "#66768a", "xxx"),
    "other": PhaseStyle("between phases", PAPER, ""),
}
"""The phases of a step in their order, then the rest of the step. Their colours are those of no network."""

DARK = {
    INK: "#e4e6e9",
    PAPER: "#17191c",
    GRID: "#3b4046",
    GREY: "#a0a6ad",
    "#0050c0": "#4f98f5",
    "#de6b00": "#d9601a",
    "#009e8c": "#1fd0b4",
    "#8e2a7a": "#b0589a",
    "#5a3a00": "#f5b820",
    "#9a54f0": "#8a50ff",
    "#3f3e40": "#959696",
    "#420d01": "#e49103",
    "#68610d": "#b4b3ff",
    "#f2d98b": "#6b5d2a",
    "#d5dbe3": "#2c333c",
    "#a3afbf": "#4f5c6d",
    "#66768a": "#8797ab",
}
"""What stands for each colour of a figure on dark paper, such as the page has where its reader prefers it."""

PUBLISHED_LINE = (0, (1, 1.5))
"""Line style of published values: dotted, as no measured line is."""


def network_style(architecture: str) -> NetworkStyle:
    return NETWORK_STYLES.get(architecture, OTHER_STYLE)


def draw_interval(axes: Axes, interval: Interval, at: float, color: str = INK, horizontal: bool = False) -> None:
    """Draw a 95 % interval, in every figure alike: a thin bar with caps.

    Args:
        interval: in the unit of the axis.
        at: its place on the other axis.
        horizontal: whether the values run along the horizontal axis.
    """
    ends = [[interval.estimate - interval.low], [interval.high - interval.estimate]]
    style: dict[str, Any] = {"color": color, "capsize": 2.5, "elinewidth": 1.0, "fmt": "none", "zorder": 2.5}
    if horizontal:
        axes.errorbar(interval.estimate, at, xerr=ends, **style)
    else:
        axes.errorbar(at, interval.estimate, yerr=ends, **style)


def scaled(interval: Interval, factor: float) -> Interval:
    """The interval in another unit."""
    ends = {key: getattr(interval, key) * factor for key in ("estimate", "low", "high")}
    return interval.model_copy(update=ends)


def draw_curve(
    axes: Axes, architecture: str, points: Sequence[tuple[float, Interval]], factor: float, label: str = ""
) -> None:
    """Draw measured values over epochs with their intervals; all are multiplied by `factor`."""
    color, marker, line = network_style(architecture)
    values = [interval.estimate * factor for _, interval in points]
    for epoch, interval in points:
        if interval.low < interval.high:
            draw_interval(axes, scaled(interval, factor), epoch, color)
    axes.plot([epoch for epoch, _ in points], values, color=color, marker=marker, linestyle=line, label=label)


def draw_course(axes: Axes, architecture: str, points: Sequence[tuple[float, Replicates]]) -> None:
    """Draw the milliseconds of a step over epochs: their mean as a line, its intervals, each process as a point."""
    color, marker, line = network_style(architecture)
    epochs = [epoch for epoch, _ in points]
    for epoch, found in points:
        draw_replicates(axes, found, epoch, epoch, 1e3, color)
    means = [1e3 * found.mean for _, found in points]
    axes.plot(epochs, means, color=color, marker=marker, linestyle=line, label=architecture)


def draw_replicates(
    axes: Axes,
    values: Replicates,
    at: float,
    beside: float,
    factor: float,
    color: str = INK,
    horizontal: bool = False,
) -> None:
    """Draw the value of each process as a small point, and the interval of their mean if there is one.

    Args:
        at: the place of the interval on the other axis.
        beside: the place of the points there, where they are not hidden.
        factor: what the values are multiplied by.
        horizontal: whether the values run along the horizontal axis.
    """
    points = [factor * value for value in values.values.values()]
    others = [beside] * len(points)
    places = (points, others) if horizontal else (others, points)
    axes.scatter(*places, s=7, color=color, edgecolors=PAPER, linewidths=0.4, zorder=5)
    if values.interval:
        draw_interval(axes, scaled(values.interval, factor), at, color, horizontal)


def draw_published_accuracy(axes: Axes, architecture: str) -> None:
    """Draw the published peak as a line, and a published final accuracy as a point at the last epoch, in per cent."""
    published = paper.PUBLISHED[architecture]
    if published.final_accuracy:
        final = 100 * published.final_accuracy
        axes.plot([paper.EPOCHS], [final], markersize=8, zorder=4, **_published_style(architecture))
    draw_published_value(axes, architecture, 100 * published.peak_accuracy)


def draw_published_value(axes: Axes, architecture: str, value: float) -> None:
    """Draw a dotted line that begins with a hollow marker; its label has all published values of the network."""
    published = paper.PUBLISHED[architecture]
    label = f"{architecture}, published: peak {100 * published.peak_accuracy:.0f} %, {published.epoch_minutes:g} min"
    if published.final_accuracy:
        label += f", final {100 * published.final_accuracy:.0f} %"
    line = {"linestyle": PUBLISHED_LINE, "linewidth": 1.6, "markevery": [0], **_published_style(architecture)}
    axes.plot([0, 1], [value, value], transform=axes.get_yaxis_transform(), label=label, **line)


def _published_style(architecture: str) -> dict[str, Any]:
    color, marker, _ = network_style(architecture)
    return {"color": color, "marker": marker, "markerfacecolor": PAPER, "clip_on": False}


def marker_legend(architectures: Sequence[str], hollow: str) -> Iterator[Any]:
    """Legend entries: the marker of each network, then, where `hollow` is not empty, what a hollow marker means."""
    from matplotlib.lines import Line2D

    for architecture in architectures:
        color, marker, _ = network_style(architecture)
        yield Line2D([], [], color=color, marker=marker, linestyle="none", markersize=8, label=architecture)
    if hollow:
        grey, white = GREY, PAPER
        yield Line2D([], [], color=grey, markerfacecolor=white, marker="o", ls="none", markersize=8, label=hollow)


def line_legend(architectures: Sequence[str]) -> Iterator[Any]:
    """Legend entries: marker and line of each network."""
    from matplotlib.lines import Line2D

    for architecture in architectures:
        color, marker, line = network_style(architecture)
        yield Line2D([], [], color=color, marker=marker, linestyle=line, label=architecture)


def scale_time_axis(axes: Axes, values: Sequence[float], log: bool = False) -> None:
    """Start the vertical axis at 0; make it logarithmic where the largest value is over eight times the smallest."""
    positive = [v for v in values if v > 0]
    if positive and (log or max(positive) > 8 * min(positive)):
        # Limits come before the scale: with an absurd interval, autoscaling would overflow.
        axes.set_ylim(min(positive) / 1.6, max(positive) * 1.6)
        axes.set_yscale("log")
        set_log_ticks(axes.yaxis, positive)
    else:
        axes.set_ylim(0, 1.1 * max(values, default=1.0) or 1.0)


def scale_epoch_axis(axes: Axes, epochs: Sequence[float]) -> None:
    """Make the horizontal axis one of square roots, which spreads the first epoch, where points are close together."""
    axes.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * x**2))
    last, margin = max(epochs), 0.03
    axes.set_xlim(-last * margin**2, last * (1 + margin) ** 2)
    whole = sorted({epoch for epoch in epochs if epoch == int(epoch)})
    axes.set_xticks(whole, [f"{epoch:g}" for epoch in whole])


def set_log_ticks(axis: Any, values: Sequence[float]) -> None:
    """Set ticks at 1, 2 and 5 (over a wide range only at powers of ten), written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = math.log10(max(values) / min(values)) if values and min(values) > 0 else 1
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
