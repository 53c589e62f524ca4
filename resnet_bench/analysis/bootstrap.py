"""Statistics of a comparison: bootstrapped ratios of mean times, and the difference of two proportions.

A ratio of means gets a bootstrap interval: the units that were measured (blocks, or whole runs) are drawn again with
replacement, and the 2.5 % and 97.5 % percentiles of the resampled ratio are taken on the logarithmic scale. With few
units these percentiles are known to lie too near (Hesterberg 2015, "What Teachers Should Know About the Bootstrap",
section 4): the resampled variance lacks a factor n/(n-1), and a normal quantile stands where Student's t belongs. Both
are mended by stretching the percentiles' distance from the estimate by √(n/(n-1)) · t/z, with Welch's degrees of
freedom for t.
In simulation the 95 % interval then covers in 95 to 98 % of cases, from 2 units a side on (`tests/test_statistics.py`).
The proportion of several runs is treated alike: their scatter counts with Student's t (`effective_trials`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from resnet_bench.intervals import wilson
from resnet_bench.schema import Interval

RESAMPLES = 10_000
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogMean:
    """The logarithm of a mean time, or sums and differences of such, with its bootstrap distribution.

    Attributes:
        estimate: from all units.
        draws: [RESAMPLES], the same statistic of each resample, its spread corrected by √(n/(n-1)).
        sources: (variance of the draws, degrees of freedom) of each independent sample that went in.
    """

    estimate: float
    draws: Floats
    sources: tuple[tuple[float, float], ...]

    def within(self, other: LogMean) -> LogMean:
        """Logarithm of the ratio of two means of one sample, whose units were drawn together."""
        draws = self.draws - other.draws
        freedom = min(f for _, f in (*self.sources, *other.sources))
        return LogMean(self.estimate - other.estimate, draws, ((float(np.nanvar(draws)), freedom),))

    def against(self, other: LogMean) -> LogMean:
        """Logarithm of the ratio of two means (or of two ratios) of independent samples."""
        return LogMean(self.estimate - other.estimate, self.draws - other.draws, (*self.sources, *other.sources))

    def ratio(self, together: int = 1) -> Interval:
        """The ratio with its 95 % bootstrap interval.

        `together` ratios of which all are to lie in their intervals with that confidence get wider ones (Bonferroni):
        looking at five networks must not find a difference five times as often.
        """
        tail = (1 - CONFIDENCE) / 2 / together
        low, high = np.nanquantile(self.draws, [tail, 1 - tail])
        stretch = stats.t.ppf(1 - tail, self._freedom()) / stats.norm.ppf(1 - tail)
        return Interval(
            estimate=_exp(self.estimate),
            low=_exp(self.estimate - stretch * max(self.estimate - low, 0.0)),
            high=_exp(self.estimate + stretch * max(high - self.estimate, 0.0)),
            confidence=CONFIDENCE,
            method="bootstrap" if together == 1 else f"bootstrap, {together} ratios together",
        )

    def _freedom(self) -> float:
        """Welch and Satterthwaite's degrees of freedom."""
        total = sum(v for v, _ in self.sources)
        if total == 0:
            return min(f for _, f in self.sources)
        return 1 / sum((v / total) ** 2 / f for v, f in self.sources)


def _exp(x: float) -> float:
    return math.exp(min(max(x, -600.0), 600.0))  # two blocks that lie far apart must not overflow


def bootstrap(values: Floats, seed: Sequence[int]) -> list[LogMean]:
    """Resample the units of one sample and take each column's mean.

    Args:
        values: [units, columns], seconds above 0; a row is drawn as a whole, so that what the columns share (the
            machine's drift in a round) stays shared. NaN where a column has no value; at least two values a column.
        seed: of numpy's generator; independent samples need different seeds.

    Returns:
        One `LogMean` a column.
    """
    units = len(values)
    present = ~np.isnan(values)
    counts = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), RESAMPLES).astype(np.float64)
    drawn = counts @ present
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.where(drawn > 0, counts @ np.where(present, values, 0.0) / drawn, np.nan)
    found = []
    for column, n in enumerate(present.sum(axis=0)):
        estimate = math.log(np.nanmean(values[:, column]))
        draws = estimate + (np.log(means[:, column]) - estimate) * math.sqrt(n / (n - 1))
        found.append(LogMean(estimate, draws, ((float(np.nanvar(draws)), float(n - 1)),)))
    return found


def mean_log(logs: Sequence[LogMean]) -> LogMean:
    """The mean of logarithms drawn together: the geometric mean of ratios over networks measured in common rounds.

    The `LogMean`s have their sources in the same order, as `a.against(b)` of columns of the same two samples has.
    """
    draws = np.mean([m.draws for m in logs], axis=0)
    # The variance of the mean divides over the sources as the summed variances do.
    by_source = [sum(m.sources[i][0] for m in logs) for i in range(len(logs[0].sources))]
    total, variance = sum(by_source), float(np.nanvar(draws))
    sources = tuple(
        (variance * share / total if total else 0.0, min(m.sources[i][1] for m in logs))
        for i, share in enumerate(by_source)
    )
    return LogMean(float(np.mean([m.estimate for m in logs])), draws, sources)


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
    """How many independent trials several runs with `trials` each are worth, given how far the runs lie apart.

    Runs that scatter more than binomial sampling explains count for less: their summed trials are divided by the
    overdispersion, as in Rao and Scott 1992. Few runs hardly tell how far runs scatter, so a normal quantile z over
    these trials would give too short an interval; the trials times (z/t)² make it as long as Student's t with
    `runs - 1` degrees of freedom does (Korn and Graubard 1998). Never do they count for more than they have. A single
    run says nothing of how runs scatter and counts in full.
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
