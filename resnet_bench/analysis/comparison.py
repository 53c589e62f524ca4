"""Comparison of two result files, network by network: ratios with intervals, and never a bare difference.

How a time is judged:

- The values are what each block says an epoch takes; with several runs of a network in a file, each run's mean. Where
  a network was measured in both modes, one mode that both files have is compared. The values are resampled for each
  file on its own, a round of all networks at once (`resnet_bench.analysis.bootstrap`), and the ratio of the means gets
  an interval. The intervals of all networks hold together with 95 %, so that looking at five networks does not find
  differences that are none. A difference is significant where the interval leaves out 1. A network with fewer than two
  values in either file is «cannot tell».
- On one kind of machine the verdict is on the ratio of times. Across machines it is on the ratio variant/baseline
  within each machine, which carries over; the ratio of times is only explained: the part that follows from the measured
  calibrations (the ratio of `machine.step_bound`) and the rest. Calibration never enters a verdict.
- Accuracy: difference of proportions over the test images after the last epoch that all runs reached, with Newcombe's
  interval. Seeds are pooled, each run once, and how far they lie apart widens the interval by Student's t.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from resnet_bench import identity
from resnet_bench.analysis import bootstrap as statistics
from resnet_bench.analysis.bootstrap import LogMean
from resnet_bench.analysis.differences import Difference, differences
from resnet_bench.analysis.drift import calibration, drift_text
from resnet_bench.analysis.series import MODES, in_order, parameter_counts
from resnet_bench.errors import UserError
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import Samples
from resnet_bench.schema import AccuracyResult, DatasetInfo, EpochTimeResult, Interval
from resnet_bench.wording import short

if TYPE_CHECKING:
    from resnet_bench.machine import Bound, Calibration

Verdict = Literal["faster", "slower", "no significant difference", "cannot tell"]
REFERENCE = "baseline"  # the network that the others are set against within a machine
SETTINGS = ("threads", "pipeline", "workers")  # of a run; runs that differ in one are no sample of one thing


# ---------------------------------------------------------------------------------------------------------------------
# What a comparison says


@dataclass(frozen=True)
class Ratio:
    """Time in OTHER over time in BASE (below 1 is faster), or of two such ratios.

    Attributes:
        interval: None where there is too little to tell.
        estimate: the ratio, also where there is no interval; None where there is not even that.
        reason: why there is no verdict.
    """

    interval: Interval | None
    estimate: float | None = None
    reason: str = ""

    @property
    def verdict(self) -> Verdict:
        if self.interval is None:
            return "cannot tell"
        if self.interval.high < 1:
            return "faster"
        return "slower" if self.interval.low > 1 else "no significant difference"

    def __str__(self) -> str:
        if self.interval is None:
            ratio = "" if self.estimate is None else f"; ratio {self.estimate:.2f}"
            return f"cannot tell ({self.reason}{ratio})"
        low, high = self.interval.low, self.interval.high
        if self.verdict == "no significant difference":
            return f"no significant difference (ratio {self.interval.estimate:.2f} [{low:.2f}, {high:.2f}])"
        if self.verdict == "faster":
            low, high = 1 / high, 1 / low
        return f"{times(self.interval.estimate)} {self.verdict} [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True)
class Explanation:
    """A ratio of times split in two factors.

    Attributes:
        expected: the ratio that the calibrations predict: of the least times that a step can take on each machine.
        resource: what makes most of that prediction, e.g. `memory bandwidth`.
        unexplained: the measured ratio over the expected one; its interval is that of the measurement alone.
    """

    expected: float
    resource: str
    unexplained: Ratio

    def describe(self, time: Ratio) -> str:
        """`2.10× faster; 1.90× expected from memory bandwidth; 1.11× unexplained`, `time` being the measured ratio.

        A factor that goes against the measured direction says so; where no direction is significant the verdict stands
        in its place, and every factor says its own.
        """
        if time.interval is None:
            return str(time)
        measured = time.interval.estimate
        significant = time.verdict in ("faster", "slower")

        def factor(ratio: float) -> str:
            unsaid = not significant or _direction(ratio) != time.verdict
            return times(ratio) + (f" {_direction(ratio)}" if unsaid and times(ratio) != "1.00×" else "")

        whole = f"{times(measured)} {time.verdict}" if significant else str(time)
        rest = f"{factor(measured / self.expected)} unexplained"
        if self.unexplained.verdict == "no significant difference":
            rest += " (within noise)"
        return f"{whole}; {factor(self.expected)} expected from {self.resource}; {rest}"


@dataclass(frozen=True)
class AccuracyDifference:
    """Accuracy in OTHER minus in BASE, as fractions of 1.

    Attributes:
        base, other: mean test accuracy over the seeds after `epoch`.
        seeds: how many runs in BASE and in OTHER.
        interval: of the difference.
        cut_off: the file whose runs stopped early while those of the other one are complete.
    """

    base: float
    other: float
    seeds: tuple[int, int]
    epoch: int
    interval: Interval
    cut_off: Literal["base", "other"] | None = None

    @property
    def verdict(self) -> Literal["higher", "lower", "no significant difference"]:
        if self.interval.low > 0:
            return "higher"
        return "lower" if self.interval.high < 0 else "no significant difference"

    def __str__(self) -> str:
        i = self.interval
        points = f"{100 * i.estimate:+.1f} points [{100 * i.low:+.1f}, {100 * i.high:+.1f}]"
        if self.verdict == "no significant difference":
            return f"no significant difference ({points})"
        return f"{points}, {self.verdict}"


@dataclass(frozen=True)
class Row:
    """One network in both files.

    Attributes:
        architecture, engines: what was run; `engines` of BASE and of OTHER, unlike only where each file has one engine.
        seconds: of an epoch in BASE and OTHER; None where not measured.
        time: ratio of epoch times; None where either file has none.
        relative: across machines, how the ratio to the baseline within each machine changed; else None.
        explanation: what the calibrations say about `time`; None where nothing that they measure differs.
        parameters: in BASE and OTHER.
        accuracy: None where either file has none.
        refused: why this should not be compared; not empty only with `force`.
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
        """The ratio that verdicts rest on: `relative` across machines, else `time`."""
        return self.relative or self.time


