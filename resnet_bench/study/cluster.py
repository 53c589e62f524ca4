"""A Dask cluster as the place where cells run: `resnet-bench study --cluster ADDRESS`.

This process decides which worker trains which cell, because a cell needs a worker's cores for itself. Dask carries the
order there and the outcome back, and tells which workers there are. A cell whose worker is lost is started on another
one: from its checkpoint where the workers share the study's folder, else from the beginning.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_bench import locks
from resnet_bench.errors import UNFIT, UserError
from resnet_bench.files import atomic_write, make_folder
from resnet_bench.study.cells import Cell
from resnet_bench.study.folder import StudyFolder
from resnet_bench.study.running import Ended, Say
from resnet_bench.study.training_process import PATIENCE, RESULT
from resnet_bench.study.worker import About, Order, Outcome, about, train

CONNECT_SECONDS = 60
"""For which a scheduler at an address may take to answer: `dask ssh` may just have started it."""

FILE_SECONDS = 120
"""For which a scheduler's file is waited for: on a cluster's file system a scheduler takes long to start."""

RESULT_SECONDS = 30
"""For which the outcome of a finished cell is waited for: its worker may be lost in that moment."""

FAILURES = 3
"""A worker on which others ended so many trainings in a row is left out."""

POLL_SECONDS = 0.2


class Workers:
    """The workers of a cluster, as far as they are fit to train.

    Attributes:
        address: of the scheduler, or of its file.
        client: the connection to it.
        known: {address: what it is} of all workers that ever answered.
        present: addresses of all workers, when they were last asked for.
        left_out: {address: why} of those that are not fit.
    """

    def __init__(self, address: str, say: Say) -> None:
        """Connect.

        Raises:
            UserError: Dask is not installed, or no scheduler answers.
        """
        try:
            from distributed import Client
        except ImportError:
            raise UserError(
                '--cluster needs Dask, which is not installed; install it with pip install "resnet-bench[cluster]".'
            ) from None
        for name in ("distributed", "distributed.client", "distributed.core", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what they would tell is told in sentences here
        self.address, self._say = address, say
        self.known: dict[str, About] = {}
        self.present: set[str] = set()
        self.left_out: dict[str, str] = {}
        try:
            self.client = Client(
                _in_file(Path(address)) if address.endswith(".json") else address,
                timeout=CONNECT_SECONDS, set_as_default=False, name="resnet-bench-study",
            )  # fmt: skip
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"No scheduler answers at {address} ({_first_line(error)}); start one with dask scheduler, or correct "
                "--cluster."
            ) from None

    def close(self) -> None:
        """Disconnect; the cluster stays."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self.client.close(timeout=5)

    def fit(self, codes: frozenset[str] | None) -> dict[str, About]:
        """{address: what it is} of the workers that can train.

        Args:
            codes: SHA-256 of the versions of this package that a worker may run; None lets any in.

        Raises:
            UserError: the scheduler is gone.
        """
        if not self.running:
            raise self.gone()
        try:
            present = list(self.client.nthreads())
            new = [w for w in present if w not in self.known and w not in self.left_out]
            answers = self.client.run(about, workers=new, on_error="return") if new else {}
        except (OSError, RuntimeError, ValueError, AttributeError) as error:  # the last where it is disconnected
            raise self.gone() from error
        for worker, answer in answers.items():
            if isinstance(answer, OSError):
                continue  # it has just gone
            try:
                if isinstance(answer, BaseException):
                    raise answer
                self.known[worker] = About.model_validate(answer)
            except Exception as error:  # whatever another version of this package, or none, has to say
                self.leave_out(worker, f"this version of resnet_bench does not run there ({_first_line(error)})")
        for worker in present:
            known = self.known.get(worker)
            if codes is not None and known and known.code not in codes and worker not in self.left_out:
                self.leave_out(worker, "it has other code of this suite; install this version, or --allow-other-code")
        self.present = set(present)
        return {w: self.known[w] for w in present if w in self.known and w not in self.left_out}

    def leave_out(self, worker: str, reason: str) -> None:
        """Train nothing on a worker any more."""
        self.left_out[worker] = reason.rstrip(".")
        self._say(f"Worker {worker} is left out: {self.left_out[worker]}.")

    @property
    def running(self) -> bool:
        """Whether the scheduler is there."""
        return str(self.client.status) == "running"

    def gone(self) -> UserError:
        """The error that says that the scheduler is gone."""
        return UserError(f"The scheduler at {self.address} is gone")


def _in_file(path: Path) -> str:
    """The address in a scheduler file, which a scheduler that was just started may still have to write."""
    until = time.monotonic() + FILE_SECONDS
    while True:
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["address"])
        except (OSError, ValueError):
            if time.monotonic() > until:
                raise
        time.sleep(POLL_SECONDS)


