"""The study's claims, judged: *reproduced*, *not reproduced* or *not decidable from these results*, with the evidence.

Each claim of `paper.CLAIMS` has one rule in `RULES`. What all rules have in common:

- Nothing is judged on a point estimate: «faster» and «higher» need an interval that leaves out «equal».
- Accuracy: only runs on the whole CIFAR-100 with the paper's recipe, and as many epochs as the claim speaks of, by an
  engine that computes the paper's float32 training. One run of each seed, the first 15 epochs. Intervals are those of
  `resnet-bench compare`: differences of proportions over the 10,000 test images (Newcombe), seeds pooled, discounted
  where seeds scatter more than the choice of images explains. Two networks are set against each other from
  `LEAST_SEEDS` seeds of each on: one seed shows nothing of that scatter.
- Time: the paper's program, that is the `reference` engine with the `loader` pipeline, 2 workers and the paper's
  recipe. Time of a step is what is compared, so any data set will do; every epoch of the paper has the same number of
  steps. Ratios are taken within one machine, data set and number of threads, over blocks paired by round where both
  networks were measured in one session (bootstrap). Several such settings have to agree. A result that several files
  hold counts once.
- A published number stands for the range that rounds to it: accuracies ± 0.5 points, and of one run with 10,000 test
  images of its own; minutes `paper.MINUTES_ROUNDING`. It is reproduced where the measured interval overlaps the range,
  and undecidable where that interval is too wide to say anything (`PRECISION`, `ACCURACY_PRECISION`).
- A cause is judged by a control network, which changes the supposed cause alone or leaves it alone: the claim stands
  where the cause accounts for more than half of the effect that the paper's variant has here (of points, or of the
  logarithm of a ratio of times), and falls below half.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from resnet_bench import architectures, paper, statistics
from resnet_bench.paper import CLAIMS, PUBLISHED, Claim
from resnet_bench.recipe import LOADER_WORKERS, Recipe
from resnet_bench.report.groups import PAPER_TRAIN_IMAGES, machine_key, parameter_counts
from resnet_bench.report.table import TEXT_WIDTH, Format, Table
from resnet_bench.results import AccuracyResult, DatasetInfo, EpochTimeResult, Interval, ResultFile
from resnet_bench.timing import positive_mean_interval

Outcome = Literal["reproduced", "not reproduced", "not decidable from these results"]
REPRODUCED: Outcome = "reproduced"
NOT_REPRODUCED: Outcome = "not reproduced"
UNDECIDABLE: Outcome = "not decidable from these results"

TEST_IMAGES = 10_000
CLASSES = 100
ACCURACY_ENGINES = ("reference", "fast")  # those that compute the paper's training in float32
ACCURACY_ROUNDING = 0.005  # the paper prints whole percents
ACCURACY_PRECISION = 0.02  # half-width of an accuracy's interval beyond which an overlap with a range says nothing
PRECISION = 0.10  # the same of a ratio's interval, relative
LEAST_SEEDS = 2  # of each of two networks whose accuracies are compared
SIZE_TOLERANCE = 0.10  # with another number of classes, a network this much off in parameters is another network
PLATEAU_EPOCHS = 5  # a curve's plateau is the mean of its last epochs…
PLATEAU_POINTS = 0.02  # …and it has converged where it stays this near to it
FEWER_PARAMETERS = 0.5  # of the baseline's, at most: what counts as a network with many of the parameters removed

Fractions = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """A claim with its outcome; `evidence` is one line with numbers, intervals and seeds, or why there is none."""

    claim: Claim
    outcome: Outcome
    evidence: str


class Finding(NamedTuple):
    """What a rule returns."""

    outcome: Outcome
    evidence: str


class Undecided(Exception):
    """Raised within a rule where the results do not decide the claim; the message says why."""


def judge(files: Sequence[ResultFile]) -> list[Verdict]:
    """Judge every claim of the study by what the files hold together; in the order of `paper.CLAIMS`."""
    results = _Results(files)
    verdicts = []
    for claim in CLAIMS:
        try:
            finding = RULES[claim.id](results)
        except Undecided as reason:
            finding = Finding(UNDECIDABLE, str(reason))
        verdicts.append(Verdict(claim, finding.outcome, " ".join(finding.evidence.split())))
    return verdicts


# ---------------------------------------------------------------------------------------------------------------------
# The results, as the rules ask for them


class Column(NamedTuple):
    """What a time is of."""

    architecture: str
    engine: str = "reference"

    def __str__(self) -> str:
        return self.architecture if self.engine == "reference" else f"{self.architecture} ({self.engine})"


class Unit(NamedTuple):
    """A round of a session; what was measured in the same one may be paired."""

    file: int
    run: int
    round: int


@dataclass
class _Setting:
    """Times of a step, in seconds, on one machine with one data set and one number of threads."""

    machine: dict[str, Any]
    dataset: DatasetInfo
    threads: int
    source: str
    units: dict[Column, dict[Unit, float]] = field(default_factory=dict)
    parameters: dict[str, int] = field(default_factory=dict)
    counted: list[EpochTimeResult | AccuracyResult] = field(default_factory=list)
    doubtful: bool = False  # a measurement came with a warning, such as that of a busy machine

    def ratio(self, column: Column, base: Column) -> Interval:
        """Time of a step of `column` over that of `base`; paired by rounds where they share at least two."""
        mine, theirs = self.units[column], self.units[base]
        for which, units in ((column, mine), (base, theirs)):
            if len(units) < 2:
                raise Undecided(f"a single time of {which} decides nothing; {self}")
        if len(common := sorted(mine.keys() & theirs.keys())) >= 2:
            pairs = np.array([[mine[unit], theirs[unit]] for unit in common])
            a, b = statistics.bootstrap(pairs, [0])
            return a.within(b).ratio()
        (a,), (b,) = (
            statistics.bootstrap(np.array(list(units.values()))[:, None], [i]) for i, units in enumerate((mine, theirs))
        )
        return a.against(b).ratio()

    def __str__(self) -> str:
        cpu = self.machine.get("cpu")
        model = cpu.get("model") if isinstance(cpu, dict) else None
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        least = min(map(len, self.units.values()))
        what = "epochs of training" if self.source == "training" else f"{self.source} blocks"
        return f"{least} {what} or more of each, {threads}, {self.dataset.name}, {model or 'unknown CPU'}" + (
            ", doubtful times (see their warnings)" if self.doubtful else ""
        )


class _Results:
    def __init__(self, files: Sequence[ResultFile]) -> None:
        self.counts = parameter_counts(files)
        self.accuracies: list[AccuracyResult] = [r for f in files for r in f.of_kind(AccuracyResult)]
        self.times: list[EpochTimeResult] = [r for f in files for r in f.of_kind(EpochTimeResult)]
        self.settings = [*_settings(files, EpochTimeResult), *_settings(files, AccuracyResult)]

    def curves(self, *names: str, epochs: int = paper.EPOCHS) -> tuple[list[Fractions], str]:
        """Test accuracy of each network, [seeds, epochs], all with one engine; and which engine and how many seeds.

        Of several engines the one with the most seeds counts, `reference` before `fast`.
        """
        found: list[tuple[list[Fractions], str]] = []
        for engine in ACCURACY_ENGINES:
            runs = [self._runs(name, engine, epochs) for name in names]
            if all(runs):
                curves = [np.array([[e.test_accuracy for e in r.epochs[:epochs]] for r in own]) for own in runs]
                found.append((curves, f"{_seeds(curves)}, {engine} engine"))
        if not found:
            raise Undecided("; ".join(filter(None, (self._why_no_curve(name, epochs) for name in names))) or _NO_PAIR)
        return max(found, key=lambda f: min(len(c) for c in f[0]))

    def compared(self, *names: str, epochs: int = paper.EPOCHS) -> tuple[list[Fractions], str]:
        """`curves` of networks that are set against each other, with enough seeds of each to know their scatter."""
        curves, how = self.curves(*names, epochs=epochs)
        few = [f"{len(own)} of {name}" for name, own in zip(names, curves, strict=True) if len(own) < LEAST_SEEDS]
        if few:
            raise Undecided(
                f"a difference between networks needs at least {LEAST_SEEDS} seeds of each, to tell it from the "
                f"difference between seeds; there is {_listed(few)}; {how}"
            )
        return curves, how

    def _runs(self, name: str, engine: str, epochs: int) -> list[AccuracyResult]:
        by_seed: dict[int, AccuracyResult] = {}
        for r in self.accuracies:
            if r.architecture == name and r.engine == engine and not _unusable(r, epochs):
                by_seed.setdefault(r.seed, r)
        return [by_seed[seed] for seed in sorted(by_seed)]

    def _why_no_curve(self, name: str, epochs: int) -> str:
        own = [r for r in self.accuracies if r.architecture == name]
        if not own:
            return f"{name} was not trained"
        reasons = [reason for r in own if (reason := _unusable(r, epochs))]
        return f"{name}: {reasons[0]}" if len(reasons) == len(own) else ""

    def in_settings(self, columns: Sequence[Column], rule: Callable[[_Setting], Finding]) -> Finding:
        """Judge in every setting that has all columns; the decided ones have to agree."""
        able = [s for s in self.settings if all(c in s.units for c in columns)]
        if not able:
            raise Undecided(self._why_no_times(columns))
        measured = [s for s in able if s.source != "training"] or able  # what was measured for the purpose comes first
        findings, reasons = [], []
        for setting in measured:
            try:
                findings.append(rule(setting))
            except Undecided as reason:
                reasons.append(str(reason))
        if not findings:
            raise Undecided(reasons[0])
        first = findings[0]
        for other in findings:
            if other.outcome != first.outcome:
                raise Undecided(f"{first.outcome}: {first.evidence}; but {other.outcome}: {other.evidence}")
        likewise = f"; likewise in {len(findings) - 1} more" if len(findings) > 1 else ""
        return Finding(first.outcome, first.evidence + likewise)

    def _why_no_times(self, columns: Sequence[Column]) -> str:
        missing = [c for c in columns if all(c not in s.units for s in self.settings)]
        if not missing:
            return f"{_listed(columns)} were not timed on one machine with one data set and number of threads"
        names = {c.architecture for c in missing}
        runs: list[EpochTimeResult | AccuracyResult] = [*self.times, *self.accuracies]
        others = [r for r in runs if r.architecture in names]
        reasons = list(dict.fromkeys(f"{r.architecture} {reason}" for r in others if (reason := _not_timed(r))))
        return f"no time of {_listed(missing)}" + (f" as the paper ran it: {'; '.join(reasons[:2])}" if reasons else "")


_NO_PAIR = "no engine has runs of all the networks compared"


def _settings(files: Sequence[ResultFile], kind: type[EpochTimeResult] | type[AccuracyResult]) -> list[_Setting]:
    """The usable times of one kind of result, sorted by where they may be set against each other; none is there twice.

    Of the copies of a result the one in the fullest file counts, where most of what it may be paired with is.
    """
    found: dict[tuple[Any, ...], _Setting] = {}
    for index, file in enumerate(sorted(files, key=lambda f: -len(f.results))):
        runs: dict[Column, int] = {}
        usable: list[EpochTimeResult | AccuracyResult] = [r for r in file.of_kind(kind) if not _not_timed(r)]
        for r in usable:
            values = {number: step for number, step in _steps(r) if 1e-100 < step < 1e100}
            if not values:
                continue
            data, column = r.dataset, Column(r.architecture, r.engine)
            source = "training" if isinstance(r, AccuracyResult) else r.mode
            sizes = (data.name, data.train_images, data.classes)
            setting = found.setdefault(
                (machine_key(file.machine), sizes, r.threads, source), _Setting(file.machine, data, r.threads, source)
            )
            run = runs[column] = runs.get(column, -1) + 1  # also of a copy, or the later ones' partners would shift
            if r in setting.counted:
                continue
            setting.counted.append(r)
            units = setting.units.setdefault(column, {})
            units |= {Unit(index, run, round_): value for round_, value in values.items()}
            setting.parameters[r.architecture] = r.parameters
            setting.doubtful |= isinstance(r, EpochTimeResult) and bool(r.warnings)
    # What is nearest to the paper is quoted first.
    return sorted(found.values(), key=lambda s: (s.dataset.classes != CLASSES, s.dataset.synthetic))


def _steps(r: EpochTimeResult | AccuracyResult) -> list[tuple[int, float]]:
    """(round or epoch, seconds of a step in it)."""
    if isinstance(r, EpochTimeResult):
        return [(b.round, b.seconds / min(b.steps, 10**15)) for b in r.blocks]
    steps = -(-r.dataset.train_images // Recipe().batch_size)
    return [(e.epoch, e.train_seconds / min(steps, 10**15)) for e in r.epochs if not r.mixed]


def _not_timed(r: EpochTimeResult | AccuracyResult) -> str:
    """Why the times of this result are not those of the paper's program, nor of the same training done fast."""
    if changed := _other_recipe(r.recipe):
        return f"ran with {changed}"
    if r.engine == "reference" and (r.pipeline, r.workers) != ("loader", LOADER_WORKERS):
        return f"ran with the {r.pipeline} pipeline and {r.workers} workers, not the loader with {LOADER_WORKERS}"
    if r.engine not in ACCURACY_ENGINES:
        return f"ran on the {r.engine} engine"
    return ""


