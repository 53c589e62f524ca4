"""What differs between two machine descriptions: software and settings first, noise left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SUSPECTS = (
    "threads",
    "torch.environment",
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


OPEN = re.compile(r"(.*(?:^|\.)(?:environment|build))\..")
"""A key in one of the dictionaries that hold what is set and nothing else: what is not in one of them is not set."""

NOT_SET = "not set"


@dataclass(frozen=True)
class Difference:
    """One key of two descriptions with unlike values; None where the system did not tell."""

    key: str
    base: Any
    other: Any


def differences(base: dict[str, Any], other: dict[str, Any]) -> list[Difference]:
    """Leaves that differ between two descriptions, most suspicious first.

    What one of them does not mention, as a file from before it was recorded, is unknown and no difference.
    """
    mine, theirs = dict(_leaves(base)), dict(_leaves(other))
    found = []
    for key in dict.fromkeys([*mine, *theirs]):
        if (open_ := OPEN.match(key)) and all(isinstance(_at(m, open_[1]), dict) for m in (base, other)):
            found.append(Difference(key, mine.get(key, NOT_SET), theirs.get(key, NOT_SET)))
        elif key in mine and key in theirs:
            found.append(Difference(key, mine[key], theirs[key]))
    return sorted((d for d in found if d.base != d.other), key=lambda d: _rank(d.key))


def _at(machine: dict[str, Any], key: str) -> Any:
    value: Any = machine
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


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
        elif OPEN.match(key) or not NOISE & set(re.split(r"[^a-z]+", key.lower())):
            yield key, value
