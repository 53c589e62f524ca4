"""The study's Figures 7–10 and our own, made from results: data first, drawn on request.

One visual language: a network has one colour, marker and line everywhere (`axes.NETWORK_STYLES`); a filled marker is
measured, a hollow one published; a bar with caps is a 95 % interval, and small points are the processes it is over.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_bench import paper
from resnet_bench.analysis.findings import accuracies
from resnet_bench.analysis.replicates import replicates
from resnet_bench.analysis.series import Group, Series, groups, in_order
from resnet_bench.analysis.speed import LeastTime, epoch_replicates, least_time, over_training, step_times
from resnet_bench.files import atomic_write, make_folder
from resnet_bench.render import captions, scale_figures
from resnet_bench.render.axes import (
    INK,
    PAPER,
    PHASE_STYLES,
    PUBLISHED_LINE,
    draw_course,
    draw_curve,
    draw_published_accuracy,
    draw_published_value,
    draw_replicates,
    line_legend,
    marker_legend,
    network_style,
    scale_epoch_axis,
    scale_time_axis,
    set_log_ticks,
)
from resnet_bench.render.captions import steps_text
from resnet_bench.render.drawing import WIDTH, Figure, require_matplotlib
from resnet_bench.render.figure_parts import Lacking, about, context, draw_row, end_of, replicates_text
from resnet_bench.render.network_figures import accuracy_by_epoch, time_by_network
from resnet_bench.render.table import minutes_or_seconds, significant
from resnet_bench.results.samples import Samples

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


def figures(samples: Samples) -> tuple[list[Figure], list[str]]:
    """All figures that the results allow, and for each of the others a line that says why it is left out.

    A figure never holds results of several machines or data sets; the names of the second one's figures end in `-2`.
    """
    makers: list[tuple[str, Callable[[Group], list[Figure]]]] = [
        (f"Figure {p.figure}", _against_baseline(p.architecture)) for p in paper.PUBLISHED.values() if p.figure
    ]
    makers = [("Time per network", time_by_network), ("Accuracy per epoch", accuracy_by_epoch), *makers]
    makers += [
        ("Parameters against epoch time", _parameters_against_time),
        ("Time of a step over the training", _step_over_training),
        ("Time of a step by phase", _step_by_phase),
        ("Fraction of the machine's limit", _fraction_of_limit),
    ]
    made: list[Figure] = []
    skipped: list[str] = []
    found, scales = groups(samples), scale_figures.figures(samples)
    for title, make in makers:
        drawn, reasons = 0, []
        for number, group in enumerate(found, 1):
            try:
                new = make(group)
            except Lacking as reason:
                reasons.append(str(reason))
                continue
            made += [_named(figure, number) for figure in new]
            drawn += 1
        if not drawn and (found or not scales):
            why = " / ".join(dict.fromkeys(reasons)) or "there are no epoch-time or accuracy results"
            skipped.append(f"{title} is left out: {why}.")
    return made + scales, skipped


def _named(figure: Figure, group: int) -> Figure:
    return figure if group == 1 else replace(figure, name=f"{figure.name}-{group}")


def write(samples: Samples, folder: str | Path) -> tuple[list[Path], list[str]]:
    """Write every figure as SVG and PNG into `folder`, which is made if need be.

    Returns:
        The paths of the files; a line for each figure that is left out, saying why.

    Raises:
        UserError: matplotlib is not installed, or the folder cannot be written.
    """
    require_matplotlib()
    folder = Path(folder)
    make_folder(folder, "--figures")
    made, skipped = figures(samples)
    paths = []
    for figure in made:
        paths += [folder / f"{figure.name}.svg", folder / f"{figure.name}.png"]
        with atomic_write(paths[-2]) as file:
            file.write(figure.svg())
        with atomic_write(paths[-1], "wb") as file:
            file.write(figure.png())
    return paths, skipped


def headlines(found: Sequence[Group], width: float = WIDTH) -> list[Figure]:
    """The two figures that say most: time per network, accuracy per epoch; each of the group that has most for it."""
    timed = sorted(found, key=lambda g: -len({s.architecture for s in g.series if s.epoch_time()}))
    trained = accuracies(found)
    made: list[Figure] = []
    for group, make in ((timed[0] if timed else None, time_by_network), (trained and trained.group, accuracy_by_epoch)):
        if group:
            with contextlib.suppress(Lacking):
                made += [_named(figure, found.index(group) + 1) for figure in make(group, width)]
    return made


def _against_baseline(variant: str) -> Callable[[Group], list[Figure]]:
    """What makes the paper's figure of one variant: its accuracy and time per epoch beside the baseline's."""

    def make(group: Group) -> list[Figure]:
        trained = {a: [s for s in group.series if s.architecture == a and s.accuracies] for a in ("baseline", variant)}
        lacking = [a for a, series in trained.items() if not series]
        if lacking:
            raise Lacking(f"there are no accuracy results of {' and '.join(lacking)}")
        pairs = [(b, v) for b in trained["baseline"] for v in trained[variant] if b.setting == v.setting]
        if not pairs:
            raise Lacking(f"baseline and {variant} were not trained under the same settings")
        return [_pair_figure(group, b, v, several=len(pairs) > 1) for b, v in pairs]

    return make


def _pair_figure(group: Group, baseline: Series, variant: Series, several: bool) -> Figure:
    """Two panels, accuracy and time; only the accuracy where neither network has runs whose times compare."""
    number = paper.PUBLISHED[variant.architecture].figure
    label = captions.label(group, baseline) if several else ""
    pair = (baseline, variant)
    scale = group.dataset.train_images / paper.TRAIN_IMAGES
    times = _PairTimes(tuple(s for s in pair if s.seconds_by_epoch()), scale)

    def draw(canvas: Canvas) -> None:
        left, *right = canvas.subplots(1, 2 if times.timed else 1, squeeze=False)[0]
        last = max(paper.EPOCHS, *(epoch for s in pair for epoch, _ in s.accuracy_by_epoch()))
        for s in pair:
            draw_curve(left, s.architecture, s.accuracy_by_epoch(), 100, f"{s.architecture}, measured")
            draw_published_accuracy(left, s.architecture)
        left.set(xlabel="epoch", ylabel="test accuracy (%)", title="Accuracy per epoch")
        left.set_ylim(bottom=0)
        for axes in right:
            times.draw(axes, group.dataset.train_images)
        for axes in (left, *right):
            axes.set_xlim(0.5, last + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
        canvas.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    ends = "; ".join(f"{_end_text(s)}{times.text(s)}" for s in pair)
    notes = [_interval_text(pair)]
    if times.timed and scale != 1:
        notes.append(
            f"Published times are scaled from {paper.TRAIN_IMAGES:,} to {group.dataset.train_images:,} images an epoch."
        )
    notes += [f"{s.architecture} stopped early." for s in pair if not s.complete]
    notes += [_resumed_text(s) for s in pair if len(s.timed_trainings) < len(s.accuracies)]
    notes.append(
        f"Dotted: published ({paper.MACHINE}, CIFAR-100, {paper.EPOCHS} epochs); the paper prints peaks and times, "
        "drawn as lines, and some final accuracies, drawn as larger hollow points at the last epoch."
    )
    shows = "Two line charts, test accuracy and training time" if times.timed else "Line chart of the test accuracy"
    return Figure(
        name=f"figure-{number}{'-' + _slug(label) if label else ''}",
        title=f"Figure {number}: {variant.architecture} against baseline{f' ({label})' if label else ''}",
        alt=f"{shows} for each epoch: {ends}.",
        caption=" ".join([about(group, pair), *notes]),
        context=context(group),
        height=4.6,
        draw=draw,
    )


@dataclass(frozen=True)
class _PairTimes:
    """The panel of times beside the accuracies.

    Attributes:
        timed: the networks that have runs whose times compare: none, one or both.
        scale: the images of an epoch over those of the paper's; the published times are multiplied by it.
    """

    timed: tuple[Series, ...]
    scale: float

    @property
    def seconds(self) -> list[float]:
        """The measured seconds of each epoch of each run."""
        return [e.train_seconds for s in self.timed for r in s.timed_trainings for e in r.epochs]

    def published(self, series: Series) -> float:
        """The published seconds of an epoch."""
        return paper.PUBLISHED[series.architecture].epoch_minutes * 60 * self.scale

    def text(self, series: Series) -> str:
        """` and takes 57 min an epoch (published 57 min)`; empty for a network without times."""
        if series not in self.timed:
            return ""
        divisor, name = minutes_or_seconds(self.seconds)
        scaled = "" if self.scale == 1 else ", scaled to the images in use"
        published = f"published {significant(self.published(series) / divisor)} {name}{scaled}"
        return f" and takes {significant(_mean_seconds(series) / divisor)} {name} an epoch ({published})"

    def draw(self, axes: Axes, train_images: int) -> None:
        divisor, name = minutes_or_seconds(self.seconds)
        for s in self.timed:
            draw_curve(axes, s.architecture, s.seconds_by_epoch(), 1 / divisor, f"{s.architecture}, measured")
            draw_published_value(axes, s.architecture, self.published(s) / divisor)
        scaled = "" if self.scale == 1 else f" (published: scaled to {train_images:,} images)"
        axes.set(xlabel="epoch", ylabel=f"training time of the epoch ({name})", title=f"Time per epoch{scaled}")
        scale_time_axis(axes, [v / divisor for v in (*self.seconds, *map(self.published, self.timed))])


def _parameters_against_time(group: Group) -> list[Figure]:
    """Parameters and epoch time of every network, a panel for each setting; published values as hollow markers."""
    timed = [(s, t) for s in group.series if (t := s.epoch_time())]
    if len({s.architecture for s, _ in timed}) < 2:
        raise Lacking("it needs the epoch time of two networks or more")
    labels = list(dict.fromkeys(captions.label(group, s) for s, _ in timed))
    scale = group.dataset.train_images / paper.TRAIN_IMAGES
    divisor, name = minutes_or_seconds([t.seconds for _, t in timed])
    architectures = in_order(s.architecture for s, _ in timed)
    published = {
        a: (float(p.parameters.rstrip("M")), p.epoch_minutes * 60 * scale / divisor)
        for a in architectures
        if (p := paper.PUBLISHED.get(a)) and p.parameters
    }
    columns = min(3, len(labels))
    rows = -(-len(labels) // columns)

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        values = [t.seconds / divisor for _, t in timed] + [v for _, v in published.values()]
        for axes, label in zip(grid.flat, labels, strict=False):
            for s, t in timed:
                if captions.label(group, s) == label:
                    color, marker, _ = network_style(s.architecture)
                    axes.plot(s.parameters / 1e6, t.seconds / divisor, color=color, marker=marker, markersize=8)
                    if processes := epoch_replicates(s):
                        millions = s.parameters / 1e6
                        draw_replicates(axes, processes, millions, 1.1 * millions, 1 / divisor, color)
            for a, at in published.items():
                color, marker, _ = network_style(a)
                axes.plot(*at, color=color, marker=marker, markerfacecolor=PAPER, markersize=8, zorder=1)
            axes.set(xscale="log", xlabel="parameters (millions)", title=label)
            scale_time_axis(axes, values, log=True)
            set_log_ticks(axes.xaxis, [s.parameters / 1e6 for s, _ in timed] + [v for v, _ in published.values()])
            axes.margins(0.12)
        for axes in grid[:, 0]:
            axes.set_ylabel(f"epoch time ({name})")
        for axes in grid.flat[len(labels) :]:
            axes.set_axis_off()
        hollow = "hollow: published" + ("" if scale == 1 else f", scaled to {group.dataset.train_images:,} images")
        handles = list(marker_legend(architectures, hollow if published else ""))
        canvas.legend(handles=handles, loc="outside lower center", ncols=4)

    text = "; ".join(
        f"{captions.name(group, s)} {s.parameters / 1e6:.1f} million, {significant(t.seconds / divisor)} {name}"
        for s, t in timed
    )
    scaled = ", scaled to the images in use" if scale != 1 else ""
    notes = [
        replicates_text(epoch_replicates(s) for s, _ in timed),
        f"Both axes are logarithmic. Hollow: published{scaled}.",
    ]
    if any(s.architecture == "blocks2" for s, _ in timed):
        notes.append("The paper prints no parameter count of blocks2, so its published time has no point here.")
    return [
        Figure(
            name="parameters-and-time",
            title="Parameters against epoch time",
            alt=f"Scatter chart of parameters against the time of an epoch: {text}.",
            caption=" ".join([about(group, [s for s, _ in timed]), *notes]),
            context=context(group),
            height=1.4 + 3.4 * rows,
            draw=draw,
        )
    ]


def _step_over_training(group: Group) -> list[Figure]:
    """The time of a step at the points of the training at which it was measured, a panel for each setting."""
    courses = [(s, course) for s in group.series if len(course := over_training(s)) > 1]
    if not courses:
        raise Lacking("it needs epoch times that were measured at two points of the training or more")
    labels = list(dict.fromkeys(captions.label(group, s) for s, _ in courses))
    architectures = in_order(s.architecture for s, _ in courses)
    columns = min(3, len(labels))
    rows = -(-len(labels) // columns)

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, squeeze=False)
        for axes, label in zip(grid.flat, labels, strict=False):
            shown = [(s, course) for s, course in courses if captions.label(group, s) == label]
            for s, course in shown:
                draw_course(axes, s.architecture, [(p.step / s.steps_per_epoch, p.seconds) for p in course])
            axes.set(xlabel="epoch (square-root scale)", title=label)
            scale_epoch_axis(axes, [p.step / s.steps_per_epoch for s, course in shown for p in course])
            scale_time_axis(axes, [1e3 * v for _, course in shown for p in course for v in p.seconds.values.values()])
        for axes in grid[:, 0]:
            axes.set_ylabel("time of a step (ms)")
        for axes in grid.flat[len(labels) :]:
            axes.set_axis_off()
        canvas.legend(handles=list(line_legend(architectures)), loc="outside lower center", ncols=5)

    text = "; ".join(
        f"{captions.name(group, s)} "
        + ", ".join(f"{significant(1e3 * p.seconds.mean)} ms {steps_text([p.step])}" for p in course)
        for s, course in courses
    )
    notes = ["Lines: mean.", replicates_text(p.seconds for _, course in courses for p in course)]
    aged = [captions.name(group, s) for s, course in courses if any(p.aged for p in course)]
    if aged:
        notes.append(f"Some states of {', '.join(aged)} were aged, not trained; the table of epoch times says which.")
    return [
        Figure(
            name="step-over-training",
            title="Time of a training step over the training",
            alt=f"Line chart of the time of a step in the course of the training: {text}.",
            caption=" ".join([about(group, [s for s, _ in courses]), *notes]),
            context=context(group),
            height=1.5 + 3.2 * rows,
            draw=draw,
        )
    ]


def _step_by_phase(group: Group) -> list[Figure]:
    """Mean time of a step of every series, in milliseconds and as shares, split by phase."""
    timed = [(s, phases) for s in group.series if (phases := s.step_phases())]
    if not timed:
        raise Lacking("it needs epoch-time results")
    totals = [max(s.step_seconds() or 0, sum(phases.values())) for s, phases in timed]
    steps = [replicates(step_times(s).items()) for s, _ in timed]
    ends = [max(total, end_of(values)) for values, total in zip(steps, totals, strict=True)]
    for (_, phases), total in zip(timed, totals, strict=True):
        rest = total - sum(phases.values())
        phases["other"] = rest if rest > 0.01 * total else 0.0
    shown = {key: style for key, style in PHASE_STYLES.items() if any(phases[key] for _, phases in timed)}

    def draw(canvas: Canvas) -> None:
        absolute, share = canvas.subplots(1, 2, sharey=True)
        rows = range(len(timed))
        starts = [0.0] * len(timed)
        for key, (label, color, hatch) in shown.items():
            widths = [phases[key] for _, phases in timed]
            style: dict[str, Any] = {"color": color, "hatch": hatch, "edgecolor": INK, "linewidth": 0.6}
            absolute.barh(
                rows, [1e3 * w for w in widths], left=[1e3 * s for s in starts], label=label, height=0.7, **style
            )
            shares, share_starts = (
                [100 * part / total for part, total in zip(parts, totals, strict=True)] for parts in (widths, starts)
            )
            share.barh(rows, shares, left=share_starts, height=0.7, **style)
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
        for row, (values, total, end) in enumerate(zip(steps, totals, ends, strict=True)):
            if values:
                draw_replicates(absolute, values, row, row + 0.22, 1e3, horizontal=True)
            absolute.annotate(
                significant(1e3 * total), (1e3 * end, row), (5, 0), textcoords="offset points", va="center"
            )
        absolute.set_xlim(0, 1.14e3 * max(ends))
        share.set_xlim(0, 100)
        absolute.set_yticks(rows, [captions.name(group, s) for s, _ in timed])
        absolute.invert_yaxis()
        absolute.set(xlabel="mean time of a step (ms)")
        share.set(xlabel="share of the step (%)")
        for axes in (absolute, share):
            axes.grid(visible=False, axis="y")
        canvas.legend(*absolute.get_legend_handles_labels(), loc="outside lower center", ncols=len(shown))

    text = "; ".join(
        f"{captions.name(group, s)} {significant(1e3 * total)} ms ("
        + ", ".join(f"{style.label} {phases[key] / total:.0%}" for key, style in shown.items() if phases[key])
        + ")"
        for (s, phases), total in zip(timed, totals, strict=True)
    )
    return [
        Figure(
            name="step-by-phase",
            title="Time of a training step by phase",
            alt=f"Stacked bar chart of the mean time of a step: {text}.",
            caption=f"{about(group, [s for s, _ in timed])} Means over the training. {replicates_text(steps)}",
            context=context(group),
            height=1.9 + 0.34 * len(timed),
            draw=draw,
        )
    ]


def _fraction_of_limit(group: Group) -> list[Figure]:
    """The model of the least time of a step over the measured time, for every series for which it stands."""
    known = [(s, least) for s in group.series if (least := least_time(s))]
    bars = [(s, least.share) for s, least in known if least.stands]
    left_out = [f"{captions.name(group, s)} ({_reason_against(least)})" for s, least in known if not least.stands]
    if not known:
        raise Lacking("no epoch-time result holds the least time of a step, which needs the machine's calibration")
    if not bars:
        raise Lacking(f"the model of the least time stands for none: {', '.join(left_out)}")

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        ends = [100 * end_of(shares) for _, shares in bars]
        for row, (end, (s, shares)) in enumerate(zip(ends, bars, strict=True)):
            draw_row(axes, s.architecture, shares, row, 100)
            axes.annotate(f"{100 * shares.mean:.1f} %", (end, row), (8, 0), textcoords="offset points", va="center")
        axes.axvline(100, color=INK, linestyle=PUBLISHED_LINE)
        axes.set_xlim(0, 1.1 * max(100, *ends))
        axes.set_yticks(range(len(bars)), [captions.name(group, s) for s, _ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlabel("model of the least time of a step / measured mean time (%)")

    text = "; ".join(f"{captions.name(group, s)} {shares.mean:.1%}" for s, shares in bars)
    notes = [
        "100 %: a model of the least time of a step that reads and updates as many parameters as the measured one did, "
        "by this machine's own bandwidth and arithmetic rate, measured between the steps (in older files: before and "
        "after them).",
        replicates_text([shares for _, shares in bars]),
        *([f"Left out: {', '.join(left_out)}."] if left_out else []),
    ]
    return [
        Figure(
            name="fraction-of-limit",
            title="How near a training step comes to the model of its least time",
            alt=f"Chart of the model of the least time of a step over the measured time: {text}.",
            caption=" ".join([about(group, [s for s, _ in bars]), *notes]),
            context=context(group),
            height=1.5 + 0.34 * len(bars),
            draw=draw,
        )
    ]


def _reason_against(least: LeastTime) -> str:
    if least.beaten:
        return "a step beat the model"
    return f"rates differed by {100 * least.drift:.0f} % between start and end"


def _end_text(series: Series) -> str:
    """`fc1 ends at 37.9 % after epoch 15 (published peak 38 %)`."""
    epoch, accuracy = series.accuracy_by_epoch()[-1]
    peak = paper.PUBLISHED[series.architecture].peak_accuracy
    end = f"ends at {100 * accuracy.estimate:.1f} % after epoch {epoch} (published peak {100 * peak:.0f} %)"
    return f"{series.architecture} {end}"


def _mean_seconds(series: Series) -> float:
    """Mean seconds of an epoch over epochs and seeds."""
    points = series.seconds_by_epoch()
    return sum(interval.estimate for _, interval in points) / len(points)


def _resumed_text(series: Series) -> str:
    """`Times leave out 1 of 3 runs of fc1, resumed under another …`."""
    left_out, runs = len(series.accuracies) - len(series.timed_trainings), len(series.accuracies)
    which = f"{left_out} of {runs} runs" if left_out < runs else "every run" if runs > 1 else "the run"
    return (
        f"Times leave out {which} of {series.architecture}, resumed under another engine, pipeline or thread count, or "
        "trained beside others."
    )


def _interval_text(pair: Sequence[Series]) -> str:
    """What the bars are, for each network where they differ."""
    seeds = [len(s.accuracies) for s in pair]
    single = "Wilson's 95 % interval over the test images, and none for the time, as there is one seed"
    several = "Student-t 95 % interval over {} seeds, of the time on the logarithmic scale"
    texts = [single if n == 1 else several.format(n) for n in seeds]
    if len(set(texts)) == 1:
        return f"Bars: {texts[0]}."
    return "Bars: " + "; ".join(f"{s.architecture}: {t}" for s, t in zip(pair, texts, strict=True)) + "."


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
