"""Results as data: the schema of every JSON file that the suite writes and reads.

Two kinds of file hold them. `resnet-bench train --output` writes one `AccuracyResult`. `pytest benchmarks` writes
pytest-benchmark's JSON, in which each benchmark's `extra_info` is one result (`parameters`, `epoch_time`, `accuracy`,
`overhead` or `explain`), and `resnet-bench scale` writes such a file too (`scale`). `machine_info["resnet_bench"]` is
`resnet_bench.identity.describe()`. `docs/schema.md` lists every key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import attrgetter
from statistics import fmean
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

SCHEMA_VERSION: Literal[7] = 7
READABLE_VERSIONS = (1, 2, 3, 4, 5, 6, 7)
Version = Literal[1, 2, 3, 4, 5, 6, 7]

Seconds = Annotated[float, Field(ge=0, le=1e9)]  # 30 years; keeps sums and ratios of damaged values finite
Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=10**15)]  # what a float can hold exactly
NonNegativeCount = Annotated[int, Field(ge=0, le=10**15)]
ClassCount = Annotated[int, Field(ge=2, le=10**15)]
Parameters = Annotated[float, Field(ge=0, le=1e15)]  # mean of counts
Positive = Annotated[float, Field(gt=0, le=1e9)]
Finite = Annotated[float, Field(ge=-1e300, le=1e300)]  # also finite when converted to milliseconds or per cent
Loss = float
LearningRate = Annotated[float, Field(ge=0)]


class Model(BaseModel):
    """An immutable part of a result; unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Model):
    """An estimate with its interval: `estimate` lies in [`low`, `high`]; `method` says how it was made."""

    estimate: Finite
    low: Finite
    high: Finite
    confidence: Fraction = 0.95
    method: str

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        slack = 1e-9 * max(abs(self.estimate), abs(self.low), abs(self.high))  # ends are rounded
        if not self.low - slack <= self.estimate <= self.high + slack:
            raise ValueError("the estimate lies outside its interval")
        return self

    @property
    def relative(self) -> float:
        """Half the width of the interval over the estimate; infinite for an estimate of 0."""
        return (self.high - self.low) / 2 / self.estimate if self.estimate else math.inf


class DatasetInfo(Model):
    """Which images were used. `sha256` is that of the images and labels in use, training set first."""

    name: str
    synthetic: bool
    subset: bool  # fewer images than the data set has
    train_images: Count
    test_images: Count
    classes: ClassCount
    sha256: Sha256
    mean: tuple[float, float, float]  # per channel, of the training images, in [0, 1]
    std: tuple[float, float, float]


class PhaseSeconds(Model):
    """Seconds spent in each phase of the step: waiting for data, forward, backward, optimiser."""

    data: Seconds
    forward: Seconds
    backward: Seconds
    optimizer: Seconds


class EpochResult(Model):
    """One epoch: training, then evaluation on the whole test set. `train_loss` is the mean over the images."""

    epoch: Count
    lr_start: LearningRate  # of its first step
    lr_end: LearningRate  # of its last step
    train_seconds: Seconds
    eval_seconds: Seconds
    train_loss: Loss
    test_loss: Loss
    test_accuracy: Fraction
    live_units: tuple[NonNegativeCount, ...] | None  # of each hidden FC layer, answering a test image; None: not told
    phases: PhaseSeconds
    stretches: tuple[NonNegativeCount, ...] | None  # numbers of the stretches that trained it; None: not told


def completed_epoch(epoch: dict[str, Any], lr: Any) -> dict[str, Any]:
    """An epoch from before version 4, when every step had the rate `lr` and nobody counted live units."""
    return {"lr_start": lr, "lr_end": lr, "live_units": None, **epoch}


class _BaseResult(Model):
    """The keys that every result has. None stands for what a file of version 1 does not tell."""

    schema_version: Version = SCHEMA_VERSION
    architecture: str
    process: str | None  # random id of the process that began the measurement
    started_at: str | None  # when it began, UTC, ISO 8601

    @model_validator(mode="after")
    def _says_where_it_comes_from(self) -> _BaseResult:
        if self.schema_version > 1 and (self.process is None or self.started_at is None):
            raise ValueError("process and started_at are unknown only in version 1")
        return self