def _unusable(r: AccuracyResult, epochs: int) -> str:
    """Why this run says nothing about the paper's accuracies."""
    data = r.dataset
    if data.synthetic:
        return "trained on synthetic images, not on CIFAR-100"
    if data.name != paper.DATASET or data.classes != CLASSES:
        return f"trained on {data.name} with {data.classes} classes, not on CIFAR-100"
    if data.subset or (data.train_images, data.test_images) != (PAPER_TRAIN_IMAGES, TEST_IMAGES):
        return f"trained on a subset of CIFAR-100 ({data.train_images:,} images), not on all of it"
    if r.engine not in ACCURACY_ENGINES:
        return f"trained by the {r.engine} engine, whose numerics differ"
    if changed := _other_recipe(r.recipe):
        return f"trained with {changed}"
    if len(r.epochs) < epochs:
        return f"trained for {len(r.epochs)} of {epochs} epochs"
    return ""


def _other_recipe(recipe: dict[str, Any]) -> str:
    expected = Recipe().as_dict()
    return ", ".join(
        f"{key.replace('_', ' ')} {str(recipe.get(key))[:40]} instead of {value}"
        for key, value in expected.items()
        if key != "epochs" and recipe.get(key) != value
    )


# ---------------------------------------------------------------------------------------------------------------------
# Rules on counts


