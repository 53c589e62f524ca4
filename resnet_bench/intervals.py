"""Intervals of a mean, of a scatter and of a proportion. Measuring, results and analysis all use these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, stdev

from resnet_bench.schema import Interval

LEAST_VALUES = 3
"""Fewer processes, sessions or seeds than this have no interval and decide nothing. The quantile for two is 12.7: such
an interval says nothing, and whether the scatter of two values is that of more cannot be seen."""

ENOUGH_PROCESSES = 5
"""With fewer than this, verdicts on single networks are doubtful where processes have modes, such as the two memory
layouts with which default Adam takes 17 or 40 ms. Three processes are all of one mode in a quarter of the cases. Of
simulated comparisons of the same code, 14 % then claim a difference in some network, and fewer than 5 % from five
processes on (`tests/surroundings/simulate_coverage.py`)."""


def over_processes(values: Sequence[float]) -> Interval | None:
    """Mean of one positive value from each process, with its 95 % interval; None for fewer than `LEAST_VALUES`.

    The model is the nested one-way random-effects model (Montgomery, "Design and Analysis of Experiments", nested
    designs; for times of programs Georges, Buytaert and Eeckhout 2007, and Kalibera and Jones 2013, "Rigorous
    Benchmarking in Reasonable Time"): block b of process p takes exp(m + a_p + e_pb), where a_p is what the process
    keeps for its whole life, such as its memory layout, and e_pb is what differs from block to block, however that is
    correlated within the process. Every process has as many blocks, so its mean is all that its blocks tell about m,
    and the means of the processes are independent: the interval is over them. pyperf replicates processes so too.

    It assumes that the processes are drawn from what a user will meet, independently of one another, and that the
    machine does not drift from process to process. It says nothing about other days or machines. In simulation
    (`tests/surroundings/simulate_coverage.py`) it covers in 94 to 96 % of cases from three processes on, however blocks
    are correlated and up to effects of processes of 30 %. Where half of the processes have a second mode it takes five
    processes, and where a fifth of them have it, fifteen: fewer are often all of one mode and do not show the other.
    """
    return positive_mean_interval(values) if len(values) >= LEAST_VALUES else None


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent values, at least two, and its two-sided Student-t interval: for what may be negative."""
    mean, half = _mean_and_half_width(values, confidence)
    return Interval(estimate=mean, low=mean - half, high=mean + half, confidence=confidence, method="student-t")


def positive_mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Mean of independent positive values, times or ratios of times; its interval never reaches 0.

    Student's t on the logarithmic scale: log(mean) ± t · s/mean, where s is the standard error of the mean and s/mean,
    by the delta method, that of its logarithm. So the estimate stays the mean, which the mean of the logarithms is not.
    Meeker and Escobar (1998, "Statistical Methods for Reliability Data", chapter 7) make the intervals of positive
    parameters so; t in place of their normal quantile is for the few values there are. It assumes that the mean's
    logarithm is about normal. In simulation (`tests/test_intervals.py`) the interval covers as often as Student's own
    for values that scatter by a few percent, and more often for skewed ones.
    """
    mean, half = _mean_and_half_width(values, confidence)
    factor = math.exp(half / mean) if half else 1.0
    return Interval(estimate=mean, low=mean / factor, high=mean * factor, confidence=confidence, method="log-t")


def _mean_and_half_width(values: Sequence[float], confidence: float) -> tuple[float, float]:
    if min(values) == max(values):  # so that rounding gives the equal values no width
        return values[0], 0.0
    from scipy import stats  # here, because it takes two seconds to import

    t = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1))
    return float(sum(values) / len(values)), t * float(stats.sem(values))


def deviation_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Standard deviation of independent values, at least two, and its two-sided interval by chi-squared.

    (n - 1) s²/σ² has the chi-squared distribution with n - 1 degrees of freedom where the values are normal. Few values
    tell little of their scatter: of five, the interval is from 0.6 to 2.9 times the estimate.
    """
    found, freedom = stdev(values), len(values) - 1
    low = high = found
    if found:
        from scipy import stats  # here, because it takes two seconds to import

        tail = (1 - confidence) / 2
        low, high = (found * math.sqrt(freedom / float(stats.chi2.ppf(p, freedom))) for p in (1 - tail, tail))
    return Interval(estimate=found, low=low, high=high, confidence=confidence, method="chi-squared")


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
