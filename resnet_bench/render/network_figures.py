"""The two figures that say most: the time of an epoch of every network, and its accuracy over the epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnet_bench import paper
from resnet_bench.analysis.replicates import Replicates
from resnet_bench.analysis.series import Group, Series, in_order
from resnet_bench.analysis.speed import epoch_replicates, is_plain
from resnet_bench.render import captions
from resnet_bench.render.axes import GRID, PAPER, draw_curve, line_legend, network_style, set_log_ticks
from resnet_bench.render.drawing import WIDTH, Figure
from resnet_bench.render.figure_parts import Lacking, about, context, draw_row, end_of, replicates_text
from resnet_bench.render.table import minutes_or_seconds, significant
from resnet_bench.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas


def time_by_network(group: Group, width: float = WIDTH) -> list[Figure]:
    """The time of an epoch of every network: published, with plain PyTorch, with every other engine."""
    timed = [(s, t, values) for s in group.series if (t := s.epoch_time()) and (values := epoch_replicates(s))]
    if not timed:
        raise Lacking("there are no epoch-time results")
    architectures = in_order(s.architecture for s, _, _ in timed)
    scale = group.dataset.train_images / paper.TRAIN_IMAGES
    divisor, name = minutes_or_seconds([t.seconds for _, t, _ in timed])
    published = {
        a: paper.PUBLISHED[a].epoch_minutes * 60 * scale / divisor for a in architectures if a in paper.PUBLISHED
    }
    rows: list[tuple[str, Series | None, Replicates | None]] = []  # of one network after the other
    for a in architectures:
        rows += [(a, None, None)] if a in published else []
        rows += [(a, s, values) for s, _, values in timed if s.architecture == a]
    row_of = {a: [i for i, (own, _, _) in enumerate(rows) if own == a] for a in architectures}
    of_published = "published" if scale == 1 else "published, scaled"

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for i, (a, s, values) in enumerate(rows):
            if s is None or values is None:
                text, end = f"{of_published} {significant(published[a])}", published[a]
                color, marker, _ = network_style(a)
                axes.plot(end, i, color=color, marker=marker, markerfacecolor=PAPER, markersize=7)
            else:
                setting = "plain PyTorch" if is_plain(s) else captions.label(group, s)
                text, end = f"{setting} {significant(values.mean / divisor)}".strip(), end_of(values) / divisor
                draw_row(axes, a, values, i, 1 / divisor)
            axes.annotate(text, (end, i), (8, 0), textcoords="offset points", va="center", fontsize=8.5)
        every = [*published.values(), *(v / divisor for _, _, values in timed for v in values.values.values())]
        ends = [end for _, _, v in timed if v.interval for end in (v.interval.low / divisor, v.interval.high / divisor)]
        low, high = min([*every, *ends]), max([*every, *ends])
        room = 0.15 + 1.3 / width * (1 + math.log10(high / low))  # decades, for what stands beside the last point
        axes.set_xlim(low / 1.4, high * 10**room)
        axes.set_xscale("log")
        set_log_ticks(axes.xaxis, [*every, *ends])
        axes.set_yticks([sum(of) / len(of) for of in row_of.values()], list(row_of))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        for of in list(row_of.values())[1:]:
            axes.axhline(of[0] - 0.5, color=GRID, linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"time of an epoch ({name}, logarithmic)")

    text = "; ".join(
        f"{captions.name(group, s)} {significant(t.seconds / divisor)} {name}"
        + (f" ({of_published} {significant(published[s.architecture])} {name})" if s.architecture in published else "")
        for s, t, _ in timed
    )
    notes = [f"Hollow: published ({paper.MACHINE}, CIFAR-100)."] if published else []
    if published and scale != 1:
        images = group.dataset.train_images
        notes.append(f"Published times are scaled from {paper.TRAIN_IMAGES:,} to {images:,} images an epoch.")
    return [
        Figure(
            name="time-by-network",
            title="Time of an epoch by network",
            alt=f"Chart of the time of an epoch: {text}.",
            caption=" ".join(
                [about(group, [s for s, _, _ in timed]), *notes, replicates_text(values for _, _, values in timed)]
            ),
            context=context(group),
            height=1.3 + 0.21 * len(rows),
            draw=draw,
            width=width,
        )
    ]


def accuracy_by_epoch(group: Group, width: float = WIDTH) -> list[Figure]:
    """The test accuracy of every network over the epochs, a panel for each setting."""
    trained = [s for s in group.series if s.accuracies]
    if not trained:
        raise Lacking("there are no accuracy results")
    labels = list(dict.fromkeys(captions.label(group, s) for s in trained))
    architectures = in_order(s.architecture for s in trained)
    columns = min(3 if width == WIDTH else 1, len(labels))
    panel_rows = -(-len(labels) // columns)
    last = max(epoch for s in trained for epoch, _ in s.accuracy_by_epoch())

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(panel_rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, label in zip(grid.flat, labels, strict=False):
            for s in (s for s in trained if captions.label(group, s) == label):
                # Beside each other, so that no interval hides another.
                shift = 0.5 * ((architectures.index(s.architecture) + 0.5) / len(architectures) - 0.5)
                points = [(epoch + shift, accuracy) for epoch, accuracy in s.accuracy_by_epoch()]
                draw_curve(axes, s.architecture, points, 100)
            axes.set_title(label)
            axes.set_xlim(0.5, last + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        grid[0, 0].set_ylim(bottom=0)  # of all panels, and only now: it fixes the upper end to what has been drawn
        for axes in grid[-1]:
            axes.set_xlabel("epoch")
        for axes in grid[:, 0]:
            axes.set_ylabel("test accuracy (%)")
        for axes in grid.flat[len(labels) :]:
            axes.set_axis_off()
        canvas.legend(
            handles=list(line_legend(architectures)), loc="outside lower center", ncols=5 if width == WIDTH else 2
        )

    ends = [(s, curve[-1]) for s in trained if (curve := s.accuracy_by_epoch())]
    text = "; ".join(
        f"{captions.name(group, s)} {100 * accuracy.estimate:.1f} % after epoch {epoch}"
        for s, (epoch, accuracy) in ends
    )
    return [
        Figure(
            name="accuracy-by-epoch",
            title="Test accuracy after each epoch",
            alt=f"Line chart of the test accuracy for each epoch: {text}.",
            caption=f"{about(group, trained)} {_intervals_text(trained)}",
            context=context(group),
            height=1.2 + 2.9 * panel_rows + (0.2 if width == WIDTH else 0.2 * -(-len(architectures) // 2)),
            draw=draw,
            width=width,
        )
    ]


def _intervals_text(trained: Sequence[Series]) -> str:
    """What the bars are over."""
    seeds = [len(s.accuracies) for s in trained]
    several = f"Student-t over {counted(max(seeds), 'seed')}" if max(seeds) > 1 else ""
    single = "Wilson's over the test images, of a single seed" if min(seeds) == 1 else ""
    return f"Bars: 95 % intervals, {'; '.join(filter(None, [several, single]))}."
