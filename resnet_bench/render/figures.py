"""The study's Figures 7–10 and three of our own, made from results: data first, drawn by matplotlib on request.

matplotlib is the optional extra `figures`. Networks are told apart by colour (Okabe and Ito's palette, safe for
colour-blind readers), marker and line style, phases by colour and hatch, so that a black-and-white print reads as well.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_bench import paper
from resnet_bench.analysis.series import (
    Group,
    Series,
    groups,
    in_order,
)
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write, make_folder
from resnet_bench.render import captions
from resnet_bench.render.captions import dataset_text, setting_text
from resnet_bench.render.table import significant
from resnet_bench.results.samples import Samples
from resnet_bench.schema import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

STYLES: dict[str, tuple[str, str, Any]] = {
    "baseline": ("#000000", "o", "-"),
    "fc1": ("#0072B2", "s", "--"),
    "fc3": ("#D55E00", "^", "-."),
    "blocks2": ("#009E73", "D", (0, (6, 2))),
    "conv5x5": ("#CC79A7", "v", (0, (4, 1, 1, 1, 1, 1))),
    "conv5x5-same": ("#E69F00", "P", (0, (2, 1))),
    "blocks2-same": ("#56B4E9", "X", (0, (8, 1, 2, 1))),
}
"""Colour, marker and line style of each network, in every figure."""

OTHER_STYLE = ("#666666", "*", "-")

PHASES = {
    "data": ("waiting for data", "#F0E442", ""),
    "forward": ("forward", "#56B4E9", "////"),
    "backward": ("backward", "#0072B2", ".."),
    "optimizer": ("optimiser", "#D55E00", "xxx"),
    "other": ("between phases", "#FFFFFF", ""),
}
"""Label, colour and hatch of each phase of the step, in its order."""

PUBLISHED_LINE = (0, (1, 1.5))  # dotted, as nothing measured is
WIDTH = 9.0  # inches
DPI = 150  # of the PNG

_SETTINGS: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "path",  # looks the same wherever it is opened
    "text.hinting": "none",  # as FREETYPE_PROPERTIES has a say in it
    "text.parse_math": False,  # names come from files: their dollar signs are no formulas
}


@dataclass(frozen=True)
class Figure:
    """A figure that can be drawn; the same results give the same bytes.

    Attributes:
        name: of its files, e.g. `figure-7`.
        title: one line, drawn above it.
        alt: what it shows, for those who cannot see it.
        caption: data set, machine, settings, and what the intervals are.
        context: data set and machine in short, drawn below the title: a picture travels without its caption.
        height: inches; the width is `WIDTH`.
        draw: draws everything but the titles on an empty matplotlib figure.
    """

    name: str
    title: str
    alt: str
    caption: str
    context: str
    height: float
    draw: Callable[[Canvas], None]

    def svg(self) -> str:
        """The figure as a standalone SVG document."""
        return self._render("svg", {"Date": None, "Creator": "resnet-bench"}).decode()

    def png(self) -> bytes:
        """The figure as PNG, `DPI` dots per inch."""
        return self._render("png", {"Software": None})

    @contextlib.contextmanager
    def canvas(self) -> Iterator[Canvas]:
        """The drawn matplotlib figure, to be used while the suite's settings of matplotlib are in force."""
        require_matplotlib()
        import matplotlib
        from matplotlib.figure import Figure as Canvas

        # A user's matplotlibrc must not change the picture, nor the picture the backend of those who draw on.
        settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **_SETTINGS, "svg.hashsalt": self.name}
        settings.pop("backend", None)
        with matplotlib.rc_context(settings):
            canvas = Canvas(figsize=(WIDTH, self.height), layout="constrained", facecolor="white")
            canvas.get_layout_engine().set(w_pad=0.1, h_pad=0.06, wspace=0.03)  # type: ignore[union-attr, call-arg]
            canvas.suptitle(f"{self.title}\n{textwrap.fill(self.context, 100)}", fontsize=10.5)
            self.draw(canvas)
            yield canvas

    def _render(self, format_: str, metadata: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        with self.canvas() as canvas:
            canvas.savefig(out, format=format_, dpi=DPI, metadata=metadata)
        return out.getvalue()


def figures(samples: Samples) -> tuple[list[Figure], list[str]]:
    """All figures that the results allow, and a line for each that they do not, saying why.

    Results of several machines or data sets are never drawn into one figure; the second one's figures end in `-2`.
    """
    makers: list[tuple[str, Callable[[Group], list[Figure]]]] = [
        (f"Figure {p.figure}", _against_baseline(p.architecture)) for p in paper.PUBLISHED.values() if p.figure
    ]
    makers += [
        ("Parameters against epoch time", _parameters_against_time),
        ("Time of a step by phase", _step_by_phase),
        ("Fraction of the machine's limit", _fraction_of_limit),
    ]
    made: list[Figure] = []
    skipped: list[str] = []
    found = groups(samples)
    for title, make in makers:
        drawn, reasons = 0, []
        for number, group in enumerate(found, 1):
            try:
                new = make(group)
            except _Lacking as reason:
                reasons.append(str(reason))
                continue
            made += [f if number == 1 else replace(f, name=f"{f.name}-{number}") for f in new]
            drawn += 1
        if not drawn:
            why = " / ".join(dict.fromkeys(reasons)) or "there are no epoch-time or accuracy results"
            skipped.append(f"{title} is left out: {why}.")
    return made, skipped


def write(samples: Samples, folder: str | Path) -> tuple[list[Path], list[str]]:
    """Write every figure as SVG and PNG into `folder`, made if need be; the paths, and why others were left out.

    Raises `UserError` without matplotlib, or where the folder cannot be written.
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


def require_matplotlib() -> None:
    """Import matplotlib; raise `UserError` where it is not installed or cannot be imported.

    A backend that the environment names, as a notebook does for what is started from it, may be one that is not
    installed here. Figures need none, so matplotlib is imported without it, and takes it up where it can.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError('Figures need matplotlib; install it with: pip install "resnet-bench[figures]".')
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib

        if backend:
            with contextlib.suppress(ValueError):
                matplotlib.rcParams["backend"] = backend
    except Exception as error:  # of its own parts, or of a matplotlibrc that is no text
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"Figures need matplotlib, which cannot be imported ({reason}); mend its matplotlibrc or install it anew."
        ) from None
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


