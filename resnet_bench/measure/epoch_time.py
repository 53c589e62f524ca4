"""Epoch time: blocks of consecutive steps of one network, timed at points of its training, or whole epochs.

`EpochTimer` is the measurement of one network in one process. `resnet_bench.measure.process` is a process that measures
all networks of a session in turn, and `resnet_bench.measure.processes` starts several of these and joins what they
measured.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import psutil

from resnet_bench import progress
from resnet_bench.clock import Clock
from resnet_bench.data.pipelines import CHUNK_IMAGES
from resnet_bench.machine.waiting import Waiting
from resnet_bench.schema import Block, PhaseSeconds
from resnet_bench.training.training import Training

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Mode = Literal["sampled", "full"]

PILOT_STEPS = 8
"""Steps of each network that tell how long a block will take."""

SHORTEST_BLOCK = 12
"""Steps of a block, at least, where a time limit allows no more."""

LEAST_ROUNDS = 3  # for an interval

LOADER_BLOCK_STEPS = 24
LOADER_WARMUP_STEPS = 12  # beyond the batches that the workers prepared while other networks were being timed
LEAST_LOADER_STEPS = (4, 5)
"""The same two where batches are large, so that a block has not thousands of images: still beyond what was prepared."""


class EpochTimer:
    """The measurement of one network in this process. Making it builds the training and lets the engine compile.

    Attributes:
        training: the network's training, in the state that the last block left.
        blocks: what was timed.
        warmup_steps: steps that were trained and not timed.
        one_thread_ratio: time of a step with one thread over that of one as measured; None until it is compared.
    """

    def __init__(self, build: Callable[[], Training], mode: Mode = "sampled", process: int = 0) -> None:
        """Build.

        Args:
            build: makes the training.
            mode: whether `measure` times blocks of steps or whole epochs.
            process: index of this process among those of the measurement, kept in the blocks.
        """
        self.mode, self.process = mode, process
        self.blocks: list[Block] = []
        self.warmup_steps = 0
        self.one_thread_ratio: float | None = None
        self._startups: list[float] = []
        self._memory = _PeakMemory()
        _give_back_freed_memory()
        with self._memory:
            self.training = build()
            self.training.warm_up()
            per_epoch = self.training.steps_per_epoch
            if self.training.pipeline == "loader":
                batch_size, (timed, skipped) = self.training.recipe.batch_size, LEAST_LOADER_STEPS
                self.block_steps = max(timed, min(LOADER_BLOCK_STEPS, CHUNK_IMAGES // batch_size))
                self._skipped_steps = max(skipped, min(LOADER_WARMUP_STEPS, CHUNK_IMAGES // 2 // batch_size))
            else:  # whole chunks, so that each block includes the augmentation of exactly the images that it uses
                self.block_steps, self._skipped_steps = max(1, CHUNK_IMAGES // self.training.recipe.batch_size), 2
            if self.block_steps + self._skipped_steps > per_epoch:
                self._skipped_steps = min(self._skipped_steps, per_epoch // 4)
                self.block_steps = per_epoch - self._skipped_steps
        if mode == "sampled":  # a whole epoch begins with the training's first step
            self.run(max(self._skipped_steps, 2))

    def run(self, steps: int) -> None:
        """Train `steps` steps without timing, in the next epoch where this one has too few left for a block as well."""
        training = self.training
        if training.step + min(steps, self._skipped_steps) + self.block_steps > training.steps_per_epoch:
            training.close_epoch()
        with self._memory if not self.warmup_steps else contextlib.nullcontext():
            for _ in range(steps):
                self._step()
                self.warmup_steps += 1

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most that building and the first steps added to the process; None where the system does not tell.

        In the first training of a process that includes what PyTorch and the engine load, some 200 MB.
        """
        return self._memory.bytes

    @property
    def steps_per_block(self) -> int:
        """Steps that `measure` trains for a block in mode `sampled`, timed or not."""
        return self._skipped_steps + self.block_steps

    def measure(
        self,
        round_: int,
        point: int = 0,
        pieces: int = 1,
        between: Callable[[], object] = lambda: None,
        steps: int | None = None,
    ) -> Block:
        """Time a block.

        Args:
            round_: number of the block among those of its point, kept in the block.
            point: index of the point of the training, kept in the block.
            pieces: pieces that the block is timed in.
            between: called before each piece but the first, and not timed.
            steps: in mode `full`, how many first steps of the epoch are timed; None: the whole epoch.
        """
        training = self.training
        if self.mode == "full":
            if training.step:
                training.close_epoch()
            whole = training.steps_per_epoch + 1  # the last one finds the epoch's end, as in a training loop
            steps = whole if steps is None else min(steps, whole)
        else:
            steps = self.block_steps
            self.run(self._skipped_steps)
        training.clock = clock = Clock()
        done, seconds, faults, read, updated = 0, 0.0, 0, 0.0, 0
        waiting = Waiting()
        for piece in range(pieces):
            if piece:
                between()
            piece_steps = steps * (piece + 1) // pieces - steps * piece // pieces
            waiting.begin()
            faults_before, begun = _page_faults(), time.perf_counter()
            for _ in range(piece_steps):
                if not self._step():
                    continue  # the epoch has no step left
                done += 1
                read += training.engine.read_parameters
                updated += training.engine.updated_parameters
            seconds += time.perf_counter() - begun
            faults += _page_faults() - faults_before
            waiting.end()
        block = Block(
            process=self.process, point=point, round=round_, steps=done, seconds=seconds,
            phases=PhaseSeconds(**clock.seconds), page_faults=faults, read_parameters=read / done,
            updated_parameters=updated / done, waiting_share=waiting.share, stolen_share=waiting.stolen_share,
        )  # fmt: skip
        self.blocks.append(block)
        return block

    def _step(self) -> bool:
        """Train one step; False where the epoch has none left."""
        before = self.training.startup_seconds
        trained = self.training.train_step() is not None
        if self.training.startup_seconds != before:  # the step has opened a pipeline
            self._startups.append(self.training.startup_seconds)
        return trained

    @property
    def startup_seconds(self) -> float:
        """What opening an epoch's pipeline costs before its first step: median over the epochs that were begun."""
        return statistics.median(self._startups) if self._startups else self.training.startup_seconds

    def parameters_per_step(self) -> tuple[float, float]:
        """Parameters that the forward pass of the mean timed step read, and those that its update went over."""
        steps = sum(b.steps for b in self.blocks) or 1
        read, updated = (
            sum((getattr(b, name) or 0) * b.steps for b in self.blocks) / steps
            for name in ("read_parameters", "updated_parameters")
        )
        return read, updated


