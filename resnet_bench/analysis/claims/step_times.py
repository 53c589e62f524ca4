"""Times of a training step, grouped by what may be set against each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from resnet_bench import identity, paper
from resnet_bench.analysis.bootstrap import bootstrap
from resnet_bench.analysis.claims.eligibility import reason_against_times
from resnet_bench.analysis.claims.outcome import Undecided
from resnet_bench.analysis.series import MODES
from resnet_bench.recipe import Recipe
from resnet_bench.results.samples import TRAINED, Samples
from resnet_bench.schema import AccuracyResult, DatasetInfo, EpochTimeResult, Interval


class Round(NamedTuple):
    """One round of a session; two networks' times in the same round may be paired.

    Attributes:
        together: `Run.together`, equal for runs that were measured in turn.
        number: the round's number within them; the epoch's number where a training was timed.
    """

    together: tuple[str, str]
    number: int


@dataclass
class StepTimes:
    """Times of a step that may be set against each other: on one machine, with one software, code and data size.

    Attributes:
        machine: `identity.describe()` of the first file that has such a time.
        dataset: what was trained on. Data sets with other images but the same size share one `StepTimes`, because
            the images have no influence on the time.
        source: the mode of measuring, or `training` where epochs of accuracy runs were timed.
        seconds: {(architecture, engine): {round: seconds of a step}}.
        parameters: {architecture: number of parameters, with the data set's number of classes}.
        doubtful: whether a measurement came with a warning, such as that of a busy machine.
    """

    machine: dict[str, Any]
    dataset: DatasetInfo
    threads: int
    source: Literal["sampled", "full", "training"]
    seconds: dict[tuple[str, str], dict[Round, float]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    doubtful: bool = False

    def rounds(self, architecture: str, engine: str = "reference") -> dict[Round, float]:
        """{round: seconds of a step}; empty where the network was not timed on this engine."""
        return self.seconds.get((architecture, engine), {})

    def ratio_to_baseline(self, architecture: str, engine: str = "reference") -> Interval:
        """Time of a step over the baseline's on the same engine, with its bootstrap interval.

        The rounds that both networks were measured in are paired. Where there are fewer than two of them, each
        network's rounds are drawn on their own.

        Raises:
            Undecided: one of the two networks has fewer than two rounds.
        """
        mine, base = self.rounds(architecture, engine), self.rounds("baseline", engine)
        for name, rounds in ((architecture, mine), ("baseline", base)):
            if len(rounds) < 2:
                raise Undecided(f"a single time of {name} decides nothing; {self}")
        if len(common := sorted(mine.keys() & base.keys())) >= 2:
            variant, baseline = bootstrap(np.array([[mine[r], base[r]] for r in common]), [0])
            return variant.within(baseline).ratio()
        (variant,), (baseline,) = (
            bootstrap(np.array(list(rounds.values()))[:, None], [seed]) for seed, rounds in enumerate((mine, base))
        )
        return variant.against(baseline).ratio()

    @property
    def cpu_model(self) -> str:
        return str(identity.part(self.machine, "cpu").get("model") or "unknown CPU")

    def __str__(self) -> str:
        """`10 sampled blocks or more of each, 2 threads, cifar100, <CPU>`, as evidence quotes it."""
        least = min(map(len, self.seconds.values()))
        timed = "epochs of training" if self.source == "training" else f"{self.source} blocks"
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        doubt = ", doubtful times (see their warnings)" if self.doubtful else ""
        return f"{least} {timed} or more of each, {threads}, {self.dataset.name}, {self.cpu_model}{doubt}"


def step_times(samples: Samples) -> list[StepTimes]:
    """All times that a rule may use, those nearest to the paper's setting first.

    Times measured for their own sake come before those of trainings, 100 classes before others, real images before
    synthetic ones, and the preferred mode before the other.
    """
    found: dict[tuple[Any, ...], StepTimes] = {}
    for run in samples.runs:
        r = run.result
        if not isinstance(r, TRAINED) or reason_against_times(r):
            continue
        # A damaged file may hold times whose ratios overflow.
        seconds = {number: step for number, step in _step_seconds(r).items() if 1e-100 < step < 1e100}
        if not seconds:
            continue
        data = r.dataset
        source = "training" if isinstance(r, AccuracyResult) else r.mode
        sizes = (data.name, data.train_images, data.classes)
        alike = (run.identity, identity.speed_key(run.machine), sizes, r.threads, source)
        times = found.setdefault(alike, StepTimes(run.machine, data, r.threads, source))
        rounds = times.seconds.setdefault((r.architecture, r.engine), {})
        rounds |= {Round(run.together, number): step for number, step in seconds.items()}
        times.parameters[r.architecture] = r.parameters
        times.doubtful |= isinstance(r, EpochTimeResult) and bool(r.warnings)

    sources = [*MODES, "training"]

    def distance(times: StepTimes) -> tuple[bool, bool, bool, int]:
        other_classes = times.dataset.classes != paper.CLASSES
        return times.source == "training", other_classes, times.dataset.synthetic, sources.index(times.source)

    return sorted(found.values(), key=distance)


def _step_seconds(result: EpochTimeResult | AccuracyResult) -> dict[int, float]:
    """{round or epoch: seconds of a step in it}."""
    if isinstance(result, EpochTimeResult):
        return {b.round: b.seconds / b.steps for b in result.blocks}
    steps = -(-result.dataset.train_images // Recipe().batch_size)
    return {epoch: seconds / steps for epoch, seconds in result.epoch_times.items()}
