"""Data pipelines: from a training set to the augmented batches of an epoch. Both give the same batches, bit for bit.

- `loader` is the paper's: torch's `DataLoader` with worker processes and torchvision's transforms, image by image.
- `vectorized` augments whole chunks on tensors in this process, without workers.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import shutil
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from resnet_bench import machine
from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.child import SHARED_MEMORY, how_it_ended, ignore_interrupt, starting_processes
from resnet_bench.data import augmentation
from resnet_bench.data.datasets import Dataset
from resnet_bench.errors import UserError
from resnet_bench.recipe import LOADER_WORKERS, Recipe
from resnet_bench.schedules import LearningRates

PIPELINES = ("loader", "vectorized")
CHUNK_IMAGES = 256  # about 3 MB of float32: large enough to spread the cost of the calls, small enough for the caches

START_METHOD = "fork" if "fork" in multiprocessing.get_all_start_methods() and sys.platform != "darwin" else None
"""How worker processes are started. A forked one, as on the paper's Linux, has all imports and images from the start.

Python's own choice, None, is for macOS, where forked processes are known to crash, and for Windows, which has none.
There each worker imports torch anew at the start of every epoch, and that is part of the epoch's time.
"""

PREFETCHED = 2  # batches that each worker prepares ahead; torch's default
Batch = tuple[Tensor, Tensor]


class WorkerError(UserError):
    """A worker process of the loader ended or could not be started; the step before it is complete."""


def prepare(pipeline: str, recipe: Recipe, workers: int, images: int) -> None:
    """Import what `pipeline` needs, and check that its workers can run here.

    Importing torchvision takes seconds, which must be part of no epoch's time.
    """
    if pipeline == "loader":
        require_workers(recipe, workers, images)
        importlib.import_module("torchvision")


def require_known(pipeline: str, workers: int) -> None:
    """Raise `UserError` for a pipeline that does not exist, or a negative number of workers."""
    if pipeline not in PIPELINES:
        raise UserError(f"There is no pipeline {pipeline!r}; choose one of {', '.join(PIPELINES)}.")
    if workers < 0:
        raise UserError(f"--workers is {workers}; give 0 or more.")


def require_workers(recipe: Recipe, workers: int, images: int | None = None) -> None:
    """Raise `UserError` where so many processes cannot share locks, or have no room for the batches under way.

    Args:
        images: in an epoch; None where that is not known yet.
    """
    if workers < 1:
        return
    try:
        multiprocessing.get_context(START_METHOD).Lock()
    except (OSError, ImportError) as error:
        raise UserError(
            f"The loader's workers cannot share a lock with the training ({error}); make {SHARED_MEMORY} writable or "
            "give --workers 0, which trains on the same batches."
        ) from None
    under_way = (PREFETCHED * workers + 1) * recipe.batch_size  # one batch is in the training
    needed = min(under_way, images or under_way) * (4 * 3 * IMAGE_SIZE**2 + 8)  # float32 images, int64 labels
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < needed:
            raise UserError(
                f"{SHARED_MEMORY} has {free / 1e6:.3g} MB free, but batches of {workers} loader workers take "
                f"{needed / 1e6:.3g} MB there; make it larger (docker: --shm-size) or give --workers 0, which trains "
                "on the same batches."
            )


def chosen_workers(asked: int | None) -> int:
    """Processes of the loader: those that are asked for; the paper's where nobody says, but none on one usable core."""
    if asked is None:
        return LOADER_WORKERS if machine.usable_cores() > 1 else 0
    return asked


def fewer_workers(pipeline: str, asked: int | None) -> str | None:
    """A sentence for the user where `chosen_workers` has fewer than the paper's; None elsewhere."""
    if pipeline != "loader" or asked is not None or chosen_workers(asked) == LOADER_WORKERS:
        return None
    return (
        f"0 loader workers instead of the paper's {LOADER_WORKERS}, because there is one usable core: the same "
        f"batches in less time; --workers {LOADER_WORKERS} has the paper's."
    )


def crowded(pipeline: str, workers: int) -> str | None:
    """A sentence for the user where workers and training have fewer cores than they need; None elsewhere.

    The number of workers is not changed: it is what the user asks for, and another number gives other times.
    """
    if pipeline != "loader" or workers <= (cores := machine.usable_cores()):
        return None
    processes = "1 loader worker" if workers == 1 else f"{workers} loader workers"
    return (
        f"{processes} and the training share {cores:g} usable core{'' if cores == 1 else 's'}: an epoch takes longer "
        "than with --workers 0, which gives the same batches."
    )


