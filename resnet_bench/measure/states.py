"""The states of a training at given steps, prepared once and kept, from which blocks of steps are timed.

The time of a step changes in the course of a training, and hours pass until its last epoch. So the states at some steps
are prepared in advance, as checkpoints that every engine reads, with the fastest engine that supports the network and
runs here. There are two ways:

- `trained`: the network is trained up to each step.
- `aged`: it is trained until the learning rate was at its highest, and for up to `EARLY_STEPS` more. For a later step,
  the hidden units that are dead by then are carried on as if they had been idle all the time
  (`resnet_bench.measure.aging`), and all else is left as it was. Such a state has the dead units' moments, denormal
  numbers among them, but not the weights of a later step.

States lie in `states_folder()`, one folder for each combination of network, images, recipe (its epochs count only where
the learning rate depends on them), seed and code. Any of them may be deleted at any time; what is missing is made
again. `KEPT` combinations are kept for each network, those that were used last.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from resnet_bench import compiled_functions, engines, identity, networks, progress
from resnet_bench.architectures import Architecture
from resnet_bench.clock import PHASES
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import learning_rates, steps_per_epoch
from resnet_bench.errors import UserError
from resnet_bench.files import make_folder, write_json
from resnet_bench.folders import cache_folder, expanded
from resnet_bench.locks import FolderLock, held
from resnet_bench.measure.aging import aged, live_share, live_units
from resnet_bench.recipe import Recipe, of_each_step
from resnet_bench.schedules import LearningRates
from resnet_bench.training.checkpoint import Checkpoint, TrainingState
from resnet_bench.training.training import Training, deferred_interrupt

How = Literal["trained", "aged"]

STATES_VARIABLE = "RESNET_BENCH_STATES"
"""The environment variable that names the folder of all states."""

EARLY_STEPS = 1000
"""From the highest learning rate on, so many steps are not aged, nor is any before: units still die, so that no state
stands for a later one. While the rate rises, as for 30 % of `onecycle`, many are still to die."""

RESUME_SECONDS = 120.0
"""How often a preparation in progress is kept, so that one that is killed loses no more."""

_TEMPORARY = "temporary-"
"""How the names of folders begin whose states are not kept."""

KEPT = 4
"""Combinations of images, recipe, seed and code whose states are kept for each network."""

BYTES_PER_PARAMETER = 12  # the parameter and two moments, float32
TRIAL_STEPS = 16  # whose time tells how long a preparation takes, where none was timed before
AGING_SECONDS_PER_PARAMETER = 2e-6  # seen on a core of 2 to 3 GHz

DECIDES_BITS = (*compiled_functions.SOURCES, "recipe.py", "schedules/", "data/", "training/", "measure/aging.py")
"""The sources that decide the bits of a state."""


@dataclass(frozen=True)
class State:
    """The state of a training between two steps.

    Attributes:
        step: steps of the training before it.
        path: a checkpoint that every engine reads; None at step 0, the training's beginning.
        how: `trained` also for the early steps of a preparation with aged states.
        live_share: share of the first hidden layer's units that answer some image of a fixed sample of the training
            images; None without a hidden layer.
        denormal_exp_avg, denormal_exp_avg_sq: share of denormal numbers among the first and second moments of the
            whole network, which are what the optimiser's time depends on; None at step 0, before there are any.
    """

    step: int
    path: Path | None
    how: How
    live_share: float | None
    denormal_exp_avg: float | None
    denormal_exp_avg_sq: float | None


@dataclass(frozen=True)
class Missing:
    """What has to be done until all states are there.

    Attributes:
        architecture: id of the network.
        trained_steps: steps to train.
        idle_steps: idle steps to carry dead units on, summed over the aged states.
        seconds: about how long that takes.
        bytes: how much room it takes.
        folder: where the states lie.
    """

    architecture: str
    trained_steps: int
    idle_steps: int
    seconds: float
    bytes: int
    folder: Path

    def __str__(self) -> str:
        idle = f" and {self.idle_steps:,} idle steps to carry" if self.idle_steps else ""
        return (
            f"preparing states: {self.architecture}, {self.trained_steps:,} steps to train{idle}, "
            f"about {self.seconds:.0f} s; kept in {self.folder}"
        )


def states_folder() -> Path:
    """`$RESNET_BENCH_STATES`, or a folder in the suite's cache folder. It need not exist yet.

    Raises:
        UserError: where there is neither.
    """
    if named := os.environ.get(STATES_VARIABLE):
        return expanded(named)
    if (cache := cache_folder()) is None:
        raise UserError(f"This user has no home folder to keep states in; name a folder in {STATES_VARIABLE}.")
    return cache / "states"


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder beside the kept states, for states that nobody asks for again. It is removed at the end.

    What a killed process left is removed by the next one.

    Raises:
        UserError: where the folder of all states cannot be used.
    """
    root = states_folder()
    make_folder(root, STATES_VARIABLE)
    for left in root.glob(f"{_TEMPORARY}*"):
        if not held(left):
            shutil.rmtree(left, ignore_errors=True)
    try:
        made = tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=root, ignore_cleanup_errors=True)
    except OSError as error:
        raise _unusable(root, error) from None
    with made as name:
        lock = FolderLock(Path(name))
        lock.acquire()
        try:
            yield Path(name)
        finally:
            lock.release()