class Stretch(Model):
    """What one process contributed to a training, with the settings, machine, software and code that it ran under."""

    process: str
    session: str
    started_at: str
    engine: str
    pipeline: Literal["loader", "vectorized"]
    workers: NonNegativeCount
    threads: Count
    jobs: Count = 1  # trainings that ran side by side; where there were several, its times do not compare
    machine: dict[str, Any]  # `resnet_bench.identity.describe()`


class _TrainingResult(_BaseResult):
    """The keys of every result that comes from a training."""

    parameters: Count
    engine: str
    pipeline: Literal["loader", "vectorized"]
    dataset: DatasetInfo
    recipe: dict[str, Any]  # `Recipe.as_dict()`
    seed: int
    threads: Count
    workers: NonNegativeCount
    compile_seconds: Seconds = 0.0  # never part of an epoch's time


class AccuracyResult(_TrainingResult):
    """A training: `complete` is false where it stopped before the recipe's last epoch."""

    kind: Literal["accuracy"] = "accuracy"
    mixed: bool = False  # stretches differ in setting, machine, software or code, so times of epochs do not compare
    same_bits: bool | None  # whether a run without interruption ends with exactly these weights; None: not told
    stretches: tuple[Stretch, ...] | None  # in order; None: not told
    complete: bool
    epochs: tuple[EpochResult, ...]
    final_accuracy: Interval | None  # Wilson interval of the last epoch; None before the first
    weights_sha256: Sha256
    machine: dict[str, Any] | None = None  # only in `train --output`; benchmarks have it in `machine_info`

    @model_validator(mode="after")
    def _epochs_are_of_stretches(self) -> AccuracyResult:
        if [e.epoch for e in self.epochs] != list(range(1, len(self.epochs) + 1)):
            raise ValueError("the epochs are not numbered from 1")
        for e in self.epochs:
            if (e.stretches is None) != (self.stretches is None):
                raise ValueError("either every epoch says in which stretches it was trained, or none does")
            if e.stretches is not None and max(e.stretches, default=-1) not in range(len(self.stretches or ())):
                raise ValueError(f"epoch {e.epoch} was trained in no stretch of the training")
        return self

    @property
    def peak_accuracy(self) -> float | None:
        """Accuracy of the best epoch, as a fraction of 1; None before the first. The only definition of a peak."""
        return max((e.test_accuracy for e in self.epochs), default=None)

    @property
    def beside(self) -> bool:
        """Whether another training ran beside it on the machine, so that its times do not compare."""
        return any(stretch.jobs > 1 for stretch in self.stretches or ())

    @property
    def epoch_times(self) -> dict[int, float]:
        """{epoch: training seconds} of the epochs whose times compare.

        Empty where the training is `mixed`, or where another training ran beside it.
        """
        return {} if self.mixed or self.beside else {e.epoch: e.train_seconds for e in self.epochs}


class Point(Model):
    """A place in the training at which blocks of steps are timed.

    The mean over the training gives each point the share of the steps that it stands for. Between two points the time
    of a step counts as changing linearly (trapezoidal rule).
    """

    step: NonNegativeCount  # steps of the training before it
    weight: Fraction  # share of the training's steps that it stands for; the shares of all points make 1
    state: Literal["trained", "aged"]  # whether every step before it was trained, or idle units were only carried on
    live_share: Fraction | None  # of the first hidden FC layer's units, those that answer some image; None: no such
    denormal_exp_avg: Fraction | None  # share of the first moments that are denormal; None where that was not counted
    denormal_exp_avg_sq: Fraction | None  # the same of the second moments


class MeasuringProcess(Model):
    """A fresh process that timed blocks at every point, and what was particular to it."""

    process: str  # its random id
    started_at: str
    startup_seconds: Seconds  # what opening an epoch's pipeline cost before its first step
    compile_seconds: Seconds
    peak_memory_bytes: NonNegativeCount | None  # the most that training this network added to the process
    one_thread_ratio: Positive | None = None  # of a step: with one thread over as measured, while threads waited
    step_bound_seconds: Seconds | None = None  # model of the least time of a step, at the rates between its blocks


