"""What other tools for benchmarks read: github-action-benchmark, Bencher and pyperf. docs/schema.md documents it.

The first two get what the tables say of each network: the time of an epoch, its interval, the accuracy. pyperf gets the
raw values, block by block, and makes its own statistics of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from resnet_bench import identity
from resnet_bench.analysis.replicates import epoch_seconds
from resnet_bench.analysis.series import EpochDuration, Group, Series, groups
from resnet_bench.analysis.speed import measured
from resnet_bench.errors import UserError
from resnet_bench.render.captions import dataset_text, machine_text, value_text
from resnet_bench.render.table import significant
from resnet_bench.results.samples import Samples
from resnet_bench.schema import Block, DatasetInfo, EpochTimeResult, Interval, Point
from resnet_bench.wording import listed

Format = Literal["github-action-benchmark", "bencher", "pyperf"]

MEBIBYTE = 2**20


@dataclass(frozen=True)
class _Benchmark:
    """A series under the name that it has in the other tool, the same for every file that holds it."""

    name: str
    group: Group
    series: Series

    @cached_property
    def time(self) -> EpochDuration | None:
        return self.series.epoch_time()

    @cached_property
    def accuracy(self) -> Interval | None:
        """After the last epoch; None where the trainings stopped before it."""
        return self.series.final_accuracy() if self.series.complete else None

    @cached_property
    def peak_memory(self) -> int | None:
        """Bytes."""
        return max((r.peak_memory_bytes for r in self.series.times if r.peak_memory_bytes is not None), default=None)


def exported(samples: Samples, format_: Format) -> tuple[bytes, list[str]]:
    """The content of a file for another tool, in ASCII, and what has to be said of it: sentences, one a line.

    Raises:
        UserError: nothing in the samples can be said in the format, or they are of several machines, softwares or
            codes, which these tools would take for one.
    """
    found = groups(samples)
    if len({identity.key(g.machine) for g in found}) > 1:
        raise UserError(
            f"The files hold results of several machines, softwares or codes, which {format_} would take for one; "
            "export those of each into a file of its own."
        )
    benchmarks = _named(found)
    content = _FORMATS[format_](benchmarks)
    if not content:
        raise UserError(
            f"Nothing in these files can be told to {format_}, which takes times of epochs that compare"
            f"{' and final accuracies' if format_ == 'bencher' else ''}; --format json has everything."
        )
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    return text.encode(), [*_notes(benchmarks, format_), *_left_out(samples)]


# ---------------------------------------------------------------------------------------------------------------------
# Names


def _named(found: Sequence[Group]) -> list[_Benchmark]:
    """A name depends on the series alone, so that it stays the same from file to file.

    Only where one file has two series of one network, engine and data set, other settings are added to tell them apart.
    """
    every = [(g, s) for g in found for s in g.series]
    names = [_name(g, s, ()) for g, s in every]
    told = [
        name if names.count(name) == 1 else _name(g, s, g.varying) for name, (g, s) in zip(names, every, strict=True)
    ]
    for name in told:
        if told.count(name) > 1:
            raise UserError(
                f"The files hold two benchmarks that would both be called {name}, of other images or planned epochs; "
                "export them apart."
            )
    return [_Benchmark(name, g, s) for name, (g, s) in zip(told, every, strict=True)]


def _name(group: Group, series: Series, varying: Iterable[str]) -> str:
    """`fc1 (fast engine, cifar100 subset of 5,000)`; synthetic images and subsets are named wherever they appear."""
    keys = dict.fromkeys(["engine", *varying])
    settings = [value_text(key, series.setting[key]) for key in keys if key in series.setting]
    return f"{series.architecture} ({', '.join([*settings, _images(group.dataset)])})"


def _images(dataset: DatasetInfo) -> str:
    name = dataset.name if not dataset.synthetic or "synthetic" in dataset.name else f"{dataset.name}, synthetic"
    return f"{name} subset of {dataset.train_images:,}" if dataset.subset else name


# ---------------------------------------------------------------------------------------------------------------------
# The formats


def _github_action_benchmark(benchmarks: Sequence[_Benchmark]) -> list[dict[str, Any]]:
    """The list that its tool `customSmallerIsBetter` reads: seconds and MiB."""
    entries = []
    for b in benchmarks:
        about = [dataset_text(b.group.dataset), machine_text(b.group.machine)]
        if time := b.time:
            entry: dict[str, Any] = {"name": f"{b.name}: epoch time", "unit": "s", "value": time.seconds}
            how = time.measured
            if time.low is not None and time.high is not None:
                entry["range"] = f"± {significant((time.high - time.low) / 2)}"
                ends = [significant(end, time.seconds) for end in (time.low, time.high)]
                how = f"95 % interval [{', '.join(ends)}] s, {how}"
            doubts = [f"doubtful: {warning}" for warning in b.series.warnings]
            entries.append({**entry, "extra": "\n".join([how, *about, *doubts])})
        if (peak := b.peak_memory) is not None:
            entry = {"name": f"{b.name}: peak memory", "unit": "MiB", "value": peak / MEBIBYTE}
            entries.append({**entry, "extra": "\n".join(about)})
    return entries


def _bencher(benchmarks: Sequence[_Benchmark]) -> dict[str, dict[str, dict[str, float]]]:
    """The Bencher Metric Format: `latency` in nanoseconds, as Bencher has it, `accuracy` in per cent, bytes."""
    content: dict[str, dict[str, dict[str, float]]] = {}
    for b in benchmarks:
        measures: dict[str, dict[str, float]] = {}
        if time := b.time:
            measures["latency"] = _metric(1e9, time.seconds, time.low, time.high)
        if accuracy := b.accuracy:
            measures["accuracy"] = _metric(100, accuracy.estimate, accuracy.low, accuracy.high)
        if (peak := b.peak_memory) is not None:
            measures["peak-memory"] = {"value": peak}
        if measures:
            content[b.name] = measures
    return content


def _metric(scale: float, value: float, low: float | None, high: float | None) -> dict[str, float]:
    """Bencher's metric, of numbers times `scale`; an end that rounding has put on the other side is the value."""
    ends = {} if low is None or high is None else {"lower_value": min(low, value), "upper_value": max(high, value)}
    return {key: scale * number for key, number in {"value": value, **ends}.items()}


