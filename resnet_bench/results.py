"""Results as data: the one schema that every JSON file of the suite follows, written and read here.

Two kinds of file hold them. `resnet-bench train --output` writes one `AccuracyResult`. `pytest benchmarks` writes
pytest-benchmark's JSON, in which each benchmark's `extra_info` is one result (`parameters`, `epoch_time`, `accuracy`,
`overhead` or `explain`) and `machine_info["resnet_bench"]` is `resnet_bench.machine.describe()`. `docs/schema.md` lists
every key.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from resnet_bench.errors import UserError

SCHEMA_VERSION: Literal[1] = 1

Seconds = Annotated[float, Field(ge=0, le=1e9)]  # 30 years; keeps sums and ratios of nonsense finite
Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=10**15)]  # what a float can hold exactly
NonNegativeCount = Annotated[int, Field(ge=0, le=10**15)]
ClassCount = Annotated[int, Field(ge=2, le=10**15)]
Parameters = Annotated[float, Field(ge=0, le=1e15)]  # mean of counts
Finite = Annotated[float, Field(ge=-1e300, le=1e300)]  # milliseconds and per cent of it are finite too
Loss = float


class Model(BaseModel):
    """Immutable; unknown keys, NaN and infinities are errors."""

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
        slack = 1e-9 * max(abs(self.estimate), abs(self.low), abs(self.high))  # of the rounding behind the ends
        if not self.low - slack <= self.estimate <= self.high + slack:
            raise ValueError("the estimate lies outside its interval")
        return self

    @property
    def relative(self) -> float:
        """Half the interval's width over the estimate; infinite for an estimate of 0."""
        return (self.high - self.low) / 2 / self.estimate if self.estimate else math.inf


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Proportion of successes with Wilson's score interval (Wilson 1927; `scipy.stats.binomtest`)."""
    from scipy import stats  # here, because it takes two seconds to import

    ci = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(
        estimate=successes / trials, low=float(ci.low), high=float(ci.high), confidence=confidence, method="wilson"
    )


class DatasetInfo(Model):
    """Which images were used. `sha256` is over the images and labels in use, training set first."""

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
    parameters: Count
    engine: str
    pipeline: Literal["loader", "vectorized"]
    dataset: DatasetInfo
    recipe: dict[str, Any]  # `Recipe.as_dict()`
    seed: int
    threads: Count
    workers: NonNegativeCount
    compile_seconds: Seconds = 0.0  # never part of an epoch's time


class AccuracyResult(_Run):
    """A training: `complete` is false where it stopped before the recipe's last epoch."""

    kind: Literal["accuracy"] = "accuracy"
    mixed: bool = False  # resumed from another engine, pipeline or thread count: times of epochs do not compare
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

    round: NonNegativeCount
    steps: Count
    seconds: Annotated[float, Field(ge=1e-9, le=1e9)]
    phases: PhaseSeconds
    page_faults: NonNegativeCount


class EpochTimeResult(_Run):
    """Seconds for one training epoch (no evaluation), measured whole (`full`) or extrapolated (`sampled`).

    `epoch_seconds = startup_seconds + steps_per_epoch × mean step time`; in mode `full` it is the mean of the blocks.
    """

    kind: Literal["epoch_time"] = "epoch_time"
    complete: bool  # false in a journal that was cut off
    mode: Literal["sampled", "full"]
    stopped_by: Literal["precision", "time-limit", "rounds"] | None
    steps_per_epoch: Count
    warmup_steps: NonNegativeCount
    startup_seconds: Seconds  # what opening an epoch's pipeline costs before its first step
    blocks: tuple[Block, ...]
    read_parameters: Parameters | None = None  # by the forward pass of the mean timed step; None: not counted yet
    updated_parameters: Parameters | None = None  # by its update
    epoch_seconds: Interval | None  # None for fewer than two blocks
    step_bound_seconds: Seconds | None = None  # least time a step can take here: `machine.step_bound`
    peak_memory_bytes: NonNegativeCount | None  # most that training this network added to the process
    load_average_before: float | None  # over one minute; None where the system has none
    load_average_after: float | None
    warnings: tuple[str, ...]  # why this number should be doubted; empty where nothing was noticed

    @model_validator(mode="after")
    def _possible(self) -> EpochTimeResult:
        if self.epoch_seconds and not 0 <= self.epoch_seconds.estimate <= 1e25:  # as many steps as long as can be
            raise ValueError("an epoch takes no such time")
        return self

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
    parameters: Count
    num_classes: ClassCount
    fc_parameters: NonNegativeCount
    multiply_accumulates: Count
    published_parameters: str | None


class OverheadResult(Model):
    """What the harness costs: ratios of interleaved blocks over the same batches; 1 is free."""

    kind: Literal["overhead"] = "overhead"
    schema_version: Literal[1] = SCHEMA_VERSION
    architecture: str
    engine: str
    steps: Count  # of one block
    bare_seconds: tuple[Seconds, ...]  # block by block
    harness_seconds: tuple[Seconds, ...]
    clocks_seconds: tuple[Seconds, ...]
    harness_over_bare: Interval  # harness with clocks off / bare PyTorch loop
    clocks_over_harness: Interval  # clocks on / clocks off


