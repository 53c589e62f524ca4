"""Data sets in memory: `load` reads CIFAR-100, CIFAR-10, a folder or the synthetic set, or takes a subset of it."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from resnet_bench import progress
from resnet_bench.data import cifar, class_folders, synthetic
from resnet_bench.data.sources import SPLITS, Array, Source, SourceSplit
from resnet_bench.data.storage import NoDataFolderError, data_folder
from resnet_bench.errors import UserError
from resnet_bench.folders import expanded
from resnet_bench.schema import DatasetInfo

CHOICES = "auto, cifar100, cifar10, synthetic, folder:PATH"

AUTO_DOWNLOAD_SECONDS = 60  # `auto` gives a download of CIFAR-100 up after this long


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split, in memory.

    Attributes:
        images: uint8 [n, 3, 32, 32], contiguous, RGB.
        labels: int64 [n], each below the data set's `num_classes`.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images in use.

    Attributes:
        name: `cifar100`, `cifar10`, `synthetic` or `folder:` and the last component of its path.
        train: the images for training.
        test: the images on which accuracy is measured.
        classes: the class names; a label is an index into them.
        synthetic: whether the images are drawn, so that no accuracy on them compares with a published one.
        subset: whether the data set has more images than are in use.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    synthetic: bool
    subset: bool

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of each channel (RGB) over the training images in use, with pixel values in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of each channel, likewise; 1 for a constant channel, so that it is safe to divide by."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        counts = torch.zeros(3, 256, dtype=torch.int64)  # occurrences of each value: sums of them are exact
        for chunk in torch.split(self.train.images, 1000):
            for channel in range(3):
                counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
        mean, std = [], []
        for row in counts.tolist():
            n = sum(row)
            total, squares = sum(v * c for v, c in enumerate(row)), sum(v * v * c for v, c in enumerate(row))
            mean.append(total / n / 255)
            std.append(math.sqrt((n * squares - total**2) / n**2) / 255 or 1.0)
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal over class count, image counts, pixels and labels, training set first."""
        digest = hashlib.sha256(json.dumps([self.num_classes, len(self.train), len(self.test)]).encode())
        for split in (self.train, self.test):
            digest.update(split.images.numpy().data)
            digest.update(split.labels.numpy().astype("<i8").data)
        return digest.hexdigest()

    def info(self) -> DatasetInfo:
        """What every result records about the images that were used."""
        return DatasetInfo(
            name=self.name,
            synthetic=self.synthetic,
            subset=self.subset,
            train_images=len(self.train),
            test_images=len(self.test),
            classes=self.num_classes,
            sha256=self.sha256,
            mean=self.mean,
            std=self.std,
        )


def load(
    spec: str,
    *,
    train_images: int | None = None,
    test_images: int | None = None,
    seed: int = 0,
    at_most: Collection[str] = (),
) -> Dataset:
    """Load a data set, or a stratified subset of it.

    Args:
        spec: `cifar100` or `cifar10` (downloaded once), `folder:PATH` with `{train,test}/<class>/*` in it,
            `synthetic`, or `auto`. `auto` is CIFAR-100 if it is in the data folder, or if its server answers within
            `cifar.ANSWER_SECONDS` and delivers it within `AUTO_DOWNLOAD_SECONDS`; otherwise it is `synthetic`, and a
            line on stderr says so.
        train_images: number of training images to use; all by default.
        test_images: number of test images to use; all by default.
        seed: decides which images a subset holds, and nothing else.
        at_most: names of splits (`train`, `test`) whose number is an upper limit: a smaller split is used whole.

    Raises:
        UserError: for an unknown data set, missing or damaged files, or more images than there are.
    """
    with progress.task("reading the images"):
        return _loaded(_source(spec), {"train": train_images, "test": test_images}, seed, at_most)


def with_classes(dataset: Dataset, classes: int) -> Dataset:
    """The same images with labels of so many classes in turn, which mean nothing: for measuring what classes cost."""
    train, test = (ImageSet(s.images, torch.arange(len(s)) % classes) for s in (dataset.train, dataset.test))
    return replace(dataset, train=train, test=test, classes=tuple(map(str, range(classes))))


def _loaded(source: Source, counts: Mapping[str, int | None], seed: int, at_most: Collection[str]) -> Dataset:
    sets, subset = {}, False
    for split, count in counts.items():
        labels = source.splits[split].labels
        if count is not None and split in at_most:
            count = min(count, len(labels))
        if count is not None and not 1 <= count <= len(labels):
            raise UserError(
                f"--{split}-images is {count}; give a number from 1 to {len(labels)}, as many as {source.name} has."
            )
        indices = np.arange(len(labels)) if count is None else stratified(labels, count, seed, split)
        subset |= len(indices) < len(labels)
        images = np.ascontiguousarray(source.splits[split].images(indices))
        sets[split] = ImageSet(torch.from_numpy(images), torch.from_numpy(labels[indices]))
    return Dataset(source.name, sets["train"], sets["test"], source.classes, source.synthetic, subset)


def stratified(labels: Array, count: int, seed: int, split: str) -> Array:
    """Choose images at random, from each class equally many as far as the class has them.

    Args:
        labels: int [n].
        count: number of images to choose, at most n.
        seed: the same seed gives the same images, and a smaller subset is contained in a larger one.
        split: `train` or `test`; their choices are independent.

    Returns:
        The indices of the chosen images, ascending, int64 [count].
    """
    # Sort by the raw output of Philox, which is the same in every version of numpy; its `shuffle` may change.
    generator = np.random.Philox(key=np.array([seed % 2**64, SPLITS.index(split)], np.uint64))
    class_order = np.argsort(np.argsort(generator.random_raw(int(labels.max()) + 1), kind="stable"))
    order = np.lexsort((generator.random_raw(len(labels)), labels))  # class by class, shuffled within each
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(first, sizes)  # an image's place in its class
    # Take the first image of every class, then the second of every class, and so on, until there are `count`.
    chosen: Array = np.sort(order[np.lexsort((class_order[labels[order]], rank))[:count]])
    return chosen


def _source(spec: str) -> Source:
    kind, _, path = spec.partition(":")
    if spec == "auto":
        return _auto()
    if spec in cifar.NAMES:
        return cifar.read(spec)
    if spec == "synthetic":
        return _synthetic()
    if kind == "folder" and path:
        return class_folders.read(expanded(path))
    raise UserError(f"There is no data set {spec!r}; choose one of {CHOICES}.")


def _synthetic() -> Source:
    def split(name: str) -> SourceSplit:
        return SourceSplit(synthetic.labels(name), lambda indices: synthetic.draw(name, indices))

    return Source("synthetic", synthetic.CLASSES, {name: split(name) for name in SPLITS}, synthetic=True)


def _auto() -> Source:
    try:
        return cifar.read("cifar100", time_limit=AUTO_DOWNLOAD_SECONDS)
    except cifar.UnavailableError as error:
        print(
            f"*** Using the SYNTHETIC data set: CIFAR-100 is not in {data_folder()} and cannot be fetched now "
            f"({error.reason}); --dataset cifar100 insists on it. ***",
            file=sys.stderr,
            flush=True,
        )
    except NoDataFolderError as error:
        print(f"*** Using the SYNTHETIC data set. {error} ***", file=sys.stderr, flush=True)
    return _synthetic()