def _unusable(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"Cannot use the folder {folder} for states: {error.strerror}; name another one in {STATES_VARIABLE}."
    )


def fastest_engine(architecture: Architecture, recipe: Recipe) -> str:
    """The engine with which states are prepared: `fast` where it runs and supports the network, else `reference`."""
    engine = engines.get("fast")
    with contextlib.suppress(UserError):
        engine.require()
        if engine.supports(architecture, recipe) is None:
            return "fast"
    return "reference"


def load(training: Training, state: State) -> None:
    """Put a training, with any engine, into this state: its next step is the step `state.step + 1` of the training.

    Weights and moments are copied into the tensors that are there, so that they lie where they lay in memory.

    Raises:
        UserError: where the file cannot be read or is of another training.
    """
    found: TrainingState | None = None
    if state.path is None:
        network = networks.build(training.architecture, training.dataset.num_classes, training.seed)
        training.restore(_beginning(network))
        return
    with contextlib.suppress(UserError):
        found = Checkpoint(
            state.path.parent, training.architecture, training.dataset, training.recipe, training.seed, state.path.name
        ).load()
    if found is None:
        raise UserError(
            f"The prepared state {state.path} is gone, damaged or of another training; remove it and run again, which "
            "prepares it again."
        )
    training.restore(found)


def _beginning(network: networks.ResidualNetwork) -> TrainingState:
    return TrainingState(
        network=network.state_dict(), optimizer={"state": {}}, epoch=1, step=0, loss_sum=0.0, images=0, seconds=0.0,
        phases=dict.fromkeys(PHASES, 0.0), epoch_stretches=set(), results=[], stretches=[],
    )  # fmt: skip


# Preparing ----------------------------------------------------------------------------------------------------------


def missing_steps(
    architecture: Architecture, dataset: Dataset, recipe: Recipe, steps: Sequence[int], *, how: How, seed: int,
    threads: int | None, folder: Path | None = None,
) -> Missing:  # fmt: skip
    """What `prepare` with the same arguments would have to do now.

    The time of a step is that of the last preparation of the same states. Where there was none, a few steps are timed;
    they are early ones, which with `fast` take longer than later ones.
    """
    kept = _Kept(architecture, dataset, recipe, seed, folder)
    missing = [w for w in _wanted(steps, how, learning_rates(dataset, recipe)) if kept.found(w.name) is None]
    trained_steps = sum(stop - start for start, stop in _stretches(missing, kept.trained()))
    idle = [w.step - w.base for w in missing if w.base is not None and architecture.hidden]
    parameters = networks.parameter_count(architecture, dataset.num_classes)
    seconds = len(idle) * parameters * AGING_SECONDS_PER_PARAMETER
    if trained_steps:
        seconds += trained_steps * (kept.seconds_per_step() or _seconds_per_step(kept, threads))
    return Missing(architecture.id, trained_steps, sum(idle), seconds, _bytes(missing, parameters), kept.folder)


