"""How pytest-benchmark gets durations that were measured outside of its own rounds.

Networks are measured in turn, round by round, not while their own test runs. So pytest-benchmark's rounds call a
function that only sets a clock to the next duration, and pytest-benchmark reads that clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_now = 0.0


def replay() -> float:
    """The clock, in seconds, for `@pytest.mark.benchmark(timer=replay)`."""
    return _now


def hand_over(seconds: Sequence[float], benchmark: Any) -> None:
    """Run one round of `benchmark`, pytest-benchmark's fixture, for each duration. Its timer has to be `replay`."""
    durations = iter(seconds)

    def advance() -> None:
        global _now
        _now = next(durations)

    def rewind() -> None:
        global _now
        _now = 0.0

    benchmark.pedantic(advance, setup=rewind, rounds=len(seconds), iterations=1)