def _pyperf(benchmarks: Sequence[_Benchmark]) -> dict[str, Any]:
    """pyperf's JSON, with a run for each process.

    Each point of the training is a benchmark of its own, since the mean over a training weighs the points, and pyperf
    weighs its values alike. Steps that warm up are not timed, so there are no warm-up values.
    """
    made = []
    for b in benchmarks:
        dataset = {"dataset": dataset_text(b.group.dataset), "doubtful": " ".join(b.series.warnings)}
        setting = {key: b.series.setting.get(key) for key in ("engine", "pipeline", "workers", "threads", "batch_size")}
        for what, about, runs in _pyperf_runs(b.series):
            metadata = {"name": f"{b.name}: {what}", "unit": "second", **setting, **dataset, **about}
            made.append({"metadata": _metadata(metadata), "runs": runs})
    if not made:
        return {}
    facts = identity.flat(benchmarks[0].group.machine)
    names = {"cpu_model_name": "cpu_model", "cpu_count": "logical_cores", "platform": "os", "python_version": "python"}
    names |= {"torch": "torch", "resnet_bench_version": "code_version", "resnet_bench_commit": "code_commit"}
    shared = _metadata({name: facts[fact] for name, fact in names.items()})
    return {"version": "1.0", "metadata": shared, "benchmarks": made}


