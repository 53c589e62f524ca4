"""Clocks for the phases of a training step."""

from __future__ import annotations

import time

PHASES = ("data", "forward", "backward", "optimizer")
"""In turn: waiting for the batch; logits and loss; gradients; Adam's update."""


class Clock:
    """Adds up the seconds of each phase.

    Attributes:
        seconds: the sum for each phase so far.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """Begin a phase now. The time since the last lap belongs to no phase."""
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """End `phase`, one of `PHASES`, and begin the next."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now


class NoClock(Clock):
    """A clock that measures nothing, to find out what clocks cost."""

    def start(self) -> None:
        pass

    def lap(self, phase: str) -> None:
        pass
