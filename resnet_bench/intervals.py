"""Intervals of a mean and of a proportion. Measuring, results and analysis all use these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from resnet_bench.schema import Interval


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent values and its two-sided Student-t interval; at least two values."""
    mean = float(sum(values) / len(values))
    if min(values) == max(values):  # scipy's interval of no width is NaN
        return Interval(estimate=values[0], low=values[0], high=values[0], confidence=confidence, method="student-t")
    from scipy import stats  # here, because it takes two seconds to import

    low, high = stats.t.interval(confidence, len(values) - 1, loc=mean, scale=stats.sem(values))
    return Interval(estimate=mean, low=float(low), high=float(high), confidence=confidence, method="student-t")


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Proportion of successes with Wilson's score interval."""
    low, high = wilson(successes / trials, trials, confidence)
    return Interval(estimate=successes / trials, low=low, high=high, confidence=confidence, method="wilson")


def wilson(proportion: float, trials: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval (Wilson 1927) for a proportion of `trials`, which need not be a whole number.

    For whole numbers it is the interval of `scipy.stats.binomtest`, which takes only whole numbers.
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = proportion + z * z / (2 * trials)
    half = z * math.sqrt(proportion * (1 - proportion) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