class Block(Model):
    """Consecutive steps timed as one: the raw value behind an estimate. In mode `full`, an epoch or its first steps."""

    process: NonNegativeCount = 0  # index into the result's `processes`
    point: NonNegativeCount = 0  # index into the result's `points`
    round: NonNegativeCount  # number of the block among those of one process and point
    steps: Count
    seconds: Annotated[float, Field(ge=1e-9, le=1e9)]
    phases: PhaseSeconds
    page_faults: NonNegativeCount
    read_parameters: Parameters | None = None  # by the forward pass of the mean step; None: an older file
    updated_parameters: Parameters | None = None  # by the update of that step
    waiting_share: Fraction | None = None  # of its time, in which the thread that waited most waited for a core
    stolen_share: Fraction | None = None  # of its cores' time, what the host of a virtual machine took


class EpochTimeResult(_TrainingResult):
    """Seconds for one training epoch (no evaluation), the mean over the training, measured in several fresh processes.

    Mode `sampled` times blocks of steps at several points of the training. A process's value is
    `startup_seconds + steps_per_epoch × mean step time`, where the mean is over the points with their weights. Mode
    `full` times whole epochs, or their first steps where the time limit allows no more; a process's value is their
    mean, as if the other steps took as long. The interval is over the processes' values: blocks of one process share
    its memory layout and are no independent samples.

    Files of version 1 and 2 have one process, no points, and blocks of the training's first steps.
    """

    kind: Literal["epoch_time"] = "epoch_time"
    complete: bool  # whether every planned process timed every point; false in a journal that was cut off
    mode: Literal["sampled", "full"]
    stopped_by: Literal["precision", "time-limit", "rounds", "plan"] | None  # from version 3 on only `plan`
    steps_per_epoch: Count
    warmup_steps: NonNegativeCount
    startup_seconds: Seconds  # what opening an epoch's pipeline costs before its first step; mean over processes
    points: tuple[Point, ...] = ()  # by rising step; empty in mode `full` and in older files
    processes: tuple[MeasuringProcess, ...] = ()  # empty in older files, which have one
    blocks: tuple[Block, ...]
    read_parameters: Parameters | None = None  # by the forward pass, mean over the training; None: an older file
    updated_parameters: Parameters | None = None  # by the update
    epoch_seconds: Interval | None  # over processes; None for fewer than three
    step_bound_seconds: Seconds | None = None  # mean over processes; in older files at the session's best rates
    peak_memory_bytes: NonNegativeCount | None  # largest of the processes' peaks
    load_average_before: float | None  # over one minute; None where the system has none
    load_average_after: float | None
    warnings: tuple[str, ...]  # why this number should be doubted; empty where nothing was noticed

    @model_validator(mode="after")
    def _possible(self) -> EpochTimeResult:
        if self.epoch_seconds and not 0 <= self.epoch_seconds.estimate <= 1e25:  # as many steps as long as can be
            raise ValueError("an epoch takes no such time")
        if len({(b.process, b.point, b.round) for b in self.blocks}) < len(self.blocks):
            raise ValueError("two blocks are of one round")
        if any(b.process >= max(1, len(self.processes)) for b in self.blocks):
            raise ValueError("a block is of no process of this result")
        if any(b.point >= max(1, len(self.points)) for b in self.blocks):
            raise ValueError("a block is of no point of this result")
        if self.points and abs(sum(p.weight for p in self.points) - 1) > 1e-6:
            raise ValueError("the weights of the points do not make 1")
        if [p.step for p in self.points] != sorted({p.step for p in self.points}):
            raise ValueError("the points are not in the order of their steps")
        return self

    @property
    def process_blocks(self) -> dict[int, tuple[Block, ...]]:
        """{index of a process: its blocks}, for the processes with a block at every point that counts."""
        needed = {i for i, p in enumerate(self.points) if p.weight} or {0}
        found: dict[int, list[Block]] = {}
        for b in self.blocks:
            found.setdefault(b.process, []).append(b)
        return {i: tuple(own) for i, own in found.items() if needed <= {b.point for b in own}}

    @property
    def measured(self) -> str:
        """What the blocks are: `sampled`, `full`, or `first N of M steps` where epochs were not timed to their end."""
        if self.mode == "full" and self.steps_of_an_epoch < self.steps_per_epoch:
            return f"first {self.steps_of_an_epoch:,} of {self.steps_per_epoch:,} steps"
        return self.mode

    @property
    def steps_of_an_epoch(self) -> int:
        """In mode `full`: how many steps of each epoch were timed, from its first on."""
        return min((b.steps for b in self.blocks), default=self.steps_per_epoch)

    @property
    def epoch_times(self) -> dict[int, float]:
        """{index of a process: seconds of an epoch, as its blocks say}: the only definition of an epoch's seconds.

        Processes that lack blocks at some point are left out, because their mean would be of another part of it.
        """
        if self.mode == "full":
            by_process = self.process_blocks.items()
            return {i: sum(map(self.block_epoch_seconds, own)) / len(own) for i, own in by_process}
        return {i: self._startup(i) + self.steps_per_epoch * s for i, s in self.step_times.items()}

    def block_epoch_seconds(self, block: Block) -> float:
        """The seconds of an epoch all of whose steps take as long as the block's."""
        if self.mode == "full":
            return block.seconds * (self.steps_per_epoch / block.steps if block.steps < self.steps_per_epoch else 1)
        return self._startup(block.process) + self.steps_per_epoch * block.seconds / block.steps

    @property
    def step_times(self) -> dict[int, float]:
        """{index of a process: seconds of a step}, the mean over the training, without the start of the pipeline."""
        return {i: self._mean(own, lambda b: b.seconds) for i, own in self.process_blocks.items()}

    @property
    def step_phases(self) -> dict[str, float]:
        """Mean seconds per step of each phase, over the training and all processes; zeros without blocks."""
        return {p: self.mean_per_step(attrgetter(f"phases.{p}")) for p in PhaseSeconds.model_fields}

    def mean_per_step(self, value: Callable[[Block], float]) -> float:
        """The mean of a block's value over its steps, over the training and all processes; 0 without blocks."""
        processes = self.process_blocks.values()
        return sum(self._mean(own, value) for own in processes) / max(1, len(processes))

    @property
    def point_step_times(self) -> dict[int, dict[int, float]]:
        """{index of a point: {index of a process: mean seconds of a step there}}."""
        found: dict[int, dict[int, list[Block]]] = {}
        for b in self.blocks:
            found.setdefault(b.point, {}).setdefault(b.process, []).append(b)
        return {
            point: {process: _per_step(own, lambda b: b.seconds) for process, own in sorted(by_process.items())}
            for point, by_process in sorted(found.items())
        }

    def _startup(self, process: int) -> float:
        return self.processes[process].startup_seconds if self.processes else self.startup_seconds

    def _mean(self, blocks: Sequence[Block], value: Callable[[Block], float]) -> float:
        """The mean of a value per step over the training, where the blocks of each point have the point's weight."""
        weights = [p.weight for p in self.points] or [1.0]
        at = {i: [b for b in blocks if b.point == i] for i, weight in enumerate(weights) if weight}
        return sum(weights[i] * _per_step(own, value) for i, own in at.items())


