"""Steps in a series of times, one value a session: after which sessions its level changed, and how sure that is.

The test asks whether a series has any step. Its statistic is that of Bai and Perron (1998, "Estimating and Testing
Linear Models with Multiple Structural Changes"), the double maximum for one or two changes: the largest F of all ways
to cut the logarithms of the times once or twice, each level at least `LEAST_LEVEL` sessions long. Two changes at once
are needed for a slow spell that ended, which a single cut does not show. Values beyond 3.5 of Iglewicz and Hoaglin's
modified z (1993, "How to Detect and Handle Outliers"), taken around the median of the five sessions about each and then
of all, are first drawn in to that, so that single busy sessions make no step and seldom hide or displace one.

Sessions that follow one another resemble one another, as the machine drifts. Tests for independent values (Pettitt's,
Mann and Whitney's between all cuts, permutations) then find a step in up to half of the series that have none; asv
allows for the same (its pull request 444). Here the statistic is compared with simulated series of the same length
without a step, whose noise is normal and autoregressive of order 1. Its correlation is drawn between 0 and 0.8, smaller
ones more often; of all series those count that are about as correlated, around their best levels, as the one that was
measured. The p-value is the share of these whose statistic is at least as large. So the result does not depend on the
unit of the times, and it is the same every time: the seed of the simulation is the length of the series.

Simulated (`tests/surroundings/simulate_steps.py`, `reports/history-steps.md`), series of the same code have a step in 1
to 6 % of cases where neighbours correlate by up to 0.4, in 7 to 14 % at 0.6, and in 10 to 33 % at 0.8; noise with heavy
tails makes fewer. A step of 12 % in noise of 3 % is found in 87 % of cases after 6 sessions before it and 6 behind, in
74 % with 3 and 3.

Several steps are found by binary segmentation: what is left and right of a step is tested in turn. Then each step has
to hold in what lies between its neighbours, where its place is estimated anew (Bai 1997, "Estimating Multiple Breaks
One at a Time").
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from resnet_bench.intervals import LEAST_VALUES

Floats = NDArray[np.float64]
Whole = NDArray[np.intp]

ERROR = 0.05
"""How often, about, a series without a step may have one found."""

LEAST_LEVEL = LEAST_VALUES
"""The fewest sessions that make a level."""

LEAST_SESSIONS = 2 * LEAST_LEVEL
"""With fewer sessions nobody can tell."""

SIMULATED, ALIKE = 20_000, 2_000
"""Series that are simulated, and how many of these, the most alike in correlation, a measured one is compared with."""

AROUND = 2 * LEAST_LEVEL - 1
"""Neighbouring sessions whose median a value is compared with: a level, however short, has the most of them."""

OUTLYING = 3.5 * 1.4826
"""Median absolute deviations beyond which values are drawn in; of normal noise, 3.5 standard deviations."""

NARROWER = 0.727
"""The median absolute deviation of normal noise around the median of five neighbours, over that around its level."""


class Step(NamedTuple):
    """The level changed.

    Attributes:
        first: index of the first value of the new level.
        p_value: the larger one of that of any step in the series, and that of one between this step's neighbours.
    """

    first: int
    p_value: float


def steps(seconds: Sequence[float]) -> list[Step]:
    """The steps of a series of positive times in the order in which they were measured; none for too few values."""
    logs = np.log(np.asarray(seconds, dtype=float))
    if len(logs) < LEAST_SESSIONS:
        return []
    # A billionth is less than anybody measures, and more than other units change the last digits by.
    logs = np.round(logs - logs.mean(), 9)
    p_value, _ = _tested(logs)
    return [Step(first, max(p, p_value)) for first, p in _held(logs, _segmented(logs))]


def _segmented(logs: Floats) -> list[int]:
    """Where the levels of a series begin, but the first one, by binary segmentation."""
    if len(logs) < LEAST_SESSIONS:
        return []
    p_value, cuts = _tested(logs)
    if p_value > ERROR:
        return []
    ends = [0, *cuts, len(logs)]
    inner = [start + cut for start, end in itertools.pairwise(ends) for cut in _segmented(logs[start:end])]
    return sorted([*cuts, *inner])


def _held(logs: Floats, cuts: list[int]) -> list[tuple[int, float]]:
    """(cut, p-value) of the cuts that hold between their neighbours; the weakest ones go first."""
    while cuts:
        placed, p_values = [0], []
        for end in (*cuts[1:], len(logs)):
            between = logs[placed[-1] : end]
            placed.append(placed[-1] + int(_fitted(_drawn_in(between[None])).cut[0]))
        for start, end in zip(placed, [*placed[2:], len(logs)], strict=False):
            p_values.append(_tested(logs[start:end])[0])
        cuts = placed[1:]
        if max(p_values) <= ERROR:
            return list(zip(cuts, p_values, strict=True))
        del cuts[p_values.index(max(p_values))]
    return []


def _tested(logs: Floats) -> tuple[float, list[int]]:
    """The p-value of any step, and where the series is best cut, once or twice."""
    best = _fitted(_drawn_in(logs[None]))
    if not best.statistic[0]:
        return 1.0, []
    correlations, statistics = _without_steps(len(logs))
    place = int(np.searchsorted(correlations, best.correlation[0]))
    start = min(max(0, place - ALIKE // 2), SIMULATED - ALIKE)
    as_large = int((statistics[start : start + ALIKE] >= best.statistic[0]).sum())
    once, twice = int(best.cut[0]), [int(cut) for cut in best.cuts[0]]
    return (1 + as_large) / (1 + ALIKE), twice if best.two[0] else [once]


@functools.lru_cache(maxsize=256)
def _without_steps(length: int) -> tuple[Floats, Floats]:
    """The correlations, rising, and the statistics of simulated series without a step."""
    random = np.random.default_rng(length)
    found = []
    for _ in range(0, SIMULATED, 1_000):  # at once, these fit into a cache
        noise = random.standard_normal((1_000, length))
        correlation = 0.8 * random.random(1_000) ** 2
        for i in range(1, length):
            noise[:, i] = correlation * noise[:, i - 1] + np.sqrt(1 - correlation**2) * noise[:, i]
        found.append(_fitted(_drawn_in(noise)))
    correlations, statistics = (
        np.concatenate([getattr(f, name) for f in found]) for name in ("correlation", "statistic")
    )
    order = np.argsort(correlations, kind="stable")
    return correlations[order], statistics[order]


def _drawn_in(series: Floats) -> Floats:
    """Many series, one a row, with values drawn in that lie far from those next to them, then those far from all.

    The first leaves nothing of a busy session beside a step, whose own size would let it pass the second. The second is
    for two or three busy sessions in a row.
    """
    length = series.shape[1]
    starts = np.clip(np.arange(length) - AROUND // 2, 0, length - AROUND)
    near = np.median(sliding_window_view(series, AROUND, axis=1), axis=2)[:, starts]
    series = _within(series, near, OUTLYING / NARROWER)
    return _within(series, np.median(series, axis=1, keepdims=True), OUTLYING)


def _within(series: Floats, middle: Floats, reaching: float) -> Floats:
    """The values, at most so many median absolute deviations from the middle."""
    reach = reaching * np.median(np.abs(series - middle), axis=1, keepdims=True)
    reach[reach == 0] = np.inf  # most of the values are equal
    drawn: Floats = np.clip(series, middle - reach, middle + reach)
    return drawn


class _Fit(NamedTuple):
    """The best levels of many series.

    Attributes:
        statistic: the larger F of one cut and of two; 0 where all values are equal.
        two: whether it is that of two cuts.
        cut: the best place for one cut.
        cuts: the best places for two, as two columns; zeros where the series are too short.
        correlation: of neighbours, around the levels that two cuts leave, or one where there is no room for two.
    """

    statistic: Floats
    two: NDArray[np.bool_]
    cut: Whole
    cuts: Whole
    correlation: Floats


def _fitted(series: Floats) -> _Fit:
    """Cut many series of one length, at least `LEAST_SESSIONS`, one a row."""
    count, length = series.shape
    series = series - series.mean(axis=1, keepdims=True)
    sums = np.concatenate([np.zeros((count, 1)), np.cumsum(series, axis=1)], axis=1)
    rows, total = np.arange(count), np.square(series).sum(axis=1)

    places = np.arange(LEAST_LEVEL, length - LEAST_LEVEL + 1)
    gains = np.square(sums[:, places]) * (1 / places + 1 / (length - places))
    best = gains.argmax(axis=1)
    gain, cut = gains[rows, best], places[best]

    gain_of_two, cuts = np.zeros(count), np.zeros((count, 2), dtype=np.intp)
    for first in range(LEAST_LEVEL, length - 2 * LEAST_LEVEL + 1):
        seconds = np.arange(first + LEAST_LEVEL, length - LEAST_LEVEL + 1)
        start, end = sums[:, [first]], sums[:, seconds]
        gains = (
            np.square(start) / first + np.square(end - start) / (seconds - first) + np.square(end) / (length - seconds)
        )
        best = gains.argmax(axis=1)
        better = gains[rows, best] > gain_of_two
        gain_of_two = np.where(better, gains[rows, best], gain_of_two)
        cuts[better] = np.stack([np.full(count, first), seconds[best]], axis=1)[better]

    def f(gain: Floats, number: int) -> Floats:
        rest = np.maximum(total - gain, 1e-12 * total)  # rounding must not make it 0 or less
        ratio: Floats = np.divide(gain * (length - 1 - number), number * rest, out=np.zeros(count), where=total > 0)
        return ratio

    f_of_one, f_of_two = f(gain, 1), f(gain_of_two, 2)
    starts, ends = cuts.T if length >= 3 * LEAST_LEVEL else (cut, np.full(count, length))
    at = np.arange(length)
    level = (at >= starts[:, None]).astype(np.intp) + (at >= ends[:, None])
    left = series.copy()
    for number in range(3):
        own = level == number
        means = np.where(own, series, 0).sum(axis=1) / np.maximum(own.sum(axis=1), 1)
        left -= own * means[:, None]
    squares = np.square(left).sum(axis=1)
    products = (left[:, 1:] * left[:, :-1]).sum(axis=1)
    correlation = np.divide(products, squares, out=np.zeros(count), where=squares > 1e-12 * total)
    return _Fit(np.maximum(f_of_one, f_of_two), f_of_two > f_of_one, cut, cuts, correlation)
