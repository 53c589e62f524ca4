"""How fast a step is in the course of a training, beside plain PyTorch, the baseline and the machine's least time.

Ratios are paired: a process measured both networks or engines, in turn, so what it keeps for its whole life and how the
machine drifted is in both, and drops out (`analysis.ratios`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from resnet_bench import paper
from resnet_bench.analysis.drift import drift_during_run
from resnet_bench.analysis.ratios import paired_ratio
from resnet_bench.analysis.replicates import Origin, Replicates, Unit, epoch_seconds, measured_in, origin, replicates
from resnet_bench.analysis.series import Group, Series, in_one_mode
from resnet_bench.results.samples import Run
from resnet_bench.schema import EpochTimeResult, Interval

PLAIN = ("reference", "loader")
"""Engine and pipeline of the paper's plain PyTorch script, which the others are compared with."""

DRIFT_LIMIT = 0.25
"""Relative change of a rate between start and end of a session beyond which no least time is told from its rates."""

MODE_MARGIN = 0.05
"""How far the sampled time of an epoch may lie from that of the whole epoch and count as the same."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two times, paired by the processes that measured both or, in a duel, by its rounds.

    Attributes:
        value: the geometric mean over the processes or, where there are several sessions, over these.
        interval: None for fewer than `LEAST_VALUES` of them: then there is no verdict either.
        count: how many there are.
    """

    value: float
    interval: Interval | None
    count: int
    unit: Unit

    @property
    def measured(self) -> str:
        """`measured in 3 processes`."""
        return measured_in(self.count, self.unit)


@dataclass(frozen=True)
class LeastTime:
    """What the model says a step takes at least on this machine, and whether that can be.

    Attributes:
        seconds: by the model (`machine.step_bound`), the mean over processes.
        share: these seconds over those of a step, process by process.
        beaten: some process's mean step took less.
        drift: the largest relative change of a rate between the start and the end of a session; 0 where each process
            measured the rates between its own steps.
    """

    seconds: float
    share: Replicates
    beaten: bool
    drift: float

    @property
    def stands(self) -> bool:
        """Whether it may be told: nothing beat it, and the rates that it comes from held."""
        return not self.beaten and self.drift <= DRIFT_LIMIT


@dataclass(frozen=True)
class StepSpeed:
    """A step of one network under one setting, or of the study's five together; the mean over the training.

    Attributes:
        series: of the network, or of the five, whose steps are added up process by process.
        step: seconds.
        updated_share: the fraction of the parameters that the mean step's optimiser updated; None where a file does not
            tell.
        least_time: None where the machine was not calibrated.
        times_as_fast: plain PyTorch's time over this one; None where no process measured both.
        to_baseline: this time over the baseline's under the same setting; None where no process measured both.
    """

    series: tuple[Series, ...]
    step: Replicates
    updated_share: float | None
    least_time: LeastTime | None
    times_as_fast: Ratio | None
    to_baseline: Ratio | None


@dataclass(frozen=True)
class ModeCheck:
    """Seconds of an epoch of one network, measured both ways in the same processes.

    Attributes:
        full: of whole epochs.
        sampled: as blocks at points of the training say.
        ratio: sampled over full.
    """

    series: Series
    full: Replicates
    sampled: Replicates
    ratio: Ratio

    @property
    def same(self) -> bool | None:
        """Whether the sampled time is within `MODE_MARGIN` of the whole epochs'; None where that cannot be told.

        A test of equivalence: yes where the whole interval of the ratio lies within the margin, no where all of it lies
        beyond.
        """
        interval, low, high = self.ratio.interval, 1 - MODE_MARGIN, 1 + MODE_MARGIN
        if interval is None:
            return None
        if low <= interval.low and interval.high <= high:
            return True
        return False if interval.high < low or high < interval.low else None


class PointTime(NamedTuple):
    """Seconds of a step at one point of the training.

    Attributes:
        step: steps of the training before it.
        aged: some steps before it were not trained: idle units were only carried on.
    """

    step: int
    aged: bool
    seconds: Replicates


