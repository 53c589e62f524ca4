"""Clocks for the phases of a step, and the estimate of an epoch's time from blocks of steps."""

from __future__ import annotations

import time

PHASES = ("data", "forward", "backward", "optimizer")
"""Waiting for the batch; logits and loss; gradients; Adam's update."""


class Clock:
    """Adds up the seconds of each phase. `lap(phase)` ends a phase, which began where the previous one ended."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """Begin the next phase now; what passed since the last lap belongs to none."""
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now


class NoClock(Clock):
    """A clock that measures nothing, for the benchmark of what the clocks cost."""

    def start(self) -> None:
        pass

    def lap(self, phase: str) -> None:
        pass
