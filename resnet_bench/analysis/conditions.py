"""Whether a mean lies in a range: the one test behind the claims and behind the equivalence of engines.

A quantity has one value for each independent replicate: a seed for accuracies, a process for times. Its mean has
Student's t interval over these values, so the interval holds what differs from replicate to replicate.
`Condition.answer` has three answers: the whole interval lies within the range (true), the whole interval lies outside
(false), or neither (None). So a value that is merely not significant is never taken for agreement. Where the range is
± a margin, this is the procedure of two one-sided tests (Schuirmann 1987; Lakens 2017), and its counterpart for a
difference larger than the margin.

Several questions are answered together by Holm's method (Holm 1979, "A Simple Sequentially Rejective Multiple Test
Procedure"): `step_down`.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.schema import Interval

TYPICAL_SPREAD = 0.013
"""Standard deviation of an accuracy from seed to seed, for plans where the results have a single seed.

It is what `reports/accuracy-cifar10` has after 3 epochs on 10,000 images: the root mean square over its 15 sets of
three seeds. No verdict rests on it.
"""

MOST_PLANNED = 1000
"""A plan for more seeds than this is no plan."""

_Key = TypeVar("_Key", bound=Hashable)
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Condition:
    """A quantity and the range that its mean has to lie in.

    Attributes:
        values: one for each seed or process.
        low, high: the ends of the range.
        against_one: whether the values were set against a single run of somebody else. That run is another draw, so the
            interval is one for the difference between the mean of the values and one more value.
    """

    values: Sequence[float]
    low: float = -math.inf
    high: float = math.inf
    against_one: bool = False

    @property
    def fails(self) -> bool:
        """Whether the mean of the values lies outside the range, which need not be significant."""
        return not self.low <= self._mean <= self.high

    def interval(self, error: float) -> Interval:
        """The interval of the mean, from at least two values; it misses the true one with the probability `error`."""
        mean, half = self._mean, self._half_width(self._spread, len(self.values), error)
        return Interval(estimate=mean, low=mean - half, high=mean + half, confidence=1 - error, method="student-t")

    def answer(self, error: float) -> bool | None:
        """Whether the mean lies in the range. Each of the two false answers has at most half of `error`."""
        if len(self.values) < LEAST_VALUES:
            return None
        interval = self.interval(error)
        if self.low < interval.low and interval.high < self.high:
            return True
        return False if interval.high < self.low or interval.low > self.high else None

    def needed(self, error: float) -> int | None:
        """With how many values there would be an answer, if mean and scatter stay; None for more than `MOST_PLANNED`.

        The scatter is that of the values. A single value does not show it; it is then taken for an accuracy, with
        `TYPICAL_SPREAD` for each of the runs that it is the difference of.
        """
        single = TYPICAL_SPREAD if self.against_one else math.sqrt(2) * TYPICAL_SPREAD
        spread = self._spread if len(self.values) > 1 else single
        room = min(abs(self._mean - self.low), abs(self._mean - self.high))
        planned = range(LEAST_VALUES, MOST_PLANNED + 1)
        first = bisect_left(planned, True, key=lambda n: self._half_width(spread, n, error) < room)
        return planned[first] if first < len(planned) else None

    @functools.cached_property  # a condition is asked many times
    def _mean(self) -> float:
        return fmean(self.values)

    @functools.cached_property
    def _spread(self) -> float:
        """The standard deviation; `statistics.stdev` takes twenty times as long, because it adds fractions."""
        return math.dist(self.values, [self._mean] * len(self.values)) / math.sqrt(len(self.values) - 1)

    def _half_width(self, spread: float, values: int, error: float) -> float:
        """Of the interval of the mean of so many values with this standard deviation."""
        return _quantile(error, values - 1) * spread * math.sqrt(1 / values + self.against_one)


@functools.lru_cache(maxsize=10_000)
def _quantile(error: float, freedom: int) -> float:
    from scipy import stats  # here, because it takes two seconds to import

    return float(stats.t.ppf(1 - error / 2, freedom))


def step_down(questions: Mapping[_Key, Callable[[float], _Answer | None]], error: float) -> dict[_Key, _Answer]:
    """The answers that can be given so that any of them is false with the probability `error` at most.

    Args:
        questions: each is asked with the error that it may make, and answers None where it cannot answer with that. An
            answer given for some error has to be given for every larger one too.

    Returns:
        {key: answer} without the questions that stay open. Those were last asked with `error` shared among them.
    """
    answers: dict[_Key, _Answer] = {}
    while still := [key for key in questions if key not in answers]:
        asked = {key: questions[key](error / len(still)) for key in still}
        found = {key: answer for key, answer in asked.items() if answer is not None}
        if not found:
            break
        answers |= found
    return answers