def _table(results: _Results, number: int) -> Finding:
    """Every count of the table, rounded to 0.1M as printed, is the published one."""
    parts, wrong = [], False
    for name in paper.TABLES[number]:
        count = _count(results, name)
        parts.append(f"{name} {count:,} = {architectures.millions(count)} (published {PUBLISHED[name].parameters})")
        wrong |= architectures.millions(count) != PUBLISHED[name].parameters
    return Finding(NOT_REPRODUCED if wrong else REPRODUCED, "; ".join(parts))


def _count(results: _Results, name: str) -> int:
    counts = results.counts.get(name, {})
    if CLASSES not in counts:
        other = f", only with {_listed(sorted(counts))} classes" if counts else ""
        raise Undecided(f"the parameters of {name} were not counted with {CLASSES} classes{other}")
    return counts[CLASSES]


def _kernel_parameters(results: _Results) -> Finding:
    """Only the kernel changes from the baseline to `conv5x5-same`."""
    base, control = _count(results, "baseline"), _count(results, "conv5x5-same")
    evidence = (
        f"control conv5x5-same, where only the kernel changes: {control:,} parameters against the baseline's {base:,}; "
        f"conv5x5 also has other strides, so its first FC layer has {_features('conv5x5')} inputs instead of "
        f"{_features('baseline'):,}"
    )
    return Finding(REPRODUCED if control < base else NOT_REPRODUCED, evidence)


