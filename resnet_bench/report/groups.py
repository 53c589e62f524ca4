"""Which results may stand together: one `Group` for each machine and data set, one `Series` for each line in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_bench import paper
from resnet_bench.errors import UserError
from resnet_bench.results import (
    AccuracyResult,
    DatasetInfo,
    EpochTimeResult,
    Interval,
    ParametersResult,
    PhaseSeconds,
    ResultFile,
    wilson_interval,
)
from resnet_bench.timing import mean_interval, positive_mean_interval

PAPER_TRAIN_IMAGES = 50_000
"""The paper's published times are for epochs of this many images."""


@dataclass(frozen=True)
class EpochTime:
    """Seconds of one training epoch: `low` and `high` are the 95 % interval, None where one value is all there is.

    Attributes:
        source: `sampled`, `full`, or `training` where it is the mean of the epochs of accuracy runs.
        runs: how many results it is over.
        steps: how many steps were timed, over all of them.
    """

    seconds: float
    low: float | None
    high: float | None
    source: str
    runs: int
    steps: int


@dataclass(frozen=True)
class Series:
    """Runs of one architecture under one setting; they differ in nothing but the seed and the time of day.

    Attributes:
        setting: engine, pipeline, workers, threads and the recipe's numbers, flat: what else decides the result.
            `epochs` is there only where there are accuracy runs.
        accuracies: one for each seed; only complete runs where there are any.
        stopped: how many runs were left out of `accuracies` because they stopped early.
        times: the epoch-time results; none is there twice.
    """

    architecture: str
    setting: dict[str, Any]
    accuracies: tuple[AccuracyResult, ...]
    stopped: int
    times: tuple[EpochTimeResult, ...]

    @property
    def engine(self) -> str:
        return str(self.setting["engine"])

    def setting_without(self, *keys: str) -> dict[str, Any]:
        """`setting` but for these keys: series that agree in it differ in nothing but them."""
        return {k: v for k, v in self.setting.items() if k not in keys}

    @property
    def parameters(self) -> int:
        """Of the network that was run, with as many outputs as its data set has classes."""
        return (*self.accuracies, *self.times)[0].parameters

    @property
    def complete(self) -> bool:
        """Whether the accuracy runs reached the recipe's last epoch."""
        return all(r.complete for r in self.accuracies)

    @property
    def timed_trainings(self) -> tuple[AccuracyResult, ...]:
        """The accuracy runs whose epochs' times compare: not those that were resumed under another setting."""
        return tuple(r for r in self.accuracies if not r.mixed)

    @property
    def steps_per_epoch(self) -> int:
        if self.times:
            return self.times[0].steps_per_epoch
        run = self.accuracies[0]
        return -(-run.dataset.train_images // _positive(run, "batch_size"))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(w for r in self.times for w in r.warnings))

    def epoch_time(self) -> EpochTime | None:
        """From the epoch-time results if there are any, else from the accuracy runs' own clocks; None without either.

        Over several results it is their mean with its interval: sessions differ by more than blocks do.
        """
        measured = [r for r in self.times if r.blocks]
        measured = [r for r in measured if r.mode == "full"] or measured  # whole epochs need no extrapolation
        if not measured:
            return self._training_time()
        source = measured[0].mode
        steps = sum(b.steps for r in measured for b in r.blocks)
        if len(measured) > 1:
            mean = mean_of([_seconds(r) for r in measured], positive_mean_interval)
            return EpochTime(mean.estimate, mean.low, mean.high, source, len(measured), steps)
        interval = measured[0].epoch_seconds
        low, high = (interval.low, interval.high) if interval else (None, None)
        return EpochTime(_seconds(measured[0]), low, high, source, 1, steps)

    def _training_time(self) -> EpochTime | None:
        timed = self.timed_trainings
        seconds = [e.train_seconds for r in timed for e in r.epochs]
        if not seconds:
            return None
        mean = mean_of(seconds, positive_mean_interval)
        low, high = (mean.low, mean.high) if len(seconds) > 1 else (None, None)
        steps = len(seconds) * self.steps_per_epoch
        return EpochTime(mean.estimate, low, high, "training", len(timed), steps)

    def step_seconds(self) -> float | None:
        """Mean seconds of a step; from the epoch-time results' blocks, else the epoch's time over its steps."""
        steps = sum(b.steps for r in self.times for b in r.blocks if r.mode == "sampled")
        if steps:
            return sum(b.seconds for r in self.times for b in r.blocks if r.mode == "sampled") / steps
        time = self.epoch_time()
        return time.seconds / self.steps_per_epoch if time else None

    def step_phases(self) -> dict[str, float] | None:
        """Mean seconds of each phase of a step, over all blocks; None without blocks."""
        blocks = [b for r in self.times for b in r.blocks]
        steps = sum(b.steps for b in blocks)
        if not steps:
            return None
        return {p: sum(getattr(b.phases, p) for b in blocks) / steps for p in PhaseSeconds.model_fields}

    def step_bound(self) -> float | None:
        """The least seconds a step can take on this machine, where it was measured."""
        bounds = [r.step_bound_seconds for r in self.times if r.step_bound_seconds]
        return sum(bounds) / len(bounds) if bounds else None

    def final_accuracy(self) -> Interval | None:
        return _accuracy([(r, r.epochs[-1].test_accuracy) for r in self.accuracies])

    def peak_accuracy(self) -> Interval | None:
        """Of the best epoch of each run; its interval does not know that the best was picked."""
        return _accuracy([(r, max(e.test_accuracy for e in r.epochs)) for r in self.accuracies])

    def accuracy_by_epoch(self) -> list[tuple[int, Interval]]:
        """(epoch, accuracy) with the interval over seeds, or Wilson's for one seed; epochs that all runs reached."""
        shared = min((len(r.epochs) for r in self.accuracies), default=0)
        pairs = [[(r, r.epochs[i].test_accuracy) for r in self.accuracies] for i in range(shared)]
        return [(i, interval) for i, p in enumerate(pairs, 1) if (interval := _accuracy(p))]

    def seconds_by_epoch(self) -> list[tuple[int, Interval]]:
        """(epoch, training seconds) with the interval over seeds; for one seed `low` and `high` are the value.

        Empty where all runs are `mixed`.
        """
        timed = self.timed_trainings
        shared = min((len(r.epochs) for r in timed), default=0)
        by_epoch = [[r.epochs[i].train_seconds for r in timed] for i in range(shared)]
        return [(i, mean_of(seconds, positive_mean_interval)) for i, seconds in enumerate(by_epoch, 1)]


@dataclass(frozen=True)
class Group:
    """What was measured on one machine with one data set; `series` are in the paper's order."""

    machine: dict[str, Any]
    dataset: DatasetInfo
    series: tuple[Series, ...]

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

    def label(self, series: Series) -> str:
        """What tells the series from others of its architecture, e.g. `fast, 2 threads`; often empty."""
        return ", ".join(_setting_text(k, series.setting[k]) for k in self.varying if k in series.setting)

    def name(self, series: Series) -> str:
        """`baseline`, or `baseline (fast)` where there are several engines."""
        label = self.label(series)
        return f"{series.architecture} ({label})" if label else series.architecture


def groups(files: Sequence[ResultFile]) -> list[Group]:
    """Sort the runs of all files by machine and data set, in the order in which they come.

    Machines are told apart by hardware, operating system, container limits, torch and allocator, data sets by their
    digest. A subset is drawn anew for each seed, so there the digest may change with the seed; a whole data set, the
    synthetic one too, has the same images for every seed.
    A result that is in two files counts once; of several accuracy runs with one seed the longest counts.
    """
    found: dict[tuple[str, ...], list[tuple[dict[str, Any], AccuracyResult | EpochTimeResult]]] = {}
    digests: dict[tuple[str, int], str] = {}
    for file in files:
        for result in file.results:
            if isinstance(result, AccuracyResult | EpochTimeResult):
                data = result.dataset
                sizes = str((data.name, data.synthetic, data.subset, data.train_images, data.test_images, data.classes))
                same = data.subset and digests.setdefault((sizes, result.seed), data.sha256) == data.sha256
                key = (machine_key(file.machine), sizes, "" if same else data.sha256)
                found.setdefault(key, []).append((file.machine, result))
    return [
        Group(members[0][0], members[0][1].dataset, tuple(_series([result for _, result in members])))
        for members in found.values()
    ]


def parameter_counts(files: Sequence[ResultFile]) -> dict[str, dict[int, int]]:
    """Measured counts: `{architecture: {classes: parameters}}`, from every kind of result that counted them."""
    counts: dict[str, dict[int, int]] = {}
    for file in files:
        for r in file.results:
            if isinstance(r, ParametersResult):
                counts.setdefault(r.architecture, {})[r.num_classes] = r.parameters
            elif isinstance(r, AccuracyResult | EpochTimeResult):
                counts.setdefault(r.architecture, {})[r.dataset.classes] = r.parameters
    return counts


def in_order(architectures: Iterable[str]) -> list[str]:
    """The paper's networks in its order, then the others as they come; each once."""
    names = dict.fromkeys(architectures)
    return [a for a in paper.PUBLISHED if a in names] + [a for a in names if a not in paper.PUBLISHED]


def machine_key(machine: dict[str, Any]) -> str:
    """Equal for two descriptions of one machine with one torch; ignores what changes from minute to minute."""
    cpu, torch = _part(machine, "cpu"), _part(machine, "torch")
    parts = [cpu.get("model"), cpu.get("logical_cores"), machine.get("memory_bytes"), machine.get("os")]
    parts += [_part(machine, "container"), torch.get("version"), _part(machine, "allocator").get("name")]
    return json.dumps(parts, sort_keys=True, default=str)


def machine_text(machine: dict[str, Any]) -> str:
    """`13th Gen Intel(R) Core(TM) i5-1340P, 12 cores (16 logical), torch 2.15.0, glibc allocator`, or `unknown CPU`."""
    cpu, torch = _part(machine, "cpu"), _part(machine, "torch")
    physical, logical, usable = cpu.get("physical_cores"), cpu.get("logical_cores"), cpu.get("affinity_cores")
    cores = f"{physical or logical} cores" if physical or logical else "unknown cores"
    if physical and logical and logical != physical:
        cores += f" ({logical} logical)"
    if usable and logical and usable != logical:
        cores += f", {usable} usable"
    version = torch.get("version")
    parts = [str(cpu.get("model") or "unknown CPU"), cores, f"torch {version}" if version else "unknown torch"]
    if allocator := _part(machine, "allocator").get("name"):
        parts.append(f"{allocator} allocator")
    quota = _part(machine, "container").get("cpu_quota")
    if quota:
        small = isinstance(quota, int | float) and quota < 1e6  # a damaged file may have one beyond floating point
        parts.insert(2, f"container limited to {quota:g} CPUs" if small else str(quota))
    return ", ".join(parts)


def dataset_text(dataset: DatasetInfo) -> str:
    """`cifar100 (50,000 training and 10,000 test images, 100 classes)`, with `synthetic` and `subset`."""
    kinds = [k for k, is_it in (("synthetic images", dataset.synthetic), ("subset", dataset.subset)) if is_it]
    sizes = f"{dataset.train_images:,} training and {dataset.test_images:,} test images, {dataset.classes} classes"
    return f"{dataset.name} ({', '.join([*kinds, sizes])})"


def setting_text(group: Group) -> str:
    """`2 threads, batch size 4; reference engine: loader pipeline; fast engine: …`: what is shared, then the rest."""
    keys = ("engine", "pipeline", "workers", "threads", "batch_size", "lr")
    shared = [k for k in keys if len({json.dumps(s.setting.get(k)) for s in group.series}) == 1]
    parts = [", ".join(_setting_text(k, group.series[0].setting.get(k)) for k in shared)]
    for s in group.series:
        rest = [_setting_text(k, s.setting.get(k)) for k in keys if k not in (*shared, *group.varying)]
        parts += [f"{group.label(s)}: {', '.join(rest)}"] if rest else []
    return "; ".join(dict.fromkeys(parts))


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


def _seconds(result: EpochTimeResult) -> float:
    """The estimate, also where there are too few blocks for an interval."""
    if result.epoch_seconds:
        return result.epoch_seconds.estimate
    step = sum(b.seconds for b in result.blocks) / sum(b.steps for b in result.blocks)
    return step * result.steps_per_epoch + (result.startup_seconds if result.mode == "sampled" else 0)


def _series(results: Sequence[AccuracyResult | EpochTimeResult]) -> Iterable[Series]:
    timed: dict[str, list[EpochTimeResult]] = {}
    trained: dict[str, dict[int, list[AccuracyResult]]] = {}
    settings: dict[str, tuple[str, dict[str, Any]]] = {}
    for result in results:
        setting = {"engine": result.engine, "pipeline": result.pipeline, "workers": result.workers}
        setting |= {"threads": result.threads, **{k: v for k, v in result.recipe.items() if k != "epochs"}}
        key = json.dumps([result.architecture, setting], sort_keys=True)
        settings[key] = (result.architecture, setting)
        if isinstance(result, EpochTimeResult):
            if result not in timed.setdefault(key, []):
                timed[key].append(result)
        elif result.epochs:
            trained.setdefault(key, {}).setdefault(_positive(result, "epochs"), []).append(result)
    for architecture in in_order(architecture for architecture, _ in settings.values()):
        for key, setting in ((k, s) for k, (a, s) in settings.items() if a == architecture):
            times = tuple(timed.get(key, ()))
            for epochs, runs in trained.get(key, {}).items():
                chosen, stopped = _one_a_seed(runs)
                yield Series(architecture, {**setting, "epochs": epochs}, chosen, stopped, times)
            if key not in trained and times:
                yield Series(architecture, setting, (), 0, times)


def _one_a_seed(runs: Sequence[AccuracyResult]) -> tuple[tuple[AccuracyResult, ...], int]:
    """A seed's run is deterministic, so a second one adds nothing: the longest of each seed, complete ones if any."""
    by_seed: dict[int, AccuracyResult] = {}
    for run in sorted(runs, key=lambda r: len(r.epochs)):
        by_seed[run.seed] = run
    chosen = [by_seed[seed] for seed in sorted(by_seed)]
    complete = [r for r in chosen if r.complete]
    return tuple(complete or chosen), len(chosen) - len(complete) if complete else 0


def _positive(run: AccuracyResult, key: str) -> int:
    value = run.recipe.get(key)
    if not isinstance(value, int) or value < 1:
        raise UserError(
            f"The recipe of an accuracy result of {run.architecture} has no usable {key}; measure it again."
        )
    return value


def _part(machine: dict[str, Any], key: str) -> dict[str, Any]:
    part = machine.get(key)
    return part if isinstance(part, dict) else {}


def _setting_text(key: str, value: Any) -> str:
    if key in ("engine", "pipeline"):
        return f"{value} {key}"
    if key in ("workers", "threads", "epochs"):
        return f"{value} {key if value != 1 else key[:-1]}"
    return f"{key.replace('_', ' ')} {value}"
