"""A history as a page: what changed, the course of every line as a figure, and the tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from resnet_bench.analysis.history import History, Line
from resnet_bench.errors import UserError
from resnet_bench.render.axes import GREY, draw_interval, network_style
from resnet_bench.render.captions import dataset_text
from resnet_bench.render.drawing import NARROW, WIDTH, Figure, require_matplotlib
from resnet_bench.render.history_tables import (
    change_size_text,
    groups,
    machine_name,
    name,
    sentences,
    tables,
)
from resnet_bench.render.page import Part, Section, document, for_page_and_phone
from resnet_bench.wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

LINES_IN_A_FIGURE = 4  # so that one is no taller than a printed page
LEAST_SESSIONS_DRAWN = 2  # of a line; fewer are no course
MOST_DATES = 8  # below a panel of the usual width


def page(history: History) -> str:
    """The page. Without matplotlib, it says how to get the figures."""
    sections = [
        Section("Steps", sentences(history)),
        Section("Course", _pictures(history)),
        Section("Lines", tables(history)),
    ]
    return document("Epoch times over sessions", sections)


def _pictures(history: History) -> Sequence[Part]:
    try:
        require_matplotlib()
    except UserError as error:
        return [str(error)]
    made = for_page_and_phone(figures(history), figures(history, NARROW))
    return made or [f"No line has {LEAST_SESSIONS_DRAWN} sessions, so that there is no course to draw."]


def figures(history: History, width: float = WIDTH) -> list[Figure]:
    """Figures of at most `LINES_IN_A_FIGURE` lines, each of one kind of machine and data set, so many inches wide."""
    drawn = [[line for line in lines if len(line.sessions) >= LEAST_SESSIONS_DRAWN] for lines in groups(history)]
    parts = [
        lines[start : start + LINES_IN_A_FIGURE] for lines in drawn for start in range(0, len(lines), LINES_IN_A_FIGURE)
    ]
    return [_figure(history, lines, number, width) for number, lines in enumerate(parts, 1)]


def _figure(history: History, lines: Sequence[Line], number: int, width: float) -> Figure:
    machine, dataset = machine_name(history, lines[0]), dataset_text(lines[0].dataset)

    def draw(canvas: Canvas) -> None:
        for axes, line in zip(canvas.subplots(len(lines), 1, squeeze=False)[:, 0], lines, strict=True):
            _draw_line(axes, history, line, max(2, int(MOST_DATES * width / WIDTH)))

    shown = "; ".join(f"{name(history, line)}: {len(line.sessions)} sessions, {line.verdict}" for line in lines)
    return Figure(
        name=f"history-{number}",
        title="Epoch times over sessions",
        alt=f"The time of an epoch in each session, oldest first, with intervals and steps. {shown}.",
        caption=(
            f"{machine}; {dataset}. A point a session, in the order of their dates, at equal distances; bars: 95 % "
            "intervals over processes, where there are at least three; hollow: not judged. Horizontal: the geometric "
            "mean of a level; dotted: a step."
        ),
        context=f"{machine}; {dataset}",
        height=0.9 + 1.9 * len(lines),
        draw=draw,
        width=width,
    )


def _draw_line(axes: Axes, history: History, line: Line, most_dates: int) -> None:
    color, marker, _ = network_style(line.architecture)
    place = {id(s): i for i, s in enumerate(line.sessions)}
    for i, s in enumerate(line.sessions):
        if interval := s.times.interval:
            draw_interval(axes, interval, i, color)
        axes.plot(i, s.seconds, marker=marker, ls="none", color=color, markerfacecolor=color if s.judged else "white")
    starts = [0, *(place[id(change.since)] for change in line.changes), len(line.sessions)]
    for level, (start, end) in zip(line.levels, pairwise(starts), strict=False):
        axes.hlines(level.seconds, start - 0.5, end - 0.5, color=color, linewidth=1.5)
    for number, (change, start) in enumerate(zip(line.changes, starts[1:], strict=False)):
        axes.axvline(start - 0.5, color=GREY, linestyle=":", linewidth=1.2)
        right = start > 0.8 * len(line.sessions)
        axes.annotate(
            change_size_text(change).partition(" [")[0],
            (start - 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if right else 3, -2 - 11 * (number % 2)),  # or neighbours would overlap
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=8.5,
        )
    every = max(1, -(-len(line.sessions) // most_dates))
    dated = range(0, len(line.sessions), every)
    axes.set_xticks(dated, _dates([line.sessions[i].started for i in dated]))
    axes.set_xlim(-0.5, len(line.sessions) - 0.5)
    values = [s.seconds for s in line.sessions]
    ends = [end for s in line.sessions if (own := s.times.interval) for end in (own.low, own.high)]
    low, high = max(min([*values, *ends]), min(values) / 2), min(max([*values, *ends]), 2 * max(values))
    margin = 0.2 * (high - low) or 0.1 * high  # an interval of few processes may be far wider than the course
    axes.set_ylim(max(0.0, low - margin), high + 1.6 * margin)
    axes.set(ylabel="epoch (s)", title=textwrap.fill(short(name(history, line), 90), 12 * most_dates))


def _dates(sessions: Sequence[datetime]) -> list[str]:
    """The days, with the times of day (UTC) below where two of them are of one day."""
    days = [f"{started:%Y-%m-%d}" for started in sessions]
    return days if len(set(days)) == len(days) else [f"{started:%Y-%m-%d\n%H:%M}" for started in sessions]
