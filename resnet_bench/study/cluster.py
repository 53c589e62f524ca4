"""A Dask cluster as the place where cells run: `resnet-bench study --cluster ADDRESS`.

This process decides which worker trains which cell, because a cell needs a worker's cores for itself. Dask carries the
order there and the outcome back, and tells which workers there are. A cell whose worker is lost is started on another
one: from its checkpoint where the workers share the study's folder, else from the beginning.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

from resnet_bench import locks
from resnet_bench.errors import UNFIT, UserError
from resnet_bench.files import atomic_write, make_folder
from resnet_bench.study.cells import Cell, Plan
from resnet_bench.study.folder import StudyFolder
from resnet_bench.study.running import Ended, Say, command
from resnet_bench.study.training_process import PATIENCE, RESULT

CONNECT_SECONDS = 20
POLL_SECONDS = 0.2


class Workers:
    """The workers of a cluster, as far as they are fit to train.

    Attributes:
        address: of the scheduler, or of its file.
        client: the connection to it.
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
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it would tell is told in sentences here
        self.address, self._say = address, say
        self._known: dict[str, Any] = {}
        self._unfit: dict[str, str] = {}
        try:
            where: dict[str, Any] = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
            self.client = Client(**where, timeout=CONNECT_SECONDS, set_as_default=False, name="resnet-bench-study")
        except (OSError, ValueError, TypeError) as error:
            reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
            raise UserError(
                f"No scheduler answers at {address} ({reason}); start one with dask scheduler, or correct --cluster."
            ) from None

    def close(self) -> None:
        """Disconnect; the cluster stays."""
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self.client.close(timeout=5)

    def fit(self, codes: frozenset[str] | None) -> dict[str, Any]:
        """{address: what it is} of the workers that can train.

        Args:
            codes: SHA-256 of the versions of this package that a worker may run; None lets any in.

        Raises:
            UserError: the scheduler is gone.
        """
        from resnet_bench.study.worker import About, about

        try:
            present = list(self.client.nthreads())
            new = [w for w in present if w not in self._known and w not in self._unfit]
            answers = self.client.run(about, workers=new, on_error="return") if new else {}
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            raise self.gone() from error
        for worker, answer in answers.items():
            if isinstance(answer, OSError):
                continue  # it has just gone
            if isinstance(answer, BaseException):
                self.leave_out(worker, f"resnet_bench does not run there ({answer})")
                continue
            self._known[worker] = About.model_validate(answer)
            if codes is not None and self._known[worker].code not in codes:
                self.leave_out(worker, "it has other code of this suite; install this version, or --allow-other-code")
        return {w: self._known[w] for w in present if w in self._known and w not in self._unfit}

    def leave_out(self, worker: str, reason: str) -> None:
        """Train nothing on a worker any more."""
        self._unfit[worker] = reason
        self._say(f"Worker {worker} is left out: {reason.rstrip('.')}.")

    @property
    def running(self) -> bool:
        """Whether the scheduler is there."""
        return str(self.client.status) == "running"

    def gone(self) -> UserError:
        """The error that says that the scheduler is gone."""
        return UserError(f"The scheduler at {self.address} is gone")


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
    return min(max(1, about.threads // about.cells) for about in found.values())


@dataclass
class _Task:
    future: Any
    worker: str


class Cluster:
    """See `running.Place`."""

    def __init__(
        self, study: StudyFolder, workers: Workers, checkpoint_minutes: float, say: Say, *, allow_other_code: bool
    ) -> None:
        self.study, self.workers, self.checkpoint_minutes, self._say = study, workers, checkpoint_minutes, say
        self._codes = None if allow_other_code else frozenset((study.plan.code, *study.plan.other_code))
        self._tasks: dict[Cell, _Task] = {}
        self._homeless: list[Cell] = []  # whose worker was unfit
        self._told_to_wait = False

    @property
    def jobs(self) -> int:
        return max(1, sum(about.cells for about in self._fit().values()))

    @property
    def free(self) -> int:
        places = self._places()
        if not places and not self._tasks and not self._told_to_wait:
            self._told_to_wait = True
            self._say(f"Waiting for a worker at {self.workers.address}.")
        return max(0, sum(places.values()) - len(self._homeless))

    def start(self, cell: Cell) -> None:
        from resnet_bench.study import worker

        places, fit = self._places(), self._fit()
        if not any(places.values()):
            self._homeless.append(cell)
            return
        chosen = max(places, key=lambda w: places[w])
        host = fit[chosen].host
        folder, holder = self.study.checkpoint(cell).resolve(), self.study.path.resolve() / locks.HOLDER_FILE
        make_folder(folder, "--output")
        order = worker.Order(
            arguments=(*cell.arguments(self.study.dataset, self.study.plan), *_images(cell, self.study.plan)),
            checkpoint=str(folder),
            log=str(self.study.log(cell).resolve()),
            holder=(str(holder), holder.read_text(encoding="utf-8") if holder.exists() else ""),
            checkpoint_minutes=self.checkpoint_minutes,
            jobs=sum(about.cells for about in fit.values() if about.host == host),
        )
        future = self.workers.client.submit(
            worker.train, order.model_dump(mode="json"), workers=[chosen], allow_other_workers=False, pure=False,
            retries=0, key=f"{cell.name}-{secrets.token_hex(4)}",
        )  # fmt: skip
        self._tasks[cell] = _Task(future, chosen)

    def ended(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while True:
            if not self.workers.running:
                raise self._gone()
            for cell in [self._homeless.pop() for _ in self._homeless]:
                self.start(cell)
            found = [e for cell in list(self._tasks) if (e := self._outcome(cell))]
            if found or time.monotonic() >= until:
                return found or self._lost()
            time.sleep(POLL_SECONDS)

    def stop(self) -> list[Ended]:
        """Cancel all tasks; their workers see that, and have the trainings save and end."""
        found = [e for cell in list(self._tasks) if (e := self._outcome(cell))] if self.workers.running else []
        cells = list(self._tasks)
        with contextlib.suppress(Exception):  # the scheduler may be gone; the trainings end with their workers then
            self.workers.client.cancel([task.future for task in self._tasks.values()])
        until = time.monotonic() + PATIENCE
        while any(locks.held(self.study.checkpoint(cell)) for cell in cells) and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
        return found

    def _fit(self) -> dict[str, Any]:
        try:
            return self.workers.fit(self._codes)
        except UserError:
            raise self._gone() from None

    def _gone(self) -> UserError:
        return UserError(
            f"{self.workers.gone()}; finished cells are kept. Start a scheduler and go on with: "
            f"{command(self.study.path)} --cluster {self.workers.address}"
        )

    def _places(self) -> dict[str, int]:
        """{worker: how many more cells it can train}."""
        taken = [task.worker for task in self._tasks.values()]
        return {w: max(0, about.cells - taken.count(w)) for w, about in self._fit().items()}

    def _outcome(self, cell: Cell) -> Ended | None:
        """How a cell ended; None where it runs, or is to be trained elsewhere."""
        from resnet_bench.study.worker import Outcome

        task = self._tasks[cell]
        status = task.future.status
        if status == "pending":
            return None
        del self._tasks[cell]
        if status != "finished":
            error = task.future.exception() if status == "error" else None
            if error is None or type(error).__name__ == "KilledWorker":
                return Ended(cell, None, f"lost its worker {task.worker}")
            return Ended(cell, 1, f"failed on the worker {task.worker}: {error}")
        outcome = Outcome.model_validate(task.future.result())
        if outcome.status == UNFIT:
            self.workers.leave_out(task.worker, outcome.reason.removeprefix("failed: "))
            self._homeless.append(cell)
            return None
        if outcome.log is not None:
            make_folder(self.study.log(cell).parent, "--output")
            self.study.log(cell).write_text(outcome.log, encoding="utf-8")
        if outcome.result is not None:
            with atomic_write(self.study.checkpoint(cell) / RESULT) as file:
                file.write(outcome.result)
        return Ended(cell, outcome.status, outcome.reason, outcome.notes)

    def _lost(self) -> list[Ended]:
        """The cells whose workers are gone."""
        fit = self._fit()
        lost = [(cell, task) for cell, task in self._tasks.items() if task.worker not in fit]
        for cell, task in lost:
            task.future.cancel()
            del self._tasks[cell]
        return [Ended(cell, None, f"lost its worker {task.worker}") for cell, task in lost]


def _images(cell: Cell, plan: Plan) -> list[str]:
    return ["--images-sha256", plan.digests[str(cell.seed)]]