def _first_line(error: BaseException) -> str:
    said = (getattr(error, "strerror", None) or str(error)).strip().splitlines()
    return said[0].rstrip(".") if said else type(error).__name__


def threads(workers: Workers) -> int:
    """Threads of each training that fit on every worker.

    Raises:
        UserError: no worker is there.
    """
    found = workers.fit(None)
    if not found:
        raise UserError(
            f"The cluster at {workers.address} has no worker yet that tells how many threads it has; give --threads."
        )
    return min(max(1, each.threads // each.cells) for each in found.values())


@dataclass
class _Task:
    """A cell that a worker trains.

    Attributes:
        topic: of the events with which a worker tells how far it is that does not share the study's folder.
    """

    future: Any
    worker: str
    topic: str


class Cluster:
    """See `running.Place`."""

    def __init__(
        self, study: StudyFolder, workers: Workers, checkpoint_minutes: float, say: Say, *, allow_other_code: bool
    ) -> None:
        self.study, self.workers, self.checkpoint_minutes, self._say = study, workers, checkpoint_minutes, say
        self._codes = None if allow_other_code else frozenset((study.plan.code, *study.plan.other_code))
        self._tasks: dict[Cell, _Task] = {}
        self._telling = threading.Lock()
        self._homeless: list[Cell] = []  # whose worker was unfit
        self._ended_there: dict[Cell, set[str]] = {}  # the workers on which others ended the cell
        self._failures: Counter[str] = Counter()  # of each worker, in a row
        self._told_to_wait = False

    @property
    def jobs(self) -> int:
        return max(1, sum(each.cells for each in self._fit().values()))

    @property
    def free(self) -> int:
        places = self._places(self._fit())
        if not places and not self._tasks:
            if self.workers.present:  # and all are left out
                reasons = "; ".join(dict.fromkeys(self.workers.left_out[w] for w in sorted(self.workers.present)))
                raise UserError(f"No worker at {self.workers.address} can train the study's cells: {reasons}.")
            if not self._told_to_wait:
                self._told_to_wait = True
                self._say(f"Waiting for a worker at {self.workers.address}.")
        return max(0, sum(places.values()) - len(self._homeless))

    def start(self, cell: Cell) -> None:
        fit = self._fit()
        places = self._places(fit)
        if not any(places.values()):
            self._homeless.append(cell)
            return
        ended_there = self._ended_there.get(cell, set())  # the cell may have been the reason, or the worker
        chosen = max(places, key=lambda w: (places[w] > 0, w not in ended_there, places[w]))
        folder, holder = self.study.begin(cell).resolve(), self.study.path.resolve() / locks.HOLDER_FILE
        make_folder(self.study.log(cell).parent, "--output")
        topic = f"{cell.name}-{secrets.token_hex(4)}"
        order = Order(
            arguments=(
                *cell.arguments(self.study.dataset, self.study.plan),
                *(["--code-sha256", ",".join(sorted(self._codes))] if self._codes else []),
            ),
            checkpoint=str(folder),
            log=str(self.study.log(cell).resolve()),
            holder=(str(holder), holder.read_text(encoding="utf-8") if holder.exists() else ""),
            checkpoint_minutes=self.checkpoint_minutes,
            jobs=_beside(fit, chosen),
            topic=topic,
        )
        self.workers.client.subscribe_topic(topic, functools.partial(self._note_progress, cell, topic))
        future = self.workers.client.submit(
            train, order.model_dump(mode="json"), workers=[chosen], allow_other_workers=False, pure=False,
            retries=0, key=topic,
        )  # fmt: skip
        self._tasks[cell] = _Task(future, chosen, topic)

    def _note_progress(self, cell: Cell, topic: str, event: tuple[Any, Any]) -> None:
        """Keep the result so far, which a worker tells that does not share the folder."""
        with self._telling:  # Dask calls this in a thread of its own
            task = self._tasks.get(cell)
            if task is not None and task.topic == topic and isinstance(event[1], str):
                path = self.study.checkpoint(cell) / RESULT
                with contextlib.suppress(OSError, UserError), atomic_write(path) as file:
                    file.write(event[1])

    def _forget(self, cell: Cell) -> None:
        """Listen no more to the worker of a cell."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self.workers.client.unsubscribe_topic(self._tasks[cell].topic)
        with self._telling:
            del self._tasks[cell]

    def ended(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while True:
            if not self.workers.running:
                raise self._gone()
            homeless, self._homeless = self._homeless, []
            for cell in homeless:
                self.start(cell)
            found = self._outcomes()
            if any(ended.status is None for ended in found) and not self.workers.running:
                raise self._gone()
            if found or time.monotonic() >= until:
                return found or self._lost()
            time.sleep(POLL_SECONDS)

    def stop(self) -> list[Ended]:
        """Cancel all tasks; their workers see that, and have the trainings save and end."""
        found = self._outcomes() if self.workers.running else []
        cells = list(self._tasks)
        if self.workers.running:  # else the trainings end with their workers
            with contextlib.suppress(Exception):
                self.workers.client.cancel([task.future for task in self._tasks.values()])
        until = time.monotonic() + PATIENCE
        while any(locks.held(self.study.checkpoint(cell)) for cell in cells) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return found

    def _fit(self) -> dict[str, About]:
        try:
            return self.workers.fit(self._codes)
        except UserError:
            raise self._gone() from None

    def _gone(self) -> UserError:
        return UserError(
            f"The scheduler at {self.workers.address} is gone; finished cells are kept. Start one and "
            f"go on with: {self.study.command}"
        )

    def _places(self, fit: dict[str, About]) -> dict[str, int]:
        """{worker: how many more cells it can train}."""
        taken = [task.worker for task in self._tasks.values()]
        return {w: max(0, each.cells - taken.count(w)) for w, each in fit.items()}

    def _outcomes(self) -> list[Ended]:
        """The cells that ended since the last call."""
        return [ended for cell in list(self._tasks) if (ended := self._outcome(cell))]

    def _outcome(self, cell: Cell) -> Ended | None:
        """How a cell ended; None where it runs, or is to be trained elsewhere."""
        from distributed import KilledWorker

        task = self._tasks[cell]
        status = task.future.status
        if status == "pending":
            return None
        self._forget(cell)
        try:
            outcome = Outcome.model_validate(task.future.result(timeout=RESULT_SECONDS))
        except Exception as error:
            without_answer = status != "error" and isinstance(error, (OSError, TimeoutError, CancelledError))
            if without_answer or isinstance(error, KilledWorker):  # the worker or the scheduler is gone
                return self._by_others(cell, task, Ended(cell, None, f"lost its worker {task.worker}"))
            # else it is the worker's own, or an answer of another version of this package
            self._elsewhere(cell, task, f"it cannot train ({_first_line(error)})")
            return None
        shared = outcome.log is None
        ended = Ended(cell, outcome.status, outcome.reason, outcome.notes, self._most_beside(task))
        if outcome.status == UNFIT or (not shared and ended.of_space):
            self._elsewhere(cell, task, outcome.reason.removeprefix("failed: "))
            return None
        if outcome.result is not None:
            with atomic_write(self.study.checkpoint(cell) / RESULT) as file:
                file.write(outcome.result)
        if outcome.log is not None:
            with contextlib.suppress(OSError), open(self.study.log(cell), "a", encoding="utf-8") as log:
                log.write(outcome.log)
        if ended.by_others:
            return self._by_others(cell, task, ended)
        self._failures.pop(task.worker, None)
        return ended

    def _by_others(self, cell: Cell, task: _Task, ended: Ended) -> Ended:
        """Note the worker on which others ended a cell: it may be the reason, and is left out if that goes on."""
        self._ended_there.setdefault(cell, set()).add(task.worker)
        self._failures[task.worker] += 1
        if self._failures[task.worker] == FAILURES and task.worker not in self.workers.left_out:
            self.workers.leave_out(task.worker, f"{FAILURES} trainings in a row ended there ({ended.reason})")
        return ended

    def _most_beside(self, task: _Task) -> int:
        """How many trainings ran side by side on the machine of a task at most, as far as its workers are known."""
        there = {w: each for w, each in self.workers.known.items() if w in self.workers.present or w == task.worker}
        return _beside(there, task.worker)

    def _lost(self) -> list[Ended]:
        """The cells whose workers are gone."""
        self._fit()
        lost = [(cell, task) for cell, task in self._tasks.items() if task.worker not in self.workers.present]
        for cell, task in lost:
            with contextlib.suppress(Exception):
                task.future.cancel()
            self._forget(cell)
        return [self._by_others(cell, task, Ended(cell, None, f"lost its worker {task.worker}")) for cell, task in lost]

    def _elsewhere(self, cell: Cell, task: _Task, reason: str) -> None:
        """Leave a worker out, and have the cell trained on another one."""
        self.workers.leave_out(task.worker, reason)
        self._homeless.append(cell)


def _beside(workers: Mapping[str, About], chosen: str) -> int:
    """How many cells the workers on the machine of a chosen one train side by side."""
    return sum(each.cells for each in workers.values() if each.host == workers[chosen].host)
