"""The results that rules may use, in the form in which rules ask for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnet_bench import paper
from resnet_bench.analysis.claims.eligibility import ELIGIBLE_ENGINES, reason_against_accuracies, reason_against_times
from resnet_bench.analysis.claims.evidence import listed
from resnet_bench.analysis.claims.outcome import Undecided
from resnet_bench.analysis.claims.step_times import StepTimes, step_times
from resnet_bench.analysis.series import parameter_counts
from resnet_bench.results.samples import Pool, Samples
from resnet_bench.schema import AccuracyResult, EpochTimeResult

LEAST_SEEDS = 2
"""How many seeds of each network a comparison of accuracies needs."""

Fractions = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """Test accuracies of networks that were trained under one setting.

    Attributes:
        accuracies: one array for each network asked for, [seeds, epochs], as fractions of 1.
        engine: the engine that trained them.
    """

    accuracies: list[Fractions]
    engine: str

    @property
    def least_seeds(self) -> int:
        """The number of seeds of the network with the fewest."""
        return min(map(len, self.accuracies))

    def __str__(self) -> str:
        """`2 to 3 seeds, fast engine`, as evidence quotes it."""
        counts = sorted({len(own) for own in self.accuracies})
        if counts == [1]:
            return f"one seed (the interval is over test images alone), {self.engine} engine"
        return f"{' to '.join(map(str, counts))} seeds, {self.engine} engine"


class Selection:
    """What a rule is given. Each method raises `Undecided` with the reason where the results lack what is asked for."""

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
            raise Undecided(f"the parameters of {architecture} were not counted with {paper.CLASSES} classes{other}")
        return counts[paper.CLASSES]

    def curves(self, *architectures: str, epochs: int = paper.EPOCHS) -> Curves:
        """The first `epochs` epochs of each network, all of one machine, software, code and setting.

        Of several settings the one with the most seeds counts; of equal ones, that of the preferred engine.
        """
        found = []
        for engine in ELIGIBLE_ENGINES:
            for (ran_on, _), trainings in self._trainings.items():
                runs = [_one_run_a_seed(trainings.get(name, ()), epochs) for name in architectures]
                if ran_on == engine and all(runs):
                    found.append(Curves([_accuracies(own, epochs) for own in runs], engine))
        if not found:
            reasons = filter(None, (self._why_no_curve(name, epochs) for name in architectures))
            raise Undecided("; ".join(reasons) or "no engine has runs of all the networks compared")
        return max(found, key=lambda curves: curves.least_seeds)

    def compared_curves(self, *architectures: str, epochs: int = paper.EPOCHS) -> Curves:
        """`curves` of networks that are compared with one another: with enough seeds of each to show their scatter."""
        curves = self.curves(*architectures, epochs=epochs)
        seeds = zip(architectures, map(len, curves.accuracies), strict=True)
        if few := [f"{count} of {name}" for name, count in seeds if count < LEAST_SEEDS]:
            raise Undecided(
                f"a difference between networks needs at least {LEAST_SEEDS} seeds of each, to tell it from the "
                f"difference between seeds; there is {listed(few)}; {curves}"
            )
        return curves

    def step_times(self, *architectures: str) -> list[StepTimes]:
        """One `StepTimes` for each setting in which the paper's program was timed on all these networks.

        Times of trainings are among them only where nothing else was timed.
        """
        complete = [times for times in self._step_times if all(map(times.rounds, architectures))]
        if not complete:
            raise Undecided(self._why_no_times(architectures))
        return [times for times in complete if times.source != "training"] or complete

    def _why_no_curve(self, architecture: str, epochs: int) -> str:
        """Empty where the network has usable runs."""
        runs = [r for r in self._accuracies if r.architecture == architecture]
        if not runs:
            return f"{architecture} was not trained"
        reasons = [reason_against_accuracies(r, epochs) for r in runs]
        return f"{architecture}: {reasons[0]}" if all(reasons) else ""

    def _why_no_times(self, architectures: Sequence[str]) -> str:
        missing = [name for name in architectures if not any(times.rounds(name) for times in self._step_times)]
        if not missing:
            return f"{listed(architectures)} were not timed on one machine with one data set and number of threads"
        results: list[EpochTimeResult | AccuracyResult] = [*self._times, *self._accuracies]
        ran = [(r.architecture, reason_against_times(r)) for r in results if r.architecture in missing]
        reasons = list(dict.fromkeys(f"{name} {reason}" for name, reason in ran if reason))
        return f"no time of {listed(missing)}" + (f" as the paper ran it: {'; '.join(reasons[:2])}" if reasons else "")


def _comparable_setting(pool: Pool) -> str:
    """Equal for pools of different networks whose accuracies may be compared."""
    return json.dumps([pool.identity, pool.dataset, pool.setting], sort_keys=True)


def _one_run_a_seed(runs: Sequence[AccuracyResult], epochs: int) -> list[AccuracyResult]:
    """The first usable run of each seed, by seed: a run is deterministic, so that a second one adds nothing."""
    by_seed: dict[int, AccuracyResult] = {}
    for run in runs:
        if not reason_against_accuracies(run, epochs):
            by_seed.setdefault(run.seed, run)
    return [by_seed[seed] for seed in sorted(by_seed)]


def _accuracies(runs: Sequence[AccuracyResult], epochs: int) -> Fractions:
    """[runs, epochs]."""
    return np.array([[e.test_accuracy for e in run.epochs[:epochs]] for run in runs])