class Variant(Model):
    """A step run one way: a row of `resnet-bench explain`."""

    architecture: str
    name: str  # e.g. `fused Adam`
    change: str  # what differs from the row before
    step_seconds: Interval  # mean over blocks
    block_seconds: tuple[Seconds, ...]  # per step, block by block: the raw values
    phases: PhaseSeconds  # per step
    page_faults: Annotated[float, Field(ge=0, le=1e15)]  # per step
    optimizer_bytes: NonNegativeCount  # per step, by count of what is read and written; see `explain`


class ExplainResult(Model):
    """Where the time of a step goes: from the plain step to the fastest, one change at a time."""

    kind: Literal["explain"] = "explain"
    schema_version: Literal[1] = SCHEMA_VERSION
    architecture: str
    counterpart: str  # the network it is compared with, variant by variant
    dataset: DatasetInfo
    recipe: dict[str, Any]
    seed: int
    threads: Count
    workers: NonNegativeCount  # of the plain variant's loader
    variants: tuple[Variant, ...]  # the network's rows, then the counterpart's
    dead_share: Fraction  # of hidden units that never answer, in the state that denormals were measured on
    denormal_share: Fraction  # of that state's moments
    denormals: tuple[Variant, ...]  # on that state: kept, flushed
    warnings: tuple[str, ...]

    @model_validator(mode="after")
    def _explains(self) -> ExplainResult:
        names = [[v.name for v in self.variants if v.architecture == a] for a in (self.architecture, self.counterpart)]
        if len(names[0]) < 2 or names[0] != names[1]:
            raise ValueError("the variants are not the same two or more of both networks")
        if len(self.denormals) != 2:
            raise ValueError("the steps with denormals are not two")
        if any(min((v.step_seconds.estimate, *v.block_seconds)) <= 0 for v in (*self.variants, *self.denormals)):
            raise ValueError("a step takes no time")
        kept, flushed = (len(v.block_seconds) for v in self.denormals)
        if kept != flushed or kept < 2:
            raise ValueError("the steps with denormals were not measured in turn, two blocks of each or more")
        if "batch_size" not in self.recipe:
            raise ValueError("the recipe lacks its batch size")
        return self


Result = Annotated[
    ParametersResult | EpochTimeResult | AccuracyResult | OverheadResult | ExplainResult, Field(discriminator="kind")
]

_RESULT: TypeAdapter[Result] = TypeAdapter(Result)


@dataclass(frozen=True)
class ResultFile:
    """What one JSON file holds.

    Attributes:
        path: where it was read from.
        machine: `resnet_bench.machine.describe()` of the machine that ran it, with its `calibration` where taken.
        datetime: when it was saved, ISO 8601; empty for `train --output`.
        results: in the order of the file; several of one architecture are several runs (seeds) of it.
    """

    path: Path
    machine: dict[str, Any]
    datetime: str
    results: tuple[Result, ...]

    def of_kind(self, kind: type[Any]) -> list[Any]:
        """The results of one class, e.g. `file.of_kind(EpochTimeResult)`."""
        return [r for r in self.results if isinstance(r, kind)]


def read(path: str | Path) -> ResultFile:
    """Read and check a file of either kind; `UserError` names the file and what is wrong with it.

    Benchmarks of other projects in the same file are passed over; a file with no result of this suite is an error.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; give the JSON of a run.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON or was cut off ({error}); give the JSON of a complete run.") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no results of resnet_bench; give a file that this suite saved.")
    if isinstance(data.get("benchmarks"), list):
        machine = data.get("machine_info")
        machine = machine.get("resnet_bench") if isinstance(machine, dict) else None
        entries = [b.get("extra_info") if isinstance(b, dict) else b for b in data["benchmarks"]]
        entries = [e for e in entries if not isinstance(e, dict) or "kind" in e or "schema_version" in e]
    else:
        machine = data.get("machine")
        entries = [data] if "kind" in data else []
    if not entries:
        raise UserError(f"{path} holds no results of resnet_bench; give a file that this suite saved.")
    if not isinstance(machine, dict):
        raise UserError(f"{path} does not say which machine it was measured on; give a file that this suite saved.")
    created = data.get("datetime", "")
    results = tuple(_checked(path, entry) for entry in entries)
    return ResultFile(path, machine, created if isinstance(created, str) else "", results)


def _checked(path: Path, entry: Any) -> Result:
    version = entry.get("schema_version") if isinstance(entry, dict) else None
    if version is not None and version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version!r}, this release reads version {SCHEMA_VERSION}; "
            "measure again, or read it with the release that wrote it."
        )
    try:
        return _RESULT.validate_json(json.dumps(entry), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "result"
        raise UserError(f"{path} does not follow the schema at {where}: {first['msg'].lower()}.") from None


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that replaces `path` only once it is complete and on disk; otherwise `path` stays as it was.

    Raises `UserError` where it cannot be written (folder missing, no permission, disk full).
    """
    path = Path(path)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's files are private to the user
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}; free space or give another place.") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_json(path: str | Path, data: Any) -> None:
    """Write `data` as JSON, atomically."""
    text = json.dumps(data, indent=1, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")