def _features(name: str) -> int:
    return architectures.get(name).features


# ---------------------------------------------------------------------------------------------------------------------
# Rules on time

BASELINE = Column("baseline")


def _minutes(results: _Results, name: str) -> Finding:
    """Minutes of an epoch of 50,000 images; only on the paper's CPU."""

    def rule(setting: _Setting) -> Finding:
        cpu = setting.machine.get("cpu")
        model = str(cpu.get("model")) if isinstance(cpu, dict) else "unknown CPU"
        if paper.CPU_MODEL not in model:
            raise Undecided(f"minutes hold for one machine: measured on {model}, published on {paper.MACHINE}")
        values = list(setting.units[Column(name)].values())
        if len(values) < 2:
            raise Undecided(f"a single time decides nothing; {setting}")
        steps = PAPER_TRAIN_IMAGES / Recipe().batch_size
        i = positive_mean_interval([value * steps / 60 for value in values])
        published = PUBLISHED[name].epoch_minutes
        evidence = f"{i.estimate:.1f} [{i.low:.1f}, {i.high:.1f}] min (published {published:g}); {setting}"
        return Finding(_overlap(i, *_published_minutes(name), evidence), evidence)

    return results.in_settings([Column(name)], rule)


def _faster(results: _Results, name: str, slower: bool = False) -> Finding:
    """The ratio's interval lies on the claimed side of 1."""

    def rule(setting: _Setting) -> Finding:
        ratio = setting.ratio(Column(name), BASELINE)
        evidence = f"{name} takes {_ratio_text(ratio)} of the baseline's step time; {setting}"
        if ratio.low <= 1 <= ratio.high:
            raise Undecided(f"no significant difference: {evidence}")
        return Finding(REPRODUCED if (ratio.low > 1) == slower else NOT_REPRODUCED, evidence)

    return results.in_settings([Column(name), BASELINE], rule)


def _factor(results: _Results, name: str) -> Finding:
    """The ratio's interval overlaps what the two published times, as rounded, allow."""

    def rule(setting: _Setting) -> Finding:
        for network in (name, "baseline"):
            full = architectures.parameter_count(architectures.get(network), CLASSES)
            if abs(setting.parameters[network] / full - 1) > SIZE_TOLERANCE:
                raise Undecided(
                    f"with {setting.dataset.classes} classes {network} has {setting.parameters[network]:,} parameters "
                    f"instead of {full:,}; measure on data with {CLASSES} classes"
                )
        ratio = setting.ratio(Column(name), BASELINE)
        (low, high), (base_low, base_high) = _published_minutes(name), _published_minutes("baseline")
        low, high = low / base_high, high / base_low
        evidence = (
            f"{name} takes {_ratio_text(ratio)} of the baseline's step time (published minutes, as rounded, allow "
            f"{low:.3f} to {high:.3f}); {setting}"
        )
        return Finding(_overlap(ratio, low, high, evidence), evidence)

    return results.in_settings([Column(name), BASELINE], rule)


