"""Clocks for the phases of a step, and the estimate of an epoch's time from blocks of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from resnet_bench.results import Interval

PHASES = ("data", "forward", "backward", "optimizer")
"""Waiting for the batch; logits and loss; gradients; Adam's update."""


class Clock:
    """Adds up the seconds of each phase. `lap(phase)` ends a phase, which began where the previous one ended."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._last = time.perf_counter()

    def start(self) -> None:
        """Begin the next phase now; what passed since the last lap belongs to none."""
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] += now - self._last
        self._last = now


class NoClock(Clock):
    """A clock that measures nothing, for the benchmark of what the clocks cost."""

    def start(self) -> None:
        pass

    def lap(self, phase: str) -> None:
        pass


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
    logarithm is about normal. In simulation (`tests/test_timing.py`) the interval covers as often as Student's own for
    values that scatter by a few percent, and more often for skewed ones.
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
