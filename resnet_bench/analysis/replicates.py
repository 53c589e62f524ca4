"""What is replicated: the values of a time that are independent of one another.

Blocks of one process share its memory layout, and epochs of one training share more than that, so a process gives one
value, the mean over all that it measured (`intervals.over_processes` states the model). The machine drifts from session
to session by more than processes of one session differ. So where there are results of several sessions, each session
gives one value, the mean of its processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Literal, NamedTuple

from resnet_bench.intervals import over_processes
from resnet_bench.schema import AccuracyResult, EpochTimeResult, Interval
from resnet_bench.wording import counted

Unit = Literal["process", "session"]


class Origin(NamedTuple):
    """The process that measured a value, and its session."""

    session: str
    process: str


@dataclass(frozen=True)
class Replicates:
    """Independent values of one quantity, at least one.

    Attributes:
        values: {id of the process, or of the session where there are several: value}.
        unit: what gave one value each.
    """

    values: dict[str, float]
    unit: Unit

    @property
    def mean(self) -> float:
        return fmean(self.values.values())

    @cached_property
    def interval(self) -> Interval | None:
        """Of the mean; None where there are too few values."""
        return over_processes(list(self.values.values()))

    @property
    def measured(self) -> str:
        """`measured in 3 processes`."""
        return measured_in(len(self.values), self.unit)


def measured_in(count: int, unit: Unit) -> str:
    """`measured in 1 process`, `measured in 2 sessions`."""
    return f"measured in {counted(count, unit)}"


def replicates(values: Iterable[tuple[Origin, float]]) -> Replicates | None:
    """One value for each process or session; None without usable values.

    Where a process has several values, their mean is its value. A damaged file may hold times of 0 or times whose
    ratios overflow; these are left out.
    """
    processes: dict[Origin, list[float]] = {}
    for origin, value in values:
        if 1e-100 < value < 1e100:
            processes.setdefault(origin, []).append(value)
    sessions: dict[str, list[float]] = {}
    for origin, own in processes.items():
        sessions.setdefault(origin.session, []).append(fmean(own))
    if len(sessions) > 1:
        return Replicates({session: fmean(own) for session, own in sessions.items()}, "session")
    return Replicates({o.process: fmean(own) for o, own in processes.items()}, "process") if processes else None


def epoch_seconds(result: EpochTimeResult | AccuracyResult, session: str) -> list[tuple[Origin, float]]:
    """The seconds of an epoch with their origins: of each process, or of each epoch of a training.

    Args:
        session: of the result's file. A training that was resumed tells the sessions of its epochs itself.
    """
    if isinstance(result, EpochTimeResult):
        return [(origin(result, session, i), seconds) for i, seconds in result.epoch_times.items()]
    found = []
    for epoch in result.epochs if result.epoch_times else ():
        where = Origin(session, result.process or "")
        if result.stretches and epoch.stretches:
            last = result.stretches[epoch.stretches[-1]]
            where = Origin(last.session, last.process)
        found.append((where, epoch.train_seconds))
    return found


def origin(result: EpochTimeResult, session: str, process: int) -> Origin:
    """Where the blocks of a process, given by its index, come from; a file of version 1 or 2 is of one process."""
    known = result.processes[process].process if result.processes else result.process
    return Origin(session, known or "")
