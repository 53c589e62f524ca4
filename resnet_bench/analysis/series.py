"""Results that belong together: a `Group` for each machine and data set, in it a `Series` a network and setting."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, median, quantiles
from typing import Any, Literal, NamedTuple

from resnet_bench import identity, paper
from resnet_bench.analysis.ratios import paired_ratio
from resnet_bench.analysis.replicates import Origin, Replicates, epoch_seconds, origin, replicates
from resnet_bench.errors import UserError
from resnet_bench.intervals import mean_interval, wilson_interval
from resnet_bench.results.samples import TRAINED, Pool, Run, Samples, raw_values
from resnet_bench.schema import (
    AccuracyResult,
    Block,
    DatasetInfo,
    EpochTimeResult,
    Interval,
    ParametersResult,
    PhaseSeconds,
)


@dataclass(frozen=True)
class EpochDuration:
    """How long a training epoch takes, the mean over the training.

    Attributes:
        seconds: the mean over the processes or, where there are several sessions, over these.
        low, high: seconds, its 95 % interval; None for fewer than `LEAST_VALUES` of them.
        source: `sampled`, `full`, or `training` where it is the mean over the epochs of accuracy runs.
        runs: the number of results that it comes from.
        steps: the number of steps that were timed in them.
        measured: `measured in 3 processes`.
    """

    seconds: float
    low: float | None
    high: float | None
    source: str
    runs: int
    steps: int
    measured: str


@dataclass(frozen=True)
class Course:
    """How long a step, or an epoch of such steps, takes in the course of the training, in seconds.

    Attributes:
        early, late: at the first and at the last point of the training; None where it has fewer than two points.
        mean: over the training.
        early_step, late_step: steps of the training before these points; 0 without points.
    """

    early: Replicates | None
    late: Replicates | None
    mean: Replicates
    early_step: int
    late_step: int


TREND_LIMIT = 0.05
"""Relative change between two points of the training that is worth telling."""

Quantity = Literal["step time", "read parameters", "updated parameters"]


@dataclass(frozen=True)
class Trend:
    """How a quantity changes from the first point of the training to the later point at which it differs most.

    The rule: the quantity changes where, at any later point, the whole interval of the ratio to the first point lies
    beyond 1 ± `TREND_LIMIT`. The intervals are over processes, paired, and hold for all later points together.

    Attributes:
        ratio: later over first, at the point named.
        step: steps of the training before that point.
        changes: whether it changes, by the rule.
    """

    quantity: Quantity
    ratio: Interval
    step: int
    changes: bool


SPREAD_LIMITS = (0.10, 0.25)
"""Spread above which times vary much, and very much: the limits of `torch.utils.benchmark`."""


@dataclass(frozen=True)
class Spread:
    """How far blocks scatter: the interquartile range over the median, of the blocks of all processes.

    Each block counts relative to the median of its point of the training, so that a trend is no spread.
    """

    relative: float

    @property
    def level(self) -> Literal["usual", "large", "very large"]:
        large, very_large = SPREAD_LIMITS
        return "very large" if self.relative > very_large else "large" if self.relative > large else "usual"


@dataclass(frozen=True)
class Series:
    """Runs of one architecture under one setting; they differ only in seed, session, process and time of day.

    Attributes:
        setting: engine, pipeline, workers, threads and the recipe's numbers, in one flat dict. `epochs` is there only
            where there are accuracy runs or where the learning rate depends on it.
        accuracies: one run for each seed; only complete runs where there are any.
        stopped: the number of runs that are left out of `accuracies` because they stopped early.
        timed_trainings: the runs of `accuracies` whose epoch times compare. A run that was resumed under another
            setting or had another one beside it is left out; where the runs differ in a setting that changes only
            times, all are.
        timed: the runs with epoch-time results.
    """

    architecture: str
    setting: dict[str, Any]
    accuracies: tuple[AccuracyResult, ...]
    stopped: int
    timed_trainings: tuple[AccuracyResult, ...]
    timed: tuple[Run, ...]

    @property
    def times(self) -> tuple[EpochTimeResult, ...]:
        """The epoch-time results."""
        return tuple(run.result for run in self.timed if isinstance(run.result, EpochTimeResult))

    @property
    def engine(self) -> str:
        return str(self.setting["engine"])

    def setting_without(self, *keys: str) -> dict[str, Any]:
        """`setting` without these keys."""
        return {k: v for k, v in self.setting.items() if k not in keys}

    @property
    def parameters(self) -> int:
        """Trainable parameters of the network that was run, which has an output for each class of the data set."""
        return (*self.accuracies, *self.times)[0].parameters

    @property
    def complete(self) -> bool:
        """Whether the accuracy runs reached the recipe's last epoch."""
        return all(r.complete for r in self.accuracies)

    @property
    def steps_per_epoch(self) -> int:
        if self.times:
            return self.times[0].steps_per_epoch
        run = self.accuracies[0]
        return -(-run.dataset.train_images // _positive(run, "batch_size"))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(w for r in self.times for w in r.warnings))

    def epoch_time(self) -> EpochDuration | None:
        """From the epoch-time results if there are any, else from the epochs of accuracy runs; None without either."""
        measured = self._measured
        runs: Sequence[tuple[EpochTimeResult | AccuracyResult, str]] = measured or [
            (r, "") for r in self.timed_trainings
        ]
        found = replicates(value for r, session in runs for value in epoch_seconds(r, session))
        if found is None:
            return None
        low, high = (found.interval.low, found.interval.high) if found.interval else (None, None)
        epochs = sum(len(r.epochs) for r in self.timed_trainings)
        steps = sum(b.steps for r, _ in measured for b in r.blocks) or self.steps_per_epoch * epochs
        source = measured[0][0].mode if measured else "training"
        return EpochDuration(found.mean, low, high, source, len(runs), steps, found.measured)

    @cached_property
    def _measured(self) -> list[tuple[EpochTimeResult, str]]:
        """The results that measured one quantity, each with its session."""
        sessions = {id(run.result): run.session or run.file.sha256 or str(run.file.path) for run in self.timed}
        return [(r, sessions[id(r)]) for r in in_one_mode([r for r in self.times if r.process_blocks])]

    def course(self, per: Literal["step", "epoch"] = "step") -> Course | None:
        """Time early, late and in the mean over the training; None without epoch-time results."""

        def at_point(result: EpochTimeResult, step_seconds: float, process: int) -> float:
            startup = result.processes[process].startup_seconds if result.processes else result.startup_seconds
            return step_seconds if per == "step" else startup + result.steps_per_epoch * step_seconds

        mean = replicates(
            (origin(r, session, i), at_point(r, seconds, i))
            for r, session in self._measured
            for i, seconds in r.step_times.items()
        )
        if mean is None:
            return None
        points = self._measured[0][0].points
        first, last = (
            replicates(
                (origin(r, session, i), at_point(r, seconds, i))
                for r, session in self._measured
                for i, seconds in r.point_step_times.get(point, {}).items()
                if i in r.process_blocks
            )
            for point in (0, len(points) - 1)
        )
        several = len(points) > 1
        steps = (points[0].step, points[-1].step) if several else (0, 0)
        return Course(first if several else None, last if several else None, mean, *steps)

    def trends(self) -> list[Trend]:
        """How step time and parameters read and updated change over the points; without those that cannot be judged."""
        return [trend for quantity, value in _QUANTITIES.items() if (trend := self._trend(quantity, value))]

    def _trend(self, quantity: Quantity, value: Callable[[Block], float]) -> Trend | None:
        by_point: dict[int, list[tuple[Origin, float]]] = {}
        for r, session in self._measured:
            for b in r.blocks:
                by_point.setdefault(b.point, []).append((origin(r, session, b.process), value(b)))
        points = {point: found.values for point, values in by_point.items() if (found := replicates(values))}
        first = points.pop(0, {})
        ratios = {}
        for point, later in points.items():
            common = sorted(first.keys() & later.keys())
            if ratio := paired_ratio([first[k] for k in common], [later[k] for k in common], together=len(points)):
                ratios[point] = ratio
        if not ratios:
            return None

        def change(point: int) -> float:
            """The least change on the logarithmic scale that the interval allows; negative where it holds 1."""
            return max(math.log(ratios[point].low), -math.log(ratios[point].high))

        most = max(ratios, key=change)
        changes = ratios[most].low > 1 + TREND_LIMIT or ratios[most].high < 1 - TREND_LIMIT
        return Trend(quantity, ratios[most], self._measured[0][0].points[most].step, changes)

    def spread(self) -> Spread | None:
        """How far blocks scatter within the points of the training; None for fewer than four blocks at some point."""
        at_point: dict[int, list[float]] = {}
        for r, _ in self._measured:
            for b in r.blocks:
                at_point.setdefault(b.point, []).append(b.seconds / b.steps)
        if min(map(len, at_point.values()), default=0) < 4:
            return None
        relative = [value / median(own) for own in at_point.values() for value in own]
        lower, _, upper = quantiles(relative, n=4, method="inclusive")
        return Spread((upper - lower) / median(relative))

    def step_seconds(self) -> float | None:
        """Mean seconds of a step over the training; without epoch-time results an epoch's time over its steps."""
        if course := self.course():
            return course.mean.mean
        time = self.epoch_time()
        return time.seconds / self.steps_per_epoch if time else None

    def step_phases(self) -> dict[str, float] | None:
        """Mean seconds of each phase of a step over the training; None without epoch-time results."""
        phases = [r.step_phases for r, _ in self._measured]
        return {p: fmean(own[p] for own in phases) for p in PhaseSeconds.model_fields} if phases else None

    def final_accuracy(self) -> Interval | None:
        """Accuracy after the last epoch, as a fraction of 1; None without accuracy runs."""
        return _accuracy([(r, r.epochs[-1].test_accuracy) for r in self.accuracies])

    def peak_accuracy(self) -> Interval | None:
        """Accuracy of the best epoch of each run; the interval does not allow for the fact that the best was picked."""
        return _accuracy([(r, peak) for r in self.accuracies if (peak := r.peak_accuracy) is not None])

    def accuracy_by_epoch(self) -> list[tuple[int, Interval]]:
        """(epoch, accuracy) for the epochs that all runs reached; the interval is over seeds, for one seed Wilson's."""
        shared = min((len(r.epochs) for r in self.accuracies), default=0)
        by_epoch = [[(r, r.epochs[i].test_accuracy) for r in self.accuracies] for i in range(shared)]
        return [(epoch, interval) for epoch, runs in enumerate(by_epoch, 1) if (interval := _accuracy(runs))]

    def seconds_by_epoch(self) -> list[tuple[int, Interval]]:
        """(epoch, training seconds) for the epochs that all runs in `timed_trainings` reached.

        The interval is over the processes that trained; for fewer than three its ends are the mean.
        """
        timed = [epoch_seconds(r, "") for r in self.timed_trainings]
        by_epoch = enumerate(zip(*timed, strict=False), 1)
        found = [(epoch, seconds) for epoch, values in by_epoch if (seconds := replicates(values))]
        return [(epoch, seconds.interval or _without_interval(seconds.mean)) for epoch, seconds in found]


def paired_final_accuracies(series: Series, control: Series) -> tuple[list[float], list[float]]:
    """Final accuracies of both, as fractions of 1, for the seeds that both have."""
    own, control_own = ({r.seed: r.epochs[-1].test_accuracy for r in s.accuracies} for s in (series, control))
    shared = sorted(own.keys() & control_own.keys())
    return [own[seed] for seed in shared], [control_own[seed] for seed in shared]


class Distinction(NamedTuple):
    """What tells a group from others: a fact of its identity.

    Attributes:
        key: as in `identity.flat`.
        value: of this group.
        every: the values of all groups, this one included.
    """

    key: str
    value: Any
    every: tuple[Any, ...]


@dataclass(frozen=True)
class Group:
    """What was measured on one kind of machine with one software, code and data set.

    Attributes:
        machines: the description in each of its files, with that file's calibration.
        series: in the paper's order.
        distinctions: facts of its machine, software and code in which it differs from other groups of the same files.
    """

    machines: tuple[dict[str, Any], ...]
    dataset: DatasetInfo
    series: tuple[Series, ...]
    distinctions: tuple[Distinction, ...] = ()

    @property
    def machine(self) -> dict[str, Any]:
        """The first of the descriptions; the others may differ from it in calibration and settings of speed alone."""
        return self.machines[0]

    @property
    def varying(self) -> tuple[str, ...]:
        """The fewest settings that tell the series apart."""
        return varying([s.setting for s in self.series])


def varying(settings: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The fewest keys that tell settings apart: `("engine",)` also where each engine has its own pipeline."""
    chosen: list[str] = []
    for key in dict.fromkeys(k for setting in settings for k in setting):
        values: dict[str, set[str]] = {}
        for setting in settings:
            if key in setting:
                values.setdefault(json.dumps([setting.get(k) for k in chosen]), set()).add(json.dumps(setting[key]))
        if any(len(v) > 1 for v in values.values()):
            chosen.append(key)
    return tuple(chosen)


def groups(samples: Samples) -> list[Group]:
    """Group the runs of trainings by machine, software, code and data set; groups come in the order of the runs."""
    found: dict[tuple[str, str], list[Pool]] = {}
    for pool in samples.pools:
        found.setdefault((pool.identity, pool.dataset), []).append(pool)
    made = []
    for pools in found.values():
        runs = [run for pool in pools for run in pool.runs]
        descriptions = list({id(run.file): run.machine for run in runs}.values())
        made.append(Group(tuple(descriptions), _dataset(runs[0]), tuple(_series(pools))))
    return [replace(group, distinctions=_distinctions(group, made)) for group in made]


def _dataset(run: Run) -> DatasetInfo:
    assert isinstance(run.result, TRAINED)
    return run.result.dataset


def _distinctions(group: Group, every: Sequence[Group]) -> tuple[Distinction, ...]:
    flat = [identity.flat(g.machine) for g in every]
    own = identity.flat(group.machine)
    return tuple(
        Distinction(key, value, tuple(f[key] for f in flat))
        for key, value in own.items()
        if key not in identity.SPEED_ONLY and any(f[key] != value for f in flat)
    )


def parameter_counts(samples: Samples) -> dict[str, dict[int, int]]:
    """Measured counts: `{architecture: {classes: parameters}}`, from every kind of result that counted them."""
    counts: dict[str, dict[int, int]] = {}
    for run in samples.runs:
        r = run.result
        if isinstance(r, ParametersResult):
            counts.setdefault(r.architecture, {})[r.num_classes] = r.parameters
        elif isinstance(r, TRAINED):
            counts.setdefault(r.architecture, {})[r.dataset.classes] = r.parameters
    return counts


MODES: tuple[Literal["sampled", "full"], ...] = ("sampled", "full")
"""How an epoch's time may be measured. `sampled` is preferred, because many blocks give a better interval."""


def in_one_mode(times: Sequence[EpochTimeResult]) -> list[EpochTimeResult]:
    """The results among these that measured one quantity: in the preferred mode and the most of the training in it.

    Two modes of one run are not two runs. The mean over a training is not that over its first minute, so results
    of older files, without points, do not count beside newer ones.
    """
    mode = next((m for m in MODES if any(r.mode == m for r in times)), None)
    in_mode = [r for r in times if r.mode == mode]
    most = max((_timed(r) for r in in_mode), key=lambda timed: (len(timed[0]), timed[1]), default=None)
    return [r for r in in_mode if _timed(r) == most]


def _timed(result: EpochTimeResult) -> tuple[tuple[int, ...], int]:
    """The points of the training, and in mode `full` how many steps of an epoch."""
    return tuple(p.step for p in result.points), result.steps_of_an_epoch if result.mode == "full" else 0


def in_order(architectures: Iterable[str]) -> list[str]:
    """The paper's networks in its order, then the others as they come; each once."""
    names = dict.fromkeys(architectures)
    return [a for a in paper.PUBLISHED if a in names] + [a for a in names if a not in paper.PUBLISHED]


_QUANTITIES: dict[Quantity, Callable[[Block], float]] = {
    "step time": lambda b: b.seconds / b.steps,
    "read parameters": lambda b: b.read_parameters or 0.0,  # a file that does not tell them has no usable value
    "updated parameters": lambda b: b.updated_parameters or 0.0,
}


def mean_of(values: Sequence[float]) -> Interval:
    """Mean with its interval by Student's t; of one value the interval is the value."""
    return mean_interval(values) if len(values) > 1 else _without_interval(values[0])


def _without_interval(value: float) -> Interval:
    return Interval(estimate=value, low=value, high=value, method="none")


def _accuracy(runs: Sequence[tuple[AccuracyResult, float]]) -> Interval | None:
    if not runs:
        return None
    if len(runs) == 1:
        tested = runs[0][0].dataset.test_images
        return wilson_interval(round(runs[0][1] * tested), tested)
    mean = mean_of([value for _, value in runs])
    return mean.model_copy(update={"low": max(0.0, mean.low), "high": min(1.0, mean.high)})


def _series(pools: Sequence[Pool]) -> Iterable[Series]:
    for architecture in in_order(pool.architecture for pool in pools):
        for pool in pools:
            if pool.architecture == architecture:
                yield from _series_in(pool)


def _series_in(pool: Pool) -> Iterable[Series]:
    """One for each planned number of epochs, and one for each value of the settings that change only times."""
    timed: dict[str, list[Run]] = {}
    trained: dict[int, list[Run]] = {}
    for run in pool.runs:
        if isinstance(run.result, EpochTimeResult):
            timed.setdefault(identity.speed_key(run.machine), []).append(run)
        elif isinstance(run.result, AccuracyResult) and run.result.epochs:
            trained.setdefault(_positive(run.result, "epochs"), []).append(run)

    def setting_with(runs: Sequence[Run]) -> dict[str, Any]:
        """The setting; where timed runs differ in settings that change only times, with those of `runs`."""
        if len(timed) < 2:
            return pool.setting
        software = identity.software_of(runs[0].machine)
        return {**pool.setting, **{k: software[k] for k in identity.SPEED_ONLY}}

    left = dict(timed)
    for epochs, runs in trained.items():
        chosen, stopped = _one_run_for_each_seed(runs)
        speeds = {identity.speed_key(run.machine) for run in chosen}
        own = next((s for s in timed if s in speeds), next(iter(timed), None))
        times = tuple(timed.get(own or "", ()))
        left.pop(own or "", None)
        comparable = chosen if len(speeds) == 1 else ()
        yield Series(
            architecture=pool.architecture,
            setting={**setting_with(times or chosen), "epochs": epochs},
            accuracies=tuple(map(_training, chosen)),
            stopped=stopped,
            timed_trainings=tuple(r for run in comparable if (r := _training(run)).epoch_times),
            timed=times,
        )
    for times_left in left.values():
        yield Series(pool.architecture, setting_with(times_left), (), 0, (), tuple(times_left))


def _training(run: Run) -> AccuracyResult:
    assert isinstance(run.result, AccuracyResult)
    return run.result


def _one_run_for_each_seed(runs: Sequence[Run]) -> tuple[tuple[Run, ...], int]:
    """The longest run of each seed, only complete ones if there are any, and how many of these runs are left out.

    A run is decided by its seed, so a second run of a seed adds nothing.
    """

    def rank(run: Run) -> tuple[int, str]:
        return len(_training(run).epochs), json.dumps(raw_values(run.result), default=str)

    by_seed = {_training(run).seed: run for run in sorted(runs, key=rank)}
    chosen = [by_seed[seed] for seed in sorted(by_seed)]
    complete = [run for run in chosen if _training(run).complete]
    return tuple(complete or chosen), len(chosen) - len(complete) if complete else 0


def _positive(run: AccuracyResult, key: str) -> int:
    """A whole number of the recipe; `UserError` where a damaged file has something else there."""
    value = run.recipe.get(key)
    if not isinstance(value, int) or value < 1:
        raise UserError(
            f"The recipe of an accuracy result of {run.architecture} has no usable {key}; measure it again."
        )
    return value
