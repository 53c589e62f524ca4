"""How numbers are written in the evidence of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resnet_bench.schema import Interval


def listed(items: Sequence[Any]) -> str:
    """`a, b and c`; at least one item."""
    *rest, last = map(str, items)
    return f"{', '.join(rest)} and {last}" if rest else last


def ratio_text(ratio: Interval) -> str:
    """`0.132 [0.130, 0.134]`."""
    return f"{ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def points_text(difference: Interval) -> str:
    """A difference of fractions in percentage points: `+2.1 [+1.3, +2.9] points`."""
    return f"{100 * difference.estimate:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}] points"


def tolerance_text(fraction: float) -> str:
    """A tolerance in percentage points: `±2 points`."""
    return f"±{100 * fraction:.0f} points"
