"""Results as data: the one schema that every JSON file of the suite follows, written and read here.

Two kinds of file hold them. `resnet-bench train --output` writes one `AccuracyResult`. `pytest benchmarks` writes
pytest-benchmark's JSON, in which each benchmark's `extra_info` is one result (`parameters`, `epoch_time` or
`accuracy`) and `machine_info["resnet_bench"]` is `resnet_bench.machine.describe()`. `docs/schema.md` lists every key.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

SCHEMA_VERSION = 1

Seconds = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Loss = float


class Model(BaseModel):
    """Immutable; unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Model):
    """An estimate with its interval: `estimate` lies in [`low`, `high`]; `method` says how it was made."""

    estimate: float
    low: float
    high: float
    confidence: Fraction = 0.95
    method: str

    @property
    def relative(self) -> float:
        """Half the interval's width over the estimate; infinite for an estimate of 0."""
        return (self.high - self.low) / 2 / self.estimate if self.estimate else math.inf


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Proportion of successes with Wilson's score interval (Wilson 1927; `scipy.stats.binomtest`)."""
    ci = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(
        estimate=successes / trials, low=float(ci.low), high=float(ci.high), confidence=confidence, method="wilson"
    )


class DatasetInfo(Model):
    """Which images were used. `sha256` is over the images and labels in use, training set first."""

    name: str
    synthetic: bool
    subset: bool  # fewer images than the data set has
    train_images: Annotated[int, Field(ge=1)]
    test_images: Annotated[int, Field(ge=1)]
    classes: Annotated[int, Field(ge=2)]
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

    epoch: Annotated[int, Field(ge=1)]
    train_seconds: Seconds
    eval_seconds: Seconds
    train_loss: Loss
    test_loss: Loss
    test_accuracy: Fraction
    phases: PhaseSeconds


class _Run(Model):
    """What is common to every result that a training produced."""

    schema_version: Literal[1] = SCHEMA_VERSION
    architecture: str
    parameters: Annotated[int, Field(ge=1)]
    engine: str
    pipeline: Literal["loader", "vectorized"]
    dataset: DatasetInfo
    recipe: dict[str, Any]  # `Recipe.as_dict()`
    seed: int
    threads: Annotated[int, Field(ge=1)]
    workers: Annotated[int, Field(ge=0)]
    compile_seconds: Seconds = 0.0  # never part of an epoch's time


class AccuracyResult(_Run):
    """A training: `complete` is false where it stopped before the recipe's last epoch."""

    kind: Literal["accuracy"] = "accuracy"
    complete: bool
    epochs: tuple[EpochResult, ...]
    final_accuracy: Interval | None  # Wilson interval of the last epoch; None before the first
    weights_sha256: Sha256
    machine: dict[str, Any] | None = None  # only in `train --output`; benchmarks have it in `machine_info`

    @property
    def peak_accuracy(self) -> float | None:
        return max((e.test_accuracy for e in self.epochs), default=None)


class Block(Model):
    """Consecutive steps timed as one: the raw value behind an estimate. In mode `full`, a whole epoch."""

    round: Annotated[int, Field(ge=0)]
    steps: Annotated[int, Field(ge=1)]
    seconds: Seconds
    phases: PhaseSeconds
    page_faults: Annotated[int, Field(ge=0)]


class EpochTimeResult(_Run):
    """Seconds for one training epoch (no evaluation), measured whole (`full`) or extrapolated (`sampled`).

    `epoch_seconds = startup_seconds + steps_per_epoch × mean step time`; in mode `full` it is the mean of the blocks.
    """

    kind: Literal["epoch_time"] = "epoch_time"
    complete: bool  # false in a journal that was cut off
    mode: Literal["sampled", "full"]
    stopped_by: Literal["precision", "time-limit", "rounds"] | None
    steps_per_epoch: Annotated[int, Field(ge=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    startup_seconds: Seconds  # from the start of an epoch to its first batch
    blocks: tuple[Block, ...]
    epoch_seconds: Interval | None  # None for fewer than two blocks
    peak_memory_bytes: Annotated[int, Field(ge=0)]
    load_average_before: float
    load_average_after: float
    warnings: tuple[str, ...]  # why this number should be doubted; empty where nothing was noticed

    @property
    def step_phases(self) -> dict[str, float]:
        """Mean seconds per step of each phase, over all blocks."""
        steps = sum(b.steps for b in self.blocks)
        return {p: sum(getattr(b.phases, p) for b in self.blocks) / steps for p in PhaseSeconds.model_fields}


class ParametersResult(Model):
    """The size of a network, counted on the module; building it is what the benchmark times."""

    kind: Literal["parameters"] = "parameters"
    schema_version: Literal[1] = SCHEMA_VERSION
    architecture: str
    parameters: Annotated[int, Field(ge=1)]
    num_classes: Annotated[int, Field(ge=2)]
    fc_parameters: Annotated[int, Field(ge=0)]
    multiply_accumulates: Annotated[int, Field(ge=1)]
    published_parameters: str | None


Result = Annotated[ParametersResult | EpochTimeResult | AccuracyResult, Field(discriminator="kind")]
