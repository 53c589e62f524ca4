"""Values from files in sentences, the same in every message."""

from __future__ import annotations

from typing import Any


def short(value: Any, length: int = 40) -> str:
    """A value from a file in a sentence: one line, not too long."""
    text = " ".join(str(value).split())
    return text if len(text) <= length else f"{text[: length - 1]}…"
