"""Training, deterministically: steps, epochs, evaluation, and how a training is interrupted and resumed.

The same seed, thread count and machine give the same weights to the last bit, with any pipeline and any number of
workers, and also when the training was killed and resumed.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_bench import architectures, engines, identity, networks, progress
from resnet_bench.architectures import Architecture
from resnet_bench.clock import PHASES, Clock
from resnet_bench.data import pipelines
from resnet_bench.data.augmentation import normalize
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import WorkerError
from resnet_bench.engines.base import Engine
from resnet_bench.errors import UserError
from resnet_bench.intervals import wilson_interval
from resnet_bench.networks import ResidualNetwork
from resnet_bench.options import require_threads
from resnet_bench.recipe import EVALUATION_BATCH_SIZE, Recipe
from resnet_bench.schema import AccuracyResult, EpochResult, PhaseSeconds, Stretch
from resnet_bench.signals import interruption
from resnet_bench.training.checkpoint import Checkpoint, TrainingState


def set_deterministic(threads: int | None = None) -> int:
    """Ask torch for deterministic algorithms, and set how many threads an operation uses.

    Returns:
        The number of threads in use.

    Raises:
        UserError: for fewer than 1.
    """
    torch.use_deterministic_algorithms(True)
    # By default torch now also fills every new tensor, an aid for debugging that costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    require_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def weights_sha256(network: ResidualNetwork) -> str:
    """SHA-256 over names and values of all parameters and buffers, in the order of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


class Evaluation(NamedTuple):
    """What the test set tells of a network.

    Attributes:
        loss: mean cross-entropy over the images, in nats.
        correct: images whose highest logit is that of their class.
        live_units: for each hidden FC layer, units that answer at least one image.
    """

    loss: float
    correct: int
    live_units: tuple[int, ...]


