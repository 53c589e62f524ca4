"""Data pipelines: from a training set to the augmented batches of an epoch. Both give the same batches, bit for bit.

- `loader`: torch's `DataLoader` with worker processes and torchvision's transforms on one image at a time; the paper's.
- `vectorized`: whole chunks on tensors, in this process; `workers` are not used.
"""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from resnet_bench.data import augmentation
from resnet_bench.data.datasets import Dataset
from resnet_bench.recipe import Recipe

PIPELINES = ("loader", "vectorized")
CHUNK_IMAGES = 256  # about 3 MB of float32: large enough to spread the cost of the calls, small enough for the caches

Batch = tuple[Tensor, Tensor]


def prepare(pipeline: str) -> None:
    """Import what `pipeline` needs: torchvision takes seconds, which are to count in no epoch and no worker."""
    if pipeline == "loader":
        importlib.import_module("torchvision")


def steps_per_epoch(dataset: Dataset, recipe: Recipe) -> int:
    """Batches in an epoch; the last one may be smaller, as in torch's `DataLoader`."""
    return -(-len(dataset.train) // recipe.batch_size)


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


def _ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches the workers too; they end when the training, which finishes its step, closes them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _loader(
    dataset: Dataset, recipe: Recipe, seed: int, epoch: int, order: np.ndarray, workers: int
) -> Iterator[Batch]:
    draws = augmentation.draw(recipe, seed, epoch, np.arange(len(dataset.train)))
    loader = data.DataLoader(
        _AugmentedImages(dataset, recipe, draws),
        recipe.batch_size,
        sampler=order.tolist(),
        num_workers=workers,
        worker_init_fn=_ignore_interrupt,
        generator=torch.Generator(),  # the loader draws a seed for its workers: not from the global generator
    )
    return (tuple(batch) for batch in loader)


def _vectorized(dataset: Dataset, recipe: Recipe, seed: int, epoch: int, order: np.ndarray) -> Iterator[Batch]:
    mean, std = torch.tensor(dataset.mean), torch.tensor(dataset.std)
    chunk = max(1, CHUNK_IMAGES // recipe.batch_size) * recipe.batch_size
    for first in range(0, len(order), chunk):
        indices = order[first : first + chunk]
        rows = torch.from_numpy(indices)
        draws = augmentation.draw(recipe, seed, epoch, indices)
        images = augmentation.augment_images(dataset.train.images[rows], draws, recipe, mean, std)
        labels = dataset.train.labels[rows]
        yield from zip(images.split(recipe.batch_size), labels.split(recipe.batch_size), strict=True)