def prepare(
    architecture: Architecture, dataset: Dataset, recipe: Recipe, steps: Sequence[int], *, how: How, seed: int,
    threads: int | None, folder: Path | None = None, weight: float = 0,
) -> list[State]:  # fmt: skip
    """The states of a training at the given steps, in the order of `steps`; those that are not there yet are made.

    A preparation that ends early, by Ctrl-C or by a kill, is taken up by the next one. One that runs in another process
    at the same time is waited for.

    Args:
        architecture: the network.
        dataset: what it trains on.
        recipe: how.
        steps: numbers of steps before the states.
        how: whether late states are trained or aged.
        seed: of weights, order and augmentation.
        threads: threads of an operation; None for torch's choice.
        folder: where states lie; None for `states_folder()`.
        weight: how much the network is of the task that `progress` shows around it.

    Raises:
        UserError: where the folder cannot be used, the disk has too little room, or the training diverges.
    """
    kept = _Kept(architecture, dataset, recipe, seed, folder)
    wanted = _wanted(steps, how, learning_rates(dataset, recipe))
    with progress.task(f"states of {architecture.id}", 1, weight=weight), kept.locked():
        there = {w.name: kept.found(w.name) for w in wanted}
        missing = [w for w in wanted if there[w.name] is None]
        kept.require_room(_bytes(missing, networks.parameter_count(architecture, dataset.num_classes)))
        there.update(_train(kept, missing, threads))
        there.update(_age(kept, missing))
    by_step = {state.step: state for w in wanted if (state := there[w.name]) is not None}
    return [by_step[step] for step in steps]


@dataclass(frozen=True)
class _Wanted:
    """A state to prepare: at `step`, trained up to `base` and aged from there; trained all the way where it is None."""

    step: int
    base: int | None = None

    @property
    def name(self) -> str:
        return f"trained-{self.step}" if self.base is None else f"aged-{self.step}-from-{self.base}"


def _wanted(steps: Sequence[int], how: How, rates: LearningRates) -> list[_Wanted]:
    """The states at these steps, and the state that others are aged from; by rising step."""
    if how == "trained":
        return [_Wanted(s) for s in sorted(set(steps))]
    highest = rates.highest_step()
    late = {step for step in steps if step > highest + EARLY_STEPS}
    early = set(steps) - late
    base = max((step for step in early if step > highest), default=highest + EARLY_STEPS)
    early |= {base} if late else set()
    return [_Wanted(s) for s in sorted(early)] + [_Wanted(s, base) for s in sorted(late)]


def _stretches(missing: Sequence[_Wanted], starts: dict[int, State]) -> list[tuple[int, int]]:
    """The stretches (from step, to step) that have to be trained, each from the nearest state before it."""
    known, stretches = set(starts), []
    for step in sorted(w.step for w in missing if w.base is None):
        stretches.append((max(s for s in known if s <= step), step))
        known.add(step)
    return stretches


def _bytes(missing: Sequence[_Wanted], parameters: int) -> int:
    """Room for the missing states, for the one kept in between, and for its successor while that is being written."""
    return (len(missing) + 2) * BYTES_PER_PARAMETER * parameters if missing else 0


def _training(kept: _Kept, threads: int | None) -> Training:
    training = Training(
        kept.architecture, kept.dataset, kept.recipe, engine=fastest_engine(kept.architecture, kept.recipe),
        pipeline="vectorized", seed=kept.seed, threads=threads,
    )  # fmt: skip
    training.warm_up()
    return training


def _next_step(training: Training) -> None:
    training.train_step()
    if training.step == training.steps_per_epoch:
        training.close_epoch()


def _seconds_per_step(kept: _Kept, threads: int | None) -> float:
    training = _training(kept, threads)
    _next_step(training)  # which draws the first images of the epoch too
    begun = time.perf_counter()
    for _ in range(TRIAL_STEPS):
        _next_step(training)
    return (time.perf_counter() - begun) / TRIAL_STEPS