class Training:
    """The training of one network: its engine, its data, and the state it is in.

    Attributes:
        epoch: the epoch in progress, from 1.
        step: how many steps of it are done.
        rates: the learning rate of each step of the whole training.
        clock: adds up the seconds of each phase in the epoch in progress.
        startup_seconds: what the start of the latest epoch took: opening the pipeline and, with the loader, waiting for
            the first batch of its workers.
        results: one for each finished epoch.
        resumed: whether the training goes on from a checkpoint.
        started_at: when this object was made, UTC, ISO 8601.
    """

    def __init__(
        self,
        architecture: Architecture,
        dataset: Dataset,
        recipe: Recipe,
        *,
        engine: str | type[Engine] = "reference",
        pipeline: str | None = None,
        seed: int = 0,
        workers: int | None = None,
        threads: int | None = None,
        checkpoint: Path | None = None,
        checkpoint_minutes: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        """Build the network, and resume from the checkpoint in the folder `checkpoint` if there is one.

        Args:
            architecture: the network.
            dataset: the images, of which the test set is used for evaluation only.
            recipe: epochs, batch size, learning rate, augmentation.
            engine: how a step is computed: a registered name or a class.
            pipeline: `loader` or `vectorized`; by default the engine's.
            seed: decides initial weights, order and augmentation; from 0 to 2**64 - 1.
            workers: processes of the loader, which the other pipeline has none of; by default `chosen_workers`.
            threads: threads of an operation; by default torch's choice.
            checkpoint: the folder in which checkpoints are written; by default there are none.
            checkpoint_minutes: how often one is written within an epoch; at its end there is always one.
            clock: by default a new `Clock`.

        Raises:
            UserError: for numbers out of range, for what the engine or this machine cannot do, and for a checkpoint
                of another training.
        """
        if recipe.batch_size > len(dataset.train):
            raise UserError(
                f"--batch-size is {recipe.batch_size}, but there are only {len(dataset.train)} training images; "
                "give a smaller batch or more images."
            )
        workers = pipelines.chosen_workers(workers)
        if not 0 <= seed < 2**64:
            raise UserError(f"--seed is {seed}; give a number from 0 to 2**64 - 1.")
        engine_class = engines.get(engine) if isinstance(engine, str) else engine
        if reason := engine_class.supports(architecture, recipe):
            raise UserError(reason)
        self.architecture, self.dataset, self.recipe = architecture, dataset, recipe
        self.seed, self.workers = seed, workers
        self.pipeline = pipeline or engine_class.pipeline
        pipelines.require_known(self.pipeline, workers)
        pipelines.prepare(self.pipeline, recipe, workers, len(dataset.train))
        self.threads = set_deterministic(threads)
        self.steps_per_epoch = pipelines.steps_per_epoch(dataset, recipe)
        self.rates = pipelines.learning_rates(dataset, recipe)
        self.engine = engine_class(networks.build(architecture, dataset.num_classes, seed), recipe, self.rates)
        self.epoch, self.step = 1, 0
        self.clock = clock or Clock()
        self.startup_seconds = 0.0
        self.results: list[EpochResult] = []
        self._loss_sum, self._images, self._seconds = 0.0, 0, 0.0
        self._batches: Iterator[pipelines.Batch] | None = None
        self._checkpoint = Checkpoint(checkpoint, architecture, dataset, recipe, seed) if checkpoint else None
        self._checkpoint_seconds = checkpoint_minutes * 60
        self.resumed = False
        self.started_at = identity.now()
        self._earlier: list[Stretch] = []  # by the processes before this one
        self._epoch_stretches: set[int] = set()  # which stretches the epoch in progress was trained in
        if self._checkpoint is not None:
            if (state := self._checkpoint.load()) is not None:
                self.restore(state)
            if len(self.results) < recipe.epochs:
                self._checkpoint.claim()

    # Steps ------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Let the engine compile for this recipe's batches, so that this is part of no epoch's time."""
        shape = (self.recipe.batch_size, 3, architectures.IMAGE_SIZE, architectures.IMAGE_SIZE)
        self.engine.warm_up(torch.zeros(shape), torch.zeros(self.recipe.batch_size, dtype=torch.int64))

    def train_step(self) -> float | None:
        """Train on the next batch of the epoch.

        Returns:
            The batch's mean loss before the update, or None where the epoch has no more batches.

        Raises:
            UserError: for a loss that is not finite. The checkpoint stays as it was written before.
            WorkerError: where a worker process has ended. All steps up to then are complete.
        """
        self.clock.start()
        opening = self._batches is None
        begun = time.perf_counter() if opening else 0.0
        if self._batches is None:
            self._batches = pipelines.batches(
                self.pipeline, self.dataset, self.recipe, self.seed, self.epoch, start=self.step, workers=self.workers
            )
            self.startup_seconds = time.perf_counter() - begun
        try:
            batch = next(self._batches, None)
        except WorkerError:
            self._batches = None  # a generator that has failed looks like one at its end
            raise
        if batch is None:
            return None
        self.clock.lap("data")
        if opening and self.pipeline == "loader":  # its workers have to start before there is a first batch
            self.startup_seconds = time.perf_counter() - begun
        loss = float(self.engine.step(*batch, self.clock))
        self.step += 1
        self._epoch_stretches.add(len(self._earlier))
        if not math.isfinite(loss):
            raise self._diverged(f"loss is {loss} at step {self.step} of epoch {self.epoch}")
        self._loss_sum += loss * len(batch[1])
        self._images += len(batch[1])
        return loss

    def close_epoch(self) -> None:
        """End the epoch in progress, finished or not, and begin the next."""
        self.epoch, self.step = self.epoch + 1, 0
        self.clock.seconds = dict.fromkeys(PHASES, 0.0)
        self._batches = None
        self._loss_sum, self._images, self._seconds = 0.0, 0, 0.0
        self._epoch_stretches = set()

    # Epochs -----------------------------------------------------------------------------------------------------

    def epochs(self) -> Iterator[EpochResult]:
        """Train the rest of the recipe's epochs, and yield the result of each.

        After Ctrl-C the step in progress is completed and a checkpoint is written; then `KeyboardInterrupt` is raised,
        and its subclass `Terminated` after SIGTERM.
        """
        with progress.task(f"training {self.architecture.id}", self.recipe.epochs + 1 - self.epoch):
            while self.epoch <= self.recipe.epochs:
                yield self.run_epoch(1)

    def run_epoch(self, weight: float = 0) -> EpochResult:
        """Train the rest of the epoch in progress, evaluate, and write a checkpoint.

        Args:
            weight: how much the epoch is of the task that `progress` shows around it.
        """
        what = f"{self.architecture.id} ({self.engine.name}) epoch {self.epoch}/{self.recipe.epochs}"
        with (
            deferred_interrupt() as interrupted,
            progress.task(what, len(self.dataset.train), "images", weight=weight) as running,
        ):
            begun = saved = shown = time.perf_counter()
            while (loss := self._saving_step(begun)) is not None:
                now = time.perf_counter()
                if now - shown > 0.1:
                    shown = now
                    running.done, running.what = self._images, f"{what}, loss {loss:.3f}"
                if interrupted.is_set():
                    break
                if self._checkpoint and now - saved >= self._checkpoint_seconds:
                    self._seconds += now - begun
                    self._save()
                    begun = saved = time.perf_counter()  # writing the checkpoint is not training time
            self._seconds += time.perf_counter() - begun
            if interrupted.is_set():
                if self._checkpoint:
                    self._save()
                raise interrupted.reason
            result = self._finish_epoch()
            if interrupted.is_set():  # during the evaluation: the epoch is complete and saved
                raise interrupted.reason
            return result

    def _saving_step(self, begun: float) -> float | None:
        """`train_step`, which also writes a checkpoint where a worker process has ended."""
        try:
            return self.train_step()
        except WorkerError as error:
            if not self._checkpoint:
                raise
            self._seconds += time.perf_counter() - begun
            self._save()
            raise UserError(f"{error} What is trained is kept in {self._checkpoint.folder}.") from error

    def _finish_epoch(self) -> EpochResult:
        begun = time.perf_counter()
        evaluation = self.evaluate()
        if not math.isfinite(evaluation.loss):
            raise self._diverged(f"test loss is {evaluation.loss} after epoch {self.epoch}")
        first = (self.epoch - 1) * self.steps_per_epoch
        result = EpochResult(
            epoch=self.epoch,
            lr_start=self.rates.at(first),
            lr_end=self.rates.at(first + self.step - 1),
            train_seconds=self._seconds,
            eval_seconds=time.perf_counter() - begun,
            train_loss=self._loss_sum / self._images,
            test_loss=evaluation.loss,
            test_accuracy=evaluation.correct / len(self.dataset.test),
            live_units=evaluation.live_units,
            phases=PhaseSeconds(**self.clock.seconds),
            stretches=tuple(sorted(self._epoch_stretches)),
        )
        self.results.append(result)
        self.close_epoch()
        if self._checkpoint:
            self._save()
        return result

    def _diverged(self, what: str) -> UserError:
        kept = f" The last good checkpoint is kept in {self._checkpoint.folder}." if self._checkpoint else ""
        return UserError(f"{self.architecture.id}: the {what}; train with a smaller --lr than {self.recipe.lr}.{kept}")

    def evaluate(self) -> Evaluation:
        """Pass the whole test set through the network, with batch norm in evaluation mode."""
        mean, std = torch.tensor(self.dataset.mean), torch.tensor(self.dataset.std)
        loss, correct = 0.0, 0
        test = self.dataset.test
        with self._live_units() as live:
            for images, labels in zip(
                torch.split(test.images, EVALUATION_BATCH_SIZE),
                torch.split(test.labels, EVALUATION_BATCH_SIZE),
                strict=True,
            ):
                logits = self.engine.logits(normalize(images, mean, std))
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
                correct += int((logits.argmax(1) == labels).sum())
        return Evaluation(loss / len(test), correct, tuple(int(units.sum()) for units in live.values()))

    @contextlib.contextmanager
    def _live_units(self) -> Iterator[dict[nn.Module, Tensor]]:
        """For each hidden layer, in order, which units answered an image so far: bool [units]."""
        live: dict[nn.Module, Tensor] = {}

        def note(layer: nn.Module, _: Any, out: Tensor) -> None:
            live[layer] = live.get(layer, torch.zeros((), dtype=torch.bool)) | (out > 0).any(0)

        hooks = [m.register_forward_hook(note) for m in self.engine.network.fc if isinstance(m, nn.ReLU)]
        try:
            yield live
        finally:
            for hook in hooks:
                hook.remove()

    # Results ----------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.engine.network.parameters())

    def run_info(self) -> dict[str, Any]:
        """The keys that every result of a training has (`resnet_bench.schema`)."""
        return {
            "architecture": self.architecture.id,
            "parameters": self.parameters,
            "engine": self.engine.name,
            "pipeline": self.pipeline,
            "dataset": self.dataset.info(),
            "recipe": self.recipe.as_dict(),
            "seed": self.seed,
            "threads": self.threads,
            "workers": self.workers if self.pipeline == "loader" else 0,
            "compile_seconds": self.engine.compile_seconds,
            **identity.origin(self.started_at),
        }

    @functools.cached_property
    def _stretch(self) -> Stretch:
        """What this process contributes. Described late, when the engine has compiled and all libraries are loaded."""
        return Stretch(
            **identity.origin(self.started_at),
            session=identity.session(),
            engine=self.engine.name,
            pipeline=self.pipeline,  # type: ignore[arg-type]  # checked when the training was made
            workers=self.workers if self.pipeline == "loader" else 0,
            threads=self.threads,
            jobs=identity.jobs(),
            machine=identity.describe(),
        )

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """What each process contributed to the training so far; this process is the last."""
        return (*self._earlier, self._stretch)

    def result(self, machine: dict[str, Any] | None = None) -> AccuracyResult:
        """The result of the training so far; `machine` is what `resnet_bench.identity.describe()` returned."""
        final = self.results[-1].test_accuracy if self.results else None
        tested = len(self.dataset.test)
        first = self.stretches[0]
        return AccuracyResult(
            **{**self.run_info(), **identity.origin(first.started_at, first.process)},
            mixed=not _alike(self.stretches, ("engine", "threads", "pipeline", "workers")),
            same_bits=_alike(self.stretches, ("engine", "threads")),
            stretches=self.stretches,
            complete=len(self.results) >= self.recipe.epochs,
            epochs=tuple(self.results),
            final_accuracy=None if final is None else wilson_interval(round(final * tested), tested),
            weights_sha256=weights_sha256(self.engine.network),
            machine=machine,
        )

    # Checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> TrainingState:
        """All that another `Training` with the same arguments needs to go on from here, with any engine.

        Raises:
            UserError: for weights that are not finite.
        """
        if not all(bool(p.isfinite().all()) for p in self.engine.network.parameters()):
            raise self._diverged(f"weights are not finite after step {self.step} of epoch {self.epoch}")
        return TrainingState(
            network=self.engine.network.state_dict(),
            optimizer=self.engine.optimizer_state(),
            epoch=self.epoch,
            step=self.step,
            loss_sum=self._loss_sum,
            images=self._images,
            seconds=self._seconds,
            phases=self.clock.seconds,
            epoch_stretches=self._epoch_stretches,
            results=self.results,
            stretches=list(self.stretches),
        )

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Train for a trial: afterwards the training is as it was, to the last bit; its pipeline is opened anew."""
        state = self.state()
        kept = copy.deepcopy(replace(state, stretches=state.stretches[:-1]))  # the last is this process's own
        try:
            yield
        finally:
            self.restore(kept)

    def _save(self) -> None:
        """Write the checkpoint, unless it would hold weights that are not finite."""
        assert self._checkpoint is not None
        self._checkpoint.save(self.state())

    def restore(self, state: TrainingState) -> None:
        """Go on from this state. Weights and moments are copied into the tensors that are there."""
        self._batches = None
        self.engine.network.load_state_dict(state.network)
        self.engine.load_optimizer_state(state.optimizer)
        self.epoch, self.step = state.epoch, state.step
        self._loss_sum, self._images, self._seconds = state.loss_sum, state.images, state.seconds
        self.clock.seconds = state.phases
        self._epoch_stretches = state.epoch_stretches
        self.results = state.results
        self._earlier = state.stretches
        self.resumed = True


def _alike(stretches: Sequence[Stretch], settings: Sequence[str]) -> bool:
    """Whether all stretches agree in these settings and ran on one kind of machine with one software and code."""
    return len({(identity.key(s.machine), *(getattr(s, name) for name in settings)) for s in stretches}) == 1


class _Interruption(threading.Event):
    """Set by a signal; `reason` is the exception that stands for the signal."""

    reason: KeyboardInterrupt


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[_Interruption]:
    """Have the first Ctrl-C or SIGTERM only set the event, so that it interrupts no step.

    A second Ctrl-C acts as usual, for who presses it is impatient. A second SIGTERM changes nothing: a cluster that
    cancels a job sends one to every process, and the end of a training's parent is another.
    """
    event = _Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield event  # Python delivers signals to the main thread only
        return

    def note(signum: int, frame: FrameType | None) -> None:
        event.reason = interruption(signum)
        event.set()
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, note)
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
