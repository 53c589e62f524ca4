"""Ratios of epoch times with intervals that hold for all networks together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from resnet_bench.analysis.bootstrap import LogMean, bootstrap, mean_log
from resnet_bench.analysis.comparison.networks import Key, Network, Pair
from resnet_bench.schema import Interval

Verdict = Literal["faster", "slower", "no significant difference", "cannot tell"]

BASELINE = "baseline"
"""The network that the others are compared with within a machine."""


@dataclass(frozen=True)
class Ratio:
    """Time in OTHER over time in BASE (below 1 is faster), or a ratio of two such ratios.

    Attributes:
        interval: None where there are too few values for a verdict.
        estimate: the ratio where there is no interval; None where there is no ratio either.
        reason: why there is no interval; else empty.
    """

    interval: Interval | None
    estimate: float | None = None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.interval is None:
            return "cannot tell"
        if self.interval.high < 1:
            return "faster"
        return "slower" if self.interval.low > 1 else "no significant difference"


class TimeRatios:
    """The ratios of times of all pairs.

    Args:
        pairs: the networks that are compared.
        seed: of the resampling; the same pairs and seed give the same intervals.
    """

    def __init__(self, pairs: Sequence[Pair], seed: int) -> None:
        self._base = _resampled((pair.base for pair in pairs), [seed, 0])
        self._other = _resampled((pair.other for pair in pairs), [seed, 1])
        self._logs = [log for pair in pairs if (log := self._log(pair))]

    def ratio(self, pair: Pair) -> Ratio | None:
        """Time in OTHER over time in BASE; None where either file has no times of the network."""
        base, other = pair
        if not base.times or not other.times:
            return None
        if log := self._log(pair):
            return self._with_interval(log)
        estimate = other.seconds / base.seconds if base.seconds and other.seconds else None
        counts = {"base": len(base.values), "other": len(other.values)}
        if set(counts.values()) == {1}:
            return Ratio(None, estimate, "one value against one value")
        few = [f"{role} has {n} usable value{'' if n == 1 else 's'}" for role, n in counts.items() if n < 2]
        return Ratio(None, estimate, " and ".join(few))

    def change_against_baseline(self, pair: Pair) -> Ratio:
        """The network's ratio to the baseline in OTHER over that in BASE, each taken within one machine."""
        base, other = pair
        if base.architecture == BASELINE:
            return Ratio(None, None, f"another machine; only ratios to {BASELINE} carry over")
        if not self._log(pair):
            return Ratio(None, None, "too few values")
        baselines = self._base.get((BASELINE, base.engine)), self._other.get((BASELINE, other.engine))
        if not baselines[0] or not baselines[1]:
            return Ratio(None, None, f"another machine, and no {BASELINE} in both files to set it against")
        in_base = self._base[base.key].within(baselines[0])
        in_other = self._other[other.key].within(baselines[1])
        return self._with_interval(in_other.against(in_base))

    def geometric_mean(self) -> Ratio | None:
        """The mean over the networks; None where no network has a ratio with an interval."""
        return Ratio(mean_log(self._logs).ratio()) if self._logs else None

    def _log(self, pair: Pair) -> LogMean | None:
        """The logarithm of the ratio; None where either file has fewer than two values."""
        base, other = self._base.get(pair.base.key), self._other.get(pair.other.key)
        return other.against(base) if base and other else None

    def _with_interval(self, log: LogMean) -> Ratio:
        return Ratio(log.ratio(together=len(self._logs)))


def _resampled(networks: Iterable[Network], seed: Sequence[int]) -> dict[Key, LogMean]:
    """Each network with at least two values; a resample draws a round for all networks at once."""
    measured = {n.key: n.values for n in networks if len(n.values) > 1}
    if not measured:
        return {}
    rounds = sorted({i for values in measured.values() for i in values})
    table = np.array([[values.get(i, np.nan) for values in measured.values()] for i in rounds])
    return dict(zip(measured, bootstrap(table, seed), strict=True))
