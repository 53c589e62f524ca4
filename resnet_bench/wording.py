"""How values, counts and times are written in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def short(value: Any, length: int = 40) -> str:
    """The value as one line of at most `length` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def counted(number: int, noun: str) -> str:
    """`1 process`, `1,200 steps`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{'' if number == 1 else plural}"


def duration(seconds: float) -> str:
    """`2 h 10 min`, `3 min` or `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 60 else f"{max(1, round(seconds))} s"


def listed(items: Iterable[Any]) -> str:
    """`a, b and c`; at least one item."""
    *rest, last = map(str, items)
    return f"{', '.join(rest)} and {last}" if rest else last
