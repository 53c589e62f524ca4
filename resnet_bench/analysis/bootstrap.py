"""Bootstrapped ratios of mean times.

A ratio of means gets a bootstrap interval. The rounds that were measured (or the runs, where there are several) are
drawn again with replacement. The ends of the interval are the 2.5 % and 97.5 % percentiles of the resampled ratio, on
the logarithmic scale. With few values these percentiles lie too near the estimate (Hesterberg 2015, "What Teachers
Should Know About the Bootstrap", section 4): the resampled variance lacks a factor n/(n-1), and a normal quantile
stands in place of Student's t. So their distance from the estimate is multiplied by √(n/(n-1)) · t/z, where t has
Welch's degrees of freedom. In simulation the 95 % interval then covers the true ratio in 95 to 98 % of cases, from 2
values a side on (`tests/analysis/test_bootstrap.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from resnet_bench.analysis.proportions import effective_trials as effective_trials
from resnet_bench.analysis.proportions import proportion_difference as proportion_difference
from resnet_bench.schema import Interval

RESAMPLES = 10_000
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogMean:
    """The logarithm of a mean time, or a sum or difference of such logarithms, with its bootstrap distribution.

    Attributes:
        estimate: from all values.
        draws: float64 [RESAMPLES], the same statistic of each resample; its spread is corrected by √(n/(n-1)).
        sources: (variance of the draws, degrees of freedom) of each independent sample that it comes from.
    """

    estimate: float
    draws: Floats
    sources: tuple[tuple[float, float], ...]

    def within(self, other: LogMean) -> LogMean:
        """Logarithm of the ratio of two means of one sample, whose rounds were drawn together."""
        draws = self.draws - other.draws
        freedom = min(f for _, f in (*self.sources, *other.sources))
        return LogMean(self.estimate - other.estimate, draws, ((float(np.nanvar(draws)), freedom),))

    def against(self, other: LogMean) -> LogMean:
        """Logarithm of the ratio of two means (or of two ratios) of independent samples."""
        return LogMean(self.estimate - other.estimate, self.draws - other.draws, (*self.sources, *other.sources))

    def ratio(self, together: int = 1) -> Interval:
        """The ratio with its 95 % bootstrap interval.

        Args:
            together: the number of ratios that shall all lie in their intervals with that confidence. The more there
                are, the wider the interval (Bonferroni): a look at five networks must not find a difference five times
                as often.
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
    return math.exp(min(max(x, -600.0), 600.0))  # the interval of two blocks that lie far apart must not overflow


def bootstrap(values: Floats, seed: Sequence[int]) -> list[LogMean]:
    """Resample the rounds of one sample and take each column's mean.

    Args:
        values: [rounds, columns], seconds above 0; NaN where a column has no value, with at least two values a column.
            A row is drawn as a whole, so that what the columns of a round share (the machine's drift) stays shared.
        seed: of numpy's generator; independent samples need different seeds.

    Returns:
        One `LogMean` a column.
    """
    rounds = len(values)
    present = ~np.isnan(values)
    counts = np.random.default_rng(seed).multinomial(rounds, np.full(rounds, 1 / rounds), RESAMPLES).astype(np.float64)
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
    """The mean of logarithms: the geometric mean of the ratios of networks whose rounds were drawn together.

    Args:
        logs: with their sources in the same order, as `a.against(b)` of columns of the same two samples gives them.
    """
    draws = np.mean([m.draws for m in logs], axis=0)
    # Each source has the share in the variance of the mean that it has in the sum of the variances.
    by_source = [sum(m.sources[i][0] for m in logs) for i in range(len(logs[0].sources))]
    total, variance = sum(by_source), float(np.nanvar(draws))
    sources = tuple(
        (variance * share / total if total else 0.0, min(m.sources[i][1] for m in logs))
        for i, share in enumerate(by_source)
    )
    return LogMean(float(np.mean([m.estimate for m in logs])), draws, sources)