def _train(kept: _Kept, missing: Sequence[_Wanted], threads: int | None) -> dict[str, State]:
    """Make the states that are not aged. After Ctrl-C the step in progress is completed and kept."""
    made: dict[str, State] = {}
    starts = kept.trained()
    if not (stretches := _stretches(missing, starts)):
        return made
    training = _training(kept, threads)
    position, seconds, done = 0, 0.0, 0
    steps = sum(stop - start for start, stop in stretches)
    with (
        deferred_interrupt() as interrupted,
        progress.task(f"training {kept.architecture.id}", steps, "steps", weight=1) as running,
    ):
        for start, stop in stretches:
            if start != position:
                load(training, starts[start])
            saved = time.perf_counter()
            for position in range(start + 1, stop + 1):
                begun = time.perf_counter()
                _next_step(training)
                now = time.perf_counter()
                seconds, done = seconds + now - begun, done + 1
                running.advance()
                if position < stop and (interrupted.is_set() or now - saved >= RESUME_SECONDS):
                    kept.write_resume(position, training.state())
                    saved = time.perf_counter()
                if interrupted.is_set() and position < stop:
                    raise interrupted.reason
            position = stop
            wanted = _Wanted(stop)
            made[wanted.name] = kept.write(wanted, training.state())
            if interrupted.is_set():
                raise interrupted.reason
        kept.drop_resume()
    if done:
        kept.note_seconds_per_step(seconds / done)
    return made


def _age(kept: _Kept, missing: Sequence[_Wanted]) -> dict[str, State]:
    """Make the aged states, each from the one before it, and the first from the trained one, which is there by now."""
    made: dict[str, State] = {}
    at, state, live = 0, None, list[Tensor]()
    network = networks.build(kept.architecture, kept.dataset.num_classes, kept.seed)
    per_epoch, rates = steps_per_epoch(kept.dataset, kept.recipe), learning_rates(kept.dataset, kept.recipe)
    for wanted in progress.each([w for w in missing if w.base is not None], f"aging {kept.architecture.id}", "states"):
        assert wanted.base is not None
        if state is None:
            at, state = wanted.base, kept.read(_Wanted(wanted.base))
            network.load_state_dict(state.network)
            live = live_units(network, kept.dataset, kept.recipe, kept.seed)
        state = aged(state, network, live, wanted.step - at, kept.recipe, rates)
        at = wanted.step
        epoch, step = divmod(at, per_epoch)
        state = replace(state, epoch=epoch + 1, step=step, loss_sum=0.0, images=0, seconds=0.0)
        made[wanted.name] = kept.write(wanted, state)
    return made


# Keeping ------------------------------------------------------------------------------------------------------------


