"""What differs between two machine descriptions: software and settings first, noise left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SUSPECTS = (
    "threads",
    "cpu.affinity_cores",
    "torch.version",
    "cpu.isa",
    "cpu.torch_isa",
    "governor",
    "allocator",
    "container",
    "flush_denormal",
    "transparent_hugepages",
    "torch",
    "python",
    "libc",
    "os",
)
"""Keys of `machine.describe()` that most often explain a difference in time, the likeliest first; the rest follows."""

NOISE = frozenset(
    {
        "calibration",
        "session",
        "hz",
        "mhz",
        "ghz",
        "frequency",
        "freq",
        "clock",
        "load",
        "loadavg",
        "uptime",
        "boot",
        "temperature",
        "hostname",
        "host",
        "node",
        "date",
        "datetime",
        "time",
        "timestamp",
        "pid",
        "available",
        "free",
        "used",
        "busy",
    }
)
"""Words in a key that say its value changes from minute to minute, or names the machine without describing it."""


@dataclass(frozen=True)
class Difference:
    """One key of two descriptions with unlike values; None where a file does not tell."""

    key: str
    base: Any
    other: Any

    @property
    def texts(self) -> tuple[str, str]:
        """Both values, short enough for a table."""
        return _text(self.base), _text(self.other)


def differences(base: dict[str, Any], other: dict[str, Any]) -> list[Difference]:
    """Leaves that differ between two descriptions, most suspicious first."""
    mine, theirs = dict(_leaves(base)), dict(_leaves(other))
    keys = [k for k in dict.fromkeys([*mine, *theirs]) if mine.get(k) != theirs.get(k)]
    return [Difference(k, mine.get(k), theirs.get(k)) for k in sorted(keys, key=_rank)]


def _rank(key: str) -> int:
    """Longer suspects win, so `torch.version` stands before the rest of `torch`; hardware comes after software."""
    found = [(-len(s), i) for i, s in enumerate(SUSPECTS) if key == s or key.startswith(f"{s}.")]
    return min(found)[1] if found else len(SUSPECTS)


def _leaves(machine: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is no dict, in the order of the description; noise left out."""
    stack: list[tuple[str, Any]] = [("", machine)]
    while stack:  # not recursive: a hand-made file may nest deeper than Python's stack
        key, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{key}.{k}" if key else str(k), v) for k, v in reversed(value.items())]
        elif not NOISE & set(re.split(r"[^a-z]+", key.lower())):
            yield key, value


def _text(value: Any) -> str:
    if value is None:
        return "unknown"
    text = " ".join(", ".join(map(str, value)).split() if isinstance(value, list) else str(value).split()) or "none"
    return text if len(text) <= 70 else f"{text[:67]}…"
