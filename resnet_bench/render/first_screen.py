"""The answer first: what a session found, in at most 25 lines, as wide as the terminal is.

Every number is of the functions that the tables of `report` are made of. A published number stands in brackets under a
head that says so, and only beside what it can be held against: the ratio of a step to the baseline's, which the number
and the content of the images do not decide, and accuracies of all of CIFAR-100 after as many epochs.
"""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from resnet_bench import paper
from resnet_bench.analysis.drift import drift_during_run
from resnet_bench.analysis.earlier import Earlier
from resnet_bench.analysis.series import Group, Series, groups, in_order, parameter_counts
from resnet_bench.analysis.speed import Ratio, StepSpeed, step_speeds
from resnet_bench.architectures import millions
from resnet_bench.render import captions, scale_tables
from resnet_bench.render.table import MISSING, significant, with_interval
from resnet_bench.render.verdicts import accuracy_text, ratio_text
from resnet_bench.results.samples import TRAINED, Samples
from resnet_bench.schema import ExplainResult, Interval, ParametersResult, Result, ScaleResult
from resnet_bench.wording import counted, listed, short

LINES = 25
"""Lines at most, also where the terminal has to break one."""

NARROWEST = 60
"""Columns below which lines are broken by the terminal."""

_LEAST_BAR, _MOST_BAR = 8, 40
_FULL, _INTERVAL, _MEAN, _CUT = "█▒│>"
_GAP = "  "

Style = Literal["plain", "bold", "green", "red", "yellow"]


class Line(NamedTuple):
    """One line, and how it looks where the output has colours."""

    text: str
    style: Style = "plain"


def lines(samples: Samples, width: int, *, earlier: Earlier | None = None, commands: Sequence[str] = ()) -> list[Line]:
    """The summary of what was measured.

    Args:
        samples: what to sum up.
        width: columns of the terminal; below `NARROWEST` it is laid out as for that.
        earlier: the last saved session to hold it against; None where there is nothing to say about one.
        commands: what to do next, each a line of its own, which is not broken so that it can be copied.
    """
    width = max(width, NARROWEST)
    below = [*_against(earlier, width), *_doubts(groups(samples), width)]
    below += [Line(command) for command in commands]
    room = LINES - sum(_height(line, width) for line in below)
    above = _measured(samples, width, room)
    spare = room - sum(_height(line, width) for line in above)
    return [*above, *([Line("")] if spare and below else []), *below]