def _per_step(blocks: Sequence[Block], value: Callable[[Block], float]) -> float:
    return sum(map(value, blocks)) / sum(b.steps for b in blocks)


Varied = Literal["threads", "batch-size", "images", "classes", "processes"]
"""What `resnet-bench scale` can vary."""


class ScaleResult(_TrainingResult):
    """What a step takes with one value of what `resnet-bench scale` varies, from a training's early steps.

    It says nothing about the rest of the training, so it is never pooled with an epoch's time. In each round, `jobs`
    fresh processes measured side by side: process i is of round i // jobs. All values of a file, networks and engines
    were measured in every round.
    """

    kind: Literal["scale"] = "scale"
    varied: Varied
    jobs: Count  # processes side by side, each with the same measurement
    complete: bool  # whether every planned round was measured; false in a file that was cut off
    first_steps: Count  # every timed step is among so many first steps of a training
    steps_per_epoch: Count
    processes: Annotated[tuple[MeasuringProcess, ...], Field(min_length=1)]
    blocks: tuple[Block, ...]
    warnings: tuple[str, ...]

    @property
    def value(self) -> int:
        """The value of what is varied."""
        values: dict[Varied, int] = {
            "threads": self.threads, "batch-size": self.recipe["batch_size"], "images": self.dataset.train_images,
            "classes": self.dataset.classes, "processes": self.jobs,
        }  # fmt: skip
        return values[self.varied]

    @model_validator(mode="after")
    def _possible(self) -> ScaleResult:
        batch_size = self.recipe.get("batch_size")
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError("the recipe lacks its batch size")
        if len(self.processes) % self.jobs:
            raise ValueError("a round lacks some of its processes")
        if {b.process for b in self.blocks} != set(range(len(self.processes))):
            raise ValueError("a process has no block, or a block is of no process of this result")
        if len({(b.process, b.round) for b in self.blocks}) < len(self.blocks):
            raise ValueError("two blocks are of one round")
        return self

    @property
    def process_step_times(self) -> tuple[float, ...]:
        """Mean seconds of a step in each process."""
        own = [[b for b in self.blocks if b.process == i] for i in range(len(self.processes))]
        return tuple(_per_step(blocks, lambda b: b.seconds) for blocks in own)

    @property
    def step_times(self) -> tuple[float, ...]:
        """Mean seconds of a step in each round, over the processes that ran side by side."""
        return tuple(sum(times) / self.jobs for times in self._rounds(self.process_step_times))

    @property
    def rates(self) -> tuple[float, ...]:
        """Steps per second in each round, of all processes that ran side by side together."""
        return tuple(sum(1 / seconds for seconds in times) for times in self._rounds(self.process_step_times))

    @property
    def startup_times(self) -> tuple[float, ...]:
        """Seconds that opening an epoch's pipeline takes in each round, mean over the processes side by side."""
        return tuple(sum(own) / self.jobs for own in self._rounds([p.startup_seconds for p in self.processes]))

    @property
    def epoch_times(self) -> tuple[float, ...]:
        """Seconds of an epoch of such early steps in each round, with the opening of its pipeline, unevaluated."""
        pairs = zip(self.startup_times, self.step_times, strict=True)
        return tuple(startup + self.steps_per_epoch * step for startup, step in pairs)

    def _rounds(self, values: Sequence[float]) -> list[Sequence[float]]:
        return [values[i : i + self.jobs] for i in range(0, len(values), self.jobs)]


