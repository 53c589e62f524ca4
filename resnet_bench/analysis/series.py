"""Results that belong together: a `Group` for each machine and data set, in it a `Series` a network and setting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from resnet_bench import identity, paper
from resnet_bench.errors import UserError
from resnet_bench.intervals import mean_interval, positive_mean_interval, wilson_interval
from resnet_bench.results.samples import TRAINED, Pool, Run, Samples, raw_values
from resnet_bench.schema import AccuracyResult, DatasetInfo, EpochTimeResult, Interval, ParametersResult, PhaseSeconds


@dataclass(frozen=True)
class EpochDuration:
    """How long a training epoch takes.

    Attributes:
        seconds: the mean.
        low, high: seconds, its 95 % interval; None where there is only one value.
        source: `sampled`, `full`, or `training` where it is the mean over the epochs of accuracy runs.
        runs: the number of results that it comes from.
        steps: the number of steps that were timed in them.
    """

    seconds: float
    low: float | None
    high: float | None
    source: str
    runs: int
    steps: int


@dataclass(frozen=True)
class Series:
    """Runs of one architecture under one setting; they differ only in seed, session, process and time of day.

    Attributes:
        setting: engine, pipeline, workers, threads and the recipe's numbers, in one flat dict. `epochs` is there only
            where there are accuracy runs.
        accuracies: one run for each seed; only complete runs where there are any.
        stopped: the number of runs that are left out of `accuracies` because they stopped early.
        timed_trainings: the runs of `accuracies` whose epoch times compare. A run that was resumed under another
            setting is left out; where the runs differ in a setting that changes only times, all are.
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
        """From the epoch-time results if there are any, else from the epochs of accuracy runs; None without either.

        Where there are several results, each of them counts as one value: sessions differ by more than blocks do.
        """
        measured = in_one_mode([r for r in self.times if r.blocks])
        if not measured:
            return self._training_time()
        values = [list(r.epoch_times.values()) for r in measured]
        source, steps = measured[0].mode, sum(b.steps for r in measured for b in r.blocks)
        values_or_means = [sum(v) / len(v) for v in values] if len(values) > 1 else values[0]
        mean = mean_of(values_or_means, positive_mean_interval)
        single = len(values) == 1 and len(values[0]) == 1
        low, high = (None, None) if single else (mean.low, mean.high)
        return EpochDuration(mean.estimate, low, high, source, len(measured), steps)

    def _training_time(self) -> EpochDuration | None:
        timed = self.timed_trainings
        seconds = [e.train_seconds for r in timed for e in r.epochs]
        if not seconds:
            return None
        mean = mean_of(seconds, positive_mean_interval)
        low, high = (mean.low, mean.high) if len(seconds) > 1 else (None, None)
        steps = len(seconds) * self.steps_per_epoch
        return EpochDuration(mean.estimate, low, high, "training", len(timed), steps)

    def step_seconds(self) -> float | None:
        """Mean seconds of a step: from the blocks of epoch-time results, else an epoch's time over its steps."""
        blocks = [b for r in in_one_mode([r for r in self.times if r.blocks]) for b in r.blocks]
        if blocks:
            return sum(b.seconds for b in blocks) / sum(b.steps for b in blocks)
        time = self.epoch_time()
        return time.seconds / self.steps_per_epoch if time else None

    def step_phases(self) -> dict[str, float] | None:
        """Mean seconds of each phase of a step, over all blocks; None without blocks."""
        blocks = [b for r in in_one_mode(self.times) for b in r.blocks]
        steps = sum(b.steps for b in blocks)
        if not steps:
            return None
        return {p: sum(getattr(b.phases, p) for b in blocks) / steps for p in PhaseSeconds.model_fields}

    def step_bound(self) -> float | None:
        """The least seconds that a step can take on this machine; None where it was not calibrated."""
        bounds = [r.step_bound_seconds for r in in_one_mode(self.times) if r.step_bound_seconds]
        return sum(bounds) / len(bounds) if bounds else None

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

        The interval is over seeds; for one seed its ends are the value.
        """
        timed = self.timed_trainings
        shared = min((len(r.epochs) for r in timed), default=0)
        by_epoch = [[r.epochs[i].train_seconds for r in timed] for i in range(shared)]
        return [(i, mean_of(seconds, positive_mean_interval)) for i, seconds in enumerate(by_epoch, 1)]


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
        """The fewest settings that tell the series apart: `("engine",)` also where each engine has its own pipeline."""
        chosen: list[str] = []
        for key in dict.fromkeys(k for s in self.series for k in s.setting):
            values: dict[str, set[str]] = {}
            for s in self.series:
                if key in s.setting:
                    values.setdefault(json.dumps([s.setting.get(k) for k in chosen]), set()).add(
                        json.dumps(s.setting[key])
                    )
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
    """The results of the preferred mode among these. Two modes of one run are not two runs, so only one mode counts."""
    mode = next((m for m in MODES if any(r.mode == m for r in times)), None)
    return [r for r in times if r.mode == mode]


def in_order(architectures: Iterable[str]) -> list[str]:
    """The paper's networks in its order, then the others as they come; each once."""
    names = dict.fromkeys(architectures)
    return [a for a in paper.PUBLISHED if a in names] + [a for a in names if a not in paper.PUBLISHED]


def mean_of(values: Sequence[float], interval: Callable[[Sequence[float]], Interval] = mean_interval) -> Interval:
    """Mean with its interval, by default Student's t; of one value the interval is the value."""
    if len(values) == 1:
        return Interval(estimate=values[0], low=values[0], high=values[0], method="single value")
    return interval(values)


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