class _Lacking(Exception):
    """The results lack what a figure shows; the message completes «Figure 7 is left out: …»."""


def _against_baseline(variant: str) -> Callable[[Group], list[Figure]]:
    """Maker of the paper's figure of one variant: accuracy and time per epoch against the baseline's."""

    def make(group: Group) -> list[Figure]:
        trained = {a: [s for s in group.series if s.architecture == a and s.accuracies] for a in ("baseline", variant)}
        lacking = [a for a, series in trained.items() if not series]
        if lacking:
            raise _Lacking(f"there are no accuracy results of {' and '.join(lacking)}")
        pairs = [(b, v) for b in trained["baseline"] for v in trained[variant] if b.setting == v.setting]
        if not pairs:
            raise _Lacking(f"baseline and {variant} were not trained under the same settings")
        return [_pair_figure(group, b, v, several=len(pairs) > 1) for b, v in pairs]

    return make


def _pair_figure(group: Group, baseline: Series, variant: Series, several: bool) -> Figure:
    """Two panels; only that of the accuracy where no run of either network has times that compare."""
    number, name = paper.PUBLISHED[variant.architecture].figure, variant.architecture
    label = captions.label(group, baseline) if several else ""
    pair = (baseline, variant)
    scale = group.dataset.train_images / paper.TRAIN_IMAGES
    times = _PairTimes(tuple(s for s in pair if s.timed_trainings), scale)

    def draw(canvas: Canvas) -> None:
        left, *right = canvas.subplots(1, 2 if times.timed else 1, squeeze=False)[0]
        last = max(paper.EPOCHS, *(e for s in pair for e, _ in s.accuracy_by_epoch()))
        for s in pair:
            _curve(left, s, [(e, _scaled(i, 100)) for e, i in s.accuracy_by_epoch()])
            _published_accuracy(left, s.architecture)
        left.set(xlabel="epoch", ylabel="test accuracy (%)", title="Accuracy per epoch")
        left.set_ylim(bottom=0)
        for axes in right:
            times.draw(axes, group.dataset.train_images)
        for axes in (left, *right):
            axes.set_xlim(0.5, last + 0.5)
            axes.xaxis.get_major_locator().set_params(integer=True)
        canvas.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)

    ends = "; ".join(
        f"{s.architecture} ends at {100 * s.accuracy_by_epoch()[-1][1].estimate:.1f} % after epoch "
        f"{s.accuracy_by_epoch()[-1][0]} (published peak {100 * paper.PUBLISHED[s.architecture].peak_accuracy:.0f} %)"
        f"{times.text(s)}"
        for s in pair
    )
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
        title=f"Figure {number}: {name} against baseline{f' ({label})' if label else ''}",
        alt=f"{shows} for each epoch: {ends}.",
        caption=" ".join([_about(group, pair), *notes]),
        context=_context(group),
        height=4.6,
        draw=draw,
    )