def _published_minutes(name: str) -> tuple[float, float]:
    """What may have been measured, given how the number is rounded."""
    published, rounding = PUBLISHED[name].epoch_minutes, paper.MINUTES_ROUNDING[name]
    return published - rounding, published + rounding


def _overlap(measured: Interval, low: float, high: float, evidence: str) -> Outcome:
    if measured.high < low or measured.low > high:
        return NOT_REPRODUCED
    if measured.relative > PRECISION:
        raise Undecided(f"the interval is wider than ±{PRECISION:.0%}: {evidence}")
    return REPRODUCED


def _ratio_text(ratio: Interval) -> str:
    return f"{ratio.estimate:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


# ---------------------------------------------------------------------------------------------------------------------
# Rules on causes of time


def _cause_of_time(results: _Results, variant: str, control: str, what: str) -> Finding:
    """More than half of the variant's effect is there where only the supposed cause changes, in the control."""
    columns = [Column(variant), Column(control), BASELINE]

    def rule(setting: _Setting) -> Finding:
        effect, alone = (setting.ratio(column, BASELINE) for column in columns[:2])
        if effect.low <= 1 <= effect.high:
            raise Undecided(f"{variant} does not differ: {_ratio_text(effect)} of the baseline's time; {setting}")
        evidence = (
            f"control {control}, where only {what} changes, takes {_ratio_text(alone)} of the baseline's step time, "
            f"{variant} {_ratio_text(effect)}; {setting}"
        )
        if (effect.low > 1) != (PUBLISHED[variant].epoch_minutes > PUBLISHED["baseline"].epoch_minutes):
            return Finding(NOT_REPRODUCED, f"the effect itself is the other way round: {evidence}")
        low, high = _share(alone, effect)
        if low <= 0.5 <= high:
            raise Undecided(f"the control does not tell whether it is more than half of the effect: {evidence}")
        return Finding(REPRODUCED if low > 0.5 else NOT_REPRODUCED, evidence)

    return results.in_settings(columns, rule)


def _parameters_time(results: _Results) -> Finding:
    """Removing many parameters saves much time, removing few saves little, whatever else was removed.

    Judged on the paper's program, by two networks that take the parameters and the architecture apart: `fc1` leaves all
    convolutions and has a sixth of the parameters, `blocks2-same` leaves out half of the convolutions and has 96 % of
    them. The claim is reproduced where `fc1` is faster and `blocks2-same` saves less than half of what `fc1` saves (log
    scale); it is not where `fc1` is no faster, or more than half of its saving comes with nearly all of the parameters.

    How much the parameters cost is the implementation's affair: mostly the optimiser's memory traffic over them. What
    is left of `fc1`'s saving on the `fast` engine, which makes that traffic small, stands in the evidence as
    information. It does not decide: the paper speaks of its own program, and any faster engine changes the share.
    """
    fc1, control = Column("fc1"), Column("blocks2-same")

    def rule(setting: _Setting) -> Finding:
        count, kept = (setting.parameters[c.architecture] / setting.parameters["baseline"] for c in (fc1, control))
        if count > FEWER_PARAMETERS:
            raise Undecided(f"with {setting.dataset.classes} classes fc1 still has {count:.2f} of the parameters")
        effect, held = (setting.ratio(column, BASELINE) for column in (fc1, control))
        if effect.low <= 1 <= effect.high:
            raise Undecided(f"fc1 does not differ: {_ratio_text(effect)} of the baseline's time; {setting}")
        evidence = (
            f"fc1 takes {_ratio_text(effect)} of the baseline's step time with {count:.2f} of its parameters, control "
            f"blocks2-same {_ratio_text(held)} with {kept:.2f} of them{_on_the_fast_engine(setting, effect)}; {setting}"
        )
        if effect.low > 1:
            return Finding(NOT_REPRODUCED, f"there is no reduction: {evidence}")
        low, high = _share(held, effect)
        if low <= 0.5 <= high:
            raise Undecided(f"the control does not tell whether it saves half as much: {evidence}")
        if low > 0.5:
            return Finding(NOT_REPRODUCED, f"most of the reduction comes without fewer parameters: {evidence}")
        return Finding(REPRODUCED, f"with the count held the time falls by less than half as much: {evidence}")

    return results.in_settings([fc1, control, BASELINE], rule)


def _on_the_fast_engine(setting: _Setting, effect: Interval) -> str:
    """For information: what is left of the reduction `effect` that `fc1` brings, where it was timed on `fast` too."""
    fc1, baseline = Column("fc1", "fast"), Column("baseline", "fast")
    if any(len(setting.units.get(column, ())) < 2 for column in (fc1, baseline)):
        return ""
    left = setting.ratio(fc1, baseline)
    low, high = _share(left, effect)
    return (
        f" (not judged: on the fast engine fc1 takes {_ratio_text(left)} of the baseline's, {low:.0%} to {high:.0%} of "
        "the reduction on the log scale; the rest is owed to the implementation)"
    )


