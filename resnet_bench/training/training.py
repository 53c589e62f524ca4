"""The deterministic training harness: steps, epochs, evaluation, checkpoints, resuming.

The same seed, thread count and machine give the same weights to the last bit, whatever the pipeline, the number of
workers, and however often a run was killed and resumed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.nn import functional as F
from tqdm import tqdm

from resnet_bench import architectures, engines, identity
from resnet_bench.architectures import Architecture, ResidualNetwork
from resnet_bench.clock import PHASES, Clock
from resnet_bench.data import pipelines
from resnet_bench.data.augmentation import normalize
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import WorkerError
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write, make_folder, require_writable
from resnet_bench.intervals import wilson_interval
from resnet_bench.recipe import EVALUATION_BATCH_SIZE, LOADER_WORKERS, Recipe
from resnet_bench.schema import AccuracyResult, EpochResult, PhaseSeconds, Stretch

CHECKPOINT_FORMAT = 2
CHECKPOINT_FILE = "checkpoint.pt"


def set_deterministic(threads: int | None = None) -> int:
    """Ask torch for deterministic algorithms and set the threads of an operation; returns the number in use."""
    torch.use_deterministic_algorithms(True)
    # by default that also fills every new tensor, a debugging aid which changes no result and which no script pays for
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if threads is not None:
        if threads < 1:
            raise UserError(f"--threads is {threads}; give at least 1.")
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def weights_sha256(network: ResidualNetwork) -> str:
    """SHA-256 over names and values of all parameters and buffers, in the order of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


