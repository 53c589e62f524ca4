"""How values from files are written in a sentence."""

from __future__ import annotations

from typing import Any


def short(value: Any, length: int = 40) -> str:
    """The value as one line of at most `length` characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