@dataclass(frozen=True)
class Missing:
    """A network, or one `metric` of it (`epoch_seconds`, `accuracy`), that is not in the `file` (`base`, `other`)."""

    architecture: str
    engine: str
    metric: Literal["epoch_seconds", "accuracy"] | None
    file: Literal["base", "other"]

    def __str__(self) -> str:
        name = f"{self.architecture} ({self.engine})" if self.engine else self.architecture
        what = f"{self.metric.replace('_seconds', ' time')} of " if self.metric else ""
        return f"{what}{name} is not in {self.file}"


@dataclass(frozen=True)
class Comparison:
    """OTHER against BASE.

    Attributes:
        same_machine: whether both ran on one kind of machine, so that verdicts are on times.
        rows: networks in both files, in the paper's order.
        geometric_mean: of the ratios of time over the networks; None where no network has one.
        missing: networks and quantities that only one file has.
        differences: of software, settings and hardware, most suspicious first.
        notes: marks on the runs: drift, busy machine, stopped early; and which of them were left out.
    """

    base: ResultFile
    other: ResultFile
    same_machine: bool
    rows: tuple[Row, ...]
    geometric_mean: Ratio | None
    missing: tuple[Missing, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


# ---------------------------------------------------------------------------------------------------------------------
# Comparing


def compare(base_samples: Samples, other_samples: Samples, *, force: bool = False, seed: int = 0) -> Comparison:
    """Compare two files.

    Args:
        base_samples, other_samples: each of one file.
        force: compare also what should not be, with the reason in the row.
        seed: of the resampling; the same files and seed give the same intervals.

    Raises:
        UserError: data set, subset size, recipe or mode of measuring of a network differ, or a file mixes runs that do
            not belong together, and not `force`; or the files have no network in common.
    """
    (base,), (other,) = base_samples.files, other_samples.files
    mine, theirs = _networks(base_samples), _networks(other_samples)
    held = _pairs(mine, theirs)
    if not held:
        raise UserError(
            f"{base.path} and {other.path} have no network in common that ran with the same engine "
            f"({_names(mine)} against {_names(theirs)}); give runs that share at least one."
        )
    pairs = [_counted_once(*_in_one_mode(a, b)) for a, b in held]
    refusals = [_refusals(a, b) for a, b in pairs]
    if any(refusals) and not force:
        raise UserError(
            f"{other.path} cannot be compared with {base.path}: {_listed(pairs, refusals)}; "
            "give runs on the same data with the same settings, or take resnet-bench compare --force."
        )

    same_machine = identity.same_machine(base.machine, other.machine)
    base_logs, other_logs = _bootstrap((a for a, _ in pairs), [seed, 0]), _bootstrap((b for _, b in pairs), [seed, 1])
    ratios = [
        other_logs[b.key].against(base_logs[a.key]) if a.key in base_logs and b.key in other_logs else None
        for a, b in pairs
    ]
    told = [r for r in ratios if r]
    settings = _settings(pairs)
    same_threads = all(d.key != "threads" for d in settings)
    machines = differences(base.machine, other.machine)
    # Calibrations are taken with the run's threads, so they also explain another number of threads on one machine.
    explanations = _Explanations(base, other) if not (same_machine and same_threads) else None

    rows = []
    for (a, b), ratio, refused in zip(pairs, ratios, refusals, strict=True):
        time = _time(a, b, ratio, len(told))
        rows.append(
            Row(
                architecture=a.architecture,
                engines=(a.engine, b.engine),
                seconds=(a.seconds, b.seconds),
                time=time,
                relative=None if same_machine or not time else _relative(a, b, base_logs, other_logs, len(told)),
                explanation=explanations.of(a, time) if explanations and time else None,
                parameters=(a.parameters, b.parameters),
                accuracy=_accuracy(a, b),
                refused=refused,
            )
        )
    return Comparison(
        base=base,
        other=other,
        same_machine=same_machine,
        rows=tuple(rows),
        geometric_mean=Ratio(statistics.mean_of(told).ratio()) if told else None,
        missing=_missing(mine, theirs, held),
        differences=(*settings, *(d for d in machines if same_threads or d.key != "threads.intraop")),
        notes=(*_notes("base", base_samples), *_notes("other", other_samples), *_left_out(held, pairs)),
    )


@dataclass(frozen=True, eq=False)
class _Network:
    """The runs of one network with one engine in one file, each once; no engine where only parameters are known."""

    architecture: str
    engine: str
    times: tuple[EpochTimeResult | AccuracyResult, ...] = ()
    trainings: tuple[AccuracyResult, ...] = ()
    parameters: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.architecture, self.engine

    @property
    def name(self) -> str:
        return f"{self.architecture} ({self.engine})" if self.engine else self.architecture

    @property
    def modes(self) -> set[str]:
        """In which modes its epoch time was measured; none where its times are those of a training's epochs."""
        return {r.mode for r in self.times if isinstance(r, EpochTimeResult)}

    def in_mode(self, mode: str) -> _Network:
        """Without the epoch times that were measured in another mode."""
        return replace(self, times=tuple(r for r in self.times if not isinstance(r, EpochTimeResult) or r.mode == mode))

    @functools.cached_property
    def values(self) -> dict[int, float]:
        """Seconds of an epoch by round, or by run where there are several; only those that are positive numbers."""
        runs = [r.epoch_times for r in self.times]
        if len(runs) > 1:
            values = {i: float(np.mean(list(run.values()))) for i, run in enumerate(runs) if run}
        else:
            values = {i: s for run in runs for i, s in run.items()}
        return {i: s for i, s in values.items() if 1e-100 < s < 1e100}

    @property
    def seconds(self) -> float | None:
        return float(np.mean(list(self.values.values()))) if self.values else None


def _networks(samples: Samples) -> list[_Network]:
    """In the paper's order. The times of a file without epoch-time results are those of its trainings' epochs."""
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
                _Network(
                    *key,
                    times=tuple(r for r in times if (r.architecture, r.engine) == key),
                    trainings=_one_of_each_seed([r for r in own if r.complete] or own),
                    parameters=next((r.parameters for r in runs if (r.architecture, r.engine) == key), None)
                    or next(iter(counts.get(architecture, {}).values()), None),
                )
            )
    return found