def _height(line: Line, width: int) -> int:
    return max(1, -(-len(line.text) // width))


def _wrapped(text: str, width: int, most: int) -> list[str]:
    return textwrap.wrap(
        text, width, max_lines=most, placeholder=" ...", break_long_words=True, break_on_hyphens=False,
        subsequent_indent="  ",
    )  # fmt: skip


# What was measured ----------------------------------------------------------------------------------------------------


def _measured(samples: Samples, width: int, room: int) -> list[Line]:
    """For each machine and data set what it is and a row a network, in no more than `room` lines."""
    found = groups(samples)
    if not found:
        grows = [part for text in scale_tables.sentences(samples) for part in _wrapped(text, width, 3)]
        return list(map(Line, grows[:room])) or _counts(samples, width, room)
    made: list[Line] = []
    swept = samples.of_kind(ScaleResult)
    room -= bool(swept)
    for number, group in enumerate(found):
        left = room - len(made) - (1 if number + 1 < len(found) else 0)  # a line says what is left out
        table = _table(group, width)
        caption = _wrapped(_caption(group, found[0]), width, 4 if len(found) == 1 else 3)
        head = [*(Line(part, "bold") for part in caption), *table.lines]
        most = max(4, left - len(head))
        notes = list(map(Line, _wrapped(_notes(group, table), width, most))) if number + 1 == len(found) else []
        fixed = len(head) - len(group.series) + len(notes)
        rows = min(len(group.series), left - fixed)
        if rows < len(group.series):
            rows -= 1  # for the line that says so
        if rows < 1:
            rest = len(found) - number
            text = f"{counted(rest, 'more group')} of machine and data set: in the tables of resnet-bench report"
            return [*made, Line(short(text, width))]
        hidden = len(group.series) - rows
        made += head[: len(head) - hidden]
        if hidden:
            made.append(Line(f"{counted(hidden, 'more row')}: in the tables of resnet-bench report"))
        made += notes
    if swept:
        over = listed(dict.fromkeys(r.varied.replace("-", " ") for r in swept))
        made.append(Line(short(f"Early steps by {over}, too: in the tables of resnet-bench report.", width)))
    return made


def _counts(samples: Samples, width: int, room: int) -> list[Line]:
    """Where no network was timed or trained."""
    counts = parameter_counts(samples)
    if not counts:
        return [Line("No network was timed or trained.")]
    texts = [f"{name} {count:,}" for name in in_order(counts) for count in counts[name].values()]
    explained = listed(dict.fromkeys(r.architecture for r in samples.of_kind(ExplainResult)) or [""])
    more = f"A step of {explained} was taken apart: see the tables" if explained else "Nothing else was measured"
    text = f"Parameters, counted on the networks themselves: {', '.join(texts)}. {more}."
    return [Line(part) for part in _wrapped(text, width, max(1, room))]


def _caption(group: Group, first: Group) -> str:
    """What the group is; of a later one only in what it differs from the first."""
    if group is first:
        return f"Brackets: 95 % intervals. {captions.arm_text(group)}{captions.group_text(group)}"
    return captions.arm_text(group) + captions.beside_text(group, first)


@dataclass(frozen=True)
class _Row:
    """What is known of one series."""

    series: Series
    name: str
    speed: StepSpeed | None

    @property
    def step(self) -> tuple[float, tuple[float, float] | None] | None:
        """Seconds of a step, and the ends of its interval."""
        if self.speed:
            found = self.speed.step
            return found.mean, (found.interval.low, found.interval.high) if found.interval else None
        seconds = self.series.step_seconds()
        return (seconds, None) if seconds else None


class _Column(NamedTuple):
    heads: tuple[str, str]
    cells: list[str]
    right: bool = True


class _Laid(NamedTuple):
    """The lines of a table, the ratios to the baseline that it shows, and the heads of columns that found no room."""

    lines: list[Line]
    ratios: list[Ratio]
    left_out: list[str]


def _table(group: Group, width: int) -> _Laid:
    """Heads in two lines, then a row a series: the most that fits."""
    speeds = {id(speed.series[0]): speed for speed in step_speeds(group) if len(speed.series) == 1}
    rows = [_Row(s, _name(group, s), speeds.get(id(s))) for s in group.series]
    every = columns = list(_columns(group, rows, width, frozenset()))
    for given_up in range(1, len(_GIVEN_UP) + 1):
        if sum(map(_column_width, columns)) + len(_GAP) * (len(columns) - 1) <= width:
            break
        columns = list(_columns(group, rows, width, frozenset(_GIVEN_UP[:given_up])))
    heads = [
        "".join(_line([(c.heads[i], c) for c in columns])).rstrip()
        for i in range(2)
        if any(c.heads[i] for c in columns)
    ]
    body = [_line([(c.cells[i], c) for c in columns]).rstrip() for i in range(len(rows))]
    ratios = [row.speed.to_baseline for row in rows if row.speed and row.speed.to_baseline]
    shown = {c.heads[0] for c in columns}
    left_out = [" ".join(filter(None, c.heads)) for c in every if c.heads[0] not in shown]
    lines = [*(Line(head, "bold") for head in heads), *map(Line, body)]
    return _Laid(lines, ratios if _RATIO_HEADS[0] in shown else [], left_out)


_RATIO_HEADS = ("Of baseline's", "(published)")
_GIVEN_UP = ("ratio intervals", "step interval", "parameters", "of baseline beside plain", "bar", "of baseline",
             "plain", "accuracy interval", "published accuracy")  # fmt: skip
"""What a narrow terminal has no room for, the least important first. The bar shows the interval of the step too."""


def _column_width(column: _Column) -> int:
    return max(map(len, (*column.heads, *column.cells)))


def _line(cells: Iterable[tuple[str, _Column]]) -> str:
    return _GAP.join(text.rjust(_column_width(c)) if c.right else text.ljust(_column_width(c)) for text, c in cells)


def _columns(group: Group, rows: Sequence[_Row], width: int, given_up: frozenset[str]) -> Iterable[_Column]:
    columns = [_Column(("Network", ""), [row.name for row in rows], right=False)]
    if "parameters" not in given_up:
        columns.append(_Column(("Parameters", ""), [millions(row.series.parameters) for row in rows]))
    steps = [row.step for row in rows]
    if any(steps):
        columns.append(_Column(("Step (ms)", ""), [_step_cell(s, "step interval" not in given_up) for s in steps]))
    timed = len(columns)
    with_intervals = "ratio intervals" not in given_up
    plain = [row.speed.times_as_fast if row.speed else None for row in rows]
    if any(plain) and "plain" not in given_up:
        columns.append(_Column(("Times as fast", "as plain"), [_ratio(r, with_intervals) for r in plain]))
    ratios = [row.speed.to_baseline if row.speed else None for row in rows]
    dropped = "of baseline" in given_up or ("of baseline beside plain" in given_up and any(plain))
    if any(ratios) and not dropped:
        cells = [_of_baseline(row, with_intervals) for row in rows]
        columns.append(_Column(_RATIO_HEADS, cells))
    if any(row.series.accuracies for row in rows):
        columns.append(_accuracy(group, rows, given_up))
    if any(steps) and "bar" not in given_up:
        taken = sum(map(_column_width, columns)) + len(_GAP) * len(columns)
        columns.insert(timed, _Column(("", ""), _bars(steps, max(_LEAST_BAR, min(_MOST_BAR, width - taken))), False))
    return columns


def _name(group: Group, series: Series) -> str:
    return short(captions.name(group, series).replace(" engine", ""), 32)


def _step_cell(step: tuple[float, tuple[float, float] | None] | None, with_ends: bool) -> str:
    if step is None:
        return MISSING
    seconds, ends = step
    scaled = (ends[0] * 1e3, ends[1] * 1e3) if ends and with_ends else None
    return with_interval(seconds * 1e3, scaled)


def _ratio(ratio: Ratio | None, with_ends: bool) -> str:
    if ratio is None:
        return MISSING
    ends = (ratio.interval.low, ratio.interval.high) if ratio.interval and with_ends else None
    return with_interval(ratio.value, ends)


def _told(ratio: Ratio) -> bool:
    """Whether its interval leaves out 1, so that one of the two takes longer."""
    return ratio.interval is not None and not ratio.interval.low <= 1 <= ratio.interval.high


def _of_baseline(row: _Row, with_ends: bool) -> str:
    """The step over the baseline's; in brackets the published ratio of their epochs."""
    published, baseline = paper.PUBLISHED.get(row.series.architecture), paper.PUBLISHED["baseline"]
    if row.speed is None or row.speed.to_baseline is None:
        return MISSING
    text = _ratio(row.speed.to_baseline, with_ends) + ("" if _told(row.speed.to_baseline) else "?")
    if published is None:
        return text
    return f"{text} ({significant(published.epoch_minutes / baseline.epoch_minutes)})"


def _comparable_accuracy(group: Group) -> bool:
    """Whether the published accuracies may stand beside those of the group."""
    d = group.dataset
    whole = d.name == "cifar100" and not d.synthetic and not d.subset and d.train_images == paper.TRAIN_IMAGES
    trained = [s for s in group.series if s.accuracies]
    return whole and all(s.complete and s.setting.get("epochs") == paper.EPOCHS for s in trained)


def _accuracy(group: Group, rows: Sequence[_Row], given_up: frozenset[str]) -> _Column:
    """The accuracy after the last epoch; where the published one may stand beside it, that of the best epoch."""
    with_ends = "accuracy interval" not in given_up
    if _comparable_accuracy(group):
        with_published = "published accuracy" not in given_up
        cells = [
            _percent(row.series.peak_accuracy(), with_ends)
            + (f" ({100 * p.peak_accuracy:.0f})" if with_published and p else "")
            for row in rows
            for p in [paper.PUBLISHED.get(row.series.architecture)]
        ]
        return _Column(("Peak accuracy (%)", "(published)" if with_published else ""), cells)
    epochs = sorted({len(r.epochs) for row in rows for r in row.series.accuracies})
    after = f"after {epochs[0]}" + (f" to {epochs[-1]}" if len(epochs) > 1 else "")
    cells = [_percent(row.series.final_accuracy(), with_ends) for row in rows]
    return _Column(("Accuracy (%)", f"{after} epoch{'' if epochs[-1] == 1 else 's'}"), cells)


def _percent(accuracy: Interval | None, with_ends: bool) -> str:
    if accuracy is None:
        return MISSING
    ends = f" [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]" if with_ends and accuracy.method != "none" else ""
    return f"{100 * accuracy.estimate:.1f}{ends}"


def _bars(steps: Sequence[tuple[float, tuple[float, float] | None] | None], width: int) -> list[str]:
    """A bar for each step: full up to the low end of its interval, hatched up to the high end, a line at the mean.

    Bars begin at 0. An interval that ends far beyond all means is cut off, which `_CUT` shows.
    """
    known = [s for s in steps if s]
    longest = max(seconds for seconds, _ in known)
    most = min(max((ends[1] if ends else seconds) for seconds, ends in known), 1.5 * longest)

    def place(seconds: float) -> int:
        return min(width, max(0, round(width * seconds / most)))

    bars = []
    for step in steps:
        if step is None:
            bars.append("")
            continue
        seconds, ends = step
        low, high = (place(end) for end in ends or (seconds, seconds))
        bar = list(_FULL * low + _INTERVAL * (high - low))
        if ends and bar:
            bar[max(0, min(place(seconds), len(bar)) - 1)] = _MEAN
        if ends and ends[1] > most * (1 + 0.5 / width):
            bar[-1] = _CUT
        bars.append("".join(bar) or _MEAN)
    return bars


def _notes(group: Group, table: _Laid) -> str:
    """What the signs and the published numbers are, or why there are none, and what the images are not."""
    notes = [f"Left out for want of room: {listed(table.left_out)}."] if table.left_out else []
    shown = "".join(line.text for line in table.lines)
    if _INTERVAL in shown:
        cut = f"; {_CUT}: it goes on" if _CUT in shown else ""
        notes.append(f"{_INTERVAL}: the interval of the step; {_MEAN}: its mean{cut}.")
    if table.ratios:
        notes.append(f"Of baseline's: of its step's time; (published): of its epoch's, on {paper.MACHINE}.")
    if not all(map(_told, table.ratios)):
        notes.append("?: the interval holds 1, or there is none.")
    if any(s.accuracies for s in group.series) and not _comparable_accuracy(group):
        d = group.dataset
        kind = (
            "on synthetic images" if d.synthetic else "on a subset" if d.subset else "on other images or so many epochs"
        )
        notes.append(
            f"Accuracies {kind} do not compare with the published ones: all of CIFAR-100, {paper.EPOCHS} epochs."
        )
    return " ".join(notes)


# Against the last saved session ---------------------------------------------------------------------------------------


def _against(earlier: Earlier | None, width: int) -> list[Line]:
    if earlier is None:
        return []
    if earlier.comparison is None:
        text = "No earlier session here."
        if earlier.looked_at:
            text = f"No earlier session here was measured like this one ({earlier.reason})."
        return [Line(part) for part in _wrapped(text, width, 2)]
    c = earlier.comparison
    judged = [(row, row.judged) for row in c.rows if row.judged]
    differs = list(dict.fromkeys(d.key.partition(".")[0] for d in c.differences))[:4]
    setting = f"other {', '.join(differs)}, else the same setting" if differs else "the same setting"
    text = f"Against the last saved session here, {c.base.path.name} ({setting}): "
    told = [(row, ratio) for row, ratio in judged if ratio.interval] or judged
    if told:
        # one without an interval speaks for itself alone, so without its number
        whole = ratio_text(c.geometric_mean) if c.geometric_mean else f"cannot tell: {told[0][1].reason}"
        text += f"{whole} over {counted(len({row.architecture for row, _ in told}), 'network')}"
    else:
        text += "no times to compare"
    found = [Line(part) for part in _wrapped(f"{text}.", width, 3)]
    changed = [(row, r) for row, r in judged if r.verdict in ("faster", "slower")]
    accuracies = [row for row in c.rows if row.accuracy and row.accuracy.verdict in ("higher", "lower")]
    parts = [f"{row.architecture} ({row.engines[1]}) {ratio_text(r)}" for row, r in changed]
    parts += [f"accuracy of {row.architecture} {accuracy_text(row.accuracy)}" for row in accuracies if row.accuracy]
    if parts:
        worse = any(r.verdict == "slower" for _, r in changed)
        worse = worse or any(row.accuracy.verdict == "lower" for row in accuracies if row.accuracy)
        style: Style = "red" if worse else "green"
        found += [Line(part, style) for part in _wrapped(f"  {'; '.join(parts)}", width, 2)]
    return found


# Doubts ---------------------------------------------------------------------------------------------------------------


def _doubts(found: Sequence[Group], width: int) -> list[Line]:
    """In one line what makes the times doubtful."""
    warnings = list(dict.fromkeys(w for group in found for s in group.series for w in s.warnings))
    drifts = [abs(d) for group in found for machine in group.machines for d in drift_during_run(machine).values()]
    parts = [f"the machine's speed changed by up to {100 * max(drifts):.0f} %"] if drifts else []
    parts += [warning.partition(";")[0].rstrip(".") for warning in warnings]
    reasons = f" ({len(parts)} reasons)" if len(parts) > 1 else ""
    return [Line(short(f"Doubtful times{reasons}: {'; '.join(parts)}.", width), "yellow")] if parts else []


# What to do next ------------------------------------------------------------------------------------------------------


def next_commands(path: Path | None, earlier: Earlier | None, results: Iterable[Result]) -> list[str]:
    """Commands for the results that were saved in a file, or a hint where none were."""
    if path is None:
        return ["Not saved: --benchmark-save=NAME keeps results for resnet-bench report, compare."]
    own = _quoted(path)
    base = earlier.comparison.base.path if earlier and earlier.comparison else None
    kinds = {type(result) for result in results}
    claims = " --claims" if kinds & {*TRAINED, ParametersResult} else ""
    found = [f"All tables:  resnet-bench report {own}{claims} --html report.html"]
    if kinds & {*TRAINED}:  # `compare` knows times and accuracies
        found.append(f"Compare:     resnet-bench compare {f'{_quoted(base)} {own}' if base else f'{own} OTHER.json'}")
    return found


def _quoted(path: Path) -> str:
    """As a command here names it: relative where the file is below this folder."""
    inside = path.is_absolute() and path.is_relative_to(Path.cwd())
    text = str(path.relative_to(Path.cwd()) if inside else path)
    return shlex.quote(text) if os.name == "posix" else f'"{text}"' if " " in text else text
