"""Carrying a study out: which cell runs next, where, and what becomes of how it ends.

A cell is a process of its own: `resnet-bench train --checkpoint`. Where it runs is a `Place`: this machine (`Local`) or
a cluster's workers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from resnet_bench import architectures, identity, locks, progress
from resnet_bench.errors import UNFIT, UserError
from resnet_bench.schema import AccuracyResult
from resnet_bench.signals import INTERRUPTED, TERMINATED
from resnet_bench.study import packing
from resnet_bench.study.cells import Cell
from resnet_bench.study.folder import CellState, StudyFolder
from resnet_bench.study.training_process import PATIENCE, TrainingProcess
from resnet_bench.wording import duration

RETRIES = 3
"""A cell that others ended is started again so often."""

FULL = tuple(os.strerror(n) for n in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)))
"""What the system says where a disk is full, or the part of it that this user may have."""

BYTES_PER_PARAMETER = 12
"""In a checkpoint: the weight and Adam's two moments, float32."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """How the process of a cell ended.

    Attributes:
        status: 0 where the training is finished; None where nobody knows, because the machine is gone.
        reason: why it is not finished, as the end of a sentence.
        notes: what was particular to the run.
        jobs: how many trainings ran side by side on its machine at most, where that is more than it knew itself.
    """

    cell: Cell
    status: int | None
    reason: str = ""
    notes: tuple[str, ...] = ()
    jobs: int = 1

    @property
    def of_space(self) -> bool:
        """Whether it failed because the disk was full."""
        return any(text in self.reason for text in FULL)

    @property
    def by_others(self) -> bool:
        """Whether the process was ended from outside, so that another try may succeed."""
        return self.status is None or self.status < 0 or self.status in (INTERRUPTED, TERMINATED)


class Place(Protocol):
    """Where cells run."""

    @property
    def jobs(self) -> int:
        """How many can run side by side."""

    @property
    def free(self) -> int:
        """How many more can be started now."""

    def start(self, cell: Cell) -> None:
        """Start a cell, from its checkpoint if it has one."""

    def ended(self, seconds: float) -> list[Ended]:
        """The cells that ended since the last call; waits for the first one, but no longer than so many seconds."""

    def stop(self) -> list[Ended]:
        """End all that runs: each saves its checkpoint. A second Ctrl-C ends them at once."""


class Local:
    """This machine: `jobs` processes side by side, each pinned to cores of one cache where there are enough."""

    def __init__(self, study: StudyFolder, jobs: int, checkpoint_minutes: float) -> None:
        self.study, self.jobs, self.checkpoint_minutes = study, jobs, checkpoint_minutes
        places = packing.pinned(packing.cache_groups(), jobs, study.plan.threads)
        self._free: list[tuple[int, ...] | None] = [*places] if places else [None] * jobs
        self._running: dict[Cell, tuple[TrainingProcess, tuple[int, ...] | None]] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    def start(self, cell: Cell) -> None:
        log, folder = self.study.log(cell), self.study.begin(cell)
        cores = self._free.pop(0)
        arguments, variables = cell.arguments(self.study.dataset, self.study.plan), packing.environment(self.jobs)
        arguments += ["--code-sha256", identity.code()["sha256"]]
        with packing.on_cores(cores):
            process = TrainingProcess(arguments, folder, log, self.checkpoint_minutes, variables)
        self._running[cell] = process, cores

    def ended(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while True:
            gone = [(cell, p) for cell, (p, _) in self._running.items() if p.popen.poll() is not None]
            for cell, _ in gone:
                _, cores = self._running.pop(cell)
                self._free.append(cores)
            if gone or time.monotonic() >= until:
                return [Ended(cell, process.popen.returncode, process.reason()) for cell, process in gone]
            time.sleep(0.05)

    def stop(self) -> list[Ended]:
        found: list[Ended] = []
        try:
            for process, _ in self._running.values():
                process.popen.terminate()
            until = time.monotonic() + PATIENCE
            while self._running and time.monotonic() < until:
                found += self.ended(0.2)
        finally:
            for process, _ in self._running.values():
                process.popen.kill()
                process.popen.wait()
        return found + self.ended(0)


# ---------------------------------------------------------------------------------------------------------------------
# The study


def run(study: StudyFolder, place: Place, say: Say) -> list[Ended]:
    """Train all cells that are not finished.

    Returns:
        Those that failed.

    Raises:
        KeyboardInterrupt: after Ctrl-C, or `Terminated` after SIGTERM; every training has saved what it had.
        UserError: where the study cannot go on: a full disk, data or code that changed.
    """
    states = study.states()
    for state in states:
        if state.damage:
            say(f"{state.damage} Only {state.cell.name} is computed again.")
            study.discard(state.cell)
    course = _Course(study, place, say, states)
    with progress.shown(course.task):
        try:
            return course.run()
        except (KeyboardInterrupt, UserError) as error:
            for ended in place.stop():
                if ended.status == 0:
                    with contextlib.suppress(UserError):  # the first error is the one that counts
                        course.take(ended)
            if isinstance(error, UserError):
                raise
            again = f"{course.finished} of {len(states)} cells are finished; go on with: {study.command}"
            raise type(error)(again) from None


class _Course:
    """One run of a study."""

    def __init__(self, study: StudyFolder, place: Place, say: Say, states: Sequence[CellState]) -> None:
        self.study, self.place, self.say = study, place, say
        self._states = {s.cell: s for s in states}
        self._pending = deque(s.cell for s in states if s.state != "finished")
        self._running: set[Cell] = set()
        self._tries: dict[Cell, int] = {}
        self._came_to: dict[Cell, object] = {}
        self.finished = len(states) - len(self._pending)
        self.task = progress.Task("training", sum(cell.recipe.epochs for cell in self._states), "epochs")

    def run(self) -> list[Ended]:
        failed: list[Ended] = []
        waited = False
        while self._pending or self._running:
            startable = [c for c in self._pending if not locks.held(self.study.checkpoint(c))]
            for cell in startable[: self.place.free]:
                self._pending.remove(cell)
                self._running.add(cell)
                self.place.start(cell)
            if self._pending and not self._running and not startable and not waited:
                waited = True
                self.say("Waiting for trainings of an earlier run, which save what they have and end.")
            for ended in self.place.ended(1.0):
                self._running.discard(ended.cell)
                if ended.status == 0:
                    self.take(ended)
                elif ended.by_others and self._may_try_again(ended.cell):
                    self.say(f"{ended.cell.name} {ended.reason}; it is started again.")
                    self._pending.append(ended.cell)
                else:
                    self._require_others_can(ended)
                    self.say(f"{ended.cell.name} {ended.reason}")
                    failed.append(ended)
            self._show()
        return failed

    def _may_try_again(self, cell: Cell) -> bool:
        """Whether a cell that others ended is started again: `RETRIES` times after each checkpoint that it wrote."""
        came_to = self.study.came_to(cell)
        if came_to is not None and came_to != self._came_to.get(cell):
            self._came_to[cell], self._tries[cell] = came_to, 0
        self._tries[cell] = self._tries.get(cell, 0) + 1
        return self._tries[cell] <= RETRIES

    def take(self, ended: Ended) -> None:
        """Keep the result of a finished cell."""
        result = self.study.keep(ended.cell, (*ended.notes, *_code_notes(self.study, ended.cell)), ended.jobs)
        self.finished += 1
        self._states[ended.cell] = CellState(ended.cell, "finished", result)
        seconds = seconds_left(self._states.values(), self.place.jobs)
        left = duration(seconds) if seconds is not None else None
        self.say(
            f"{ended.cell.name}: accuracy {result.epochs[-1].test_accuracy:.2%} after {len(result.epochs)} epochs; "
            f"{self.finished} of {len(self._states)} cells finished" + (f", about {left} left" if left else "")
        )

    def _show(self) -> None:
        for cell in self._running:
            self._states[cell] = self.study.progress(cell)
        names = ", ".join(cell.name for cell in list(self._running)[:4])
        self.task.what = f"{self.finished} of {len(self._states)} cells finished, training {names or 'none'}"
        self.task.seconds_left = seconds_left(self._states.values(), self.place.jobs)
        self.task.done = self._epochs()

    def _epochs(self) -> int:
        return sum(state.epochs for state in self._states.values())

    def _require_others_can(self, ended: Ended) -> None:
        """Raise `UserError` where a cell failed for a reason that ends all others too."""
        what, go_on = f"{ended.cell.name} {ended.reason.rstrip('.')}", f"go on with: {self.study.command}"
        if ended.status == UNFIT:
            raise UserError(f"{what}; mend that and {go_on}")
        if ended.of_space:
            raise UserError(f"The disk with {self.study.path} is full, so that {what}; free some space and {go_on}")
        if not _fits(self.study, ended.cell):
            raise UserError(
                f"{what}; nor does a checkpoint fit any more on the disk with {self.study.path}: free space and {go_on}"
            )


def _fits(study: StudyFolder, cell: Cell) -> bool:
    """Whether a checkpoint of the cell would still fit on the disk."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(study.path).free >= checkpoint_bytes(cell, study.plan.dataset.classes)
    return True


