"""Ratios of times that were measured in several processes, with intervals.

The process is the unit: what it keeps for its whole life (memory layout, allocator, placement of threads) is in all its
blocks and in all networks that it measured, so neither blocks nor networks are independent samples. Each process gives
one value, and Student's t is over these (the model of `intervals.over_processes`, on the logarithmic scale, where a
ratio is a difference):

- `paired_ratio` where process i of one side belongs to process i of the other: one process measured both, or they ran
  one right after the other. What the two share, such as the machine's drift, is in both and drops out. The mean of the
  logarithms of the ratios has Student's t interval.
- `independent_ratio` where nothing pairs them: Welch's interval (Welch 1947), which lets the two sides scatter
  differently.

The estimate is the ratio of the geometric means. Both assume that the logarithms of the processes' values, or of the
ratios of pairs, are about normal and independent. `tests/surroundings/simulate_coverage.py` shows how often the
intervals cover, also where the values have two modes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import fmean, variance
from typing import TypeVar

from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.schema import Interval

CONFIDENCE = 0.95

_Process = TypeVar("_Process", bound=Hashable)


def paired_ratio(base: Sequence[float], other: Sequence[float], together: int = 1) -> Interval | None:
    """OTHER over BASE, where value i of one belongs to value i of the other; None for fewer than `LEAST_VALUES` pairs.

    Args:
        base, other: positive times, one from each process.
        together: the number of ratios that shall all lie in their intervals with 95 %. The more there are, the wider
            the interval (Bonferroni): a look at five networks must not find a difference five times as often.
    """
    logs = [math.log(o) - math.log(b) for b, o in zip(base, other, strict=True)]
    if len(logs) < LEAST_VALUES:
        return None
    return _interval(fmean(logs), variance(logs) / len(logs), len(logs) - 1, "paired log-t", together)


def independent_ratio(base: Sequence[float], other: Sequence[float], together: int = 1) -> Interval | None:
    """OTHER over BASE, where nothing pairs the processes; None where either side has fewer than `LEAST_VALUES`.

    The arguments are those of `paired_ratio`, but the two sides may have different numbers of processes.
    """
    if min(len(base), len(other)) < LEAST_VALUES:
        return None
    sides = [[math.log(value) for value in side] for side in (base, other)]
    squares = [variance(logs) / len(logs) for logs in sides]  # of the standard errors
    total = sum(squares)
    freedom = (
        total**2 / sum(s**2 / (len(logs) - 1) for s, logs in zip(squares, sides, strict=True))
        if total
        else min(map(len, sides)) - 1
    )
    return _interval(fmean(sides[1]) - fmean(sides[0]), total, freedom, "Welch log-t", together)


def widened(interval: Interval, factor: float) -> Interval:
    """The interval with both ends farther from the estimate by this factor, at least 1."""
    shift = math.log(factor)
    return interval.model_copy(
        update={
            "low": _exp(math.log(interval.low) - shift),
            "high": _exp(math.log(interval.high) + shift),
            "method": f"{interval.method}, widened {factor:.3g}×",
        }
    )


def over_networks(times: Sequence[Mapping[_Process, float]]) -> dict[_Process, float]:
    """{process: geometric mean of its times over the networks}, for the processes that measured all networks.

    Args:
        times: for each network {process: seconds}.
    """
    common = [p for p in times[0] if all(p in own for own in times)] if times else []
    return {p: math.exp(fmean(math.log(own[p]) for own in times)) for p in common}


def _interval(estimate: float, squared_error: float, freedom: float, method: str, together: int) -> Interval:
    half = 0.0
    if squared_error:
        from scipy import stats  # here, because it takes two seconds to import

        half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / together, freedom)) * math.sqrt(squared_error)
    return Interval(
        estimate=_exp(estimate),
        low=_exp(estimate - half),
        high=_exp(estimate + half),
        confidence=CONFIDENCE,
        method=method if together == 1 else f"{method}, {together} ratios together",
    )


def _exp(x: float) -> float:
    return math.exp(min(max(x, -600.0), 600.0))  # the interval of processes that lie far apart must not overflow
