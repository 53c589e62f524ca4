"""The difference between the accuracies of one network in two files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from resnet_bench.analysis.comparison.networks import Pair, Role
from resnet_bench.analysis.proportions import effective_trials, proportion_difference
from resnet_bench.schema import AccuracyResult, Interval


@dataclass(frozen=True)
class AccuracyDifference:
    """Accuracy in OTHER minus accuracy in BASE, as fractions of 1.

    Attributes:
        base, other: mean test accuracy over the seeds after `epoch`.
        seeds: the number of runs in BASE and in OTHER.
        epoch: the last one that all runs of both files reached.
        interval: of the difference.
        cut_off: the file whose runs stopped early while those of the other one are complete; else None.
    """

    base: float
    other: float
    seeds: tuple[int, int]
    epoch: int
    interval: Interval
    cut_off: Role | None = None

    @property
    def verdict(self) -> Literal["higher", "lower", "no significant difference"]:
        if self.interval.low > 0:
            return "higher"
        return "lower" if self.interval.high < 0 else "no significant difference"


def accuracy_difference(pair: Pair) -> AccuracyDifference | None:
    """The difference with Newcombe's interval; None where either file has no training of the network."""
    if not pair.base.trainings or not pair.other.trainings:
        return None
    epoch = min(len(r.epochs) for network in pair for r in network.trainings)
    (base, base_trials), (other, trials) = (_proportion(network.trainings, epoch) for network in pair)
    interval = proportion_difference(other, trials, base, base_trials)
    seeds = len(pair.base.trainings), len(pair.other.trainings)
    return AccuracyDifference(base, other, seeds, epoch, interval, _cut_off(pair))


def _cut_off(pair: Pair) -> Role | None:
    base_complete, other_complete = (all(r.complete for r in network.trainings) for network in pair)
    if base_complete == other_complete:
        return None
    return "other" if base_complete else "base"


def _proportion(trainings: Sequence[AccuracyResult], epoch: int) -> tuple[float, float]:
    """(mean accuracy after the epoch, effective number of test images)."""
    accuracies = [r.epochs[epoch - 1].test_accuracy for r in trainings]
    return float(np.mean(accuracies)), effective_trials(accuracies, float(trainings[0].dataset.test_images))