def _one_of_each_seed(trainings: Iterable[AccuracyResult]) -> tuple[AccuracyResult, ...]:
    """The run of each seed that got furthest: a seed run again is no further sample of what seeds give."""

    def again(r: AccuracyResult, kept: AccuracyResult) -> bool:
        return all(getattr(r, what) == getattr(kept, what) for what in ("seed", "dataset", "recipe", *SETTINGS))

    found: list[AccuracyResult] = []
    for r in sorted(trainings, key=lambda r: -len(r.epochs)):
        if not any(again(r, kept) for kept in found):
            found.append(r)
    return tuple(found)


def _pairs(mine: Sequence[_Network], theirs: Sequence[_Network]) -> list[tuple[_Network, _Network]]:
    """Like engine with like; where each file has one engine, that one: comparing engines is then what is wanted."""
    one_each = all(len({n.engine for n in side} - {""}) <= 1 for side in (mine, theirs))
    return [
        (a, b)
        for a in mine
        for b in theirs
        if a.architecture == b.architecture and (one_each or a.engine == b.engine or not (a.engine and b.engine))
    ]


def _in_one_mode(a: _Network, b: _Network) -> tuple[_Network, _Network]:
    """Both with the epoch times of one mode that both have; as they are where they have none in common.

    A file of `--epoch-mode both` has two results for one run, which are no sample of runs.
    """
    for mode in MODES:
        if all(mode in n.modes for n in (a, b) if n.modes):
            return a.in_mode(mode), b.in_mode(mode)
    return a, b


