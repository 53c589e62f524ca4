"""What a worker of a Dask cluster does: it says what it is, and trains one cell in a process of its own.

Both functions run in the worker's process, where this package must be installed. It imports no torch there: that would
keep memory from the trainings.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_bench import identity
from resnet_bench.schema import Count, Model
from resnet_bench.study.training_process import PATIENCE, RESULT, TrainingProcess

if TYPE_CHECKING:
    from distributed import Worker

CELLS_RESOURCE = "cells"
"""The worker resource that says how many cells a worker trains side by side: `dask worker --resources cells=4`."""

POLL_SECONDS = 0.2

MAX_LOG = 100_000
"""Characters of what a training printed that are sent back."""


class About(Model):
    """What a worker is.

    Attributes:
        host: name of its machine.
        threads: that Dask gives it.
        cells: how many it trains side by side.
        code: SHA-256 of this package's sources there.
    """

    host: str
    threads: Count
    cells: Count
    code: str


class Order(Model):
    """A cell, as a worker is told to train it.

    Attributes:
        arguments: of `resnet-bench train`.
        checkpoint, log: where the study keeps the cell's checkpoint, and what its training prints.
        holder: the file that says which process runs the study, and its text. A worker that finds the same text there
            shares the study's folder.
        checkpoint_minutes: as `resnet-bench train` takes it.
        jobs: how many cells run side by side on the worker's machine.
        topic: of the events that tell the result so far after every epoch, where the study's folder is not shared.
    """

    arguments: tuple[str, ...]
    checkpoint: str
    log: str
    holder: tuple[str, str]
    checkpoint_minutes: float
    jobs: Count
    topic: str


class Outcome(Model):
    """How the training of a cell ended on a worker.

    Attributes:
        status: of the process.
        reason: why it is not finished, as the end of a sentence.
        result, log: the result, and what the training printed, where the study's folder is not shared, else None.
        notes: what was particular to the run.
    """

    status: int
    reason: str
    result: str | None
    log: str | None
    notes: tuple[str, ...]


def about(dask_worker: Worker) -> dict[str, Any]:
    """An `About` as a JSON object. Dask passes the worker."""
    threads = dask_worker.state.nthreads
    cells = int(dask_worker.state.total_resources.get(CELLS_RESOURCE, 1))
    return About(
        host=platform.node(), threads=threads, cells=max(1, min(threads, cells)), code=identity.code()["sha256"]
    ).model_dump()


def train(order: dict[str, Any]) -> dict[str, Any]:
    """Train a cell; an `Order` and an `Outcome` as JSON objects.

    The training ends, and saves what it has where the study's folder is shared, when nobody waits for the result any
    more: the task was cancelled, or the process that runs the study is gone. It ends with the worker, too.
    """
    from distributed import get_worker

    asked, worker = Order.model_validate(order), get_worker()
    key = worker.get_current_task()
    with ExitStack() as stack:
        shared = _shared(asked)
        folder = Path(asked.checkpoint) if shared else stack.enter_context(_own_folder(worker.local_directory))
        log = Path(asked.log) if shared else folder / "log"
        variables, removed = environment()
        variables[identity.JOBS_VARIABLE] = str(asked.jobs)
        process = TrainingProcess(asked.arguments, folder, log, asked.checkpoint_minutes, variables)
        try:
            told = ""
            while process.popen.poll() is None:
                if not _wanted(worker, key):
                    _end(process.popen)
                if not shared and (result_so_far := _text(folder / RESULT)) not in ("", told):
                    told = result_so_far
                    worker.log_event(asked.topic, told)
                time.sleep(POLL_SECONDS)
        finally:
            process.popen.kill()
            process.popen.wait()
        status, result = process.popen.returncode, folder / RESULT
        notes = [f"on {platform.node()}"]
        if removed:
            notes.append(f"without Dask's {', '.join(removed)}")
        return Outcome(
            status=status,
            reason=process.reason().replace(str(log), asked.log) if status else "",
            result=result.read_text(encoding="utf-8") if status == 0 and not shared else None,
            log=None if shared else log.read_text(encoding="utf-8", errors="replace")[-MAX_LOG:],
            notes=tuple(notes),
        ).model_dump()


def environment() -> tuple[dict[str, str], list[str]]:
    """The environment for a training, and what of this process's it lacks: Dask's own settings for its workers.

    Dask gives workers one thread in each library and has glibc return memory early. Either would change times, and the
    first the bits of the results too, for the number of threads is a part of a cell.
    """
    import dask

    dasks = {k: str(v) for k, v in dask.config.get("distributed.nanny.pre-spawn-environ", {}).items()}
    removed = [name for name, value in sorted(dasks.items()) if os.environ.get(name) == value]
    return {k: v for k, v in os.environ.items() if k not in removed}, [f"{k}={dasks[k]}" for k in removed]


def _text(path: Path) -> str:
    """What a file holds; nothing where it cannot be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    return ""


def _shared(order: Order) -> bool:
    """Whether this machine sees the study's folder."""
    path, text = order.holder
    try:
        return Path(path).read_text(encoding="utf-8") == text
    except (OSError, ValueError):
        return False


@contextmanager
def _own_folder(parent: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="resnet_bench-", dir=parent) as folder:
        yield Path(folder)


def _wanted(worker: Worker, key: Any) -> bool:
    """Whether somebody still waits for the result of a task, and can be told it."""
    task = worker.state.tasks.get(key)
    closing = worker.status.name in ("closing", "closed", "failed")  # the scheduler is gone, or has sent it away
    return not closing and task is not None and task.state not in ("cancelled", "resumed")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Have a training save what it has, and end, as it does when its standard input ends.

    It gets one signal this way, from itself, even where this process ends meanwhile. A second one would not wait.
    """
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
