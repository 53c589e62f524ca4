"""Whether the machine is free: how many cores this process may use, and how busy others keep them."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

import psutil

from resnet_bench.machine import system

BUSY_SHARE = 0.1
"""A measurement is doubtful where other processes use more than this share of the cores."""

BUSY_LOAD = 0.5
"""It is doubtful too where the load average before the start was more than this for each core."""


CORES_VARIABLE = "RESNET_BENCH_CORES"
"""Environment variable that tells a process which the suite has pinned how many cores it could use without that."""

INTEROP_VARIABLE = "RESNET_BENCH_INTEROP_THREADS"
"""Environment variable that tells it how many threads torch would have for operations side by side without that."""


def allowed_cores() -> int:
    """Logical cores that the user lets this process run on; that the suite pins a training to some is no limit."""
    given = os.environ.get(CORES_VARIABLE, "")
    return int(given) if given.isdecimal() and int(given) else len(os.sched_getaffinity(0))


def without_pinning() -> dict[str, str]:
    """The variables for a process that is about to be pinned, so that it is the same machine to it as without that."""
    import torch  # here, because it takes seconds to import, which most questions do not need

    cores = system.answer(allowed_cores)
    return {CORES_VARIABLE: str(cores or ""), INTEROP_VARIABLE: str(torch.get_num_interop_threads())}


def take_interop_threads() -> None:
    """Have torch use the threads that `without_pinning` passed on; before it starts any."""
    import torch

    if (given := os.environ.get(INTEROP_VARIABLE, "")).isdecimal() and int(given):
        torch.set_num_interop_threads(int(given))


def usable_cores() -> float:
    """Logical cores that this process may run on, or the container's quota where that is less."""
    cores = system.answer(lambda: len(os.sched_getaffinity(0))) or system.logical_cores()
    quota = system.container_limits().cpu_quota
    return cores if quota is None else min(cores, quota)


def load_average() -> float | None:
    """The mean number of processes that ran or waited to run during the last minute.

    None where the system does not tell. On Windows psutil emulates it.
    """
    return system.answer(lambda: psutil.getloadavg()[0])


def other_processes(seconds: float = 0.5) -> float | None:
    """Watch for `seconds` how many cores other processes keep busy; children of this process count as others.

    What the host of a virtual machine takes is no process's. None where the system does not tell.
    """

    def busy_seconds() -> tuple[float, float]:
        """Of all processes, and of this one, so far."""
        times, own = psutil.cpu_times(), psutil.Process().cpu_times()
        no_process = ("idle", "iowait", "steal")
        twice = ("guest", "guest_nice")  # already counted in user and nice
        left_out = sum(getattr(times, name, 0.0) for name in (*no_process, *twice))
        return sum(times) - left_out, own.user + own.system

    start, before = time.perf_counter(), system.answer(busy_seconds)
    if before is None:
        return None
    time.sleep(seconds)
    elapsed, after = time.perf_counter() - start, system.answer(busy_seconds)
    if after is None:
        return None
    return max(0.0, (after[0] - before[0]) - (after[1] - before[1])) / elapsed


class BusyProcess(NamedTuple):
    """Another process, and how many cores it kept busy."""

    name: str
    pid: int
    cores: float

    def __str__(self) -> str:
        return f"{self.name} ({self.pid}) {self.cores:.1f}"


def busiest(seconds: float = 0.5, least: float = 0.05) -> list[BusyProcess]:
    """Watch for `seconds` which other processes use at least `least` cores; the busiest first.

    Not counted are this process and its children. Empty where the system does not tell.
    """

    def used() -> dict[psutil.Process, float]:
        times = {process: system.answer(process.cpu_times) for process in psutil.process_iter()}
        return {process: t.user + t.system for process, t in times.items() if t is not None}

    this = system.answer(psutil.Process)
    family = [this, *(system.answer(lambda: this.children(recursive=True)) or [])] if this else []
    begun, before = time.perf_counter(), system.answer(used) or {}
    time.sleep(seconds)
    elapsed, after = time.perf_counter() - begun, system.answer(used) or {}
    found = [
        BusyProcess(system.answer(process.name) or "?", process.pid, cores)
        for process, now in after.items()
        if process in before and process not in family and (cores := (now - before[process]) / elapsed) >= least
    ]
    return sorted(found, key=lambda p: -p.cores)


def busy_reason(
    load_before: float | None = None, cores: int | None = None, other_cores: float | None = None
) -> str | None:
    """One sentence that says why a measurement that starts now is doubtful; None where there is no reason.

    Args:
        load_before: load average of the last minute, taken before this process did any work; None leaves it out.
        cores: logical cores of the machine; None asks the system.
        other_cores: what `other_processes` returned; None calls it, which takes half a second.
    """
    cores = cores or system.logical_cores()
    other_cores = other_processes() if other_cores is None else other_cores
    if other_cores is not None and other_cores > BUSY_SHARE * cores:
        return (
            f"Other processes kept {other_cores:.1f} of {cores} cores busy at the start; times are longer than on a "
            "free machine."
        )
    if load_before is not None and load_before > BUSY_LOAD * cores:
        return (
            f"The load average was {load_before:.1f} on {cores} cores before the start; times may be longer than on a "
            "free machine."
        )
    return None
