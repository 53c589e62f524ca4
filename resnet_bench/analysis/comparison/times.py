"""Ratios of epoch times with intervals that hold for all networks together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, NamedTuple

from resnet_bench.analysis import ratios
from resnet_bench.analysis.comparison.networks import Pair
from resnet_bench.analysis.replicates import measured_in
from resnet_bench.analysis.turns import Turn
from resnet_bench.intervals import ENOUGH_PROCESSES, LEAST_VALUES
from resnet_bench.schema import Interval
from resnet_bench.wording import counted

Verdict = Literal["faster", "slower", "no significant difference", "cannot tell"]

Cause = Literal["processes", "drift", "baseline"]

BASELINE = "baseline"
"""The network that the others are compared with within a machine."""


@dataclass(frozen=True)
class Ratio:
    """Time in OTHER over time in BASE (below 1 is faster), or a ratio of two such ratios.

    Attributes:
        interval: None where there are too few values for one.
        estimate: the ratio where there is no interval; None where there is no ratio either.
        reason: why nobody can tell; empty where the interval gives a verdict.
        cause: the kind of that reason: too few processes, a machine whose speed differed, or no baseline to set the
            network against; None where the interval gives a verdict.
        processes: the number of values of BASE and of OTHER that the interval is from: processes, or sessions where a
            file has several; the same number of pairs in a duel.
    """

    interval: Interval | None
    estimate: float | None = None
    reason: str = ""
    cause: Cause | None = None
    processes: tuple[int, int] | None = None

    @property
    def doubtful(self) -> bool:
        """Whether the verdict is from so few processes that it may be one on their modes."""
        few = self.processes is not None and min(self.processes) < ENOUGH_PROCESSES
        return few and self.verdict in ("faster", "slower")

    @property
    def verdict(self) -> Verdict:
        if self.interval is None or self.cause:
            return "cannot tell"
        if self.interval.high < 1:
            return "faster"
        return "slower" if self.interval.low > 1 else "no significant difference"


class _Sides(NamedTuple):
    """Times of one network in both files, by what may be paired: a turn of a duel, else a process or a session."""

    base: dict[str, float]
    other: dict[str, float]

    @property
    def enough(self) -> bool:
        return min(map(len, self)) >= LEAST_VALUES


class TimeRatios:
    """The ratios of times of all pairs.

    Args:
        pairs: the networks that are compared.
        turns: of the duel that both files are of; else empty.
        speed_factor: how far the machine's speed differed: its fastest over its slowest. Intervals of files that were
            measured one after the other are widened by it, at both ends. 1 for none.
    """

    def __init__(self, pairs: Sequence[Pair], turns: Sequence[Turn] = (), speed_factor: float = 1.0) -> None:
        self._turns, self._speed_factor = turns, speed_factor
        self._sides = {pair.base.key + pair.other.key: self._of(pair) for pair in pairs}
        self._judged = {key: sides for key, sides in self._sides.items() if sides.enough}

    def ratio(self, pair: Pair) -> Ratio | None:
        """Time in OTHER over time in BASE; None where either file has no times of the network."""
        base, other = pair
        if not base.times or not other.times:
            return None
        sides = self._sides[base.key + other.key]
        if sides.enough:
            return self._widened(self._measured(sides, len(self._judged)))
        estimate = other.seconds / base.seconds if base.seconds and other.seconds else None
        return Ratio(None, estimate, self._too_few(pair), "processes")

    def change_against_baseline(self, pair: Pair) -> Ratio:
        """The network's ratio to the baseline in OTHER over that in BASE, each taken within one machine.

        Each process of a machine measured both networks, so its ratio is free of what both share.
        """
        base, other = pair
        if base.architecture == BASELINE:
            return Ratio(None, None, f"another machine; only ratios to {BASELINE} carry over", "baseline")
        sides = self._sides[base.key + other.key]
        if not sides.enough:
            return Ratio(None, None, self._too_few(pair), "processes")
        baseline = self._sides.get((BASELINE, base.engine, BASELINE, other.engine))
        if baseline is None or not all(baseline):
            return Ratio(None, None, f"another machine, and no {BASELINE} in both files to set it against", "baseline")
        within = _Sides(*(_quotients(mine, theirs) for mine, theirs in zip(sides, baseline, strict=True)))
        if not within.enough:
            fewest = min(within, key=len)
            reason = f"{measured_in(len(fewest), 'process')} together with {BASELINE}"
            return Ratio(None, None, reason, "processes")
        return self._measured(within, len(self._judged))

    def geometric_mean(self) -> Ratio | None:
        """The mean over the networks that have an interval; None without any."""
        if not self._judged:
            return None
        every = _Sides(*(ratios.over_networks(side) for side in zip(*self._judged.values(), strict=True)))
        if every.enough:
            return self._widened(self._measured(every))
        logs = fmean(math.log(self._interval(sides).estimate) for sides in self._judged.values())
        return Ratio(None, math.exp(logs), f"fewer than {LEAST_VALUES} processes measured all networks", "processes")

    def _of(self, pair: Pair) -> _Sides:
        base, other = pair
        if not self._turns:
            return _Sides(*(found.values if (found := n.replicates) else {} for n in pair))
        mine, theirs = base.by_index, other.by_index
        held = {str(i): turn for i, turn in enumerate(self._turns) if turn.base in mine and turn.other in theirs}
        return _Sides(
            {turn: mine[i] for turn, (i, _) in held.items()}, {turn: theirs[j] for turn, (_, j) in held.items()}
        )

    def _interval(self, sides: _Sides, together: int = 1) -> Interval:
        common = sorted(sides.base.keys() & sides.other.keys()) if self._turns else []
        if common:
            found = ratios.paired_ratio([sides.base[k] for k in common], [sides.other[k] for k in common], together)
        else:
            found = ratios.independent_ratio(list(sides.base.values()), list(sides.other.values()), together)
        assert found  # the sides have enough values
        return found

    def _measured(self, sides: _Sides, together: int = 1) -> Ratio:
        return Ratio(self._interval(sides, together), processes=(len(sides.base), len(sides.other)))

    def _too_few(self, pair: Pair) -> str:
        if self._turns:
            turns = len(self._sides[pair.base.key + pair.other.key].base)
            return f"measured in {counted(turns, 'pair')} of processes"
        found = {role: network.replicates for role, network in zip(("base", "other"), pair, strict=True)}
        said = {role: r.measured if r else "has no usable time" for role, r in found.items()}
        if len(set(said.values())) == 1:
            return said["base"]
        return " and ".join(
            f"{role} {said[role]}" for role, r in found.items() if r is None or len(r.values) < LEAST_VALUES
        )

    def _widened(self, measured: Ratio) -> Ratio:
        if self._turns or self._speed_factor == 1 or measured.interval is None:
            return measured
        wide = replace(measured, interval=ratios.widened(measured.interval, self._speed_factor))
        if wide.verdict == measured.verdict:
            return wide
        percent = 100 * (self._speed_factor - 1)
        said = f"{percent:.0f} %" if percent >= 1 else "1 %"
        reason = f"the machine's own speed differed by up to {said} between and within the runs"
        return replace(wide, reason=reason, cause="drift")


def _quotients(times: Mapping[str, float], baseline: Mapping[str, float]) -> dict[str, float]:
    """{process: its ratio to the baseline}, for the processes that measured both."""
    return {process: seconds / baseline[process] for process, seconds in times.items() if process in baseline}
