"""A data set before a subset of it is taken: the common form of CIFAR, class folders and the synthetic set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

from resnet_bench.architectures import IMAGE_SIZE

Array: TypeAlias = NDArray[Any]

SPLITS = ("train", "test")
IMAGE_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)  # channels, rows, columns


@dataclass(frozen=True)
class SourceSplit:
    """All labels of a split, and a way to get any of its images, so that only those in use are drawn.

    Attributes:
        labels: int64 [n].
        images: takes ascending indices, int64 [m], and returns these images, uint8 [m, 3, 32, 32].
    """

    labels: Array
    images: Callable[[Array], Array]

    @classmethod
    def from_arrays(cls, images: Array, labels: Array) -> SourceSplit:
        """A split whose images are all in memory already: uint8 [n, 3, 32, 32]."""
        return cls(labels, lambda indices: images if len(indices) == len(images) else images[indices])


@dataclass(frozen=True)
class Source:
    """A whole data set; `Dataset` explains the fields that have the same names."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, SourceSplit]  # by the names in SPLITS
    synthetic: bool = False