@dataclass(frozen=True)
class _PairTimes:
    """The panel of times beside the accuracies.

    Attributes:
        timed: those of the two networks that have runs whose times compare; none, one or both.
        scale: the images of an epoch over those of the paper's, by which the published times are multiplied.
    """

    timed: tuple[Series, ...]
    scale: float

    @property
    def seconds(self) -> list[float]:
        return [e.train_seconds for s in self.timed for r in s.timed_trainings for e in r.epochs]

    def published(self, series: Series) -> float:
        """The published seconds of an epoch."""
        return paper.PUBLISHED[series.architecture].epoch_minutes * 60 * self.scale

    def text(self, series: Series) -> str:
        """` and takes 57 min an epoch (published 57 min)`; empty for a network without times."""
        if series not in self.timed:
            return ""
        unit, name = _time_unit(self.seconds)
        scaled = "" if self.scale == 1 else ", scaled to the images in use"
        published = f"published {significant(self.published(series) / unit)} {name}{scaled}"
        return f" and takes {significant(_mean(series) / unit)} {name} an epoch ({published})"

    def draw(self, axes: Axes, train_images: int) -> None:
        unit, name = _time_unit(self.seconds)
        for s in self.timed:
            _curve(axes, s, [(e, _scaled(i, 1 / unit)) for e, i in s.seconds_by_epoch()])
            _published_line(axes, s.architecture, self.published(s) / unit)
        scaled = "" if self.scale == 1 else f" (published: scaled to {train_images:,} images)"
        axes.set(xlabel="epoch", ylabel=f"training time of the epoch ({name})", title=f"Time per epoch{scaled}")
        _time_axis(axes, [v / unit for v in (*self.seconds, *map(self.published, self.timed))])


def _curve(axes: Axes, series: Series, points: Sequence[tuple[int, tuple[float, float, float]]]) -> None:
    color, marker, line = _style(series.architecture)
    epochs = [e for e, _ in points]
    value, low, high = zip(*(v for _, v in points), strict=True)
    axes.fill_between(epochs, low, high, color=color, alpha=0.18, linewidth=0)
    label = f"{series.architecture}, measured"
    if len(points) == 1:  # a band of one epoch has no width
        axes.vlines(epochs, low, high, color=color)
    axes.plot(epochs, value, color=color, marker=marker, linestyle=line, label=label)


def _published_accuracy(axes: Axes, architecture: str) -> None:
    """The published peak as a line, the final accuracy, where the paper prints one, as a point at the last epoch."""
    published = paper.PUBLISHED[architecture]
    if published.final_accuracy:
        final = 100 * published.final_accuracy
        axes.plot([paper.EPOCHS], [final], markersize=8, zorder=4, **_published_style(architecture))
    _published_line(axes, architecture, 100 * published.peak_accuracy)