def _share(part: Interval, whole: Interval, scale: Callable[[float], float] = math.log) -> tuple[float, float]:
    """Bounds of scale(part) / scale(whole); wide, as corners are taken.

    The interval of `whole` has to leave out «no effect»: a ratio of 1 or, with `scale=float`, a difference of 0.
    """
    ends = itertools.product((part.low, part.high), (whole.low, whole.high))
    corners = [scale(p) / scale(w) for p, w in ends]
    return min(corners), max(corners)


# ---------------------------------------------------------------------------------------------------------------------
# Rules on accuracy


def _peak(results: _Results, name: str) -> Finding:
    """The peak agrees with the published one, which is a whole percent of one run."""
    (curves,), how = results.curves(name)
    return _agrees(curves.max(axis=1), PUBLISHED[name].peak_accuracy, f"peak of {name}", how)


def _final(results: _Results, name: str) -> Finding:
    (curves,), how = results.curves(name)
    published = PUBLISHED[name].final_accuracy
    assert published is not None
    return _agrees(curves[:, -1], published, f"{name} after epoch {paper.EPOCHS}", how)


def _agrees(accuracies: Fractions, published: float, what: str, how: str) -> Finding:
    """The interval of the difference overlaps the rounding, and is narrow enough for that to mean something."""
    mean, trials = _proportion(accuracies)
    difference = statistics.proportion_difference(mean, trials, published, TEST_IMAGES)
    evidence = f"{what}: {mean:.1%} (published {published:.0%}), difference {_points(difference)}; {how}"
    if difference.low > ACCURACY_ROUNDING or difference.high < -ACCURACY_ROUNDING:
        return Finding(NOT_REPRODUCED, evidence)
    if _half_width(difference) > ACCURACY_PRECISION:
        raise Undecided(f"the interval is wider than {_tolerance(ACCURACY_PRECISION)}: {evidence}")
    return Finding(REPRODUCED, evidence)


def _higher(results: _Results, name: str, lower: bool = False) -> Finding:
    """The interval of the difference between the peaks lies on the claimed side of 0."""
    (mine, base), how = results.compared(name, "baseline")
    difference = _difference(mine.max(axis=1), base.max(axis=1))
    evidence = f"peak of {name} {_points(difference)} against the baseline's; {how}"
    if difference.low <= 0 <= difference.high:
        raise Undecided(f"no significant difference: {evidence}")
    return Finding(REPRODUCED if (difference.low > 0) != lower else NOT_REPRODUCED, evidence)


def _early_lead(results: _Results, name: str, epochs: int, low: float, high: float) -> Finding:
    """In each of the first epochs there is a lead, significantly, and its interval overlaps the claimed range.

    The range is taken as rounded, and the intervals have to be narrow enough for an overlap to mean something.
    """
    (mine, base), how = results.compared(name, "baseline", epochs=epochs)
    differences = [_difference(mine[:, i], base[:, i]) for i in range(epochs)]
    low, high = low - ACCURACY_ROUNDING, high + ACCURACY_ROUNDING
    outside = [i for i, d in enumerate(differences, 1) if d.high < low or d.low > high]
    evidence = f"{name} against the baseline in epochs 1 to {epochs}: {'; '.join(map(_points, differences))}; {how}"
    if outside:
        return Finding(NOT_REPRODUCED, f"outside the range in epoch {_listed(outside)}: {evidence}")
    if vague := [i for i, d in enumerate(differences, 1) if d.low <= 0 or _half_width(d) > ACCURACY_PRECISION]:
        raise Undecided(
            f"no significant lead, or an interval wider than {_tolerance(ACCURACY_PRECISION)}, in epoch "
            f"{_listed(vague)}: {evidence}"
        )
    return Finding(REPRODUCED, evidence)