class ParametersResult(_BaseResult):
    """The size of a network, counted on the module; building it is what the benchmark times."""

    kind: Literal["parameters"] = "parameters"
    parameters: Count
    num_classes: ClassCount
    fc_parameters: NonNegativeCount
    multiply_accumulates: Count
    published_parameters: str | None


class OverheadResult(_BaseResult):
    """What the harness costs: ratios of the times of interleaved blocks over the same batches; 1 is no cost."""

    kind: Literal["overhead"] = "overhead"
    engine: str
    steps: Count  # of one block
    bare_seconds: tuple[Seconds, ...]  # of each block
    harness_seconds: tuple[Seconds, ...]
    clocks_seconds: tuple[Seconds, ...]
    harness_over_bare: Interval  # harness with clocks off / bare PyTorch loop
    clocks_over_harness: Interval  # clocks on / clocks off


class Variant(Model):
    """A step, run in one way: a row of `resnet-bench explain`."""

    architecture: str
    name: str  # e.g. `fused Adam`
    change: str  # what differs from the row before
    step_seconds: Interval  # mean over blocks
    block_seconds: tuple[Seconds, ...]  # of a step, for each block: the raw values
    phases: PhaseSeconds  # per step
    page_faults: Annotated[float, Field(ge=0, le=1e15)]  # per step
    optimizer_bytes: NonNegativeCount  # per step, counted from what is read and written; see `measure.ablation`


