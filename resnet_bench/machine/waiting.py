"""How long the threads of this process waited for a core, and what the host of a virtual machine took meanwhile.

Linux counts, for each thread, how long it could have run while another one had the core (`schedstat`: time on a core,
time in the queue, times it was put on a core). Steal time is what a host tells its guest. Both are read between what is
timed, never within.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from resnet_bench.machine import system
from resnet_bench.machine.system import answer

DOUBTFUL_SHARE = 0.1
"""A time is doubtful where a thread waited for a core for more than this share of it.

All threads of an operation end together: where one waits for a tenth of the time, a step takes at least about a tenth
longer. That is also the scatter of blocks from which on a table marks a network."""


@dataclass(frozen=True)
class _Counters:
    seconds: float
    waited: dict[str, int] | None  # nanoseconds in the queue, by thread
    ticks: tuple[int, int] | None  # see `system.cpu_ticks`


class Waiting:
    """Adds up, over the stretches between `begin` and `end`, what this process's threads waited.

    Attributes:
        seconds: of all stretches together.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._waited: dict[str, int] | None = {}
        self._stolen: float | None = 0.0  # seconds, of one core

    def begin(self) -> None:
        """A stretch begins."""
        self._before = _counters()

    def end(self) -> None:
        """It ends."""
        before, after = self._before, _counters()
        passed = after.seconds - before.seconds
        self.seconds += passed
        if self._waited is not None and before.waited is not None and after.waited is not None:
            for thread, waited in after.waited.items():
                self._waited[thread] = self._waited.get(thread, 0) + waited - before.waited.get(thread, 0)
        else:
            self._waited = None
        share = system.stolen_share(before.ticks, after.ticks)
        if share is not None and self._stolen is not None:
            self._stolen += share * passed
        elif before.ticks is None or after.ticks is None:  # else the stretch was shorter than a tick
            self._stolen = None

    @property
    def share(self) -> float | None:
        """The share of the time for which the thread that waited most waited for a core; None where it is not told."""
        return None if not self._waited else self._of_time(max(self._waited.values()) / 1e9)

    @property
    def stolen_share(self) -> float | None:
        """The share of its cores' time that the host took; None where it is not told."""
        return None if self._stolen is None else self._of_time(self._stolen)

    def _of_time(self, seconds: float) -> float | None:
        return min(1.0, max(0.0, seconds / self.seconds)) if self.seconds > 0 else None


def _counters() -> _Counters:
    ticks, waited = system.cpu_ticks(), answer(_waited)
    return _Counters(time.perf_counter(), waited or None, ticks)


def _waited() -> dict[str, int] | None:
    found = {}
    for task in (system.PROC / "self/task").iterdir():
        if text := system.text_in(task / "schedstat"):  # a thread may end in between
            _, waited, slices = map(int, text.split())
            if slices:  # a kernel that does not count has zeros
                found[task.name] = waited
    return found
