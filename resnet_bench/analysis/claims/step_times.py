"""Times of a training step, grouped by what may be set against each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from resnet_bench import identity, paper
from resnet_bench.analysis.claims.eligibility import reason_against_mean_time, reason_against_times
from resnet_bench.analysis.claims.evidence import counted
from resnet_bench.analysis.claims.outcome import Untestable
from resnet_bench.analysis.series import MODES
from resnet_bench.recipe import Recipe
from resnet_bench.results.samples import TRAINED, Run, Samples
from resnet_bench.schema import AccuracyResult, DatasetInfo, EpochTimeResult


@dataclass
class StepTimes:
    """Times of a step that may be set against each other.

    They come from one session, whose processes measure all networks in turn: between sessions a machine drifts by what
    nobody sees. Only times of trainings come from several sessions, because a process trains one network.

    Attributes:
        machine: `identity.describe()` of the first file that has such a time.
        source: the mode of measuring, or `training` where epochs of accuracy runs were timed.
        seconds: {(architecture, engine): {process: seconds of a step, the mean over its training}}. Trainings have
            their seed in the place of the process, because those of one seed belong together.
        parameters: {architecture: number of parameters, with the data set's number of classes}.
        partial: {architecture: why its times on `reference` are no means over the training that was published}.
        doubtful: whether a measurement came with a warning, such as that of a busy machine.
        aged: whether later points of the training were not trained, but idle units were carried on.
    """

    machine: dict[str, Any]
    dataset: DatasetInfo
    threads: int
    source: Literal["sampled", "full", "training"]
    seconds: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    partial: dict[str, str] = field(default_factory=dict)
    doubtful: bool = False
    aged: bool = False

    def steps(self, architecture: str, engine: str = "reference") -> dict[str, float]:
        """{process: seconds of a step}; empty where the network was not timed on this engine."""
        return self.seconds.get((architecture, engine), {})

    def processes(self, *architectures: str, engine: str = "reference") -> list[str]:
        """The processes that timed all of these networks."""
        first, *others = (self.steps(name, engine) for name in architectures)
        return [process for process in first if all(process in steps for steps in others)]

    def log_ratios(self, architecture: str, engine: str = "reference", among: Sequence[str] = ()) -> list[float]:
        """Logarithm of the time of a step over the baseline's, of each process that timed both (and all of `among`)."""
        mine, base = self.steps(architecture, engine), self.steps("baseline", engine)
        common = self.processes(architecture, "baseline", *among, engine=engine)
        return [math.log(mine[process] / base[process]) for process in common]

    def require_whole_training(self, *architectures: str) -> None:
        """Raises `Untestable` where the times are not the mean over a training of the published length."""
        for name in architectures:
            if name in self.partial:
                steps = paper.TRAIN_IMAGES // Recipe().batch_size
                raise Untestable(
                    f"the published minutes are means over {paper.EPOCHS} epochs of {steps:,} steps on real images; "
                    f"{name} {self.partial[name]}"
                )

    @property
    def cpu_model(self) -> str:
        return str(identity.part(self.machine, "cpu").get("model") or "unknown CPU")

    def __str__(self) -> str:
        """`5 processes, sampled, 2 threads, cifar100, <CPU>`, as evidence quotes it."""
        timed = "epochs of training" if self.source == "training" else self.source
        least = counted(min(map(len, self.seconds.values())), "process")
        notes = [", aged states" if self.aged else "", ", doubtful times (see their warnings)" if self.doubtful else ""]
        threads = counted(self.threads, "thread")
        return f"{least}, {timed}, {threads}, {self.dataset.name}, {self.cpu_model}{''.join(notes)}"


def step_times(samples: Samples) -> list[StepTimes]:
    """All times that a rule may use, those nearest to the paper's setting first.

    Times measured for their own sake come before those of trainings, 100 classes before others, real images before
    synthetic ones, and the preferred mode before the other.
    """
    found: dict[tuple[Any, ...], StepTimes] = {}
    trained_by: set[tuple[Any, ...]] = set()
    for run in samples.runs:
        r = run.result
        if not isinstance(r, TRAINED) or reason_against_times(r):
            continue
        # A damaged file may hold times whose ratios overflow.
        seconds = {process: step for process, step in _step_seconds(run).items() if 1e-100 < step < 1e100}
        if not seconds:
            continue
        data = r.dataset
        source = "training" if isinstance(r, AccuracyResult) else r.mode
        sizes = (data.name, data.train_images, data.classes)
        session = None if source == "training" else run.together
        alike = (run.identity, identity.speed_key(run.machine), sizes, r.threads, source, session)
        if source == "training":  # a process that trained a network several times is still one
            training = (alike, r.architecture, r.engine, r.process or run.together)
            if training in trained_by:
                continue
            trained_by.add(training)
        times = found.setdefault(alike, StepTimes(run.machine, data, r.threads, source))
        own = times.seconds.setdefault((r.architecture, r.engine), {})
        for process, step in seconds.items():
            own.setdefault(process, step)
        times.parameters[r.architecture] = r.parameters
        if r.engine == "reference":
            if reason := reason_against_mean_time(r):
                times.partial.setdefault(r.architecture, reason)
            if isinstance(r, EpochTimeResult):
                times.doubtful |= bool(r.warnings)
                times.aged |= any(point.state == "aged" for point in r.points)

    sources = [*MODES, "training"]

    def distance(times: StepTimes) -> tuple[bool, bool, bool, int]:
        other_classes = times.dataset.classes != paper.CLASSES
        return times.source == "training", other_classes, times.dataset.synthetic, sources.index(times.source)

    return sorted(found.values(), key=distance)


def _step_seconds(run: Run) -> dict[str, float]:
    """{process, or the training's seed: seconds of a step}."""
    r = run.result
    if isinstance(r, EpochTimeResult):
        named = [p.process for p in r.processes]
        return {named[i] if named else "only": step for i, step in r.step_times.items()}
    assert isinstance(r, AccuracyResult)
    steps = -(-r.dataset.train_images // Recipe().batch_size)
    epochs = [seconds for epoch, seconds in r.epoch_times.items() if epoch <= paper.EPOCHS]
    return {f"seed {r.seed}": sum(epochs) / len(epochs) / steps} if epochs else {}