COUNTED_APART = ("idle_steps", "denormal_exp_avg", "zero_exp_avg", "denormal_exp_avg_sq", "zero_exp_avg_sq")
"""What no version before 3 tells of a state with denormals."""


class DenormalState(Model):
    """A state of a training in which hidden units are dead, and what the plain step from it takes.

    Shares are of all the network's moments. The steps were measured in turn, a block of each in each of several pairs
    of fresh processes, so that block i of one belongs to block i of another.
    """

    name: Literal["early", "late"]
    idle_steps: NonNegativeCount | None  # for which moments of dead units decayed without a gradient; None: older file
    dead_share: Fraction  # of the first hidden layer's units
    denormal_share: Fraction  # of first and second moments together
    denormal_exp_avg: Fraction | None  # of the first moments; None in these four: an older file, not counted apart
    zero_exp_avg: Fraction | None
    denormal_exp_avg_sq: Fraction | None  # of the second moments
    zero_exp_avg_sq: Fraction | None
    kept: Variant  # denormal numbers are kept, as torch does by itself
    flushed: Variant | None  # they are flushed to 0; None where the CPU cannot
    only_exp_avg: Variant | None = None  # kept, but the denormal second moments are set to 0
    only_exp_avg_sq: Variant | None = None  # kept, but the denormal first moments are set to 0

    @property
    def steps(self) -> tuple[Variant, ...]:
        """The steps that were measured."""
        return tuple(v for v in (self.kept, self.flushed, self.only_exp_avg, self.only_exp_avg_sq) if v)

    @model_validator(mode="after")
    def _in_turn(self) -> DenormalState:
        if len({len(v.block_seconds) for v in self.steps}) > 1 or len(self.kept.block_seconds) < 2:
            raise ValueError("the steps with denormals were not measured in turn, two blocks of each or more")
        return self


class ExplainResult(_BaseResult):
    """Where the time of a step goes: from the plain step to the fastest one, one change at a time.

    Files of version 1 and 2 have one state with denormals, an early one, under other keys: see `results.reading`.
    """

    kind: Literal["explain"] = "explain"
    counterpart: str  # the network that it is compared with, variant by variant
    dataset: DatasetInfo
    recipe: dict[str, Any]
    seed: int
    threads: Count
    workers: NonNegativeCount  # of the plain variant's loader
    variants: tuple[Variant, ...]  # the network's rows, then the counterpart's
    states: tuple[DenormalState, ...]  # early, then late; empty where the network has no hidden layer
    warnings: tuple[str, ...]

    @property
    def denormals(self) -> tuple[Variant, ...]:
        """The steps from all states with denormal numbers."""
        return tuple(v for state in self.states for v in state.steps)

    @model_validator(mode="after")
    def _explains(self) -> ExplainResult:
        names = [[v.name for v in self.variants if v.architecture == a] for a in (self.architecture, self.counterpart)]
        if len(names[0]) < 2 or names[0] != names[1]:
            raise ValueError("the variants are not the same two or more of both networks")
        if any(min((v.step_seconds.estimate, *v.block_seconds)) <= 0 for v in (*self.variants, *self.denormals)):
            raise ValueError("a step takes no time")
        every = (*self.variants, *self.denormals)
        if not all(v.block_seconds and math.isclose(v.step_seconds.estimate, fmean(v.block_seconds)) for v in every):
            raise ValueError("the time of a step is not the mean of its blocks")
        if len({state.name for state in self.states}) < len(self.states):
            raise ValueError("two states with denormals have one name")
        if self.schema_version > 2 and any(getattr(s, key) is None for s in self.states for key in COUNTED_APART):
            raise ValueError("the shares of denormals are unknown only before version 3")
        if "batch_size" not in self.recipe:
            raise ValueError("the recipe lacks its batch size")
        return self


Result = Annotated[
    ParametersResult | EpochTimeResult | AccuracyResult | OverheadResult | ExplainResult | ScaleResult,
    Field(discriminator="kind"),
]

_RESULT: TypeAdapter[Result] = TypeAdapter(Result)
KINDS = tuple(model.model_fields["kind"].default for model in get_args(get_args(Result)[0]))
"""The values that `kind` of a result may have."""