def _counted_once(a: _Network, b: _Network) -> tuple[_Network, _Network]:
    """A training that both files hold counts in BASE alone, or in OTHER alone where OTHER has no more than these.

    Where both hold just the same trainings, they are what was asked to be compared.
    """
    mine = [r for r in a.trainings if r not in b.trainings]
    theirs = [r for r in b.trainings if r not in a.trainings]
    if theirs:
        return a, replace(b, trainings=tuple(theirs))
    return (replace(a, trainings=tuple(mine)) if mine else a), b


# ---------------------------------------------------------------------------------------------------------------------
# What may not be compared, and what is missing


def _refusals(a: _Network, b: _Network) -> tuple[str, ...]:
    """Reasons against comparing the two, without the network's name."""
    reasons = [
        r for side, n in (("base", a), ("other", b)) for runs in (n.times, n.trainings) for r in _mixed(side, runs)
    ]
    for quantity, mine, theirs in (("epoch time", a.times, b.times), ("accuracy", a.trainings, b.trainings)):
        if mine and theirs:
            reasons += _data_differences(mine[0].dataset, theirs[0].dataset)
            # How many epochs a training has says nothing about the time of one.
            ignored = {"epochs"} if quantity == "epoch time" else set()
            recipe, their_recipe = mine[0].recipe, theirs[0].recipe
            unlike = [
                f"{short(key)} {short(recipe.get(key))} against {short(their_recipe.get(key))}"
                for key in dict.fromkeys([*recipe, *their_recipe])
                if key not in ignored and recipe.get(key) != their_recipe.get(key)
            ]
            reasons += [f"recipe: {', '.join(unlike)}"] if unlike else []
    if a.modes and b.modes and not a.modes & b.modes:
        reasons.append(f"epoch time measured {' and '.join(a.modes)} against {' and '.join(b.modes)}")
    return tuple(dict.fromkeys(reasons))


