"""What results say in short: which network is fastest, how plain PyTorch compares, what the accuracies tell apart.

Each finding is picked by a rule from whatever was given, and is None where the results lack it. The rules look at what
was measured, not at what came out: the setting with the most networks, then the one with the most values. So a result
is not told because it is striking. Where a finding is picked by its value, as the fastest network is, its intervals
allow for the choice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from resnet_bench.analysis.drift import drift_during_run
from resnet_bench.analysis.effects import BASELINE, CONSTANT, Effect, effects, verdicts
from resnet_bench.analysis.replicates import Replicates, replicates
from resnet_bench.analysis.series import Group, Series, varying
from resnet_bench.analysis.speed import Ratio, StepSpeed, is_plain, ratio, step_speeds, step_times


@dataclass(frozen=True)
class Rival:
    """Another network than the one with the shortest step.

    Attributes:
        times: its time of a step over the shortest; None where no process measured both. The interval holds together
            with those of all pairs of networks, because which pair is looked at depends on what was measured.
    """

    series: Series
    times: Ratio | None

    @property
    def slower(self) -> bool:
        """Whether it is slower than the one with the shortest step: the whole interval of the ratio lies above 1."""
        return self.times is not None and self.times.interval is not None and self.times.interval.low > 1


@dataclass(frozen=True)
class Fastest:
    """The network with the shortest step under one setting, the mean over the training.

    Attributes:
        step: its seconds.
        rivals: the other networks, the shortest step first; at least one.
    """

    series: Series
    step: Replicates
    rivals: tuple[Rival, ...]

    @property
    def plain(self) -> bool:
        """Whether it is of plain PyTorch, as the paper ran."""
        return is_plain(self.series)

    @property
    def equals(self) -> tuple[Rival, ...]:
        """The networks that cannot be told from the fastest."""
        return tuple(rival for rival in self.rivals if not rival.slower)

    @property
    def baseline(self) -> Rival | None:
        return next((rival for rival in self.rivals if rival.series.architecture == BASELINE), None)


@dataclass(frozen=True)
class BesidePlain:
    """How many times as fast as plain PyTorch one engine is.

    Attributes:
        networks: of each network; at least one.
        five: of the study's five networks, summed; None where not all were timed.
    """

    engine: str
    networks: tuple[tuple[str, Ratio], ...]
    five: Ratio | None


Judged = tuple[Effect, Literal["higher", "lower"] | None]
"""An effect with its verdict; None where it cannot be told."""


@dataclass(frozen=True)
class Accuracies:
    """The final accuracies of the networks that were trained under one setting, and effects under the others.

    Attributes:
        series: in the paper's order; at least one.
        effects: of each other network against the baseline. Empty without enough seeds.
        others: of networks under the other settings of the group, and of schedules.
    """

    group: Group
    series: tuple[Series, ...]
    effects: tuple[Judged, ...] = ()
    others: tuple[Judged, ...] = ()

    @property
    def varying(self) -> tuple[str, ...]:
        """What tells the settings of the group's trainings apart; empty where there is one setting."""
        return varying([s.setting for s in self.group.series if s.accuracies])

    @property
    def seeds(self) -> tuple[int, int]:
        """Of a network: the fewest and the most."""
        counts = [len(s.accuracies) for s in self.series]
        return min(counts), max(counts)

    @property
    def epochs(self) -> tuple[int, int]:
        """That a training reached: the fewest and the most."""
        reached = [len(r.epochs) for s in self.series for r in s.accuracies]
        return min(reached), max(reached)


def fastest(found: Sequence[Group]) -> Fastest | None:
    """In the setting with the most networks, at least two; then of plain PyTorch, then with the most values."""
    candidates = []
    for group in found:
        for timed in _settings([s for s in group.series if step_times(s)], "epochs"):
            values = {s.architecture: v for s in timed if (v := replicates(step_times(s).items()))}
            timed = [s for s in timed if s.architecture in values]
            if len(timed) > 1:
                fewest = min(len(v.values) for v in values.values())
                candidates.append(((len(timed), is_plain(timed[0]), fewest), timed, values))
    if not candidates:
        return None
    _, timed, values = max(candidates, key=lambda candidate: candidate[0])
    first, *others = sorted(timed, key=lambda s: values[s.architecture].mean)
    pairs = len(timed) * (len(timed) - 1) // 2
    rivals = (Rival(s, ratio(step_times(first), step_times(s), pairs)) for s in others)
    return Fastest(first, values[first.architecture], tuple(rivals))


def beside_plain(found: Sequence[Group]) -> list[BesidePlain]:
    """Of each engine of the group in which the most networks were timed with it and with plain PyTorch."""
    candidates = []
    for group in found:
        by_engine: dict[str, list[StepSpeed]] = {}
        for speed in step_speeds(group):
            if speed.times_as_fast:
                by_engine.setdefault(speed.series[0].engine, []).append(speed)
        candidates.append([made for engine, own in by_engine.items() if (made := _engine(engine, own))])
    return max(candidates, key=lambda own: sum(len(x.networks) for x in own), default=[])


def _engine(engine: str, speeds: Sequence[StepSpeed]) -> BesidePlain | None:
    networks: dict[str, Ratio] = {}
    five = None
    for speed in speeds:
        if speed.times_as_fast and len(speed.series) == 1:
            networks.setdefault(speed.series[0].architecture, speed.times_as_fast)
        elif five is None:
            five = speed.times_as_fast
    return BesidePlain(engine, tuple(networks.items()), five) if networks else None


def accuracies(found: Sequence[Group]) -> Accuracies | None:
    """In the setting with the most networks, real images before synthetic ones, then of the most seeds and epochs.

    Of settings that are equal in that, the study's own is taken: plain PyTorch, and a constant learning rate.
    """
    candidates = []
    for group in found:
        for trained in _settings([s for s in group.series if s.accuracies]):
            made = Accuracies(group, tuple(trained))
            rank = (not group.dataset.synthetic, len(trained), made.seeds[0], made.epochs[0], is_plain(trained[0]))
            candidates.append(((*rank, _constant_rate(trained[0])), made))
    if not candidates:
        return None
    _, best = max(candidates, key=lambda candidate: candidate[0])
    told = effects(best.group)
    higher = verdicts(told)
    against: list[Judged] = []
    others: list[Judged] = []
    for i, effect in enumerate(told):
        here = effect.of_network and any(effect.series is s for s in best.series)
        verdict: Literal["higher", "lower"] | None = None if i not in higher else "higher" if higher[i] else "lower"
        (against if here else others).append((effect, verdict))
    return Accuracies(best.group, best.series, tuple(against), tuple(others))


def _constant_rate(series: Series) -> bool:
    return series.setting.get("schedule", CONSTANT) == CONSTANT and not series.setting.get("warmup_steps")


def drifted(group: Group) -> bool:
    """Whether a calibration at the end of a run differed from the one at its start."""
    return any(drift_during_run(machine) for machine in group.machines)


def _settings(series: Sequence[Series], *without: str) -> list[list[Series]]:
    """The series of each setting, in order; the keys `without` count as the same. A network is there once."""
    found: dict[str, dict[str, Series]] = {}
    for s in series:
        key = json.dumps(s.setting_without(*without), sort_keys=True)
        found.setdefault(key, {}).setdefault(s.architecture, s)
    return [list(own.values()) for own in found.values()]
