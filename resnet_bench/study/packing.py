"""How many trainings to run side by side, with how many threads each: measured, not guessed.

A step on a batch of four is too small to share among many cores. So trainings side by side, each on few cores, finish a
study sooner than one after the other on all cores. How many are best depends on the machine's caches and memory.

A packing is measured with the study's own networks: as many processes as it has trainings take steps at the same time
(`probe.py`). The time that counts is that of one step of each network.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from resnet_bench import identity, machine, progress
from resnet_bench.errors import UserError
from resnet_bench.files import write_json
from resnet_bench.folders import cache_folder
from resnet_bench.identity import JOBS_VARIABLE
from resnet_bench.machine import system
from resnet_bench.machine.availability import without_pinning
from resnet_bench.schema import Count, Model
from resnet_bench.study.cells import Cell, Plan, by_network

SECONDS = 2.0
"""For which each network takes steps while a packing is measured."""

_MEMORY_FILE = "packing.json"


class Rate(Model):
    """How fast one network trains under a packing."""

    architecture: str
    engine: str
    step_seconds: float  # of one training, mean over those side by side
    test_seconds: float  # of one test image


class Packing(Model):
    """So many trainings side by side, each with so many threads, and how fast they are together."""

    jobs: Count
    threads: Count
    rates: tuple[Rate, ...]

    @property
    def steps_per_second(self) -> float:
        """Of all trainings together, where each network takes as many steps as any other."""
        return self.jobs * len(self.rates) / sum(r.step_seconds for r in self.rates)

    def seconds(self, cell: Cell, plan: Plan) -> float:
        """How long a cell takes."""
        rate = next(r for r in self.rates if (r.architecture, r.engine) == (cell.architecture, cell.engine))
        steps = cell.recipe.steps_per_epoch(plan.dataset.train_images)
        return cell.recipe.epochs * (steps * rate.step_seconds + plan.dataset.test_images * rate.test_seconds)


# ---------------------------------------------------------------------------------------------------------------------
# Cores


def cache_groups() -> list[list[int]]:
    """The logical cores that this process may use, by the last-level cache that they share.

    Within a group, one core of each physical one comes first, so that what takes the first few shares none.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    groups: dict[str, list[int]] = {}
    for core in allowed:
        caches = system.SYS / f"devices/system/cpu/cpu{core}/cache"
        shared = system.text_in(caches / "index3/shared_cpu_list") or system.text_in(caches / "index2/shared_cpu_list")
        groups.setdefault(shared or "", []).append(core)

    def place(core: int) -> tuple[int, int]:
        siblings = system.text_in(system.SYS / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        return _numbers(siblings or str(core)).index(core) if core in _numbers(siblings or "") else 0, core

    return [sorted(cores, key=place) for cores in groups.values()]


def pinned(groups: Sequence[Sequence[int]], jobs: int, threads: int) -> list[tuple[int, ...]] | None:
    """Which cores each training gets: of one cache where they are enough; None where there are too few for all.

    One training alone is not pinned, so that its times are those of any other training.
    """
    if jobs == 1 or jobs * threads > sum(map(len, groups)):
        return None
    free = [list(group) for group in groups]
    places: list[tuple[int, ...]] = []
    for _ in range(jobs):
        fitting = [group for group in free if len(group) >= threads]
        if fitting:
            group = max(fitting, key=len)  # spread over the caches
            places.append(tuple(group[:threads]))
            del group[:threads]
        else:
            rest = sorted((g for g in free if g), key=len, reverse=True)
            taken = [(g, core) for g in rest for core in g][:threads]
            places.append(tuple(core for _, core in taken))
            for g, core in taken:
                g.remove(core)
    return places


@contextlib.contextmanager
def on_cores(cores: Sequence[int] | None) -> Any:
    """Processes that are started inside run on these cores only, if any are given."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # of this thread; what it starts inherits that
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment(jobs: int) -> dict[str, str]:
    """The environment of one of `jobs` trainings side by side."""
    return {**os.environ, JOBS_VARIABLE: str(jobs), **without_pinning()}


def _numbers(text: str) -> list[int]:
    """`0,32` or `0-1` → the numbers."""
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low.strip().isdecimal():
            found += range(int(low), int(high or low) + 1)
    return found


def candidates(cores: int, threads: int | None = None) -> list[tuple[int, int]]:
    """(trainings, threads) to measure: with 1, 2, 4, ... threads each, on all cores, on half of them, and one alone."""
    counts = [threads] if threads else sorted({cores, *(2**i for i in range(cores.bit_length()) if 2**i <= cores)})
    return [(jobs, t) for t in counts for jobs in sorted({1, max(1, cores // t // 2), max(1, cores // t)})]


def makespan(seconds: Iterable[float], jobs: int) -> float:
    """How long trainings of these lengths take, of which `jobs` run side by side and the next begins when one ends."""
    ends = [0.0] * jobs
    for length in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + length)
    return max(ends)


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def choose(
    plan: Plan, dataset: str, threads: int | None, say: Callable[[str], None] = lambda line: None
) -> tuple[Packing, list[Packing]]:
    """The best packing for a study, and all that were measured, now or before on this machine.

    Args:
        threads: where the study has that many; None leaves them open.
    """
    cores = max(1, int(machine.usable_cores()))
    packings = progress.each(candidates(cores, threads), "measuring how many to train side by side", "packings")
    measured = [measure(plan, dataset, jobs, t, say) for jobs, t in packings]
    return max(measured, key=lambda p: p.steps_per_second), measured


def measure(
    plan: Plan, dataset: str, jobs: int, threads: int, say: Callable[[str], None] = lambda line: None
) -> Packing:
    """The speed of a packing: remembered for this machine, software and code, or measured now.

    Raises:
        UserError: where a process that measures fails.
    """
    order = {
        "networks": [[a, e] for (a, e), _ in by_network(plan.cells)],
        "options": {**plan.options, **{name: values[0] for name, values in plan.varied.items()}},
        "threads": threads,
        "seconds": SECONDS,
    }
    asked = [identity.key(identity.describe()), plan.dataset.sha256, jobs, order]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    if (known := _remembered().get(key)) is not None:
        return known
    say(f"Measuring: {jobs} side by side, threads of each: {threads}")
    with progress.task(f"{jobs} side by side", seconds=SECONDS * len(list(by_network(plan.cells)))):
        packing = Packing(jobs=jobs, threads=threads, rates=_measured(order, dataset, jobs, threads))
    _remember(key, packing)
    return packing


def _measured(order: Mapping[str, Any], dataset: str, jobs: int, threads: int) -> tuple[Rate, ...]:
    places, variables = pinned(cache_groups(), jobs, threads), environment(jobs)
    command = [sys.executable, "-m", "resnet_bench.study.probe"]
    processes: list[subprocess.Popen[str]] = []
    try:
        for i in range(jobs):
            with on_cores(places[i] if places else None):
                processes.append(
                    subprocess.Popen(
                        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                        env=variables, cwd=identity.PACKAGE.parent, start_new_session=True,
                    )
                )  # fmt: skip
            _tell(processes[-1], {**order, "dataset": dataset, "first": i})
        for process in processes:
            _line(process)  # it is ready
        for process in processes:
            _tell(process, "go")
        found = [json.loads(_line(process)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return tuple(
        Rate(
            architecture=architecture,
            engine=engine,
            step_seconds=sum(f[i][0] for f in found) / jobs,
            test_seconds=sum(f[i][1] for f in found) / jobs,
        )
        for i, (architecture, engine) in enumerate(order["networks"])
    )


def _tell(process: subprocess.Popen[str], what: object) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # its end is found where its answer is waited for
        process.stdin.write(json.dumps(what) + "\n")
        process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    if line := process.stdout.readline():
        return line
    _, errors = process.communicate()
    reason = (errors.strip().splitlines() or [f"status {process.returncode}"])[-1]
    raise UserError(f"The short measurement failed: {reason.removeprefix('resnet-bench: error: ')}")


# ---------------------------------------------------------------------------------------------------------------------
# What is remembered of this machine

_KNOWN: TypeAdapter[dict[str, Packing]] = TypeAdapter(dict[str, Packing])


def _memory() -> Path | None:
    folder = cache_folder()
    return folder / _MEMORY_FILE if folder else None


def _remembered() -> dict[str, Packing]:
    path = _memory()
    with contextlib.suppress(OSError, ValidationError):
        return _KNOWN.validate_json(path.read_bytes()) if path else {}
    return {}


def _remember(key: str, packing: Packing) -> None:
    if (path := _memory()) is None:
        return
    known = {**_remembered(), key: packing}
    with contextlib.suppress(OSError, UserError):  # then it is measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {k: p.model_dump(mode="json") for k, p in known.items()})