def _converges(results: _Results, name: str, first: int, last: int, level: float | None = None) -> Finding:
    """The first epoch from which the curve stays near its plateau lies within one epoch of the claimed ones.

    The plateau is the mean of the last 5 epochs, near is 2 points: an epoch is apart from the plateau where the whole
    interval of their difference is. One that is not may be called near if that interval is narrow: one wider than the
    2 points on either side would be called so wherever it lay. `level`: the plateau's claimed accuracy, to which the
    plateau's whole interval is to be near as well.
    """
    (curves,), how = results.curves(name)
    plateaus = curves[:, -PLATEAU_EPOCHS:].mean(axis=1)
    differences = [_difference(accuracies, plateaus) for accuracies in curves.T]
    since = max((i for i, d in enumerate(differences, 1) if _apart(d.low, d.high)), default=0) + 1
    low, high = statistics.wilson(*_proportion(plateaus))
    evidence = (
        f"{name} stays within {PLATEAU_POINTS * 100:.0f} points of its plateau of {plateaus.mean():.1%} "
        f"[{low:.1%}, {high:.1%}] from epoch {since} on; {how}"
    )
    if since > last + 1 or (level is not None and _apart(low - level, high - level)):
        return Finding(NOT_REPRODUCED, evidence)
    if wide := [i for i, d in enumerate(differences, 1) if i >= since and _half_width(d) > PLATEAU_POINTS]:
        raise Undecided(f"an interval wider than {_tolerance(PLATEAU_POINTS)} in epoch {_listed(wide)}: {evidence}")
    if since < first - 1:
        return Finding(NOT_REPRODUCED, evidence)
    if level is not None and max(level - low, high - level) > PLATEAU_POINTS:
        raise Undecided(
            f"the plateau may or may not be within {PLATEAU_POINTS * 100:.0f} points of {level:.0%}: {evidence}"
        )
    return Finding(REPRODUCED, evidence)


def _apart(low: float, high: float) -> bool:
    """Whether the whole interval of a difference is farther from 0 than what counts as near."""
    return low > PLATEAU_POINTS or high < -PLATEAU_POINTS


def _sides(results: _Results, name: str, above_from: int | None, either: Sequence[int] = ()) -> Finding:
    """Below the baseline in each epoch before `above_from`, above it from there on; `either` may be on either side."""
    (mine, base), how = results.compared(name, "baseline")
    wrong, open_, differences = [], [], []
    for epoch in range(1, paper.EPOCHS + 1):
        difference = _difference(mine[:, epoch - 1], base[:, epoch - 1])
        differences.append(f"{100 * difference.estimate:+.1f}")
        above = above_from is not None and epoch >= above_from
        if epoch in either:
            continue
        if difference.low <= 0 <= difference.high:
            open_.append(epoch)
        elif (difference.low > 0) != above:
            wrong.append(epoch)
    evidence = f"{name} minus baseline by epoch, points: {' '.join(differences)}; {how}"
    if wrong:
        return Finding(NOT_REPRODUCED, f"on the other side in epoch {_listed(wrong)}: {evidence}")
    if open_:
        raise Undecided(f"no significant difference in epoch {_listed(open_)}: {evidence}")
    return Finding(REPRODUCED, evidence)


def _rising(results: _Results, name: str) -> Finding:
    """The mean curve is highest after the last epoch, and significantly higher there than five epochs before."""
    (curves,), how = results.curves(name)
    mean = curves.mean(axis=0)
    best = int(mean.argmax()) + 1
    rise = _difference(curves[:, -1], curves[:, -1 - PLATEAU_EPOCHS])
    drop = _difference(curves[:, best - 1], curves[:, -1])
    evidence = (
        f"{name} is highest after epoch {best} ({mean[best - 1]:.1%}); from epoch {paper.EPOCHS - PLATEAU_EPOCHS} to "
        f"{paper.EPOCHS}: {_points(rise)}; {how}"
    )
    if rise.high < 0 or drop.low > 0:
        return Finding(NOT_REPRODUCED, evidence)
    if best == paper.EPOCHS and rise.low > 0:
        return Finding(REPRODUCED, evidence)
    raise Undecided(f"neither a rise nor a fall is significant: {evidence}")


def _depth_accuracy(results: _Results) -> Finding:
    """More than half of the points that `blocks2` loses are lost where only the number of blocks changes."""
    (variant, control, base), how = results.compared("blocks2", "blocks2-same", "baseline")
    effect, alone = (_difference(curves.max(axis=1), base.max(axis=1)) for curves in (variant, control))
    evidence = (
        f"control blocks2-same, where only the depth changes: peak {_points(alone)} against the baseline's, "
        f"blocks2 {_points(effect)}; {how}"
    )
    if effect.low <= 0 <= effect.high:
        raise Undecided(f"blocks2 does not differ: {evidence}")
    if effect.low > 0:
        return Finding(NOT_REPRODUCED, f"the effect itself is the other way round: {evidence}")
    low, high = _share(alone, effect, scale=float)
    if low <= 0.5 <= high:
        raise Undecided(f"the control does not tell whether it is more than half of the effect: {evidence}")
    return Finding(REPRODUCED if low > 0.5 else NOT_REPRODUCED, evidence)


def _proportion(accuracies: Fractions) -> tuple[float, float]:
    """(mean over seeds, effective number of test images)."""
    return float(accuracies.mean()), statistics.effective_trials(list(accuracies), TEST_IMAGES)


def _difference(mine: Fractions, base: Fractions) -> Interval:
    return statistics.proportion_difference(*_proportion(mine), *_proportion(base))


def _half_width(d: Interval) -> float:
    return (d.high - d.low) / 2