class _Kept:
    """The states of one training in their folder.

    Beside each checkpoint, and written after it, lies a file of the same name that ends in `.json`: the state's
    description with the checkpoint's digest. A checkpoint without it, or with another digest, counts as missing.
    """

    def __init__(
        self, architecture: Architecture, dataset: Dataset, recipe: Recipe, seed: int, folder: Path | None
    ) -> None:
        self.architecture, self.dataset, self.recipe, self.seed = architecture, dataset, recipe, seed
        combination = {
            "architecture": repr(architecture),
            "recipe": of_each_step(recipe.as_dict()),
            "data set": [dataset.name, dataset.sha256],
            "seed": seed,
            "code": code_sha256(),
            "denormal numbers": bool(torch.ones(1, dtype=torch.int32).view(torch.float32).mul(1.0).view(torch.int32)),
        }
        self.folder = (folder or states_folder()) / architecture.id / identity.digest(combination)

    def found(self, name: str) -> State | None:
        """The state of this name; None where it is missing or damaged."""
        try:
            record = json.loads(self._description(name).read_text(encoding="utf-8"))
            sha256 = record.pop("sha256")
            path = self._checkpoint(name) if sha256 else None
            return State(**record, path=path) if path is None or _sha256(path) == sha256 else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def trained(self) -> dict[int, State]:
        """The states from which a training can go on, by step: trained ones and one kept in between."""
        names = [p.stem for pattern in ("trained-*", "resume-*") for p in self.folder.glob(f"{pattern}.json")]
        there = [state for name in names if (state := self.found(name))]
        return {0: State(0, None, "trained", None, None, None), **{state.step: state for state in there}}

    def read(self, wanted: _Wanted) -> TrainingState:
        state = self._file(wanted.name).load()
        if state is None:  # removed this moment, by someone else
            raise UserError(f"The state {self._checkpoint(wanted.name)} is gone; run again, which makes it again.")
        return state

    def seconds_per_step(self) -> float | None:
        """The time of a step in the last preparation; None where there was none."""
        try:
            return float(json.loads((self.folder / "rate.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, wanted: _Wanted, state: TrainingState) -> State:
        """Write a state and its description."""
        network = networks.build(self.architecture, self.dataset.num_classes, self.seed)
        network.load_state_dict(state.network)
        return self._write(
            wanted.name, wanted.step, "trained" if wanted.base is None else "aged", state,
            live_share(live_units(network, self.dataset, self.recipe, self.seed)),
        )  # fmt: skip

    def write_resume(self, step: int, state: TrainingState) -> None:
        """Write a state that is kept until there is a later one."""
        self._write(f"resume-{step}", step, "trained", state, None)
        self.drop_resume(but=step)

    def drop_resume(self, but: int | None = None) -> None:
        for path in self.folder.glob("resume-*"):
            if path.stem != f"resume-{but}":
                path.unlink(missing_ok=True)

    def _write(self, name: str, step: int, how: How, state: TrainingState, live: float | None) -> State:
        path = self._checkpoint(name) if step else None
        if path:
            self._file(name).save(state)
        shares = {f"denormal_{key}": denormal_share(state.optimizer, key) for key in ("exp_avg", "exp_avg_sq")}
        record: dict[str, Any] = {"step": step, "how": how, "live_share": live, **shares}
        write_json(self._description(name), {**record, "sha256": _sha256(path) if path else None})
        return State(**record, path=path)

    def note_seconds_per_step(self, seconds: float) -> None:
        write_json(self.folder / "rate.json", seconds)

    def _checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _description(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _file(self, name: str) -> Checkpoint:
        return Checkpoint(self.folder, self.architecture, self.dataset, self.recipe, self.seed, f"{name}.pt")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and hold a lock on it, which the system releases when the process ends, however it ends."""
        make_folder(self.folder, STATES_VARIABLE)
        lock = FileLock(_lock_path(self.folder))
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"Another process prepares states in {self.folder}; waiting for it.", file=sys.stderr, flush=True)
                lock.acquire()
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a file system without locks: files are whole
                raise _unusable(self.folder, error) from None
        try:
            if lock.is_locked:
                self._tidy()
            yield
        finally:
            lock.release()

    def _tidy(self) -> None:
        """Remove what killed processes left, and all but the `KEPT` combinations of this network used last."""
        os.utime(self.folder)
        for path in self.folder.glob(".*"):  # of `atomic_write`
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folders = sorted((p for p in self.folder.parent.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
            for folder in folders[:-KEPT]:
                with contextlib.suppress(Timeout), FileLock(_lock_path(folder), timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)

    def require_room(self, needed: int) -> None:
        """Raise `UserError` where the disk has no room for so many bytes."""
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"The states of {self.architecture.id} take {needed / 1e9:.2g} GB in {self.folder}, where "
                f"{free / 1e9:.2g} GB are free; free space or name another folder in {STATES_VARIABLE}."
            )


def code_sha256() -> str:
    """A digest of the sources that decide the bits of a state."""
    return identity.sources_sha256(identity.PACKAGE, DECIDES_BITS)


def denormal_share(optimizer: dict[str, Any], name: str) -> float | None:
    """The share of denormal numbers among all first (`exp_avg`) or second moments (`exp_avg_sq`); None without any."""
    moments: list[Tensor] = [entry[name] for entry in optimizer["state"].values()]
    magnitudes = [m.view(torch.int32) & 0x7FFFFFFF for m in moments]  # bits: a comparison of floats may flush
    denormal = sum(int(((bits > 0) & (bits < 0x00800000)).sum()) for bits in magnitudes)
    return denormal / sum(m.numel() for m in moments) if moments else None


def _lock_path(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _read_sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _read_sha256(path: Path, size: int, changed: int) -> str:
    """The digest of a file of this size that was changed at this time; a session asks for it several times."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