def step_speeds(group: Group) -> list[StepSpeed]:
    """One for each network and engine that was timed; then the five networks together, for each engine that ran all."""
    timed = [s for s in group.series if step_times(s)]
    speeds = [_step_speed(timed, s) for s in timed] + _five_together(timed)
    return [speed for speed in speeds if speed]


def mode_checks(group: Group) -> list[ModeCheck]:
    """One for each network that the same processes measured in whole epochs and in sampled blocks."""
    checks = []
    for s in group.series:
        full, sampled = (
            _by_origin(
                value
                for run in s.timed
                if isinstance(run.result, EpochTimeResult) and run.result.mode == mode
                for value in epoch_seconds(run.result, run.together[0])
            )
            for mode in ("full", "sampled")
        )
        both = [replicates((o, side[o]) for o in full if o in sampled) for side in (full, sampled)]
        found = ratio(full, sampled)
        if found and both[0] and both[1]:
            checks.append(ModeCheck(s, both[0], both[1], found))
    return checks


def step_times(series: Series) -> dict[Origin, float]:
    """{process: seconds of a step, the mean over the training}."""
    return _by_origin(
        (origin(result, run.together[0], i), seconds)
        for run, result in measured(series)
        for i, seconds in result.step_times.items()
    )


def epoch_times(series: Series) -> dict[Origin, float]:
    """{process: seconds of an epoch, the mean over the training}, of epoch-time results alone."""
    return _by_origin(value for run, result in measured(series) for value in epoch_seconds(result, run.together[0]))


def epoch_replicates(series: Series) -> Replicates | None:
    """The values whose mean `Series.epoch_time` tells: of processes or, where there are several, of sessions."""
    runs = [(result, run.together[0]) for run, result in measured(series) if result.epoch_times]
    trainings = [(result, "") for result in series.timed_trainings]
    return replicates(value for result, session in runs or trainings for value in epoch_seconds(result, session))


def over_training(series: Series) -> list[PointTime]:
    """The time of a step at each point of the training; empty for files without points."""
    results = [(run, result) for run, result in measured(series) if result.points]
    found = []
    for i, point in enumerate(results[0][1].points if results else ()):
        seconds = replicates(
            (origin(result, run.together[0], process), value)
            for run, result in results
            for process, value in result.point_step_times.get(i, {}).items()
            if process in result.process_blocks
        )
        if seconds:
            found.append(PointTime(point.step, any(r.points[i].state == "aged" for _, r in results), seconds))
    return found


def least_time(*series: Series) -> LeastTime | None:
    """The model's least time of a step of a network, or of several added up.

    None where the rates of the machine were not measured, or no process measured all of the networks.
    """
    steps, bounds = [step_times(s) for s in series], [_bounds(s) for s in series]
    step, bound = _sum(steps), _sum(bounds)
    share = replicates((o, seconds / step[o]) for o, seconds in bound.items() if o in step)
    if not share:
        return None
    by_session = [run for s in series for run, r in measured(s) if not rates_between_steps(r)]
    drifts = [abs(change) for run in by_session for change in drift_during_run(run.machine).values()]
    return LeastTime(
        seconds=fmean(bound.values()),
        share=share,
        beaten=any(own[o] < model[o] for own, model in zip(steps, bounds, strict=True) for o in model if o in own),
        drift=max(drifts, default=0.0),
    )


def rates_between_steps(result: EpochTimeResult) -> bool:
    """Whether each process measured the machine's rates between its own steps; False in older files."""
    return bool(result.processes) and all(p.step_bound_seconds for p in result.processes)


def _bounds(series: Series) -> dict[Origin, float]:
    """{process: the model's least seconds of a step}, for the results that have it."""
    return _by_origin(
        (origin(result, run.together[0], i), bound)
        for run, result in measured(series)
        for i in result.step_times
        if (bound := _bound(result, i))
    )


def _bound(result: EpochTimeResult, process: int) -> float | None:
    own = result.processes[process].step_bound_seconds if result.processes else None
    return own or result.step_bound_seconds


