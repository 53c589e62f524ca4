"""Epoch time: several networks are measured in turn, round by round, so that the machine's drift affects all alike.

In mode `full` a round times one whole epoch of each network. In mode `sampled` a round trains a few steps of each
without timing them and then times a block of consecutive steps. Rounds go on until every network's mean is precise
enough, and the epoch's time is extrapolated from the mean step. `measure_both` compares the two modes.

The epoch to be measured is one from the middle of a training. An engine whose first steps take longer than the others
(`Engine.settling_steps`) trains these before anything is timed, unless the recipe has few more steps than these.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from tqdm import tqdm

from resnet_bench import machine
from resnet_bench.clock import Clock
from resnet_bench.data.pipelines import CHUNK_IMAGES, crowded
from resnet_bench.errors import UserError
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.schema import Block, EpochTimeResult, Interval, PhaseSeconds
from resnet_bench.training.training import Training

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Mode = Literal["sampled", "full"]
StoppedBy = Literal["precision", "time-limit", "rounds"]

PIECES = 50
"""Pieces of a whole epoch, where sampled blocks are measured between them. Each is short against the minutes in which a
machine drifts."""

LOADER_BLOCK_STEPS = 24
LOADER_WARMUP_STEPS = 12  # beyond the batches that the workers prepared while other networks were being timed


@dataclass(frozen=True)
class Plan:
    """How epoch time is measured.

    Attributes:
        mode: `sampled` or `full`.
        precision: `sampled` stops when the half-width of every network's 95 % interval is at most this fraction of its
            mean, or at `time_limit`, whichever comes first.
        time_limit: seconds.
        min_rounds, max_rounds: least and greatest number of blocks; mode `full` runs `max_rounds` rounds.

    Raises:
        UserError: where a number is out of range; the message names the command-line option.
    """

    mode: Mode = "sampled"
    precision: float = 0.03
    time_limit: float = 120.0
    min_rounds: int = 10
    max_rounds: int = 200

    def __post_init__(self) -> None:
        if self.max_rounds < 1:
            raise UserError(f"--rounds is {self.max_rounds}; give at least 1.")
        if not self.precision >= 0:  # nor NaN
            raise UserError(f"--precision is {self.precision * 100:g}; give a number of percent, 0 or more.")
        if not self.time_limit > 0:
            raise UserError(f"--time-limit is {self.time_limit}; give a number of seconds above 0.")


class EpochTimer:
    """The measurement of one network. Making it builds and warms up the training; `measure` times a block a round."""

    def __init__(self, build: Callable[[], Training], plan: Plan) -> None:
        self.plan = plan
        self.blocks: list[Block] = []
        self.warmup_steps = 0
        with _PeakMemory() as peak:
            self.training = build()
            self.training.warm_up()
            per_epoch = self.training.steps_per_epoch
            if self.training.pipeline == "loader":
                self._block_steps, self._skipped_steps = LOADER_BLOCK_STEPS, LOADER_WARMUP_STEPS
            else:  # whole chunks, so that each block includes the augmentation of exactly the images that it uses
                self._block_steps, self._skipped_steps = max(1, CHUNK_IMAGES // self.training.recipe.batch_size), 2
            if self._block_steps + self._skipped_steps > per_epoch:
                self._skipped_steps = min(self._skipped_steps, per_epoch // 4)
                self._block_steps = per_epoch - self._skipped_steps
            self._settle()
            self._run(max(self._skipped_steps, 2))
        self._read_parameters, self._updated_parameters = 0.0, 0  # sums over the timed steps
        self.startup_seconds = self.training.startup_seconds
        self.peak_memory_bytes = peak.bytes

    def _settle(self) -> None:
        """Train the engine's first steps, which take longer, unless they are more than half of the recipe's steps."""
        training = self.training
        steps = training.engine.settling_steps
        if 2 * steps > training.recipe.epochs * training.steps_per_epoch:
            return
        description = f"{training.architecture.id} first steps"
        for _ in tqdm(range(steps), description, unit=" steps", disable=None, leave=False, delay=2):
            if training.step == training.steps_per_epoch:
                training.close_epoch()
            training.train_step()
        self.warmup_steps += steps

    def _run(self, steps: int) -> None:
        """Train `steps` steps without timing, in the next epoch where this one has too few left for a block as well."""
        training = self.training
        if training.step + steps + self._block_steps > training.steps_per_epoch:
            training.close_epoch()
        for _ in range(steps):
            training.train_step()
        self.warmup_steps += steps

    def measure(self, round_: int, pieces: int = 1, between: Callable[[], object] = lambda: None) -> Block:
        """Time the block of a round.

        Args:
            round_: number of the round, kept in the block.
            pieces: pieces that the block is timed in.
            between: called before each piece but the first, and not timed.
        """
        training = self.training
        if self.plan.mode == "full":
            training.close_epoch()
            steps = training.steps_per_epoch + 1  # the last one finds the epoch's end, as in a training loop
        else:
            steps = self._block_steps
            self._run(self._skipped_steps)
        training.clock = clock = Clock()
        done, seconds, faults = 0, 0.0, 0
        for piece in range(pieces):
            if piece:
                between()
            piece_steps = steps * (piece + 1) // pieces - steps * piece // pieces
            faults_before, begun = _page_faults(), time.perf_counter()
            done += sum(self._timed_step() for _ in range(piece_steps))
            seconds += time.perf_counter() - begun
            faults += _page_faults() - faults_before
        block = Block(
            round=round_, steps=done, seconds=seconds, phases=PhaseSeconds(**clock.seconds), page_faults=faults
        )
        self.blocks.append(block)
        return block

    def _timed_step(self) -> bool:
        """Train one step; False where the epoch has none left."""
        if self.training.train_step() is None:
            return False
        engine = self.training.engine
        self._read_parameters += engine.read_parameters
        self._updated_parameters += engine.updated_parameters
        return True

    def parameters_per_step(self) -> tuple[float, float]:
        """Parameters that the forward pass of the mean timed step read, and those that its update went over."""
        steps = sum(b.steps for b in self.blocks) or 1
        return self._read_parameters / steps, self._updated_parameters / steps

    def epoch_seconds(self) -> list[float]:
        """The seconds that an epoch takes, by each block."""
        if self.plan.mode == "full":
            return [b.seconds for b in self.blocks]
        return [self.startup_seconds + self.training.steps_per_epoch * b.seconds / b.steps for b in self.blocks]

    def interval(self) -> Interval | None:
        """The mean of `epoch_seconds` with its 95 % interval; None for fewer than two blocks."""
        return positive_mean_interval(self.epoch_seconds()) if len(self.blocks) > 1 else None

    def precise(self) -> bool:
        """Whether there are enough blocks and the interval is as narrow as the plan asks."""
        interval = self.interval()
        return len(self.blocks) >= self.plan.min_rounds and (
            interval is not None and interval.relative <= self.plan.precision
        )

    def result(
        self,
        stopped_by: StoppedBy | None,
        warnings: Sequence[str] = (),
        step_bound_seconds: float | None = None,
        load_average_before: float | None = None,
    ) -> EpochTimeResult:
        """The result of the blocks so far.

        Args:
            stopped_by: why the measurement stopped; None where it was cut off.
            warnings: sentences that say why the result is doubtful.
            step_bound_seconds: the least time that a step can take here, from `machine.step_bound`.
            load_average_before: `machine.load_average()` before this process did any work.
        """
        training = self.training
        read, updated = self.parameters_per_step()
        crowding = crowded(training.pipeline, training.workers)
        return EpochTimeResult(
            **training.run_info(),
            complete=stopped_by is not None,
            mode=self.plan.mode,
            stopped_by=stopped_by,
            steps_per_epoch=training.steps_per_epoch,
            warmup_steps=self.warmup_steps,
            startup_seconds=self.startup_seconds,
            blocks=tuple(self.blocks),
            read_parameters=read,
            updated_parameters=updated,
            epoch_seconds=self.interval(),
            step_bound_seconds=step_bound_seconds,
            peak_memory_bytes=self.peak_memory_bytes,
            load_average_before=load_average_before,
            load_average_after=machine.load_average(),
            warnings=(*warnings, *([crowding] if crowding else [])),
        )


def measure_interleaved(
    measurements: Sequence[EpochTimer], plan: Plan, after_round: Callable[[], None] = lambda: None
) -> StoppedBy:
    """Measure all networks, round by round, until all are precise or the time or the rounds are used up.

    Args:
        measurements: one a network.
        plan: when to stop.
        after_round: called after every round, e.g. to save what is measured.

    Returns:
        Which of the three ended it.
    """
    begun = time.perf_counter()
    total = plan.max_rounds if plan.mode == "full" else None
    with tqdm(total=total, desc=f"epoch time ({plan.mode})", unit=" rounds", disable=None, leave=False) as bar:
        for round_ in range(plan.max_rounds):
            for measurement in measurements:
                measurement.measure(round_)
            after_round()
            bar.update()
            if plan.mode == "full":
                continue
            widest = max((i.relative for m in measurements if (i := m.interval())), default=math.inf)
            bar.set_postfix_str(f"±{widest:.1%}, to reach ±{plan.precision:.1%}")
            if all(m.precise() for m in measurements):
                return "precision"
            if time.perf_counter() - begun > plan.time_limit and round_ > 0:  # one block alone has no interval
                return "time-limit"
    return "rounds"


def measure_both(
    pairs: Sequence[tuple[EpochTimer, EpochTimer]], rounds: int, after_round: Callable[[], None] = lambda: None
) -> StoppedBy:
    """Measure whole epochs and, between their pieces, sampled blocks of the same network, to check the sampling.

    If one mode were measured after the other, the machine's drift in between would appear as a difference between them.
    In the pipeline `loader`, workers go on while a sampled block is measured, so up to four of the some 250 batches of
    the next piece are prepared before it is timed.

    Args:
        pairs: for each network, the measurement in mode `full` and the one in mode `sampled`.
        rounds: whole epochs of each network.
        after_round: called after every round.
    """
    pieces = [min(PIECES, full.training.steps_per_epoch) for full, _ in pairs]
    with tqdm(total=rounds * sum(pieces), desc="epoch time (both)", unit=" pieces", disable=None, leave=False) as bar:
        for round_ in range(rounds):
            for (full, sampled), epoch_pieces in zip(pairs, pieces, strict=True):

                def block(sampled: EpochTimer = sampled) -> None:
                    sampled.measure(len(sampled.blocks))
                    bar.update()

                full.measure(round_, epoch_pieces, block)
                block()
            after_round()
    return "rounds"


def _page_faults() -> int:
    """Minor and major page faults of this process since its start; 0 where the system does not tell."""
    if resource is None:
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


class _PeakMemory:
    """A context in which the peak of this process's resident memory is measured.

    `bytes` is then the peak less the memory before; None where the system does not tell. Only Linux does: there the
    peak can be reset, so that it belongs to one network and not to the whole process.
    """

    bytes: int | None = None

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
        if peak := re.search(rb"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
            self.bytes = max(0, int(peak[1]) * 1024 - self._before)
