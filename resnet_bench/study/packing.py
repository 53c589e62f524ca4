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
from datetime import date
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from resnet_bench import identity, machine, progress
from resnet_bench.errors import UserError
from resnet_bench.files import write_json
from resnet_bench.folders import cache_folder
from resnet_bench.identity import JOBS_VARIABLE
from resnet_bench.machine import system
from resnet_bench.machine.availability import without_pinning
from resnet_bench.schema import Count, Model
from resnet_bench.study.cells import Cell, Plan

SECONDS = 2.0
"""For which each network takes steps while a packing is measured."""

TIMED = ("batch_size", "pipeline", "workers")
"""Options that change the time of a step."""

_MEMORY_FILE = "packing.json"

REMEMBERED_DAYS = 30
"""A packing is measured anew after so long."""


class Rate(Model):
    """How fast one network trains under a packing."""

    architecture: str
    engine: str
    options: dict[str, int | str | None] = Field(default_factory=dict)  # those of `TIMED`; none in older files
    step_seconds: float  # of one training, mean over those side by side
    test_seconds: float  # of one test image


class Packing(Model):
    """So many trainings side by side, each with so many threads, and how fast they are together."""

    jobs: Count
    threads: Count
    measured_on: str = ""  # the day; unknown in older files
    rates: tuple[Rate, ...]

    @property
    def steps_per_second(self) -> float:
        """Of all trainings together, where each network takes as many steps as any other."""
        return self.jobs * len(self.rates) / sum(r.step_seconds for r in self.rates)

    def seconds(self, cell: Cell, plan: Plan) -> float:
        """How long a cell takes."""
        wanted = _timed(cell)
        rate = next(r for r in self.rates if [r.architecture, r.engine, r.options] == wanted)
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


def candidates(cores: int, threads: int | None = None, cells: int = 10**6) -> list[tuple[int, int]]:
    """(trainings, threads) to measure: with 1, 2, 4, ... threads each, on all cores, on half of them, and one alone.

    Never more trainings than there are cells.
    """
    counts = [threads] if threads else sorted({cores, *(2**i for i in range(cores.bit_length()) if 2**i <= cores)})
    fitting = ((t, {1, min(cells, max(1, cores // t // 2)), min(cells, max(1, cores // t))}) for t in counts)
    return [(jobs, t) for t, several in fitting for jobs in sorted(several)]


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

    All are measured twice, there and back, so that a machine that becomes faster or slower favours none. One that
    cannot run here, as where memory is short, is left out with a sentence.

    Args:
        threads: where the study has that many; None leaves them open.

    Raises:
        UserError: where none can run.
    """
    cores = max(1, int(machine.usable_cores()))
    wanted = candidates(cores, threads, len(plan.cells))
    packings = {(jobs, t): _known(plan, jobs, t) for jobs, t in wanted}
    unknown = [candidate for candidate, known in packings.items() if known is None]
    reasons: dict[tuple[int, int], str] = {}
    found: dict[tuple[int, int], list[Packing]] = {}
    there_and_back = [*unknown, *reversed(unknown)]
    for jobs, t in progress.each(there_and_back, "measuring how many to train side by side", "packings"):
        if (jobs, t) in reasons:
            continue
        try:
            found.setdefault((jobs, t), []).append(_measured(plan, dataset, jobs, t, say))
        except UserError as error:
            reasons[jobs, t] = str(error)
            say(f"{jobs} side by side, threads of each: {t}, is left out. {error}")
    for (jobs, t), several in found.items():
        if (jobs, t) not in reasons:
            packings[jobs, t] = mean = _mean(several)
            _remember(_key(plan, jobs, t), mean)
    measured = [packing for packing in packings.values() if packing]
    if not measured:
        raise UserError(next(iter(reasons.values())))
    return max(measured, key=lambda p: p.steps_per_second), measured


def measure(
    plan: Plan, dataset: str, jobs: int, threads: int, say: Callable[[str], None] = lambda line: None
) -> Packing:
    """The speed of a packing: remembered for this machine, software and code, or measured now.

    Raises:
        UserError: where a process that measures fails.
    """
    if known := _known(plan, jobs, threads):
        return known
    packing = _measured(plan, dataset, jobs, threads, say)
    _remember(_key(plan, jobs, threads), packing)
    return packing


def _timed(cell: Cell) -> list[Any]:
    """What the time of a cell's step depends on."""
    return [cell.architecture, cell.engine, {name: cell.options[name] for name in TIMED}]


def _order(plan: Plan, threads: int) -> dict[str, Any]:
    """What a measuring process is told."""
    networks: list[list[Any]] = []
    for cell in plan.cells:
        if (timed := _timed(cell)) not in networks:
            networks.append(timed)
    options = {**plan.options, **{name: values[0] for name, values in plan.varied.items()}}
    return {"networks": networks, "options": options, "threads": threads, "seconds": SECONDS}


def _key(plan: Plan, jobs: int, threads: int) -> str:
    """Of what is remembered about a packing."""
    asked = [identity.key(identity.describe()), plan.dataset.sha256, jobs, _order(plan, threads)]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _mean(several: Sequence[Packing]) -> Packing:
    """Measurements of one packing, at least one, as one."""
    rates = zip(*(p.rates for p in several), strict=True)
    return several[0].model_copy(update={"rates": tuple(map(_mean_rate, rates))})


def _mean_rate(several: Sequence[Rate]) -> Rate:
    means = {name: fmean(getattr(r, name) for r in several) for name in ("step_seconds", "test_seconds")}
    return several[0].model_copy(update=means)


def _measured(plan: Plan, dataset: str, jobs: int, threads: int, say: Callable[[str], None]) -> Packing:
    order = _order(plan, threads)
    say(f"Measuring: {jobs} side by side, threads of each: {threads}")
    with progress.task(f"{jobs} side by side", seconds=SECONDS * len(order["networks"])):
        rates = _rates(order, dataset, jobs, threads)
    return Packing(jobs=jobs, threads=threads, measured_on=identity.now()[:10], rates=rates)


def _rates(order: Mapping[str, Any], dataset: str, jobs: int, threads: int) -> tuple[Rate, ...]:
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
            options=options,
            step_seconds=sum(f[i][0] for f in found) / jobs,
            test_seconds=sum(f[i][1] for f in found) / jobs,
        )
        for i, (architecture, engine, options) in enumerate(order["networks"])
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


def memory() -> Path | None:
    """The file in which packings are remembered; None where there is no place for it."""
    folder = cache_folder()
    return folder / _MEMORY_FILE if folder else None


def _remembered() -> dict[str, Packing]:
    path = memory()
    with contextlib.suppress(OSError, ValidationError):
        return _KNOWN.validate_json(path.read_bytes()) if path else {}
    return {}


def _known(plan: Plan, jobs: int, threads: int) -> Packing | None:
    """A packing as it was measured here in the last days, if it was."""
    known = _remembered().get(_key(plan, jobs, threads))
    with contextlib.suppress(ValueError):
        if known and (date.today() - date.fromisoformat(known.measured_on)).days <= REMEMBERED_DAYS:
            return known
    return None


def _remember(key: str, packing: Packing) -> None:
    if (path := memory()) is None:
        return
    known = {**_remembered(), key: packing}
    with contextlib.suppress(OSError, UserError):  # then it is measured again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {k: p.model_dump(mode="json") for k, p in known.items()})
