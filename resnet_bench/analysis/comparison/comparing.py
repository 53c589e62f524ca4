"""Two result files, compared: a row for each network that both hold, and what else a reader has to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from resnet_bench import identity
from resnet_bench.analysis.comparison.accuracy import AccuracyDifference, accuracy_difference
from resnet_bench.analysis.comparison.explanation import Explanation, explain
from resnet_bench.analysis.comparison.marks import Mark, doubts, omissions
from resnet_bench.analysis.comparison.networks import Network, Pair, Role, counted_once, in_one_mode, networks, paired
from resnet_bench.analysis.comparison.refusals import advice, listed, reasons_against
from resnet_bench.analysis.comparison.times import Ratio, TimeRatios
from resnet_bench.analysis.differences import Difference, differences
from resnet_bench.analysis.drift import SpeedRange, calibration, drift_during_run, speed_range
from resnet_bench.analysis.turns import turns
from resnet_bench.errors import UserError
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import Samples
from resnet_bench.schema import EpochTimeResult
from resnet_bench.wording import short


@dataclass(frozen=True)
class Row:
    """One network in both files.

    Attributes:
        engines: in BASE and in OTHER; they differ only where each file has one engine.
        seconds: of an epoch in BASE and in OTHER; None where not measured.
        time: the ratio of epoch times; None where either file has none.
        relative: between machines, how the ratio to the baseline within each machine changed; else None.
        explanation: what the calibrations say about `time`; None where nothing that they measure differs.
        parameters: the number of trainable parameters in BASE and in OTHER; None where the file does not tell.
        accuracy: None where either file has none.
        refused: reasons against this comparison; not empty only with `force`.
    """

    architecture: str
    engines: tuple[str, str]
    seconds: tuple[float | None, float | None] = (None, None)
    time: Ratio | None = None
    relative: Ratio | None = None
    explanation: Explanation | None = None
    parameters: tuple[int | None, int | None] = (None, None)
    accuracy: AccuracyDifference | None = None
    refused: tuple[str, ...] = ()

    @property
    def judged(self) -> Ratio | None:
        """The ratio whose verdict counts: `relative` between machines, else `time`."""
        return self.relative or self.time


@dataclass(frozen=True)
class Missing:
    """A network, or one quantity of it, that one file lacks and the other one has.

    Attributes:
        engine: empty where the other file has only the network's parameters.
        metric: the quantity; None where the file lacks the network.
        file: the one that lacks it.
    """

    architecture: str
    engine: str
    metric: Literal["epoch_seconds", "accuracy"] | None
    file: Role


@dataclass(frozen=True)
class Comparison:
    """OTHER against BASE.

    Attributes:
        same_machine: whether both ran on one kind of machine, so that verdicts are on times.
        rows: networks in both files, in the paper's order.
        geometric_mean: of the ratios of time over the networks; None where no network has one.
        missing: networks and quantities that only one file has.
        differences: of settings, software and hardware, those that most often explain a difference in time first.
        in_turn: whether both files are of one duel, so that their processes are paired.
        drifts: how the machine drifted while BASE and while OTHER was measured, as `drift_during_run` says it.
        speed: how far the speed of the machine differed within and between the two; None between machines, in a duel,
            and where no times are compared.
        doubts: warnings of the runs, runs that stopped early and the like.
        omissions: what the files hold and the comparison does not use.
    """

    base: ResultFile
    other: ResultFile
    same_machine: bool
    rows: tuple[Row, ...]
    geometric_mean: Ratio | None
    missing: tuple[Missing, ...]
    differences: tuple[Difference, ...]
    in_turn: bool
    drifts: tuple[dict[str, float], dict[str, float]]
    speed: SpeedRange | None
    doubts: tuple[Mark, ...]
    omissions: tuple[Mark, ...]

    @property
    def other_settings(self) -> list[str]:
        """What was set differently when the runs were started, such as `threads`; empty for runs of one command."""
        return [d.key for d in self.differences if d.key in _STARTED_WITH]


def compare(base_samples: Samples, other_samples: Samples, *, force: bool = False) -> Comparison:
    """Compare two files.

    Args:
        base_samples, other_samples: each of one file.
        force: compare also what should not be compared, with the reason in the row.

    Raises:
        UserError: the files have no network in common. Without `force` also: data set, subset size, recipe or mode of
            measuring of a network differ, or a file mixes runs that do not belong together.
    """
    (base,), (other,) = base_samples.files, other_samples.files
    base_networks, other_networks = networks(base_samples), networks(other_samples)
    held = paired(base_networks, other_networks)
    if not held:
        raise UserError(
            f"{base.path} and {other.path} have no network in common that ran with the same engine "
            f"({_names(base_networks)} against {_names(other_networks)}); give runs that share at least one."
        )
    pairs = [counted_once(in_one_mode(pair)) for pair in held]
    reasons = [reasons_against(pair) for pair in pairs]
    if any(reasons) and not force:
        raise UserError(f"{other.path} cannot be compared with {base.path}: {listed(pairs, reasons)}; {advice(pairs)}")

    in_turn = turns(base.machine, other.machine)
    same_machine = bool(in_turn) or identity.same_machine(base.machine, other.machine)
    settings = _setting_differences(pairs)
    same_threads = all(d.key != "threads" for d in settings)
    machines = differences(base.machine, other.machine)
    # A calibration runs with the run's threads, so it also explains another number of threads on one machine.
    explained = not (same_machine and same_threads)
    calibrations = (calibration(base.machine, "start"), calibration(other.machine, "start")) if explained else None

    timed = any(pair.base.times and pair.other.times for pair in pairs)
    speed = speed_range(base.machine, other.machine) if timed and same_machine and not in_turn else None
    ratios = TimeRatios(pairs, in_turn, speed.factor if speed else 1.0)
    rows = []
    for pair, refused in zip(pairs, reasons, strict=True):
        time = ratios.ratio(pair)
        rows.append(
            Row(
                architecture=pair.base.architecture,
                engines=(pair.base.engine, pair.other.engine),
                seconds=(pair.base.seconds, pair.other.seconds),
                time=time,
                relative=ratios.change_against_baseline(pair) if time and not same_machine else None,
                explanation=explain(pair.base, time, calibrations) if time and calibrations else None,
                parameters=(pair.base.parameters, pair.other.parameters),
                accuracy=accuracy_difference(pair),
                refused=refused,
            )
        )
    return Comparison(
        base=base,
        other=other,
        same_machine=same_machine,
        rows=tuple(rows),
        geometric_mean=ratios.geometric_mean(),
        missing=_missing(base_networks, other_networks, held),
        # The threads of each machine's description say again what the runs' settings say.
        differences=(*settings, *(d for d in machines if same_threads or d.key != "threads.intraop")),
        in_turn=bool(in_turn),
        drifts=(drift_during_run(base.machine), drift_during_run(other.machine)),
        speed=speed,
        doubts=(*doubts("base", base_samples), *doubts("other", other_samples)),
        omissions=tuple(omissions(held, pairs)),
    )


def _missing(
    base_networks: Sequence[Network], other_networks: Sequence[Network], pairs: Sequence[Pair]
) -> tuple[Missing, ...]:
    in_both = {network for pair in pairs for network in pair}
    found = [Missing(n.architecture, n.engine, None, "other") for n in base_networks if n not in in_both]
    found += [Missing(n.architecture, n.engine, None, "base") for n in other_networks if n not in in_both]
    for base, other in pairs:
        if bool(base.times) != bool(other.times):
            found.append(Missing(base.architecture, base.engine, "epoch_seconds", "other" if base.times else "base"))
        if bool(base.trainings) != bool(other.trainings):
            found.append(Missing(base.architecture, base.engine, "accuracy", "other" if base.trainings else "base"))
    return tuple(found)


_STARTED_WITH: dict[str, Callable[[Any], Any]] = {
    "engine": lambda r: r.engine,
    "threads": lambda r: r.threads,
    "pipeline": lambda r: r.pipeline,
    "workers": lambda r: r.workers,
    "measured": lambda r: r.measured if isinstance(r, EpochTimeResult) else "epochs of a training",
}
"""How a run was started, in the order in which it is told; each takes an epoch-time or an accuracy result."""


def _setting_differences(pairs: Sequence[Pair]) -> tuple[Difference, ...]:
    """How the runs of the two files were started differently."""
    found = []
    for key, value in _STARTED_WITH.items():
        base, other = (
            sorted({value(r) for network in side for r in network.times}) for side in zip(*pairs, strict=True)
        )
        if base and other and base != other:
            found.append(Difference(key, base, other))
    return tuple(found)


def _names(held: Sequence[Network]) -> str:
    return short(", ".join(n.name for n in held) or "none", 200)
