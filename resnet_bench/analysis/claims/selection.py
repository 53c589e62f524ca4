"""The results that rules may use, in the form in which rules ask for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from resnet_bench import paper
from resnet_bench.analysis.claims.eligibility import (
    eligible_engines,
    reason_against_accuracies,
    reason_against_times,
    reason_against_trainings,
)
from resnet_bench.analysis.claims.evidence import counted, images_text, place_text
from resnet_bench.analysis.claims.outcome import Untestable
from resnet_bench.analysis.claims.step_times import StepTimes, step_times
from resnet_bench.analysis.series import parameter_counts
from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.results.samples import Pool, Samples
from resnet_bench.schema import AccuracyResult, DatasetInfo, EpochTimeResult
from resnet_bench.wording import listed

Fractions = NDArray[np.float64]

ReasonAgainst = Callable[[AccuracyResult, int], str]
"""Why a training may not be used for so many epochs; empty where it may."""

NOT_TRAINED = "not trained"


@dataclass(frozen=True)
class Curves:
    """Test accuracies of networks that were trained with the same seeds under one setting.

    Attributes:
        accuracies: {architecture: [seeds, epochs], as fractions of 1}. A row has the same seed for every network.
        place: the data set, where it is not the study's whole one; else empty.
    """

    accuracies: Mapping[str, Fractions]
    engine: str
    dataset: DatasetInfo
    place: str = ""

    @property
    def seeds(self) -> int:
        return len(next(iter(self.accuracies.values())))

    @property
    def epochs(self) -> int:
        return int(next(iter(self.accuracies.values())).shape[1])

    def __str__(self) -> str:
        """`3 seeds, fast engine`, as evidence quotes it; elsewhere with the images and the number of epochs."""
        text = f"{counted(self.seeds, 'seed')}, {self.engine} engine"
        return f"{text}, {counted(self.epochs, 'epoch')} of {images_text(self.dataset)}" if self.place else text


class Selection:
    """What a rule is given. Each method raises `Untestable` with the reason where the results lack what is asked."""

    def __init__(self, samples: Samples) -> None:
        self._counts = parameter_counts(samples)
        self._accuracies = samples.of_kind(AccuracyResult)
        self._times = samples.of_kind(EpochTimeResult)
        self._step_times = step_times(samples)
        self._trainings: dict[tuple[str, str], dict[str, list[AccuracyResult]]] = {}
        """{(engine, what pools of different networks have to agree in): {architecture: runs}}."""
        for pool in samples.pools:
            comparable = (pool.setting["engine"], _comparable_setting(pool))
            self._trainings.setdefault(comparable, {})[pool.architecture] = pool.of_kind(AccuracyResult)

    def parameter_count(self, architecture: str) -> int:
        """The number of parameters measured with the paper's number of classes."""
        counts = self._counts.get(architecture, {})
        if paper.CLASSES not in counts:
            other = f", only with {listed(sorted(counts))} classes" if counts else ""
            raise Untestable(f"the parameters of {architecture} were not counted with {paper.CLASSES} classes{other}")
        return counts[paper.CLASSES]

    def curves(self, *architectures: str, epochs: int, least_epochs: int | None = None) -> Curves:
        """The first `epochs` epochs of each network, of the seeds that all of them have, under one setting.

        All of CIFAR-100 comes first. Where there are not `LEAST_VALUES` seeds of it, other real images serve, if the
        claim allows it. What is chosen depends on how much there is of it (enough seeds, then images, then epochs),
        never on the accuracies.

        Args:
            least_epochs: how many epochs are enough on other images; None where the claim says nothing about them.
        """
        found = list(self._comparable(architectures, epochs, reason_against_accuracies))
        if least_epochs is not None:
            found += self._elsewhere(architectures, range(least_epochs, epochs + 1))
        if not found:
            why = self._why_no_curves(architectures, epochs, reason_against_accuracies)
            if least_epochs is not None and not why.endswith(NOT_TRAINED):
                elsewhere = self._why_no_curves(architectures, least_epochs, reason_against_trainings)
                why += f"; on other images: {elsewhere}"
            raise Untestable(why)

        def preference(curves: Curves) -> tuple[bool, bool, int, int, int]:
            enough, here = curves.seeds >= LEAST_VALUES, not curves.place
            return enough, here, curves.dataset.train_images, curves.epochs, curves.seeds

        return max(found, key=preference)

    def step_times(self, *architectures: str) -> list[StepTimes]:
        """One `StepTimes` for each setting in which the paper's program was timed on all these networks.

        Times of trainings are among them only where nothing else was timed.
        """
        complete = [times for times in self._step_times if times.processes(*architectures)]
        if not complete:
            raise Untestable(self._why_no_times(architectures))
        return [times for times in complete if times.source != "training"] or complete

    def _elsewhere(self, architectures: Sequence[str], epochs: range) -> Iterable[Curves]:
        """Curves on other images; also those of the paper's images that were trained for fewer epochs than needed."""
        for number in epochs:
            found = self._comparable(architectures, number, reason_against_trainings)
            short = "" if number == max(epochs) else f" with {number} epochs"
            yield from (replace(curves, place=place_text(curves.dataset) + short) for curves in found)

    def _comparable(
        self,
        architectures: Sequence[str],
        epochs: int,
        reason_against: ReasonAgainst,
    ) -> Iterable[Curves]:
        """The curves under each setting, those of the preferred engine first."""
        for engine in eligible_engines():
            for (ran_on, _), trainings in self._trainings.items():
                if ran_on != engine:
                    continue
                runs = [_one_run_a_seed(trainings.get(a, ()), epochs, reason_against) for a in architectures]
                if seeds := sorted(set.intersection(*map(set, runs))):
                    dataset = runs[0][seeds[0]].dataset
                    accuracies = {
                        name: np.array([[e.test_accuracy for e in own[seed].epochs[:epochs]] for seed in seeds])
                        for name, own in zip(architectures, runs, strict=True)
                    }
                    yield Curves(accuracies, engine, dataset)

    def _why_no_curves(self, architectures: Sequence[str], epochs: int, reason_against: ReasonAgainst) -> str:
        """`fc1 and baseline: trained on synthetic images`: why there are no curves of these networks together."""
        found: dict[str, list[str]] = {}
        for name in architectures:
            runs = [r for r in self._accuracies if r.architecture == name]
            reasons = [reason_against(r, epochs) for r in runs] or [NOT_TRAINED]
            if all(reasons):
                found.setdefault(reasons[0], []).append(name)
        if NOT_TRAINED in found:
            found = {NOT_TRAINED: found[NOT_TRAINED]}
        texts = [f"{listed(names)}: {reason}" for reason, names in found.items()]
        return "; ".join(texts) or f"{listed(architectures)} share no seed on one engine, machine and code"

    def _why_no_times(self, architectures: Sequence[str]) -> str:
        missing = [name for name in architectures if not any(times.steps(name) for times in self._step_times)]
        if not missing:
            return f"{listed(architectures)} were not timed in one session on the same images"
        results: list[EpochTimeResult | AccuracyResult] = [*self._times, *self._accuracies]
        ran = [(r.architecture, reason_against_times(r)) for r in results if r.architecture in missing]
        reasons = list(dict.fromkeys(f"{name} {reason}" for name, reason in ran if reason))
        return f"no time of {listed(missing)} " + (
            f"as the paper ran it: {'; '.join(reasons[:2])}" if reasons else "with plain PyTorch"
        )


def _comparable_setting(pool: Pool) -> str:
    """Equal for pools of different networks whose accuracies may be compared."""
    return json.dumps([pool.identity, pool.dataset, pool.setting], sort_keys=True)


def _one_run_a_seed(
    runs: Sequence[AccuracyResult], epochs: int, reason_against: ReasonAgainst
) -> dict[int, AccuracyResult]:
    """The first usable run of each seed, by seed: a run is deterministic, so that a second one adds nothing."""
    by_seed: dict[int, AccuracyResult] = {}
    for run in runs:
        if not reason_against(run, epochs):
            by_seed.setdefault(run.seed, run)
    return by_seed
