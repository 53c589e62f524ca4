"""A table as data, and how it is written in each format."""

from __future__ import annotations

import csv
import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from tabulate import tabulate

from resnet_bench import output

Format = Literal["text", "markdown", "latex", "csv"]
MISSING = "–"  # in a cell: not measured, or not to be told
TEXT_WIDTH = 100  # characters; where it goes into a file, a wider table gets column heads of several lines
FORMATS: tuple[Format, ...] = ("text", "markdown", "latex", "csv")


@dataclass(frozen=True)
class Table:
    """A table of strings.

    Attributes:
        title: a heading, e.g. `Table 1`.
        columns: the column heads.
        rows: as many cells each as there are columns.
        caption: data set, machine and how it was measured; one sentence or more.
        notes: marks explained below the table, e.g. `* stopped before the last epoch`.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    notes: Sequence[str] = ()

    def render(self, format_: Format) -> str:
        """The table in one of the formats; no newline at the end."""
        return {
            "text": self._text,
            "markdown": self._markdown,
            "latex": self._latex,
            "csv": self._csv,
        }[format_]()

    def _text(self) -> str:
        """As wide as it has to be; on a terminal as wide as that, as far as cells can be broken between words.

        Where they cannot, rows become columns, if that helps.
        """
        most = output.line_width()
        heads, rows = self.columns, self.rows
        body = tabulate(rows, heads, tablefmt="simple", disable_numparse=True)
        if _width(body) > (most or TEXT_WIDTH):  # then heads may take several lines
            cells = [max((len(row[i]) for row in rows), default=0) for i in range(len(heads))]
            heads = [_wrapped(head, max(10, width)) for head, width in zip(heads, cells, strict=True)]
            body = tabulate(rows, heads, tablefmt="simple", disable_numparse=True)
        if most and _width(body) > most:
            body = self._within(most)
        width = max(TEXT_WIDTH, _width(body)) if most is None else min(most, max(TEXT_WIDTH, _width(body)))
        above = [self.title, *([_wrapped(self.caption, width)] if self.caption else []), ""]
        below = ["", *(_wrapped(note, width) for note in self.notes)] if self.notes else []
        return "\n".join([*above, body, *below])

    def _within(self, width: int) -> str:
        """The rows in lines of that many characters, or as few as can be: the first way to lay them that fits."""
        as_they_are = [self.columns, *self.rows]
        on_their_side = list(zip(*as_they_are, strict=True))
        ways = ((as_they_are, True), (on_their_side, True), (as_they_are, False), (on_their_side, False))
        laid = []
        for rows, keep_intervals in ways:
            heads, *cells = _narrowed(rows, width, keep_intervals)
            laid.append(tabulate(cells, heads, tablefmt="simple", disable_numparse=True))
            if _width(laid[-1]) <= width:
                return laid[-1]
        return min(laid, key=_width)

    def _markdown(self) -> str:
        cells = [[as_markdown(cell) for cell in row] for row in self.rows]
        body = tabulate(cells, [as_markdown(head) for head in self.columns], tablefmt="pipe", disable_numparse=True)
        above = f"**{as_markdown(self.title)}** {as_markdown(self.caption)}".rstrip()
        return "\n".join([above, "", body, *(line for note in self.notes for line in ("", paragraph(note)))])

    def _latex(self) -> str:
        body = tabulate(self.rows, self.columns, tablefmt="latex_booktabs", disable_numparse=True)
        caption = _escape_latex(" ".join([f"{self.title}.", self.caption, *self.notes]).strip())
        return "\n".join([r"\begin{table}", rf"\caption{{{caption}}}", body, r"\end{table}"])

    def _csv(self) -> str:
        """A line with title and caption, then heads and rows. Notes are left out; the marks are in the rows."""
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([[self.title, self.caption], self.columns, *self.rows])
        return out.getvalue().rstrip("\n")


def with_interval(value: float, ends: tuple[float, float] | None) -> str:
    """`4.10 [3.95, 4.26]`, or the value alone."""
    if ends is None:
        return significant(value)
    low, high = (significant(end, value) for end in ends)
    return f"{significant(value)} [{low}, {high}]"


def mean_and_range(percents: Sequence[float]) -> str:
    """`41.0 [40.0, 42.0]`: the mean, in brackets the lowest and the highest."""
    return f"{fmean(percents):.1f} [{min(percents):.1f}, {max(percents):.1f}]"


def minutes_or_seconds(seconds: Sequence[float]) -> tuple[float, str]:
    """What to divide seconds by and what to call the result: minutes where most of the times are a minute or more."""
    return (60.0, "min") if median(seconds) >= 60 else (1.0, "s")


def significant(value: float, like: float | None = None) -> str:
    """Three significant digits without an exponent: 57.3, 1234, 0.0123; with as many decimals as `like` would get."""
    reference = abs(value if like is None else like)
    decimals = max(0, 2 - math.floor(math.log10(reference))) if reference else 2
    return f"{value:.{decimals}f}"


def _width(body: str) -> int:
    return max(map(len, body.splitlines()))


def _narrowed(rows: Sequence[Sequence[str]], width: int, keep_intervals: bool) -> list[list[str]]:
    """The cells, heads first, broken between words, those of the widest columns first, until rows are as wide as that.

    With `keep_intervals`, what stands in brackets is not broken.
    """
    if keep_intervals:
        rows = [[_INTERVAL.sub(lambda found: found[0].replace(" ", _TIE), cell) for cell in row] for row in rows]
    pads = [_HEAD_PAD, *([0] * (len(rows) - 1))]

    def widths(split: Callable[[str], list[str]]) -> list[int]:
        columns = zip(*rows, strict=True)
        return [
            max(len(part) + pad for cell, pad in zip(column, pads, strict=True) for part in split(cell) or [""])
            for column in columns
        ]

    taken, least = widths(str.splitlines), widths(str.split)
    excess = sum(taken) + _GAP * (len(taken) - 1) - width
    while excess > 0 and (breakable := [i for i, own in enumerate(taken) if own > least[i]]):
        taken[max(breakable, key=lambda i: taken[i])] -= 1
        excess -= 1
    return [
        [_wrapped(cell, max(1, most - pad)).replace(_TIE, " ") for cell, most in zip(row, taken, strict=True)]
        for row, pad in zip(rows, pads, strict=True)
    ]


_GAP = 2  # spaces that tabulate has between columns
_HEAD_PAD = 2  # and by which a column is at least wider than its head
_INTERVAL = re.compile(r"\[[^\[\]]*\]")
_TIE = "\0"  # stands for a space at which nothing is broken


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


_MARKS = re.compile(
    r"[\\`*|~$]"  # wherever they are; ~ and $ are GitHub's, for what is struck out and for formulas
    r"|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|<(?=[a-zA-Z/!?])|\](?=[(\[])"  # where they would mean something
)


def as_markdown(text: str) -> str:
    """The text as one line of GitHub's Markdown that shows it as it is, in a cell or within a paragraph."""
    return _MARKS.sub(r"\\\g<0>", re.sub(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", " ", text).strip())


def paragraph(text: str) -> str:
    """`as_markdown` for a line of its own, which begins no list, heading or quotation."""
    return re.sub(r"^(\d*)([-+#>=.)])", r"\1\\\2", as_markdown(text))


_LATEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def _escape_latex(text: str) -> str:
    return text.translate(_LATEX)
