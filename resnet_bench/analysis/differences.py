"""What differs between two descriptions of machines: settings and software first, without what always differs."""

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
    "turbo",
    "smt",
    "allocator",
    "container",
    "flush_denormal",
    "transparent_hugepages",
    "torch",
    "python",
    "libc",
    "os",
)
"""Keys of `machine.describe()` that most often explain a difference in time, the likeliest first; others follow."""

CHANGING_WORDS = frozenset(
    {
        "calibration",
        "session",
        "duel",
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
        "doubts",
    }
)
"""Words in a key whose value changes from minute to minute, names a machine or measurement without describing it, or
follows from other keys."""

OPEN_KEY = re.compile(r"(.*(?:^|\.)(?:environment|build))\..")
"""A key in a dictionary that lists everything that is set, so that a key which is absent was not set."""

NOT_SET = "not set"


@dataclass(frozen=True)
class Difference:
    """A key whose values differ between two descriptions; a value is None where the system did not tell it."""

    key: str
    base: Any
    other: Any


def differences(base: dict[str, Any], other: dict[str, Any]) -> list[Difference]:
    """What differs between two descriptions, the likeliest causes of a difference in time first.

    A key that only one of them has counts as unknown in the other and is no difference: a file may be older than the
    key. Keys that match `OPEN_KEY` count as not set.
    """
    base_values, other_values = dict(_leaves(base)), dict(_leaves(other))
    found = []
    for key in dict.fromkeys([*base_values, *other_values]):
        match = OPEN_KEY.match(key)
        if match and all(isinstance(_at(machine, match[1]), dict) for machine in (base, other)):
            found.append(Difference(key, base_values.get(key, NOT_SET), other_values.get(key, NOT_SET)))
        elif key in base_values and key in other_values:
            found.append(Difference(key, base_values[key], other_values[key]))
    return sorted((d for d in found if d.base != d.other), key=lambda d: _rank(d.key))


def _at(machine: dict[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    value: Any = machine
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _rank(key: str) -> int:
    """The place of the longest suspect that the key begins with: `torch.version` ranks before other keys of `torch`."""
    found = [(-len(suspect), i) for i, suspect in enumerate(SUSPECTS) if f"{key}.".startswith(f"{suspect}.")]
    return min(found)[1] if found else len(SUSPECTS)


def _leaves(machine: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of what is not a dict, in the order of the description, without `CHANGING_WORDS`."""
    stack: list[tuple[str, Any]] = [("", machine)]
    while stack:  # no recursion: a damaged file may nest deeper than Python's stack
        key, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{key}.{k}" if key else str(k), v) for k, v in reversed(value.items())]
        elif OPEN_KEY.match(key) or not CHANGING_WORDS & set(re.split(r"[^a-z]+", key.lower())):
            yield key, value
