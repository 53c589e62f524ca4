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


NETWORK_STYLES = {
    "baseline": NetworkStyle("#000000", "o", "-"),
    "fc1": NetworkStyle("#0072B2", "s", "--"),
    "fc3": NetworkStyle("#D55E00", "^", "-."),
    "blocks2": NetworkStyle("#009E73", "D", (0, (6, 2))),
    "conv5x5": NetworkStyle("#CC79A7", "v", (0, (4, 1, 1, 1, 1, 1))),
    "conv5x5-same": NetworkStyle("#E69F00", "P", (0, (2, 1))),
    "blocks2-same": NetworkStyle("#56B4E9", "X", (0, (8, 1, 2, 1))),
}

OTHER_STYLE = NetworkStyle("#666666", "*", "-")
"""The style of a network that is not in `NETWORK_STYLES`."""

PHASE_STYLES = {
    "data": PhaseStyle("waiting for data", "#F0E442", ""),
    "forward": PhaseStyle("forward", "#56B4E9", "////"),
    "backward": PhaseStyle("backward", "#0072B2", ".."),
    "optimizer": PhaseStyle("optimiser", "#D55E00", "xxx"),
    "other": PhaseStyle("between phases", "#FFFFFF", ""),
}
"""The phases of a step in their order, then the rest of the step."""

PUBLISHED_LINE = (0, (1, 1.5))
"""Line style of published values: dotted, as no measured line is."""


def network_style(architecture: str) -> NetworkStyle:
    return NETWORK_STYLES.get(architecture, OTHER_STYLE)


def draw_curve(axes: Axes, architecture: str, points: Sequence[tuple[int, Interval]], factor: float) -> None:
    """Draw measured values over epochs, with their intervals as a band; all are multiplied by `factor`."""
    color, marker, line = network_style(architecture)
    epochs = [epoch for epoch, _ in points]
    values = [interval.estimate * factor for _, interval in points]
    low, high = ([end * factor for end in ends] for ends in zip(*((i.low, i.high) for _, i in points), strict=True))
    axes.fill_between(epochs, low, high, color=color, alpha=0.18, linewidth=0)
    if len(points) == 1:  # a band of one epoch has no width
        axes.vlines(epochs, low, high, color=color)
    axes.plot(epochs, values, color=color, marker=marker, linestyle=line, label=f"{architecture}, measured")


def draw_course(axes: Axes, architecture: str, points: Sequence[tuple[float, Replicates]]) -> None:
    """Draw the milliseconds of a step over epochs: their mean as a line, their range as a band, each as a point."""
    color, marker, line = network_style(architecture)
    epochs = [epoch for epoch, _ in points]
    values = [[1e3 * v for v in found.values.values()] for _, found in points]
    axes.fill_between(epochs, [min(own) for own in values], [max(own) for own in values], color=color, alpha=0.18, lw=0)
    for epoch, own in zip(epochs, values, strict=True):
        axes.plot([epoch] * len(own), own, color=color, marker=".", markersize=3, linestyle="none", alpha=0.6)
    means = [1e3 * found.mean for _, found in points]
    axes.plot(epochs, means, color=color, marker=marker, linestyle=line, label=architecture)


def draw_replicates(
    axes: Axes,
    values: Replicates,
    at: float,
    beside: float,
    factor: float,
    color: str = "black",
    horizontal: bool = False,
) -> None:
    """Draw the value of each process as a small point, and the interval of their mean, if there is one, as a bar.

    Args:
        at: the place of the bar on the other axis.
        beside: the place of the points there, where they are not hidden.
        factor: what the values are multiplied by.
        horizontal: whether the values run along the horizontal axis.
    """
    points = [factor * value for value in values.values.values()]
    others = [beside] * len(points)
    places = (points, others) if horizontal else (others, points)
    axes.scatter(*places, s=7, color=color, edgecolors="white", linewidths=0.4, zorder=5)
    if interval := values.interval:
        ends = [[factor * (interval.estimate - interval.low)], [factor * (interval.high - interval.estimate)]]
        mean = factor * interval.estimate
        style: dict[str, Any] = {"color": color, "capsize": 3, "fmt": "none", "zorder": 4}
        if horizontal:
            axes.errorbar(mean, at, xerr=ends, **style)
        else:
            axes.errorbar(at, mean, yerr=ends, **style)


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
    return {"color": color, "marker": marker, "markerfacecolor": "white", "clip_on": False}


def marker_legend(architectures: Sequence[str], hollow: str) -> Iterator[Any]:
    """Legend entries: the marker of each network, then, where `hollow` is not empty, what a hollow marker means."""
    from matplotlib.lines import Line2D

    for architecture in architectures:
        color, marker, _ = network_style(architecture)
        yield Line2D([], [], color=color, marker=marker, linestyle="none", markersize=8, label=architecture)
    if hollow:
        grey, white = "#444444", "white"
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