def _published_line(axes: Axes, architecture: str, value: float) -> None:
    """A published value as a dotted line that begins with a hollow marker; its label names all published ones."""
    published = paper.PUBLISHED[architecture]
    label = f"{architecture}, published: peak {100 * published.peak_accuracy:.0f} %, {published.epoch_minutes:g} min"
    if published.final_accuracy:
        label += f", final {100 * published.final_accuracy:.0f} %"
    line = {"linestyle": PUBLISHED_LINE, "linewidth": 1.6, "markevery": [0], **_published_style(architecture)}
    axes.plot([0, 1], [value, value], transform=axes.get_yaxis_transform(), label=label, **line)


def _published_style(architecture: str) -> dict[str, Any]:
    color, marker, _ = _style(architecture)
    return {"color": color, "marker": marker, "markerfacecolor": "white", "clip_on": False}


def _parameters_against_time(group: Group) -> list[Figure]:
    timed = [(s, t) for s in group.series if (t := s.epoch_time())]
    if len({s.architecture for s, _ in timed}) < 2:
        raise _Lacking("it needs the epoch time of two networks or more")
    labels = list(dict.fromkeys(captions.label(group, s) for s, _ in timed))
    scale = group.dataset.train_images / paper.TRAIN_IMAGES
    unit, unit_name = _time_unit([t.seconds for _, t in timed])
    names = in_order(s.architecture for s, _ in timed)
    published = {
        a: (float(p.parameters.rstrip("M")), p.epoch_minutes * 60 * scale / unit)
        for a in names
        if (p := paper.PUBLISHED.get(a)) and p.parameters
    }
    columns = min(3, len(labels))
    rows = -(-len(labels) // columns)

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        values = [t.seconds / unit for _, t in timed] + [v for _, v in published.values()]
        for axes, label in zip(grid.flat, labels, strict=False):
            for s, t in timed:
                if captions.label(group, s) == label:
                    color, marker, _ = _style(s.architecture)
                    low, high = (t.seconds if t.low is None else t.low), (t.seconds if t.high is None else t.high)
                    error = [[max(0, t.seconds - low) / unit], [max(0, high - t.seconds) / unit]]
                    at = (s.parameters / 1e6, t.seconds / unit)
                    axes.errorbar(*at, yerr=error, color=color, marker=marker, markersize=8, capsize=3)
            for a, at in published.items():
                color, marker, _ = _style(a)
                axes.plot(*at, color=color, marker=marker, markerfacecolor="white", markersize=8, zorder=1)
            axes.set(xscale="log", xlabel="parameters (millions)", title=label)
            _time_axis(axes, values, log=True)
            _plain_log(axes.xaxis, [s.parameters / 1e6 for s, _ in timed] + [v for v, _ in published.values()])
            axes.margins(0.12)
        for axes in grid[:, 0]:
            axes.set_ylabel(f"epoch time ({unit_name})")
        for axes in grid.flat[len(labels) :]:
            axes.set_axis_off()
        hollow = "hollow: published" + ("" if scale == 1 else f", scaled to {group.dataset.train_images:,} images")
        handles = list(_network_handles(names, hollow if published else ""))
        canvas.legend(handles=handles, loc="outside lower center", ncols=4)

    text = "; ".join(
        f"{captions.name(group, s)} {s.parameters / 1e6:.1f} million, {significant(t.seconds / unit)} {unit_name}"
        for s, t in timed
    )
    notes = ["Bars: 95 % interval of the epoch time. Both axes are logarithmic. Hollow: published"]
    notes[0] += ", scaled to the images in use." if scale != 1 else "."
    if any(s.architecture == "blocks2" for s, _ in timed):
        notes.append("The paper prints no parameter count of blocks2, so its published time has no point here.")
    return [
        Figure(
            name="parameters-and-time",
            title="Parameters against epoch time",
            alt=f"Scatter chart of parameters against the time of an epoch: {text}.",
            caption=" ".join([_about(group, [s for s, _ in timed]), *notes]),
            context=_context(group),
            height=1.4 + 3.4 * rows,
            draw=draw,
        )
    ]


def _step_by_phase(group: Group) -> list[Figure]:
    parts = [(s, p, max(s.step_seconds() or 0, sum(p.values()))) for s in group.series if (p := s.step_phases())]
    if not parts:
        raise _Lacking("it needs epoch-time results")
    bars, totals = [(s, p) for s, p, _ in parts], [total for _, _, total in parts]
    for _, p, total in parts:
        rest = total - sum(p.values())
        p["other"] = rest if rest > 0.01 * total else 0.0
    shown = [k for k in PHASES if any(p[k] for _, p in bars)]

    def draw(canvas: Canvas) -> None:
        absolute, share = canvas.subplots(1, 2, sharey=True)
        rows = range(len(bars))
        starts = [0.0] * len(bars)
        for key in shown:
            label, color, hatch = PHASES[key]
            width = [p[key] for _, p in bars]
            style = {"color": color, "hatch": hatch, "edgecolor": "black", "linewidth": 0.6, "height": 0.7}
            absolute.barh(rows, [1e3 * w for w in width], left=[1e3 * s for s in starts], label=label, **style)  # type: ignore[arg-type]
            relative = [100 * w / t for w, t in zip(width, totals, strict=True)]
            share.barh(rows, relative, left=[100 * s / t for s, t in zip(starts, totals, strict=True)], **style)  # type: ignore[arg-type]
            starts = [s + w for s, w in zip(starts, width, strict=True)]
        for row, total in enumerate(totals):
            absolute.annotate(
                significant(1e3 * total), (1e3 * total, row), (3, 0), textcoords="offset points", va="center"
            )
        absolute.set_xlim(0, 1.12e3 * max(totals))
        share.set_xlim(0, 100)
        absolute.set_yticks(rows, [captions.name(group, s) for s, _ in bars])
        absolute.invert_yaxis()
        absolute.set(xlabel="mean time of a step (ms)")
        share.set(xlabel="share of the step (%)")
        for axes in (absolute, share):
            axes.grid(visible=False, axis="y")
        canvas.legend(*absolute.get_legend_handles_labels(), loc="outside lower center", ncols=len(shown))

    text = "; ".join(
        f"{captions.name(group, s)} {significant(1e3 * t)} ms ("
        + ", ".join(f"{PHASES[k][0]} {p[k] / t:.0%}" for k in shown if p[k])
        + ")"
        for (s, p), t in zip(bars, totals, strict=True)
    )
    return [
        Figure(
            name="step-by-phase",
            title="Time of a training step by phase",
            alt=f"Stacked bar chart of the mean time of a step: {text}.",
            caption=_about(group, [s for s, _ in bars]) + " Means over all timed steps.",
            context=_context(group),
            height=1.9 + 0.34 * len(bars),
            draw=draw,
        )
    ]


def _fraction_of_limit(group: Group) -> list[Figure]:
    bars = [(s, b / t) for s in group.series if (b := s.step_bound()) and (t := s.step_seconds()) and s.times]
    if not bars:
        raise _Lacking("no epoch-time result holds the least time of a step, which needs the machine's calibration")

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        colors = [_style(s.architecture)[0] for s, _ in bars]
        values = [100 * fraction for _, fraction in bars]
        axes.barh(range(len(bars)), values, color=colors, edgecolor="black", linewidth=0.6, height=0.7)
        for row, value in enumerate(values):
            axes.annotate(f"{value:.1f} %", (value, row), (3, 0), textcoords="offset points", va="center")
        axes.axvline(100, color="black", linestyle=PUBLISHED_LINE)
        axes.set_xlim(0, 1.1 * max(100, *values))
        axes.set_yticks(range(len(bars)), [captions.name(group, s) for s, _ in bars])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("least possible time of a step / measured mean time (%)")

    text = "; ".join(f"{captions.name(group, s)} {fraction:.1%}" for s, fraction in bars)
    return [
        Figure(
            name="fraction-of-limit",
            title="How near a training step comes to the machine's limit",
            alt=f"Bar chart of the achieved fraction of the machine's limit: {text}.",
            caption=_about(group, [s for s, _ in bars])
            + " 100 %: the least time of a step that reads and updates as many parameters as the measured one did, by "
            "this machine's own measured bandwidth and arithmetic rate. "
            "Above 100 % the caches held what the bound reads from memory.",
            context=_context(group),
            height=1.5 + 0.34 * len(bars),
            draw=draw,
        )
    ]


def _style(architecture: str) -> tuple[str, str, Any]:
    return STYLES.get(architecture, OTHER_STYLE)


def _network_handles(names: Sequence[str], hollow: str) -> Iterator[Any]:
    from matplotlib.lines import Line2D

    for name in names:
        color, marker, _ = _style(name)
        yield Line2D([], [], color=color, marker=marker, linestyle="none", markersize=8, label=name)
    if hollow:
        grey, white = "#444444", "white"
        yield Line2D([], [], color=grey, markerfacecolor=white, marker="o", ls="none", markersize=8, label=hollow)


def _time_unit(seconds: Sequence[float]) -> tuple[float, str]:
    """Minutes where all are a minute or longer; decided by what was measured."""
    return (60.0, "min") if min(seconds) >= 60 else (1.0, "s")


def _time_axis(axes: Axes, values: Sequence[float], log: bool = False) -> None:
    """From 0, or logarithmic where the largest is over eight times the smallest."""
    positive = [v for v in values if v > 0]
    if positive and (log or max(positive) > 8 * min(positive)):
        axes.set_ylim(min(positive) / 1.6, max(positive) * 1.6)  # first: an absurd interval would overflow autoscaling
        axes.set_yscale("log")
        _plain_log(axes.yaxis, positive)
    else:
        axes.set_ylim(0, 1.1 * max(values, default=1.0) or 1.0)


def _plain_log(axis: Any, values: Sequence[float]) -> None:
    """Ticks at 1, 2, 5 (or only powers of ten over a wide range), written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = math.log10(max(values) / min(values)) if values and min(values) > 0 else 1
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _scaled(interval: Interval, factor: float) -> tuple[float, float, float]:
    return interval.estimate * factor, interval.low * factor, interval.high * factor


def _mean(series: Series) -> float:
    points = series.seconds_by_epoch()
    return sum(i.estimate for _, i in points) / len(points)


def _resumed_text(series: Series) -> str:
    """Which runs the times leave out."""
    left_out, runs = len(series.accuracies) - len(series.timed_trainings), len(series.accuracies)
    which = f"{left_out} of {runs} runs" if left_out < runs else "every run" if runs > 1 else "the run"
    return f"Times leave out {which} of {series.architecture}, resumed under another engine, pipeline or thread count."


def _interval_text(pair: Sequence[Series]) -> str:
    """What the bands are, for each network where they differ."""
    seeds = [len(s.accuracies) for s in pair]
    single = "Wilson's 95 % interval over the test images, and none for the time, as there is one seed"
    several = "Student-t 95 % interval over {} seeds, of the time on the logarithmic scale"
    texts = [single if n == 1 else several.format(n) for n in seeds]
    if len(set(texts)) == 1:
        return f"Bands: {texts[0]}."
    return "Bands: " + "; ".join(f"{s.architecture}: {t}" for s, t in zip(pair, texts, strict=True)) + "."


def _about(group: Group, series: Sequence[Series]) -> str:
    part = replace(group, series=tuple(series))
    return f"{dataset_text(group.dataset)}; {captions.group_machine_text(group)}; {setting_text(part)}."


def _context(group: Group) -> str:
    """`cifar100, 50,000 training images, on 13th Gen Intel(R) Core(TM) i5-1340P`, and what is special of the data."""
    data = group.dataset
    kinds = [k for k, is_it in (("synthetic", data.synthetic), ("subset", data.subset)) if is_it and k != data.name]
    kind = f" ({', '.join(kinds)})" if kinds else ""
    machine = captions.cpu_text(group)
    text = f"{data.name}{kind}, {data.train_images:,} training images, {data.classes} classes, on {machine}"
    return "".join(c if c.isprintable() else "\ufffd" for c in text)  # halves of characters cannot be drawn


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