def _pyperf_runs(series: Series) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """What was timed, what is to be known about it, and the runs: a block a value, or an epoch of a training."""
    results = [result for _, result in measured(series)]
    if not results:
        by_process: dict[Any, list[float]] = {}
        for training in series.timed_trainings:
            for where, seconds in epoch_seconds(training, ""):
                by_process.setdefault((training.seed, where), []).append(seconds)
        runs = [{"values": positive} for values in by_process.values() if (positive := [v for v in values if v > 0])]
        if runs:
            yield "epoch of a training", {}, runs
        return
    points: Sequence[Point | None] = results[0].points or (None,)
    for i, point in enumerate(points):
        what, about = "epoch" if results[0].measured == "full" else "step", dict[str, Any]()
        if point:
            what = f"step after {point.step:,} steps"
            about = {"training_step": point.step, "point_weight": point.weight, "point_state": point.state}
        runs = [
            _pyperf_run(r, process, [b for b in blocks if b.point == i])
            for r in results
            for process, blocks in r.process_blocks.items()
            if any(b.point == i for b in blocks)
        ]
        if runs:
            yield what, about, runs


def _pyperf_run(result: EpochTimeResult, process: int, blocks: Sequence[Block]) -> dict[str, Any]:
    """One process: seconds of a step, or of a whole epoch; `loops` is how many were timed together."""
    loops = {1 if result.measured == "full" else b.steps for b in blocks}
    values = [b.seconds / (1 if result.measured == "full" else b.steps) for b in blocks]
    started_at = result.processes[process].started_at if result.processes else result.started_at
    load = result.load_average_before
    metadata = {
        "loops": loops.pop() if len(loops) == 1 else None,
        "date": _date(started_at),
        "load_avg_1min": load if load is None or load >= 0 else None,
    }
    return {"values": values, "metadata": _metadata(metadata)}


def _metadata(values: Mapping[str, Any]) -> dict[str, str | int | float]:
    """What pyperf takes: numbers, and texts of one line that are not empty."""
    texts = {k: " ".join(v.split()) if isinstance(v, str) else v for k, v in values.items()}
    return {k: v for k, v in texts.items() if isinstance(v, str | int | float) and v != ""}


def _date(started_at: str | None) -> str | None:
    """As pyperf writes it, with a space; None for what is no date."""
    try:
        return datetime.fromisoformat(started_at or "").isoformat(" ")
    except ValueError:
        return None


_FORMATS: dict[Format, Callable[[Sequence[_Benchmark]], Any]] = {
    "github-action-benchmark": _github_action_benchmark,
    "bencher": _bencher,
    "pyperf": _pyperf,
}


# ---------------------------------------------------------------------------------------------------------------------
# What has to be said


def _left_out(samples: Samples) -> Iterator[str]:
    """Which results no format takes; the counts of parameters, which never change, go without saying."""
    names = {"scale": "of resnet-bench scale", "explain": "that explain a step", "overhead": "of the harness's cost"}
    there = {run.result.kind for run in samples.runs}
    if found := [name for kind, name in names.items() if kind in there]:
        yield f"results left out: {listed(found)}; --format json has them."


def _notes(benchmarks: Sequence[_Benchmark], format_: Format) -> Iterator[str]:
    def of(chosen: Callable[[_Benchmark], Any]) -> str:
        """The benchmarks that these notes are about; empty for none."""
        names = [b.name for b in benchmarks if chosen(b)]
        return "all benchmarks" if len(names) == len(benchmarks) else "; ".join(names)

    if names := of(lambda b: b.time and b.series.warnings):
        yield f"doubtful times, written all the same, for which resnet-bench report has the reasons: {names}."
    if names := of(lambda b: not b.time):
        yield (
            "times left out, which do not compare, of trainings side by side, resumed elsewhere or under several "
            f"settings: {names}."
        )
    if format_ != "pyperf" and (names := of(lambda b: b.time and b.time.low is None)):
        yield f"times without an interval, from fewer than three processes: {names}."
    if format_ != "bencher" and any(b.series.accuracies for b in benchmarks):
        takes = "takes only times" if format_ == "pyperf" else "takes for better what is smaller"
        yield f"accuracies left out, since {format_} {takes}; --format bencher has them."
    if format_ == "bencher" and (names := of(lambda b: b.series.accuracies and not b.accuracy)):
        yield f"accuracies left out, of trainings that stopped before their last epoch: {names}."