def steps_per_epoch(dataset: Dataset, recipe: Recipe) -> int:
    """Batches in an epoch; the last one may be smaller, as in torch's `DataLoader`."""
    return recipe.steps_per_epoch(len(dataset.train))


def learning_rates(dataset: Dataset, recipe: Recipe) -> LearningRates:
    """The learning rate of each step of the whole training; `UserError` for a warm-up that is as long."""
    return recipe.learning_rates(recipe.epochs * steps_per_epoch(dataset, recipe))


def batches(
    pipeline: str, dataset: Dataset, recipe: Recipe, seed: int, epoch: int, *, start: int = 0, workers: int = 0
) -> Iterator[Batch]:
    """The batches of `epoch` (from 1), beginning with step `start` (from 0).

    Yields:
        images, float32 [batch, 3, 32, 32], augmented and normalised; labels, int64 [batch].
    """
    order = augmentation.epoch_order(seed, epoch, len(dataset.train))[start * recipe.batch_size :]
    if pipeline == "loader":
        return _loader(dataset, recipe, seed, epoch, order, workers)
    return _vectorized(dataset, recipe, seed, epoch, order)


class _AugmentedImages(data.Dataset[tuple[Tensor, int]]):
    def __init__(self, dataset: Dataset, recipe: Recipe, draws: augmentation.Draws) -> None:
        self.train, self.recipe, self.draws = dataset.train, recipe, draws
        self.mean, self.std = list(dataset.mean), list(dataset.std)
        self.labels = dataset.train.labels.tolist()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = augmentation.augment_image(
            self.train.images[index], self.draws[index], self.recipe, self.mean, self.std
        )
        return image, self.labels[index]


def _loader(
    dataset: Dataset, recipe: Recipe, seed: int, epoch: int, order: np.ndarray, workers: int
) -> Iterator[Batch]:
    draws = augmentation.draw(recipe, seed, epoch, np.arange(len(dataset.train)))
    others = set(multiprocessing.active_children())
    started: list[BaseProcess] = []
    try:
        with starting_processes(START_METHOD):
            loaded = iter(
                data.DataLoader(
                    _AugmentedImages(dataset, recipe, draws),
                    recipe.batch_size,
                    sampler=order.tolist(),
                    num_workers=workers,
                    multiprocessing_context=START_METHOD if workers else None,
                    prefetch_factor=PREFETCHED if workers else None,
                    worker_init_fn=ignore_interrupt,
                    generator=torch.Generator(),  # it draws a seed for its workers: not from the global generator
                )
            )
        started = [child for child in multiprocessing.active_children() if child not in others]
        yield from map(tuple, loaded)
    except (RuntimeError, OSError, EOFError, MemoryError) as error:  # other errors are mistakes in this code
        if not workers:
            raise
        _let_it_end(error)
        raise _worker_error(error, started) from error


def _let_it_end(error: BaseException) -> None:
    """Give torch's loader what it needs to end its workers where not all of them could be started.

    Without, it would print a traceback as it is deleted (torch 2.15: its list of workers that run is made last).
    """
    trace = error.__traceback__
    while trace:
        loader: Any = trace.tb_frame.f_locals.get("self")
        if hasattr(loader, "_workers") and not hasattr(loader, "_workers_status"):
            loader._workers_status = [True] * len(loader._workers)
        trace = trace.tb_next


def _worker_error(error: Exception, workers: Sequence[BaseProcess]) -> WorkerError:
    """The error of a worker, or of its start, in one sentence; torch's text ends with the line that says it."""
    if isinstance(error, EOFError | ConnectionError):  # which its end causes a moment before the end is known
        gone = connection.wait([worker.sentinel for worker in workers], timeout=5)
        for worker in workers:
            if worker.sentinel in gone:
                worker.join()
    ended = [worker for worker in workers if worker.exitcode]
    lines = str(error).strip().splitlines() or [type(error).__name__]
    what = how_it_ended(ended[0]) if ended else f"failed ({lines[-1].rstrip('.')})"
    return WorkerError(f"A worker process of the loader {what}; give --workers 0, which trains on the same batches.")


def _vectorized(dataset: Dataset, recipe: Recipe, seed: int, epoch: int, order: np.ndarray) -> Iterator[Batch]:
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    chunk = max(1, CHUNK_IMAGES // recipe.batch_size) * recipe.batch_size
    for first in range(0, len(order), chunk):
        indices = order[first : first + chunk]
        rows = torch.from_numpy(indices)
        draws = augmentation.draw(recipe, seed, epoch, indices)
        images = augmentation.augment_images(dataset.train.images[rows], draws, recipe, mean, std)
        labels = dataset.train.labels[rows]
        yield from zip(torch.split(images, recipe.batch_size), torch.split(labels, recipe.batch_size), strict=True)
