"""The table of samples: everything that result files hold, each measurement once.

`resnet_bench.load` returns it as a data frame with a row for each raw measurement; `Samples` has the same runs as
objects. Every report and comparison starts from here and reads no file itself. Two rules are made only here:

- What is a duplicate (`_each_once`): results of one benchmark from one process. Where a file does not tell the process,
  two results are duplicates if the raw values of one are the beginning of the other's. The longer one counts, because a
  journal or an early copy holds the beginning of what the final file holds.
- What may be pooled (`Samples.pools`): results that agree in machine, software, code, data set, network and setting.
  They may differ in seed, session and process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from resnet_bench import identity, progress
from resnet_bench.errors import UserError
from resnet_bench.recipe import of_each_step
from resnet_bench.results.manifest import files_in
from resnet_bench.results.reading import NoResults, ResultFile, read
from resnet_bench.schema import (
    AccuracyResult,
    DatasetInfo,
    EpochTimeResult,
    ExplainResult,
    OverheadResult,
    ParametersResult,
    Result,
    ScaleResult,
)

TRAINED = (AccuracyResult, EpochTimeResult)
"""The kinds of result that come from a training; they have a data set and a setting."""

_T = TypeVar("_T", bound="Result")


@dataclass(frozen=True)
class Run:
    """One result and where it comes from.

    Attributes:
        result: the longest copy of it that the files hold.
        machine: `identity.describe()` of its file.
        file: the file that it was taken from.
        together: equal for runs whose rounds were measured in turn, so that the same rounds of two may be compared.
            These are the runs of one process of one session; where a file does not tell, of one file.
    """

    result: Result
    machine: dict[str, Any]
    file: ResultFile
    together: tuple[str, str]

    @cached_property
    def identity(self) -> str:
        """Equal for runs on one kind of machine with the same software and code."""
        return identity.key(self.machine)

    @property
    def session(self) -> str | None:
        """Random id of the session; None where the file does not tell."""
        found = self.machine.get("session")
        return found if isinstance(found, str) else None

    @property
    def setting(self) -> dict[str, Any]:
        """Engine, pipeline, workers, threads and what of the recipe decides each step, in one flat dict.

        Only of trainings. The number of epochs is in it only where the learning rate depends on it.
        """
        r = self.result
        assert isinstance(r, TRAINED)
        running = {key: getattr(r, key) for key in ("engine", "pipeline", "workers", "threads")}
        return {**running, **of_each_step(r.recipe)}


@dataclass(frozen=True)
class Pool:
    """Runs of one network that may be pooled: they differ only in seed, session, process and time of day.

    Attributes:
        key: a short digest of everything in which they agree.
        identity: equal for the same machine, software and code: `Run.identity`.
        dataset: equal for data sets whose results may be pooled.
        runs: in the order of the files.
    """

    key: str
    identity: str
    dataset: str
    architecture: str
    setting: dict[str, Any]
    runs: tuple[Run, ...]

    def of_kind(self, kind: type[_T]) -> list[_T]:
        """The results of one class."""
        return [r.result for r in self.runs if isinstance(r.result, kind)]


@dataclass(frozen=True)
class Samples:
    """What result files hold together, each measurement once, in the order of the files.

    Attributes:
        files: those that hold results.
        passed_over: those in a folder that hold none.
    """

    files: tuple[ResultFile, ...]
    passed_over: tuple[Path, ...] = ()

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """The longest copy of each result."""
        return tuple(_each_once([run for file in self.files for run in _runs(file)]))

    def of_kind(self, kind: type[_T]) -> list[_T]:
        """The results of one class, e.g. `samples.of_kind(EpochTimeResult)`."""
        return [r.result for r in self.runs if isinstance(r.result, kind)]

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """The runs of trainings, pooled; pools come in the order of their first runs."""
        datasets = dataset_keys(self.runs)
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            if isinstance(run.result, TRAINED):
                agreed = [run.identity, datasets[id(run)], run.result.architecture, run.setting]
                found.setdefault(json.dumps(agreed, sort_keys=True), []).append(run)
        return tuple(_pool(agreed, datasets[id(runs[0])], runs) for agreed, runs in found.items())


def read_all(paths: Iterable[str | Path]) -> Samples:
    """Read files; `UserError` names the first one that cannot be read and says what is wrong with it.

    A folder stands for the results in it; a storage may hold runs of other projects, which are passed over.
    """
    named = [Path(path) for path in paths]
    folders = {path: files_in(path) for path in named if path.is_dir()}
    inside = {file for found in folders.values() for file in found}
    files: list[ResultFile] = []
    passed_over: list[Path] = []
    every = [file for path in named for file in folders.get(path, [path])]
    for path in progress.each(every, "reading results", "files"):
        try:
            files.append(read(path))
        except NoResults:
            if path not in inside:
                raise
            passed_over.append(path)
    if passed_over and not files:
        raise UserError(
            f"The folder {next(iter(folders))} holds no results of resnet_bench; give files that this suite saved."
        )
    return Samples(tuple(files), tuple(passed_over))


def read_one(path: Path) -> Samples:
    """Read one side of a comparison: a file, or a folder, whose results then count as one file's.

    Raises:
        UserError: as `read_all`, and for a folder with results of several machines, or of several codes.
    """
    files = read_all([path]).files
    if len({(identity.key(f.machine), identity.speed_key(f.machine)) for f in files}) > 1:
        raise UserError(f"{path} holds results of several machines, softwares or codes; give files of one of them.")
    results = tuple(result for file in files for result in file.results)
    digest = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()
    return Samples((replace(files[0], path=path, results=results, sha256=digest) if len(files) > 1 else files[0],))


# ---------------------------------------------------------------------------------------------------------------------
# The two rules


def raw_values(result: Result) -> tuple[Any, ...]:
    """The raw values of a result, in the order in which they were measured."""
    if isinstance(result, EpochTimeResult):
        return tuple((b.process, b.point, b.round, b.steps, b.seconds) for b in result.blocks)
    if isinstance(result, ScaleResult):
        return tuple((b.process, b.round, b.steps, b.seconds) for b in result.blocks)
    if isinstance(result, AccuracyResult):
        return tuple(
            (e.epoch, e.train_seconds, e.eval_seconds, e.train_loss, e.test_loss, e.test_accuracy)
            for e in result.epochs
        )
    if isinstance(result, OverheadResult):
        return (*result.bare_seconds, *result.harness_seconds, *result.clocks_seconds)
    if isinstance(result, ExplainResult):
        return tuple(s for v in (*result.variants, *result.denormals) for s in v.block_seconds)
    return (result.parameters,)


def _benchmark(run: Run) -> str:
    """What was benchmarked: equal for results that may be copies of one another."""
    result = run.result
    key: list[Any] = [result.kind, result.architecture]
    if isinstance(result, TRAINED):
        # without the number of epochs, if it can be: a training may be resumed with more of them
        key += [result.seed, result.dataset.sha256, of_each_step(result.recipe)]
    if isinstance(result, EpochTimeResult):  # not for trainings: one resumed under other settings is still the same
        key += [result.engine, result.pipeline, result.mode, result.threads, result.workers]
    elif isinstance(result, ParametersResult):
        key += [result.num_classes]
    elif isinstance(result, ScaleResult):
        key += [result.varied, result.value, result.engine, result.pipeline, result.threads, result.workers]
        key += [result.dataset.sha256, result.recipe, result.seed]
    if not isinstance(result, AccuracyResult):  # a training may also be resumed on another machine
        key += [run.identity]
    return json.dumps(key, sort_keys=True)


def _is_copy(short: Result, long: Result) -> bool:
    """Whether two results of one benchmark are one measurement, where `long` has at least as many values."""
    if short.process is not None and long.process is not None:
        return _begun_by(short) == _begun_by(long)
    values = raw_values(short)
    return raw_values(long)[: len(values)] == values


def _begun_by(result: Result) -> tuple[Any, ...]:
    """The process that began the measurement, and the settings, because one process may train with several."""
    if isinstance(result, AccuracyResult) and result.stretches:
        first = result.stretches[0]
        return first.process, first.engine, first.pipeline, first.workers, first.threads
    return (result.process,)


def _each_once(runs: Sequence[Run]) -> list[Run]:
    """The runs without shorter copies.

    Of copies of one length, the one in the file with the most results counts: it has the runs measured in turn with it.
    """
    kept: dict[str, list[Run]] = {}
    place = {id(run): i for i, run in enumerate(runs)}

    def rank(run: Run) -> tuple[int, int, str]:
        return -len(raw_values(run.result)), -len(run.file.results), run.file.sha256

    for run in sorted(runs, key=rank):
        alike = kept.setdefault(_benchmark(run), [])
        if not any(_is_copy(run.result, other.result) for other in alike):
            alike.append(run)
    return sorted((run for alike in kept.values() for run in alike), key=lambda run: place[id(run)])


def dataset_keys(runs: Iterable[Run]) -> dict[int, str]:
    """{`id` of a training's run: a text that is equal for data sets whose results may be pooled}.

    A whole data set has the same images for every seed. A subset is drawn anew for each seed, so its digest depends on
    the seed and cannot tell data sets apart. But where one seed has two digests, there are two data sets of one name
    and size, and then the digest is part of the text.
    """
    sizes: dict[int, tuple[str, DatasetInfo, int]] = {}
    for run in runs:
        if isinstance(run.result, TRAINED):
            d = run.result.dataset
            text = json.dumps([d.name, d.synthetic, d.subset, d.train_images, d.test_images, d.classes])
            sizes[id(run)] = (text, d, run.result.seed)
    digests: dict[tuple[str, int], set[str]] = {}
    for text, d, seed in sizes.values():
        digests.setdefault((text, seed), set()).add(d.sha256)
    several = {text for (text, _), found in digests.items() if len(found) > 1}
    return {
        run: text if d.subset and text not in several else f"{text} {d.sha256}" for run, (text, d, _) in sizes.items()
    }


def _pool(agreed: str, dataset: str, runs: Sequence[Run]) -> Pool:
    first, key = runs[0], hashlib.sha256(agreed.encode()).hexdigest()[:12]
    return Pool(key, first.identity, dataset, first.result.architecture, first.setting, tuple(runs))


def _runs(file: ResultFile) -> Iterable[Run]:
    """The runs of one file. Where it tells no process, its n-th results of each network count as measured in turn."""
    session = file.machine.get("session")
    seen: dict[str, int] = {}
    for result in file.results:
        same = json.dumps(
            [result.kind, result.architecture, getattr(result, "engine", ""), getattr(result, "mode", "")]
        )
        number = seen[same] = seen.get(same, -1) + 1
        told = isinstance(session, str) and result.process is not None
        together = (str(session), str(result.process)) if told else (file.sha256 or str(file.path), str(number))
        yield Run(result, file.machine, file, together)
