"""How numbers are written in the evidence of a claim."""

from __future__ import annotations

import math
from collections.abc import Callable

from resnet_bench.analysis.conditions import Condition
from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.schema import DatasetInfo
from resnet_bench.wording import listed

_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


def counted(number: int, noun: str) -> str:
    """`one seed`, `3 seeds`, `2 processes`."""
    if number == 1:
        return f"one {noun}"
    return f"{number:,} {noun}{'es' if noun.endswith('s') else 's'}"


def points_text(mean: Condition, error: float) -> str:
    """The mean of differences of fractions, in percentage points: `+2.1 [+1.3, +2.9] points`."""
    return f"{_bracketed(mean, error, lambda x: f'{100 * x:+.1f}')} points"


def factor_text(mean: Condition, error: float, decimals: int = 3) -> str:
    """The mean of logarithms, as the number that it is the logarithm of: `0.132 [0.130, 0.134]`."""
    return _bracketed(mean, error, lambda x: f"{math.exp(min(max(x, -600.0), 600.0)):.{decimals}f}")


def _bracketed(mean: Condition, error: float, write: Callable[[float], str]) -> str:
    """The mean with its interval; of values that are too few for one, the values."""
    if len(mean.values) < LEAST_VALUES:
        return listed([write(value) for value in mean.values])
    interval = mean.interval(error)
    return f"{write(interval.estimate)} [{write(interval.low)}, {write(interval.high)}]"


def place_text(dataset: DatasetInfo) -> str:
    """`CIFAR-10`, `a subset of CIFAR-100`, `folder:my-images`."""
    name = _NAMES.get(dataset.name, dataset.name)
    return f"a subset of {name}" if dataset.subset else name


def images_text(dataset: DatasetInfo) -> str:
    """`CIFAR-10 (10,000 training and 2,000 test images)`."""
    images = f"{dataset.train_images:,} training and {dataset.test_images:,} test images"
    return f"{_NAMES.get(dataset.name, dataset.name)} ({images})"