def ratio(base: Mapping[Origin, float], other: Mapping[Origin, float], together: int = 1) -> Ratio | None:
    """OTHER over BASE, paired by process or, where there are several sessions, by session.

    None where no process measured both. `together` is that of `paired_ratio`.
    """
    below, above = (replicates((o, side[o]) for o in base if o in other) for side in (base, other))
    if not below or not above:
        return None
    common = [key for key in below.values if key in above.values]
    if not common:
        return None
    pairs = [(below.values[key], above.values[key]) for key in common]
    value = math.exp(fmean(math.log(b / a) for a, b in pairs))
    interval = paired_ratio([a for a, _ in pairs], [b for _, b in pairs], together)
    return Ratio(value, interval, len(pairs), below.unit)


def is_plain(series: Series) -> bool:
    """Whether it is of plain PyTorch, as the paper ran."""
    return (series.engine, series.setting["pipeline"]) == PLAIN


def measured(series: Series) -> list[tuple[Run, EpochTimeResult]]:
    """The results that measured one quantity, with their runs; a run's `together` tells its session."""
    kept = {id(r) for r in in_one_mode([r for r in series.times if r.process_blocks])}
    return [
        (run, run.result) for run in series.timed if isinstance(run.result, EpochTimeResult) and id(run.result) in kept
    ]


def _by_origin(values: Iterable[tuple[Origin, float]]) -> dict[Origin, float]:
    """{process: mean of its values}."""
    found: dict[Origin, list[float]] = {}
    for process, value in values:
        found.setdefault(process, []).append(value)
    return {process: fmean(own) for process, own in found.items()}


def _step_speed(timed: Sequence[Series], series: Series) -> StepSpeed | None:
    return _speed([series], _plain(timed, [series]), _baseline(timed, series))


def _five_together(timed: Sequence[Series]) -> list[StepSpeed | None]:
    by_setting: dict[str, dict[str, Series]] = {}
    for s in timed:
        by_setting.setdefault(json.dumps(s.setting_without("epochs"), sort_keys=True), {})[s.architecture] = s
    found = []
    for by_name in by_setting.values():
        if set(paper.PUBLISHED) <= set(by_name):
            five = [by_name[name] for name in paper.PUBLISHED]
            found.append(_speed(five, _plain(timed, five), None))
    return found


def _speed(series: Sequence[Series], plain: Sequence[Series], baseline: Series | None) -> StepSpeed | None:
    """Of one network, or of several whose steps are added up; None where no process measured all of them."""
    steps = _sum([step_times(s) for s in series])
    step = replicates(steps.items())
    if step is None:
        return None
    return StepSpeed(
        series=tuple(series),
        step=step,
        updated_share=_updated_share(series),
        least_time=least_time(*series),
        times_as_fast=ratio(steps, _sum([step_times(p) for p in plain])) if plain else None,
        to_baseline=ratio(step_times(baseline), steps) if baseline else None,
    )


def _updated_share(series: Sequence[Series]) -> float | None:
    counts = [(r.parameters, r.updated_parameters) for s in series for _, r in measured(s)]
    if any(updated is None for _, updated in counts):
        return None
    return sum(updated or 0 for _, updated in counts) / sum(parameters for parameters, _ in counts)


def _plain(timed: Sequence[Series], series: Sequence[Series]) -> list[Series]:
    """The plain runs of these networks with the same threads and recipe; empty where one lacks or is itself plain."""
    may_differ = ("engine", "pipeline", "workers", "epochs")
    found = []
    for s in series:
        setting = s.setting_without(*may_differ)
        for other in timed:
            same = other.architecture == s.architecture and other.setting_without(*may_differ) == setting
            if same and is_plain(other) and not is_plain(s):
                found.append(other)
                break
    return found if len(found) == len(series) else []


def _baseline(timed: Sequence[Series], series: Series) -> Series | None:
    """The baseline under the same setting; None for the baseline itself."""
    setting = series.setting_without("epochs")
    same = (s for s in timed if s.architecture == "baseline" and s.setting_without("epochs") == setting)
    return next(same, None) if series.architecture != "baseline" else None


def _sum(parts: Sequence[Mapping[Origin, float]]) -> dict[Origin, float]:
    """The sum of the parts in each process that measured all of them."""
    first, *others = parts
    return {o: sum(p[o] for p in parts) for o in first if all(o in p for p in others)}
