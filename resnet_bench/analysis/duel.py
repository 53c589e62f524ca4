"""What a duel found: each arm against the first, paired by round, because drift within a round hits both alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from resnet_bench.analysis import ratios
from resnet_bench.analysis.agreement import Equivalence, equivalence
from resnet_bench.analysis.comparison import Comparison, Ratio, compare
from resnet_bench.analysis.replicates import measured_in
from resnet_bench.results.samples import read_all
from resnet_bench.schema import AccuracyResult, EpochTimeResult, PhaseSeconds

PHASES = tuple(PhaseSeconds.model_fields)


@dataclass(frozen=True)
class Quantity:
    """One quantity of both arms.

    Attributes:
        first, other: its mean over the processes.
        ratio: other over first, paired by round; None where either is 0 or unknown in some process.
    """

    first: float
    other: float
    ratio: Ratio | None


@dataclass(frozen=True)
class Accuracies:
    """Final accuracies of one network after as many epochs, as fractions of 1, of the seeds that both arms trained."""

    first: tuple[float, ...]
    other: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Other minus first, mean over the seeds."""
        return fmean(b - a for a, b in zip(self.first, self.other, strict=True))

    @property
    def equivalence(self) -> Equivalence:
        """Whether both are the same within `agreement.MARGIN`."""
        return equivalence([b - a for a, b in zip(self.first, self.other, strict=True)])


@dataclass(frozen=True)
class Network:
    """One network with both arms.

    Attributes:
        epoch_seconds: of an epoch of the training.
        phases: seconds of a step, by phase.
        memory: the most that training the network added to the process, in bytes; None where the system did not tell.
        accuracy: None where it was not measured.
    """

    architecture: str
    epoch_seconds: Quantity
    phases: Mapping[str, Quantity]
    memory: Quantity | None
    accuracy: Accuracies | None


@dataclass(frozen=True)
class Opponent:
    """An arm against the first.

    Attributes:
        rounds: that both completed.
        overall: the ratio of epoch times over all networks.
        networks: in the paper's order.
        comparison: of the two files, with what differs in their set-ups; its ratios of epoch times are the same.
    """

    arm: str
    rounds: int
    overall: Ratio
    networks: tuple[Network, ...]
    comparison: Comparison


@dataclass(frozen=True)
class Duel:
    """The result of a duel."""

    first: str
    opponents: tuple[Opponent, ...]


def analyse(files: Mapping[str, Path]) -> Duel:
    """The result of a duel.

    Args:
        files: of the arms, by name; all others are compared with the first.
    """
    first, *others = files
    return Duel(first, tuple(_opponent(name, files[first], files[name]) for name in others))


def over_networks(first: Sequence[EpochTimeResult], other: Sequence[EpochTimeResult]) -> Ratio:
    """The ratio of epoch times over the networks that both measured, paired by process."""
    base, against = (ratios.over_networks([r.epoch_times for r in side]) for side in _common(first, other))
    return _paired(base, against)


def _common(
    first: Sequence[EpochTimeResult], other: Sequence[EpochTimeResult]
) -> tuple[list[EpochTimeResult], list[EpochTimeResult]]:
    by_name = {r.architecture: r for r in other}
    own = [r for r in first if r.architecture in by_name]
    return own, [by_name[r.architecture] for r in own]


def _paired(first: Mapping[int, float], other: Mapping[int, float], together: int = 1) -> Ratio:
    """The ratio of values by process, of the processes that both sides have."""
    rounds = sorted(first.keys() & other.keys())
    base, against = ([values[i] for i in rounds] for values in (first, other))
    interval = ratios.paired_ratio(base, against, together)
    if interval is not None:
        return Ratio(interval, processes=(len(rounds), len(rounds)))
    logs = [math.log(b / a) for a, b in zip(base, against, strict=True)]
    return Ratio(None, math.exp(fmean(logs)) if logs else None, measured_in(len(rounds), "process"), "processes")


def _quantity(first: Mapping[int, float], other: Mapping[int, float], together: int) -> Quantity:
    rounds = sorted(first.keys() & other.keys())
    a, b = [first[i] for i in rounds], [other[i] for i in rounds]
    ratio = _paired(first, other, together) if rounds and min(*a, *b) > 0 else None
    return Quantity(fmean(a or [0.0]), fmean(b or [0.0]), ratio)


def _opponent(name: str, first_file: Path, file: Path) -> Opponent:
    samples, other_samples = read_all([first_file]), read_all([file])
    first, other = _common(samples.of_kind(EpochTimeResult), other_samples.of_kind(EpochTimeResult))
    accuracies = (
        _final_accuracies(samples.of_kind(AccuracyResult)),
        _final_accuracies(other_samples.of_kind(AccuracyResult)),
    )
    networks = tuple(
        _network(a, b, len(first), *(side.get(a.architecture, {}) for side in accuracies))
        for a, b in zip(first, other, strict=True)
    )
    overall = over_networks(first, other)
    # The arms ask for what differs between them, so nothing that differs is a reason to refuse them.
    comparison = compare(samples, other_samples, force=True)
    rounds = len(first[0].epoch_times.keys() & other[0].epoch_times.keys()) if first else 0
    return Opponent(name, rounds, overall, networks, comparison)


def _network(
    first: EpochTimeResult,
    other: EpochTimeResult,
    together: int,
    accuracies: Mapping[int, float],
    other_accuracies: Mapping[int, float],
) -> Network:
    phases, other_phases = _phases(first), _phases(other)
    memory, other_memory = _memory(first), _memory(other)
    return Network(
        first.architecture,
        _quantity(first.epoch_times, other.epoch_times, together),
        {p: _quantity(phases[p], other_phases[p], together * len(PHASES)) for p in PHASES},
        _quantity(memory, other_memory, together) if memory.keys() & other_memory.keys() else None,
        _accuracies(accuracies, other_accuracies),
    )


def _phases(result: EpochTimeResult) -> dict[str, dict[int, float]]:
    """{phase: {process: seconds of a step}}."""
    found: dict[str, dict[int, float]] = {phase: {} for phase in PHASES}
    for i, blocks in result.process_blocks.items():
        for phase, seconds in result.model_copy(update={"blocks": blocks}).step_phases.items():
            found[phase][i] = seconds
    return found


def _memory(result: EpochTimeResult) -> dict[int, float]:
    peaks = {i: p.peak_memory_bytes for i, p in enumerate(result.processes)}
    return {i: float(peak) for i, peak in peaks.items() if peak is not None}


def _final_accuracies(trainings: Sequence[AccuracyResult]) -> dict[str, dict[int, float]]:
    """{network: {seed: accuracy after the last epoch}}."""
    found: dict[str, dict[int, float]] = {}
    for r in trainings:
        if r.complete:
            found.setdefault(r.architecture, {})[r.seed] = r.epochs[-1].test_accuracy
    return found


def _accuracies(first: Mapping[int, float], other: Mapping[int, float]) -> Accuracies | None:
    seeds = sorted(first.keys() & other.keys())
    return Accuracies(*(tuple(side[s] for s in seeds) for side in (first, other))) if seeds else None
