"""What the operating system tells. A hardened system or a container may hide any of it, so no question raises."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

import psutil

PROC = Path("/proc")
SYS = Path("/sys")

_T = TypeVar("_T")


def answer(question: Callable[[], _T]) -> _T | None:
    """What `question` returns; None where it raises: libraries raise whatever a hardened system provokes."""
    try:
        return question()
    except Exception:
        return None


def text_in(path: Path) -> str | None:
    """The stripped text of a small file; None where it is missing, unreadable or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def logical_cores() -> int:
    """Logical cores of the machine; 1 where the system does not tell."""
    return answer(psutil.cpu_count) or 1


def cpu_ticks() -> tuple[int, int] | None:
    """Clock ticks that the host of a virtual machine took from the cores this process may use, and all their ticks.

    None where the system does not tell.
    """

    def count() -> tuple[int, int]:
        allowed = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        stolen = total = 0
        for line in (text_in(PROC / "stat") or "").splitlines():
            name, *ticks = line.split()
            if name in allowed:  # user nice system idle iowait irq softirq steal, then guests, which user includes
                numbers = [int(t) for t in ticks[:8]]
                stolen, total = stolen + numbers[7], total + sum(numbers)
        return stolen, total

    counted = answer(count)
    return counted if counted and counted[1] else None


def stolen_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """The share of the time between two `cpu_ticks` that a host took; None where it is not told or none has passed."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return min(1.0, max(0, after[0] - before[0]) / (after[1] - before[1]))


@dataclass(frozen=True)
class ContainerLimits:
    """What the control groups around this process allow; None stands for no limit.

    Attributes:
        cpu_quota: cores.
        memory_limit_bytes: bytes of memory.
    """

    cpu_quota: float | None
    memory_limit_bytes: int | None


def container_limits() -> ContainerLimits:
    """The tightest limits between this process's own control group and the outermost, of versions 1 and 2."""
    quotas: list[float] = []
    limits: list[int] = []
    for folder in _control_groups():
        quota, period = f"{text_in(folder / 'cpu.max') or ''} ".split(" ")[:2]  # version 2: `200000 100000`
        if not quota:  # version 1
            quota = text_in(folder / "cpu.cfs_quota_us") or ""
            period = text_in(folder / "cpu.cfs_period_us") or ""
        if quota.isdecimal() and period.isdecimal() and int(period):  # neither `max` nor -1
            quotas.append(int(quota) / int(period))
        limit = text_in(folder / "memory.max") or text_in(folder / "memory.limit_in_bytes") or ""
        if limit.isdecimal() and int(limit) < 2**60:  # version 1 writes a number near 2⁶³ for «unlimited»
            limits.append(int(limit))
    return ContainerLimits(cpu_quota=min(quotas, default=None), memory_limit_bytes=min(limits, default=None))


def _control_groups() -> Iterator[Path]:
    """The folders of this process's control groups and of those around them."""
    root = SYS / "fs/cgroup"
    for line in (text_in(PROC / "self/cgroup") or "").splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, path = line.split(":", 2)  # `4:memory:/a/b`, `0::/a/b` in version 2
        base = root / controllers if controllers else root
        inner = PurePosixPath(path.strip("/"))
        # A container sees its own group as the root, but the path may still be the one that the host sees.
        for folder in {base / p for p in (inner, *inner.parents) if ".." not in p.parts} | {base}:
            if os.path.isdir(folder):  # `Path.is_dir` raises where the folder is forbidden; this returns False
                yield folder
