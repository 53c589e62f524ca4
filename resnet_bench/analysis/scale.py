"""How the time of a step grows with one quantity, where `fast` stops being faster, and what a study then costs.

Everything is of early steps: see `schema.ScaleResult`. A round of processes gives one value; the values of a quantity,
networks and engines of one round were measured one right after the other, so ratios are paired by round.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal, NamedTuple

from resnet_bench import paper
from resnet_bench.analysis.ratios import paired_ratio
from resnet_bench.analysis.series import in_order
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.intervals import over_processes
from resnet_bench.recipe import Recipe
from resnet_bench.results.samples import Samples
from resnet_bench.schema import Interval, ScaleResult, Varied

PLAIN, FAST = "reference", "fast"

Verdict = Literal["faster", "slower", "cannot tell"]


class Mean(NamedTuple):
    """A mean over rounds, with its 95 % interval; None for fewer than three."""

    value: float
    interval: Interval | None


def mean(values: Sequence[float]) -> Mean:
    """Of one positive value from each round."""
    return Mean(fmean(values), over_processes(values))


def ratio(base: Sequence[float], other: Sequence[float], together: int = 1) -> Mean:
    """OTHER over BASE, round by round, as far as both have them; `together` as in `paired_ratio`."""
    pairs = [(b, o) for b, o in zip(base, other, strict=False) if b > 0 and o > 0]
    own, others = [b for b, _ in pairs], [o for _, o in pairs]
    return Mean(math.exp(fmean(math.log(o) - math.log(b) for b, o in pairs)), paired_ratio(own, others, together))


@dataclass(frozen=True)
class Sweep:
    """The results of one command: one quantity, all of its values, in one session on one machine.

    Attributes:
        varied: the quantity.
        machine: `identity.describe()` of it.
        results: by network, engine and value.
    """

    varied: Varied
    machine: dict[str, Any]
    results: tuple[ScaleResult, ...]

    @property
    def architectures(self) -> list[str]:
        return in_order(r.architecture for r in self.results)

    @property
    def engines(self) -> list[str]:
        return list(dict.fromkeys(r.engine for r in self.results))

    @property
    def values(self) -> list[int]:
        return sorted({r.value for r in self.results})

    def of(self, architecture: str, engine: str) -> list[ScaleResult]:
        """The results of a network with an engine, by rising value."""
        own = [r for r in self.results if (r.architecture, r.engine) == (architecture, engine)]
        return sorted(own, key=lambda r: r.value)

    def at(self, architecture: str, engine: str, value: int) -> ScaleResult | None:
        return next((r for r in self.of(architecture, engine) if r.value == value), None)

    def gain(self, architecture: str, value: int) -> Mean | None:
        """How many times as long a step of plain PyTorch takes as one of `fast`; None where one was not measured.

        The intervals of a network hold for all of its values together, because a sentence looks at all of them.
        """
        plain, fast = (self.at(architecture, engine, value) for engine in (PLAIN, FAST))
        if plain is None or fast is None:
            return None
        return ratio(fast.step_times, plain.step_times, together=len(self.values))


def verdict(gain: Mean) -> Verdict:
    """Whether `fast` is faster than plain PyTorch: only where the whole interval of the ratio is beyond 1."""
    if gain.interval is None or gain.interval.low <= 1 <= gain.interval.high:
        return "cannot tell"
    return "faster" if gain.interval.low > 1 else "slower"


class Stretch(NamedTuple):
    """Neighbouring values with the same verdict on `fast`."""

    verdict: Verdict
    values: tuple[int, ...]


def stretches(sweep: Sweep, architecture: str) -> list[Stretch]:
    """The verdicts on `fast` by rising value; empty where the two engines have no value in common."""
    found: list[Stretch] = []
    for value in sweep.values:
        gain = sweep.gain(architecture, value)
        if gain is None:
            continue
        if found and found[-1].verdict == verdict(gain):
            found[-1] = Stretch(found[-1].verdict, (*found[-1].values, value))
        else:
            found.append(Stretch(verdict(gain), (value,)))
    return found


def sweeps(samples: Samples) -> list[Sweep]:
    """The results of `resnet-bench scale`, in the order of the files. Sessions are kept apart."""
    found: dict[str, list[Any]] = {}
    for run in samples.runs:
        if isinstance(r := run.result, ScaleResult):
            data = [r.dataset.name, *([] if r.varied == "images" else [r.dataset.train_images])]
            rest = {k: v for k, v in r.recipe.items() if not (r.varied == "batch-size" and k == "batch_size")}
            key = [run.identity, run.session, run.result.process, r.varied, data, rest]
            found.setdefault(json.dumps(key, sort_keys=True), []).append(run)
    return [Sweep(runs[0].result.varied, runs[0].machine, tuple(r.result for r in runs)) for runs in found.values()]


# What a study costs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StudyCost:
    """What the training of the study's five networks costs with one packing, computed from early steps.

    Attributes:
        engine: how steps are computed.
        jobs, threads: trainings side by side, and threads of each.
        seconds: of the whole study, evaluation excluded, over rounds.
        classes: of the images that were measured; the last layer depends on it.
        best: whether no packing of this engine on this machine is faster.
    """

    engine: str
    jobs: int
    threads: int
    seconds: Mean
    classes: int
    best: bool = False


def study_costs(found: Iterable[Sweep]) -> list[StudyCost]:
    """The packings that were measured on one machine with all five networks, by engine, jobs and threads.

    Each network takes 15 epochs of 12,500 steps as long as the measured ones, and 15 times the opening of a pipeline,
    which is that of the most images that were measured. One training begins when another ends.

    Args:
        found: of one machine.
    """
    results = [r for sweep in found for r in sweep.results if _is_the_studys(r)]
    packings: dict[tuple[str, int, int, int], dict[str, ScaleResult]] = {}
    for r in results:
        if r.varied in ("threads", "processes"):
            packings.setdefault((r.engine, r.jobs, r.threads, r.dataset.classes), {}).setdefault(r.architecture, r)
    costs = [
        StudyCost(engine, jobs, threads, mean(_study_seconds(own, results)), classes)
        for (engine, jobs, threads, classes), own in sorted(packings.items())
        if set(ARCHITECTURES) <= set(own)
    ]
    least = {c.engine: min(o.seconds.value for o in costs if o.engine == c.engine) for c in costs}
    return [replace(c, best=c.seconds.value == least[c.engine]) for c in costs]


def _is_the_studys(result: ScaleResult) -> bool:
    return bool(result.recipe["batch_size"] == Recipe().batch_size)


def _study_seconds(own: dict[str, ScaleResult], every: Sequence[ScaleResult]) -> list[float]:
    """Seconds of a study in each round that all networks have."""
    from resnet_bench.study.packing import makespan  # here, because it imports torch, which takes seconds

    jobs = next(iter(own.values())).jobs
    steps = Recipe().steps_per_epoch(paper.TRAIN_IMAGES)
    rounds = min(len(r.step_times) for r in own.values())
    startups = {name: _startup(own[name], every) for name in ARCHITECTURES}

    def cell(name: str, round_: int) -> float:
        return paper.EPOCHS * (startups[name] + steps * own[name].step_times[round_])

    return [makespan([cell(name, i) for name in ARCHITECTURES], jobs) for i in range(rounds)]


def _startup(own: ScaleResult, every: Sequence[ScaleResult]) -> float:
    """Seconds that opening a pipeline takes, of the most images that were measured with this network and engine."""
    alike = [r for r in every if (r.architecture, r.engine) == (own.architecture, own.engine)]
    largest = max([own, *alike], key=lambda r: r.dataset.train_images)
    return fmean(largest.startup_times)


def startup_share(result: ScaleResult) -> float:
    """The share of an epoch that opening its pipeline takes, mean over rounds."""
    return fmean(s / e for s, e in zip(result.startup_times, result.epoch_times, strict=True))