def _data_differences(mine: DatasetInfo, theirs: DatasetInfo) -> list[str]:
    if mine.sha256 == theirs.sha256:
        return []
    if mine.name != theirs.name:
        return [f"data set {short(mine.name)} against {short(theirs.name)}"]
    reasons = [
        f"subset size: {short(ours)} against {short(others)} {what} images"
        for what, ours, others in (
            ("training", mine.train_images, theirs.train_images),
            ("test", mine.test_images, theirs.test_images),
        )
        if ours != others
    ]
    return reasons or [f"data set {short(mine.name)} with SHA-256 {mine.sha256[:8]}… against {theirs.sha256[:8]}…"]


def _mixed(side: str, runs: Sequence[EpochTimeResult | AccuracyResult]) -> list[str]:
    """Runs of one network that a file holds under several settings are no sample of one thing."""
    reasons = []
    for what in SETTINGS:
        values = sorted({getattr(r, what) for r in runs})
        if len(values) > 1:
            reasons.append(f"{side} mixes runs with {what} {' and '.join(short(v) for v in values)}")
    if len({r.dataset.sha256 for r in runs}) > 1:
        reasons.append(f"{side} mixes runs on several data sets")
    if any(r.recipe != runs[0].recipe for r in runs):
        reasons.append(f"{side} mixes runs with several recipes")
    return reasons


def _listed(pairs: Sequence[tuple[_Network, _Network]], refusals: Sequence[tuple[str, ...]]) -> str:
    """All reasons once, each with the networks it holds for unless it holds for all."""
    parts = []
    for reason in dict.fromkeys(r for found in refusals for r in found):
        names = [a.architecture for (a, _), found in zip(pairs, refusals, strict=True) if reason in found]
        parts.append(reason if len(names) == len(pairs) else f"{', '.join(names)}: {reason}")
    return "; ".join(parts)


def _missing(
    mine: Sequence[_Network], theirs: Sequence[_Network], pairs: Sequence[tuple[_Network, _Network]]
) -> tuple[Missing, ...]:
    paired = {n for pair in pairs for n in pair}
    found = [Missing(n.architecture, n.engine, None, "other") for n in mine if n not in paired]
    found += [Missing(n.architecture, n.engine, None, "base") for n in theirs if n not in paired]
    for a, b in pairs:
        if bool(a.times) != bool(b.times):
            found.append(Missing(a.architecture, a.engine, "epoch_seconds", "other" if a.times else "base"))
        if bool(a.trainings) != bool(b.trainings):
            found.append(Missing(a.architecture, a.engine, "accuracy", "other" if a.trainings else "base"))
    return tuple(found)


def _settings(pairs: Sequence[tuple[_Network, _Network]]) -> tuple[Difference, ...]:
    """How the runs of the two files were started differently, the most telling first."""
    found = []
    for key, of in (
        ("engine", lambda r: r.engine),
        ("threads", lambda r: r.threads),
        ("pipeline", lambda r: r.pipeline),
        ("workers", lambda r: r.workers),
        ("measured", lambda r: r.mode if isinstance(r, EpochTimeResult) else "epochs of a training"),
    ):
        sides = [sorted({of(r) for pair in pairs for r in pair[side].times}) for side in (0, 1)]
        if all(sides) and sides[0] != sides[1]:
            found.append(Difference(key, *sides))
    return tuple(found)


