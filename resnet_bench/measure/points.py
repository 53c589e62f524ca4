"""The points of a training at which blocks of steps are timed, and the share of the training that each stands for.

The time of a step changes in the course of a training: hidden units die, and the moments of their weights decay. So
blocks are timed at fixed steps, whatever the machine's speed: a few within the first thousand steps, where most
changes, and then after the epochs 1, 3, 6, 10 and 15 of the paper's recipe, or the same parts of a shorter one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from resnet_bench.recipe import Recipe

EARLY_STEPS = (0, 200, 1000)
"""Points in the first epoch, as far as it has so many steps."""

SHORT_TRAINING_STEPS = 128
"""A training of one epoch with at most so many steps is timed as a whole: its sampled blocks would be as many steps."""

LATER_EPOCHS = (1, 3, 6, 10, 15)
"""Points after so many epochs of the paper's 15."""


def training_points(epochs: int, steps_per_epoch: int) -> dict[int, float]:
    """The points of a training of so many epochs.

    Returns:
        {step: weight}, by rising step, where `step` counts the steps of the training before the point. The last point
        is at the training's end. The weights are those of the trapezoidal rule and make 1: the mean of the points'
        step times with these weights is the mean over the training if the time changes linearly between points.
    """
    later = {max(1, round(epochs * e / Recipe().epochs)) * steps_per_epoch for e in LATER_EPOCHS}
    steps = sorted(later | {step for step in EARLY_STEPS if step < steps_per_epoch})
    return dict(zip(steps, _trapezoidal(steps), strict=True))


def _trapezoidal(steps: Sequence[int]) -> list[float]:
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    halves = [a + b for a, b in zip([0, *gaps], [*gaps, 0], strict=True)]
    return [half / 2 / (steps[-1] - steps[0]) for half in halves]