def _tolerance(fraction: float) -> str:
    return f"±{100 * fraction:.0f} points"


def _points(d: Interval) -> str:
    return f"{100 * d.estimate:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}] points"


def _seeds(curves: Sequence[Fractions]) -> str:
    counts = sorted({len(c) for c in curves})
    if counts == [1]:
        return "one seed (the interval is over test images alone)"
    return f"{' to '.join(map(str, counts))} seeds"


def _listed(items: Sequence[Any]) -> str:
    *rest, last = map(str, items)
    return f"{', '.join(rest)} and {last}" if rest else last


RULES: dict[str, Callable[[_Results], Finding]] = {
    "table1": partial(_table, number=1),
    "table2": partial(_table, number=2),
    "baseline-minutes": partial(_minutes, name="baseline"),
    "fc1-faster": partial(_faster, name="fc1"),
    "fc1-factor": partial(_factor, name="fc1"),
    "fc3-slower": partial(_faster, name="fc3", slower=True),
    "fc3-factor": partial(_factor, name="fc3"),
    "blocks2-slower": partial(_faster, name="blocks2", slower=True),
    "blocks2-factor": partial(_factor, name="blocks2"),
    "conv5x5-faster": partial(_faster, name="conv5x5"),
    "conv5x5-factor": partial(_factor, name="conv5x5"),
    **{f"{name}-peak": partial(_peak, name=name) for name in PUBLISHED},
    "fc1-higher": partial(_higher, name="fc1"),
    "fc3-lower": partial(_higher, name="fc3", lower=True),
    "blocks2-lower": partial(_higher, name="blocks2", lower=True),
    "conv5x5-higher": partial(_higher, name="conv5x5"),
    "fc1-early-lead": partial(_early_lead, name="fc1", epochs=5, low=0.05, high=0.07),
    "baseline-converges": partial(_converges, name="baseline", first=5, last=6, level=0.35),
    "baseline-final": partial(_final, name="baseline"),
    "fc3-converges": partial(_converges, name="fc3", first=4, last=5),
    "fc3-final": partial(_final, name="fc3"),
    "blocks2-below": partial(_sides, name="blocks2", above_from=None),
    # Curves that cross are equal for a while, so the two epochs at the crossing may lie on either side.
    "conv5x5-crossing": partial(_sides, name="conv5x5", above_from=11, either=(10, 11)),
    "conv5x5-rising": partial(_rising, name="conv5x5"),
    "parameters-time": _parameters_time,
    "kernel-parameters": _kernel_parameters,
    "kernel-time": partial(_cause_of_time, variant="conv5x5", control="conv5x5-same", what="the kernel"),
    "depth-time": partial(_cause_of_time, variant="blocks2", control="blocks2-same", what="the depth"),
    "depth-accuracy": _depth_accuracy,
}
"""By the claim's id."""


# ---------------------------------------------------------------------------------------------------------------------
# To read


def table(verdicts: Sequence[Verdict]) -> Table:
    """One row a claim; the caption counts the outcomes."""
    rows = [[v.claim.sentence, v.claim.where, v.outcome, v.evidence] for v in verdicts]
    notes = [
        "Claims are given in our words, except in «». Accuracy is judged only on the whole CIFAR-100 with the paper's "
        "recipe; time only with the paper's program (reference engine, loader pipeline), as a ratio of step times, on "
        "any data set; a cause only by a control network. Brackets: 95 % intervals. The rules stand in "
        "resnet_bench/report/claims.py."
    ]
    return Table("Claims", ["Claim", "Where", "Verdict", "Evidence"], rows, _summary(verdicts), notes)


def render(verdicts: Sequence[Verdict], format_: Format) -> str:
    """In one of the formats of `Table`; as text, a paragraph for each claim, since lines of evidence are long."""
    as_table = table(verdicts)
    if format_ != "text":
        return as_table.render(format_)
    lines = [f"{as_table.title}: {as_table.caption}"]
    for v in verdicts:
        lines += ["", f"{v.outcome.upper()}  {v.claim.id} ({v.claim.where})"]
        lines += [
            textwrap.fill(text, TEXT_WIDTH, initial_indent="  ", subsequent_indent="  ")
            for text in (v.claim.sentence, f"→ {v.evidence}")
        ]
    return "\n".join([*lines, "", *(textwrap.fill(note, TEXT_WIDTH) for note in as_table.notes)])


def _summary(verdicts: Sequence[Verdict]) -> str:
    counts = [(sum(v.outcome == outcome for v in verdicts), outcome) for outcome in (REPRODUCED, NOT_REPRODUCED)]
    rest = len(verdicts) - sum(n for n, _ in counts)
    return f"{len(verdicts)} claims: {', '.join(f'{n} {o}' for n, o in counts)}, {rest} {UNDECIDABLE}."