def checkpoint_bytes(cell: Cell, classes: int) -> int:
    """About how large a checkpoint of the cell is."""
    return BYTES_PER_PARAMETER * architectures.plain_parameter_count(architectures.get(cell.architecture), classes)


def _code_notes(study: StudyFolder, cell: Cell) -> Iterator[str]:
    """A note where other code than that which began the study trained a part of the cell."""
    state = study.state(cell)
    codes = {s.machine.get("code", {}).get("sha256") for s in (state.result.stretches or ())} if state.result else set()
    for code in sorted(str(c) for c in codes - {study.plan.code}):
        yield f"other code {code[:12]}"


# ---------------------------------------------------------------------------------------------------------------------
# How long it will take


def seconds_left(states: Iterable[CellState], jobs: int) -> float | None:
    """How long the rest takes, by the epochs so far; None where nothing is left or nothing is known."""
    known: dict[tuple[str, str], list[float]] = {}
    rest: list[tuple[tuple[str, str], int]] = []
    for state in states:
        network = (state.cell.architecture, state.cell.engine)
        if state.result and state.result.epochs:
            known.setdefault(network, []).append(_epoch_seconds(state.result))
        if state.state != "finished":
            rest.append((network, state.cell.recipe.epochs - state.epochs))
    if not known or not rest:
        return None
    means = {network: statistics.fmean(seconds) for network, seconds in known.items()}
    other = statistics.fmean(means.values())
    return packing.makespan((means.get(n, other) * epochs for n, epochs in rest), jobs)


def _epoch_seconds(result: AccuracyResult) -> float:
    return statistics.fmean(e.train_seconds + e.eval_seconds for e in result.epochs)