def step_seconds(timer: EpochTimer, steps: int = PILOT_STEPS) -> float:
    """About how long a step takes, from `steps` that do not count; the training goes on by as many."""
    begun = time.perf_counter()
    timer.run(steps)
    return (time.perf_counter() - begun) / steps


def measure_in_turn(timers: Sequence[EpochTimer], seconds: float, least: int = 5, most: int = 50) -> float:
    """Time blocks of all networks, round by round, so that the machine's drift affects all alike.

    Args:
        timers: one a network.
        seconds: that all this may take. How many rounds fit is told by the time of a few steps that do not count. Where
            even `least` rounds do not fit, blocks get shorter, to `SHORTEST_BLOCK` steps; then `LEAST_ROUNDS` will do.
        least, most: rounds.

    Returns:
        How long the blocks are, as a share of what `steps_per_block` was; at most 1.
    """
    begun, round_seconds = time.perf_counter(), 0.0
    for timer in timers:
        round_seconds += timer.steps_per_block * step_seconds(timer)
    left = max(0.0, seconds - (time.perf_counter() - begun))
    rounds = max(least, min(most, int(left / round_seconds)))
    share = min(1.0, left / (rounds * round_seconds))
    if share * max(timer.block_steps for timer in timers) < SHORTEST_BLOCK:
        rounds = LEAST_ROUNDS
        share = min(1.0, left / (rounds * round_seconds))
    for timer in timers:
        timer.block_steps = min(timer.block_steps, max(SHORTEST_BLOCK, int(share * timer.block_steps)))
    for round_ in progress.each(range(rounds), "timing steps in turn", "rounds", weight=seconds):
        for timer in timers:
            timer.measure(round_)
    return share


def _page_faults() -> int:
    """Minor and major page faults of this process since its start; 0 where the system does not tell."""
    if resource is None:
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


class _PeakMemory:
    """A context in which the peak of this process's resident memory is measured.

    `bytes` is then the peak less the memory before; None where the system does not tell. Only Linux does: there the
    peak can be reset, so that it belongs to one network and not to the whole process. Where it is entered again, what
    was added before counts too, and what others added meanwhile does not.
    """

    def __init__(self) -> None:
        self.bytes: int | None = None
        self._added = 0

    def __enter__(self) -> _PeakMemory:
        try:
            self._before: int | None = psutil.Process().memory_info().rss
            Path("/proc/self/clear_refs").write_text("5")
        except Exception:  # psutil raises whatever a hardened system provokes
            self._before = None
        return self

    def __exit__(self, *exception: object) -> None:
        if self._before is None:
            return
        try:
            status = Path("/proc/self/status").read_bytes()  # the process's name in it may be cut within a character
        except OSError:
            return
        peak, now = (re.search(rb"^%s:\s*(\d+) kB" % key, status, re.MULTILINE) for key in (b"VmHWM", b"VmRSS"))
        if peak and now:
            self.bytes = max(self.bytes or 0, self._added + int(peak[1]) * 1024 - self._before)
            self._added += int(now[1]) * 1024 - self._before


def _give_back_freed_memory() -> None:
    """Return what was freed to the system, or the next network would seem to need less of its own; glibc only."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # as on macOS and Windows
        ctypes.CDLL(None).malloc_trim(0)
