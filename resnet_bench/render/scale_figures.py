"""The figure of `resnet-bench scale`: the time of a step against what was varied, a panel for each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_bench.analysis import scale
from resnet_bench.analysis.replicates import Replicates
from resnet_bench.analysis.scale import Sweep
from resnet_bench.render import scale_tables
from resnet_bench.render.axes import draw_replicates, line_legend, network_style, scale_time_axis, set_log_ticks
from resnet_bench.render.captions import cpu_name
from resnet_bench.render.drawing import Figure
from resnet_bench.render.figure_parts import printable
from resnet_bench.render.table import significant
from resnet_bench.results.samples import Samples
from resnet_bench.schema import ScaleResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


WIDEST = 3
"""How far intervals may stretch the axis of times beyond what was measured, as a factor."""


def figures(samples: Samples) -> list[Figure]:
    """One for each quantity that was varied; the names of further ones of a quantity end in `-2` and so on."""
    made: list[Figure] = []
    seen: dict[str, int] = {}
    for sweep in scale.sweeps(samples):
        seen[sweep.varied] = number = seen.get(sweep.varied, 0) + 1
        made.append(_figure(sweep, f"step-by-{sweep.varied}{f'-{number}' if number > 1 else ''}"))
    return made


def _figure(sweep: Sweep, name: str) -> Figure:
    head = scale_tables.HEADS[sweep.varied].lower()
    every = [1e3 * seconds for r in sweep.results for seconds in r.step_times]
    intervals = [found for r in sweep.results if (found := _rounds(r).interval)]
    ends = [1e3 * end for interval in intervals for end in (interval.low, interval.high)]
    least, most = min(every) / WIDEST, max(every) * WIDEST

    def draw(canvas: Canvas) -> None:
        grid = canvas.subplots(1, len(sweep.engines), sharey=True, squeeze=False)
        for axes, engine in zip(grid[0], sweep.engines, strict=True):
            for architecture in sweep.architectures:
                _draw_course(axes, architecture, sweep.of(architecture, engine))
            axes.set(xscale="log", xlabel=head, title=f"{engine} engine")
            set_log_ticks(axes.xaxis, [float(value) for value in sweep.values])
            axes.set_xticks(sweep.values, [f"{value:,}" for value in sweep.values])
        scale_time_axis(grid[0][0], [*every, *(min(max(end, least), most) for end in ends)], log=True)
        grid[0][0].set_ylabel("time of a step (ms)")
        canvas.legend(handles=list(line_legend(sweep.architectures)), loc="outside lower center", ncols=5)

    text = "; ".join(
        f"{architecture} ({engine}) "
        + ", ".join(f"{significant(1e3 * scale.mean(r.step_times).value)} ms at {r.value:,}" for r in own)
        for architecture in sweep.architectures
        for engine in sweep.engines
        if (own := sweep.of(architecture, engine))
    )
    points = "Lines: mean. Small points: rounds; bars: 95 % intervals of their means. Both axes are logarithmic."
    if ends and not least <= min(ends) <= max(ends) <= most:
        points += f" Intervals that reach more than {WIDEST} times beyond all rounds are cut off."
    data = sweep.results[0].dataset.name
    return Figure(
        name=name,
        title=f"Time of a step by {head}",
        alt=f"Line chart of the time of a step by {head}: {text}.",
        caption=" ".join([scale_tables.about(sweep), points, *scale_tables.notes(sweep)]),
        context=printable(f"early steps on {data}, on {cpu_name(sweep.machine)}"),
        height=4.6,
        draw=draw,
    )


def _rounds(result: ScaleResult) -> Replicates:
    """Seconds of a step in each round."""
    return Replicates({str(i): seconds for i, seconds in enumerate(result.step_times)}, "process")


def _draw_course(axes: Axes, architecture: str, own: list[ScaleResult]) -> None:
    color, marker, line = network_style(architecture)
    for r in own:
        draw_replicates(axes, _rounds(r), r.value, r.value, 1e3, color)
    means = [1e3 * scale.mean(r.step_times).value for r in own]
    axes.plot([r.value for r in own], means, color=color, marker=marker, linestyle=line)