def _notes(side: str, samples: Samples) -> list[str]:
    """Marks on the runs of a file, each once, with the networks that it is for."""
    notes = []
    if drifted := drift_text(samples.files[0].machine):
        notes.append(f"{side} drifted: between start and end of the run, {drifted}")
    marks: dict[str, dict[str, None]] = {}
    for r in (run.result for run in samples.runs):
        if isinstance(r, EpochTimeResult):
            for warning in r.warnings:
                marks.setdefault(short(warning, 200), {})[short(r.architecture)] = None
        if isinstance(r, EpochTimeResult | AccuracyResult) and not r.complete:
            mark = f"{r.kind.replace('_', ' ')} run stopped early"
            marks.setdefault(mark, {})[short(r.architecture)] = None
        if isinstance(r, AccuracyResult) and r.mixed:
            mark = "resumed under another setting or machine: its times are not used"
            marks.setdefault(mark, {})[short(r.architecture)] = None
    return notes + [f"{side}, {', '.join(names)}: {mark}" for mark, names in marks.items()]


def _left_out(held: Sequence[tuple[_Network, _Network]], compared: Sequence[tuple[_Network, _Network]]) -> list[str]:
    """What the files hold and the comparison does not use, each once, with the networks that it is for."""
    marks: dict[tuple[str, str], dict[str, None]] = {}
    for whole_pair, used_pair in zip(held, compared, strict=True):
        for side, whole, used in zip(("base", "other"), whole_pair, used_pair, strict=True):
            found = []
            if whole.modes != used.modes:
                mode, rest = (" and ".join(modes) for modes in (used.modes, whole.modes - used.modes))
                found.append(f"epoch times of mode {mode} are compared, those of mode {rest} left out")
            if len(whole.trainings) != len(used.trainings):
                found.append("trainings that both files hold are left out here")
            for mark in found:
                marks.setdefault((side, mark), {})[short(whole.architecture)] = None
    return [f"{side}, {', '.join(names)}: {mark}" for (side, mark), names in marks.items()]


# ---------------------------------------------------------------------------------------------------------------------
# Times


def _bootstrap(networks: Iterable[_Network], seed: Sequence[int]) -> dict[tuple[str, str], LogMean]:
    """Of each network with at least two values; a round is drawn for all networks at once."""
    measured = {n.key: n.values for n in networks if len(n.values) > 1}
    if not measured:
        return {}
    rounds = sorted({i for values in measured.values() for i in values})
    table = np.array([[values.get(i, np.nan) for values in measured.values()] for i in rounds])
    return dict(zip(measured, statistics.bootstrap(table, seed), strict=True))


def _time(a: _Network, b: _Network, ratio: LogMean | None, together: int) -> Ratio | None:
    if not a.times or not b.times:
        return None
    if ratio:
        return Ratio(ratio.ratio(together))
    counts = len(a.values), len(b.values)
    estimate = b.seconds / a.seconds if a.seconds and b.seconds else None
    if counts == (1, 1):
        return Ratio(None, estimate, "one value against one value")
    few = [
        f"{side} has {_plural(n, 'usable value')}" for side, n in zip(("base", "other"), counts, strict=True) if n < 2
    ]
    return Ratio(None, estimate, " and ".join(few))


def _relative(
    a: _Network,
    b: _Network,
    base_logs: dict[tuple[str, str], LogMean],
    other_logs: dict[tuple[str, str], LogMean],
    together: int,
) -> Ratio:
    """How the ratio to the baseline within BASE's machine changed in OTHER's."""
    if a.architecture == REFERENCE:
        return Ratio(None, None, f"another machine; only ratios to {REFERENCE} carry over")
    if a.key not in base_logs or b.key not in other_logs:
        return Ratio(None, None, "too few values")
    base_reference, other_reference = base_logs.get((REFERENCE, a.engine)), other_logs.get((REFERENCE, b.engine))
    if not base_reference or not other_reference:
        return Ratio(None, None, f"another machine, and no {REFERENCE} in both files to set it against")
    here = base_logs[a.key].within(base_reference)
    there = other_logs[b.key].within(other_reference)
    return Ratio(there.against(here).ratio(together))


