"""The difference of two proportions, and how much several proportions are worth together.

Accuracies are proportions of the test images. Those of several runs scatter by more than the choice of images explains;
that scatter counts with Student's t (`effective_trials`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from resnet_bench.intervals import wilson
from resnet_bench.schema import Interval

CONFIDENCE = 0.95


def proportion_difference(proportion: float, trials: float, base: float, base_trials: float) -> Interval:
    """`proportion - base` with its interval by Newcombe's hybrid score method (Newcombe 1998, method 10)."""
    low, high = wilson(proportion, trials)
    base_low, base_high = wilson(base, base_trials)
    difference = proportion - base
    return Interval(
        estimate=difference,
        low=difference - math.hypot(proportion - low, base_high - base),
        high=difference + math.hypot(high - proportion, base - base_low),
        confidence=CONFIDENCE,
        method="newcombe",
    )


def effective_trials(proportions: Sequence[float], trials: float) -> float:
    """How many independent trials several runs with `trials` each are worth, given how far the runs scatter.

    Runs that scatter more than binomial sampling explains count for less: the sum of their trials is divided by the
    overdispersion (Rao and Scott 1992). Few runs hardly show how far runs scatter, so a normal quantile z would make
    the interval too short. The trials are therefore also multiplied by (z/t)², which makes it as long as Student's t
    with `runs - 1` degrees of freedom does (Korn and Graubard 1998). The result is never more than the sum of the
    trials. A single run does not show how runs scatter and counts in full.
    """
    runs = len(proportions)
    total = float(runs) * trials
    mean = float(np.mean(proportions))
    sampling = mean * (1 - mean) / trials
    if runs < 2 or sampling == 0:
        return total
    overdispersion = float(np.var(proportions, ddof=1)) / sampling
    quantile = 0.5 + CONFIDENCE / 2
    stretch = float(stats.t.ppf(quantile, runs - 1) / stats.norm.ppf(quantile))
    return total / max(1.0, overdispersion * stretch**2)
