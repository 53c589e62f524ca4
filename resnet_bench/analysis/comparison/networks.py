"""The networks that a file holds, and which networks of two files are compared with each other."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from resnet_bench.analysis.replicates import Replicates, epoch_seconds, origin, replicates
from resnet_bench.analysis.series import MODES, in_order, parameter_counts
from resnet_bench.results.samples import Samples
from resnet_bench.schema import AccuracyResult, EpochTimeResult

Role = Literal["base", "other"]
"""Which of the two files."""

Key = tuple[str, str]
"""Architecture and engine of a network."""

SETTINGS = ("threads", "pipeline", "workers")
"""Settings of a run. Runs that differ in one of them are not samples of one quantity."""

_SESSION = ""
"""Of all epoch-time results of a file: one session writes one file."""


@dataclass(frozen=True, eq=False)
class Network:
    """The runs of one network with one engine in one file, each of them once.

    Attributes:
        engine: empty where the file has only the network's parameters.
        times: results that tell the seconds of an epoch: epoch-time results or, in a file without any, trainings.
        trainings: one for each seed; only complete ones where there are any.
        parameters: the number of trainable parameters; None where the file does not tell.
    """

    architecture: str
    engine: str
    times: tuple[EpochTimeResult | AccuracyResult, ...] = ()
    trainings: tuple[AccuracyResult, ...] = ()
    parameters: int | None = None

    @property
    def key(self) -> Key:
        return self.architecture, self.engine

    @property
    def name(self) -> str:
        """`fc1 (fast)`."""
        return f"{self.architecture} ({self.engine})" if self.engine else self.architecture

    @property
    def modes(self) -> set[str]:
        """The modes in which its epoch time was measured; empty where its times are those of a training's epochs."""
        return {r.mode for r in self.times if isinstance(r, EpochTimeResult)}

    def in_mode(self, mode: str) -> Network:
        """The network without the epoch times that were measured in another mode."""
        return replace(self, times=tuple(r for r in self.times if not isinstance(r, EpochTimeResult) or r.mode == mode))

    @functools.cached_property
    def replicates(self) -> Replicates | None:
        """The independent values of its epoch time; None without usable ones."""
        return replicates(value for r in self.times for value in epoch_seconds(r, _SESSION))

    @property
    def by_index(self) -> dict[int, float]:
        """{index of a process: seconds of an epoch}; empty unless one result holds all of them."""
        result, usable = self.times[0] if len(self.times) == 1 else None, self.replicates
        if not isinstance(result, EpochTimeResult) or not usable:
            return {}
        where = {i: origin(result, _SESSION, i).process for i in range(len(result.processes))}
        return {i: usable.values[process] for i, process in where.items() if process in usable.values}

    @property
    def seconds(self) -> float | None:
        """Mean of an epoch; None without usable times."""
        return self.replicates.mean if self.replicates else None


class Pair(NamedTuple):
    """One network of BASE and the network of OTHER that is compared with it."""

    base: Network
    other: Network


def networks(samples: Samples) -> list[Network]:
    """The networks of a file, in the paper's order."""
    counts = parameter_counts(samples)
    trainings = [r for r in samples.of_kind(AccuracyResult) if r.epochs]
    times: list[Any] = samples.of_kind(EpochTimeResult) or trainings
    runs = [*times, *trainings]
    keys = dict.fromkeys((r.architecture, r.engine) for r in runs)
    keys |= dict.fromkeys((a, "") for a in counts if a not in {architecture for architecture, _ in keys})
    found = []
    for architecture in in_order(a for a, _ in keys):
        for key in (k for k in keys if k[0] == architecture):
            own = [r for r in trainings if (r.architecture, r.engine) == key]
            found.append(
                Network(
                    *key,
                    times=tuple(r for r in times if (r.architecture, r.engine) == key),
                    trainings=_one_of_each_seed([r for r in own if r.complete] or own),
                    parameters=next((r.parameters for r in runs if (r.architecture, r.engine) == key), None)
                    or next(iter(counts.get(architecture, {}).values()), None),
                )
            )
    return found


def _one_of_each_seed(trainings: Iterable[AccuracyResult]) -> tuple[AccuracyResult, ...]:
    """For each seed the run with the most epochs: a second run of a seed says nothing more about how seeds scatter."""

    def repeats(r: AccuracyResult, kept: AccuracyResult) -> bool:
        return all(getattr(r, what) == getattr(kept, what) for what in ("seed", "dataset", "recipe", *SETTINGS))

    found: list[AccuracyResult] = []
    for r in sorted(trainings, key=lambda r: -len(r.epochs)):
        if not any(repeats(r, kept) for kept in found):
            found.append(r)
    return tuple(found)


def paired(base: Sequence[Network], other: Sequence[Network]) -> list[Pair]:
    """Networks of one architecture and one engine.

    Where each file has a single engine, the engines may differ: the user then wants to compare these two engines.
    """
    single = all(len({n.engine for n in networks_} - {""}) <= 1 for networks_ in (base, other))
    return [
        Pair(a, b)
        for a in base
        for b in other
        if a.architecture == b.architecture and (single or a.engine == b.engine or not (a.engine and b.engine))
    ]


def in_one_mode(pair: Pair) -> Pair:
    """Both networks with the epoch times of one mode that both have; unchanged where they share no mode.

    `--epoch-mode both` writes two results of one run, which are not two runs.
    """
    for mode in MODES:
        if all(mode in n.modes for n in pair if n.modes):
            return Pair(*(n.in_mode(mode) for n in pair))
    return pair


def counted_once(pair: Pair) -> Pair:
    """A training that both files hold counts in BASE alone, or in OTHER alone where OTHER has no other trainings.

    Where both files hold the same trainings and no others, the user asked to compare just these: they stay.
    """
    base, other = pair
    only_base = tuple(r for r in base.trainings if r not in other.trainings)
    only_other = tuple(r for r in other.trainings if r not in base.trainings)
    if only_other:
        return Pair(base, replace(other, trainings=only_other))
    return Pair(replace(base, trainings=only_base) if only_base else base, other)