class _Explanations:
    """What the calibrations at the start of both runs predict; nothing where either is missing."""

    def __init__(self, base: ResultFile, other: ResultFile) -> None:
        self.calibrations = calibration(base.machine, "start"), calibration(other.machine, "start")

    def of(self, a: _Network, time: Ratio) -> Explanation | None:
        base, other = (self._bound(a, c) for c in self.calibrations)  # the same work on both machines
        if base is None or other is None or time.interval is None:
            return None
        expected = other.seconds / base.seconds
        # Which resource it is: the prediction if only that one had changed.
        memory = replace(base, memory_seconds=other.memory_seconds)
        effects = {
            "memory bandwidth": abs(math.log(memory.seconds / base.seconds)),
            "arithmetic rate": abs(math.log(other.seconds / memory.seconds)),
        }
        few, most = sorted(effects, key=effects.__getitem__)
        resource = most if effects[most] > 4 * effects[few] else "memory bandwidth and arithmetic rate"
        i = time.interval
        unexplained = Interval(
            estimate=i.estimate / expected, low=i.low / expected, high=i.high / expected, method=i.method
        )
        return Explanation(expected, resource, Ratio(unexplained))

    @staticmethod
    def _bound(network: _Network, calibration: Calibration | None) -> Bound | None:
        run = network.times[0]
        batch_size, classes = run.recipe.get("batch_size"), run.dataset.classes
        if calibration is None or not isinstance(batch_size, int) or not 0 < batch_size <= 10**6 or classes > 10**6:
            return None
        counts = (run.read_parameters, run.updated_parameters) if isinstance(run, EpochTimeResult) else ()
        from resnet_bench import architectures, machine

        try:
            bound = machine.step_bound(
                architectures.get(network.architecture), batch_size, calibration, classes, *counts
            )
        except UserError:  # a network of another version, or a calibration that lacks a rate
            return None
        return bound if 1e-12 < bound.seconds < 1e12 else None


# ---------------------------------------------------------------------------------------------------------------------
# Accuracy


def _accuracy(a: _Network, b: _Network) -> AccuracyDifference | None:
    if not a.trainings or not b.trainings:
        return None
    epoch = min(len(r.epochs) for r in (*a.trainings, *b.trainings))
    (base, base_trials), (other, trials) = (_proportion(n.trainings, epoch) for n in (a, b))
    interval = statistics.proportion_difference(other, trials, base, base_trials)
    seeds = len(a.trainings), len(b.trainings)
    return AccuracyDifference(base, other, seeds, epoch, interval, _cut_off(a, b))


def _cut_off(a: _Network, b: _Network) -> Literal["base", "other"] | None:
    mine, theirs = (all(r.complete for r in n.trainings) for n in (a, b))
    if mine == theirs:
        return None
    return "other" if mine else "base"


def _proportion(trainings: Sequence[AccuracyResult], epoch: int) -> tuple[float, float]:
    """(mean accuracy after the epoch, effective number of test images)."""
    accuracies = [r.epochs[epoch - 1].test_accuracy for r in trainings]
    images = _float(trainings[0].dataset.test_images)
    return float(np.mean(accuracies)), statistics.effective_trials(accuracies, images)


# ---------------------------------------------------------------------------------------------------------------------
# In words


def times(ratio: float) -> str:
    """The factor as people say it, always at least 1: 0.5 and 2 are both `2.00×`."""
    factor = max(ratio, 1 / ratio)
    return f"{factor:.2f}×" if factor < 1000 else f"{factor:.1e}×"


def _direction(ratio: float) -> str:
    return "slower" if ratio > 1 else "faster"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _names(networks: Sequence[_Network]) -> str:
    return short(", ".join(n.name for n in networks) or "none", 200)


def _float(number: int) -> float:
    """A number of steps or images, which in a damaged file may be beyond floating point."""
    return float(min(number, 10**18))