class Training:
    """One network in training: engine, data, and how far it has come.

    Attributes:
        epoch: the epoch in progress, from 1.
        step: steps of it that are done.
        clock: seconds per phase, of the epoch in progress.
        startup_seconds: what opening the latest epoch cost before its first step; with the loader, until its workers
            had the first batch.
        results: one for each finished epoch.
        resumed: whether a checkpoint was taken up.
        started_at: when this process began, ISO 8601.
    """

    def __init__(
        self,
        architecture: Architecture,
        dataset: Dataset,
        recipe: Recipe,
        *,
        engine: str | type[engines.Engine] = "reference",
        pipeline: str | None = None,
        seed: int = 0,
        workers: int = LOADER_WORKERS,
        threads: int | None = None,
        checkpoint: Path | None = None,
        checkpoint_minutes: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        """Build the network and take up the checkpoint in the folder `checkpoint`, if there is one.

        Raises:
            UserError: for numbers that make no sense and for a checkpoint of another run.
        """
        if recipe.batch_size > len(dataset.train):
            raise UserError(
                f"--batch-size is {recipe.batch_size}, but there are only {len(dataset.train)} training images; "
                "give a smaller batch or more images."
            )
        if workers < 0:
            raise UserError(f"--workers is {workers}; give 0 or more.")
        if not 0 <= seed < 2**64:
            raise UserError(f"--seed is {seed}; give a number from 0 to 2**64 - 1.")
        engine_class = engines.get(engine) if isinstance(engine, str) else engine
        if reason := engine_class.supports(architecture, recipe):
            raise UserError(reason)
        self.architecture, self.dataset, self.recipe, self.seed, self.workers = (
            architecture, dataset, recipe, seed, workers,
        )  # fmt: skip
        self.pipeline = pipeline or engine_class.pipeline
        if self.pipeline not in pipelines.PIPELINES:
            raise UserError(f"There is no pipeline {pipeline!r}; choose one of {', '.join(pipelines.PIPELINES)}.")
        pipelines.prepare(self.pipeline, recipe, workers, len(dataset.train))
        self.threads = set_deterministic(threads)
        self.engine = engine_class(architectures.build(architecture, dataset.num_classes, seed), recipe)
        self.steps_per_epoch = pipelines.steps_per_epoch(dataset, recipe)
        self.epoch, self.step = 1, 0
        self.clock = clock or Clock()
        self.startup_seconds = 0.0
        self.results: list[EpochResult] = []
        self._loss_sum, self._images, self._seconds = 0.0, 0, 0.0
        self._batches: Iterator[pipelines.Batch] | None = None
        self._checkpoint = checkpoint / CHECKPOINT_FILE if checkpoint else None
        self._checkpoint_seconds = checkpoint_minutes * 60
        self.resumed = False
        self.started_at = identity.now()
        self._earlier: list[Stretch] = []  # by the processes before this one
        self._epoch_stretches: set[int] = set()  # which stretches the epoch in progress was trained in
        if self._checkpoint is not None:
            make_folder(self._checkpoint.parent, "--checkpoint")
            if self._checkpoint.exists():
                self._load()
            if len(self.results) < recipe.epochs:
                require_writable(self._checkpoint, "--checkpoint")

    # Steps ------------------------------------------------------------------------------------------------------

    def warm_up(self) -> None:
        """Let the engine compile for this recipe's batches; not part of any epoch's time."""
        shape = (self.recipe.batch_size, 3, architectures.IMAGE_SIZE, architectures.IMAGE_SIZE)
        self.engine.warm_up(torch.zeros(shape), torch.zeros(self.recipe.batch_size, dtype=torch.int64))

    def train_step(self) -> float | None:
        """Train on the next batch of the epoch; its loss, or None where the epoch has no more.

        Raises:
            UserError: for a loss that is not finite; the checkpoint, written before, stays as it is.
            WorkerError: where a worker process has ended; the steps so far are whole.
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
            self._batches = None  # it would seem to be at the epoch's end
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
        """Leave the epoch in progress, finished or not, and stand at the beginning of the next."""
        self.epoch, self.step = self.epoch + 1, 0
        self.clock.seconds = dict.fromkeys(PHASES, 0.0)
        self._batches = None
        self._loss_sum, self._images, self._seconds = 0.0, 0, 0.0
        self._epoch_stretches = set()

    # Epochs -----------------------------------------------------------------------------------------------------

    def epochs(self, progress: bool = True) -> Iterator[EpochResult]:
        """Train the rest of the recipe's epochs, evaluating after each, and yield each one's result.

        Ctrl-C ends the step in progress, writes a checkpoint and raises `KeyboardInterrupt`.
        """
        while self.epoch <= self.recipe.epochs:
            yield self.run_epoch(progress)

    def run_epoch(self, progress: bool = True) -> EpochResult:
        """Train the rest of the epoch in progress, evaluate, write the checkpoint."""
        with _deferred_interrupt() as interrupted, self._progress_bar(progress) as bar:
            begun = saved = shown = time.perf_counter()
            while (loss := self._saving_step(begun)) is not None:
                now = time.perf_counter()
                if now - shown > 0.1:
                    shown = now
                    bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
                    bar.update(self._images - bar.n)
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
                raise KeyboardInterrupt
            result = self._finish_epoch()
            if interrupted.is_set():  # during the evaluation: the epoch is complete and saved
                raise KeyboardInterrupt
            return result

    def _saving_step(self, begun: float) -> float | None:
        """`train_step`, after whose failure for want of a worker what is trained is in the checkpoint."""
        try:
            return self.train_step()
        except WorkerError as error:
            if not self._checkpoint:
                raise
            self._seconds += time.perf_counter() - begun
            self._save()
            raise UserError(f"{error} What is trained is kept in {self._checkpoint.parent}.") from error

    def _finish_epoch(self) -> EpochResult:
        begun = time.perf_counter()
        test_loss, correct = self.evaluate()
        if not math.isfinite(test_loss):
            raise self._diverged(f"test loss is {test_loss} after epoch {self.epoch}")
        result = EpochResult(
            epoch=self.epoch,
            train_seconds=self._seconds,
            eval_seconds=time.perf_counter() - begun,
            train_loss=self._loss_sum / self._images,
            test_loss=test_loss,
            test_accuracy=correct / len(self.dataset.test),
            phases=PhaseSeconds(**self.clock.seconds),
            stretches=tuple(sorted(self._epoch_stretches)),
        )
        self.results.append(result)
        self.close_epoch()
        if self._checkpoint:
            self._save()
        return result

    def _diverged(self, what: str) -> UserError:
        kept = f" The last good checkpoint is kept in {self._checkpoint.parent}." if self._checkpoint else ""
        return UserError(f"{self.architecture.id}: the {what}; train with a smaller --lr than {self.recipe.lr}.{kept}")

    def evaluate(self) -> tuple[float, int]:
        """Mean loss and number of correct answers on the whole test set, batch norm in evaluation mode."""
        mean, std = torch.tensor(self.dataset.mean), torch.tensor(self.dataset.std)
        loss, correct = 0.0, 0
        test = self.dataset.test
        for images, labels in zip(
            test.images.split(EVALUATION_BATCH_SIZE), test.labels.split(EVALUATION_BATCH_SIZE), strict=True
        ):
            logits = self.engine.logits(normalize(images, mean, std))
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            correct += int((logits.argmax(1) == labels).sum())
        return loss / len(test), correct

    def _progress_bar(self, progress: bool) -> Any:
        return tqdm(
            total=len(self.dataset.train),
            initial=self.step * self.recipe.batch_size,
            desc=f"{self.architecture.id} epoch {self.epoch}/{self.recipe.epochs}",
            unit=" images",
            disable=None if progress else True,  # None: silent where standard error is no terminal
            leave=False,
        )

    # Results ----------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.engine.network.parameters())

    def run_info(self) -> dict[str, Any]:
        """The keys every result of a training has (`resnet_bench.schema`)."""
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
        """What this process contributes; described once it has compiled, when all libraries are loaded."""
        return Stretch(
            **identity.origin(self.started_at),
            session=identity.session(),
            engine=self.engine.name,
            pipeline=self.pipeline,  # type: ignore[arg-type]  # checked when the training was made
            workers=self.workers if self.pipeline == "loader" else 0,
            threads=self.threads,
            machine=identity.describe(),
        )

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """What each process contributed to the training so far, this one last where it has trained."""
        return (*self._earlier, self._stretch)

    def result(self, machine: dict[str, Any] | None = None) -> AccuracyResult:
        """The training so far; `machine` is `resnet_bench.identity.describe()`."""
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

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree on to be taken up. Any engine, pipeline and number of epochs may go on."""
        recipe = {k: v for k, v in self.recipe.as_dict().items() if k != "epochs"}
        return {
            "architecture": self.architecture.id,
            "recipe": recipe,
            "data set": f"{self.dataset.name} {self.dataset.sha256}",
            "seed": self.seed,
        }

    def _save(self) -> None:
        assert self._checkpoint is not None
        if not all(bool(p.isfinite().all()) for p in self.engine.network.parameters()):
            raise self._diverged(f"weights are not finite after step {self.step} of epoch {self.epoch}")
        buffer = io.BytesIO()  # so that a full disk is an OSError of the write, not an error inside torch.save
        state = {
            "format": CHECKPOINT_FORMAT,
            "identity": self._identity(),
            "stretches": json.dumps([s.model_dump(mode="json") for s in self.stretches]),  # plain text loads anywhere
            "epoch_stretches": sorted(self._epoch_stretches),
            "network": {name: tensor.contiguous() for name, tensor in self.engine.network.state_dict().items()},
            "optimizer": self.engine.optimizer_state(),
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self._loss_sum,
            "images": self._images,
            "seconds": self._seconds,
            "phases": self.clock.seconds,
            "results": [r.model_dump() for r in self.results],
        }
        torch.save(state, buffer)
        with atomic_write(self._checkpoint, "wb") as file:
            file.write(buffer.getbuffer())

    def _load(self) -> None:
        assert self._checkpoint is not None
        try:
            state = torch.load(self._checkpoint, weights_only=True)
            found, ours = state["identity"], self._identity()
            if state["format"] != CHECKPOINT_FORMAT:
                raise ValueError(f"format {state['format']}")
        except Exception as error:
            raise UserError(
                f"{self._checkpoint} is no checkpoint of this release or was cut off ({type(error).__name__}); "
                "move it away or give another --checkpoint folder."
            ) from None
        for key, value in ours.items():
            if found.get(key) != value:
                raise UserError(
                    f"The checkpoint in {self._checkpoint.parent} is of another {key} ({found.get(key)}, not {value}); "
                    "give the same options as before or another --checkpoint folder."
                )
        if len(state["results"]) > self.recipe.epochs:
            raise UserError(
                f"The checkpoint in {self._checkpoint.parent} is {len(state['results'])} epochs old, but --epochs is "
                f"{self.recipe.epochs}; give as many epochs or more, or another --checkpoint folder."
            )
        self.engine.network.load_state_dict(state["network"])
        self.engine.load_optimizer_state(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self._loss_sum, self._images, self._seconds = state["loss_sum"], state["images"], state["seconds"]
        self.clock.seconds = state["phases"]
        self.results = [EpochResult(**r) for r in state["results"]]
        self._earlier = [Stretch(**s) for s in json.loads(state["stretches"])]
        self._epoch_stretches = set(state["epoch_stretches"])
        self.resumed = True


def _alike(stretches: Sequence[Stretch], settings: Sequence[str]) -> bool:
    """Whether all stretches agree in these settings and ran on one kind of machine with one software and code."""
    return len({(identity.key(s.machine), *(getattr(s, name) for name in settings)) for s in stretches}) == 1


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[threading.Event]:
    """Within, the first Ctrl-C only sets the event, so that a step is never cut in two; the second interrupts."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # Python delivers signals to the main thread only
        return

    def note(signum: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
