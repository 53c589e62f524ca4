"""How fast a step is, compared with the least time this machine allows and with plain PyTorch in the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from resnet_bench import paper
from resnet_bench.analysis.series import Group, Series, in_one_mode
from resnet_bench.schema import EpochTimeResult

PLAIN = ("reference", "loader")
"""Engine and pipeline of the paper's plain PyTorch script, which the others are compared with."""

Round = tuple[tuple[str, str], str, int]
"""Which runs were measured in turn (`Run.together`), the mode, and the number of the round."""


@dataclass(frozen=True)
class StepSpeed:
    """A step of one network under one setting, or of the study's five together.

    Attributes:
        architecture: None for the five, whose steps are added up round by round.
        step_seconds: of each round.
        updated_share: the fraction of the parameters that the mean step's optimiser updated; None where a file does not
            tell.
        bound_seconds: the least time of such a step on this machine; None where it was not calibrated.
        times_faster: plain PyTorch's time over this one, for each round in which both were measured.
    """

    architecture: str | None
    engine: str
    pipeline: str
    step_seconds: Sequence[float]
    updated_share: float | None
    bound_seconds: float | None
    times_faster: Sequence[float]

    @property
    def bound_fraction(self) -> float | None:
        """The bound over the median step; None without either."""
        return self.bound_seconds / median(self.step_seconds) if self.bound_seconds and self.step_seconds else None


@dataclass(frozen=True)
class ModeCheck:
    """Seconds of an epoch of one network, measured both ways: each whole epoch, and what each sampled block says."""

    architecture: str
    engine: str
    full: Sequence[float]
    sampled: Sequence[float]

    @property
    def ratio(self) -> float:
        """Mean of the sampled over mean of the whole epochs."""
        return mean(self.sampled) / mean(self.full)


def step_speeds(group: Group) -> list[StepSpeed]:
    """One for each network and engine that was timed; then the five networks together, for each engine that ran all."""
    timed = [s for s in group.series if rounds(s)]
    return [_step_speed(timed, s) for s in timed] + _five_together(timed)


def mode_checks(group: Group) -> list[ModeCheck]:
    """One for each network that was measured in whole epochs and in sampled blocks."""
    checks = []
    for s in group.series:
        full, sampled = (
            [value for r in s.times if r.mode == mode for value in r.epoch_times.values()]
            for mode in ("full", "sampled")
        )
        if full and sampled:
            checks.append(ModeCheck(s.architecture, s.engine, full, sampled))
    return checks


def rounds(series: Series) -> dict[Round, float]:
    """Seconds of a step in each round; of one mode where there are several."""
    kept = in_one_mode(series.times)
    return {
        (run.together, run.result.mode, b.round): b.seconds / b.steps
        for run in series.timed
        if isinstance(run.result, EpochTimeResult) and run.result in kept
        for b in run.result.blocks
    }


def ratios(slow: Mapping[Round, float], quick: Mapping[Round, float]) -> list[float]:
    """Time in `slow` over time in `quick`, for each round in which both were measured."""
    return [slow[key] / quick[key] for key in slow if key in quick]


def _step_speed(timed: Sequence[Series], series: Series) -> StepSpeed:
    steps, plain = rounds(series), _plain(timed, series)
    return StepSpeed(
        architecture=series.architecture,
        engine=series.engine,
        pipeline=str(series.setting["pipeline"]),
        step_seconds=list(steps.values()),
        updated_share=_updated_share([series]),
        bound_seconds=series.step_bound(),
        times_faster=ratios(rounds(plain), steps) if plain else [],
    )


def _five_together(timed: Sequence[Series]) -> list[StepSpeed]:
    found = []
    for key in dict.fromkeys(_key(s) for s in timed):
        by_name = {s.architecture: s for s in timed if _key(s) == key}
        if not set(paper.PUBLISHED) <= set(by_name):
            continue
        five = [by_name[name] for name in paper.PUBLISHED]
        sums = _sum([rounds(s) for s in five])
        plain = [p for s in five if (p := _plain(timed, s))]
        bounds = [b for s in five if (b := s.step_bound())]
        found.append(
            StepSpeed(
                architecture=None,
                engine=key[0],
                pipeline=key[1],
                step_seconds=list(sums.values()),
                updated_share=_updated_share(five),
                bound_seconds=sum(bounds) if len(bounds) == len(five) else None,
                times_faster=ratios(_sum([rounds(p) for p in plain]), sums) if len(plain) == len(five) else [],
            )
        )
    return found


def _updated_share(series: Sequence[Series]) -> float | None:
    counts = [(r.parameters, r.updated_parameters) for s in series for r in s.times]
    if any(updated is None for _, updated in counts):
        return None
    return sum(updated or 0 for _, updated in counts) / sum(parameters for parameters, _ in counts)


def _plain(timed: Sequence[Series], series: Series) -> Series | None:
    """The plain run of the same network with the same threads and recipe; None for the plain run itself."""
    may_differ = ("engine", "pipeline", "workers", "epochs")
    setting = series.setting_without(*may_differ)
    for other in timed:
        same = other.architecture == series.architecture and other.setting_without(*may_differ) == setting
        if same and _key(other) == PLAIN and _key(series) != PLAIN:
            return other
    return None


def _key(series: Series) -> tuple[str, str]:
    return series.engine, str(series.setting["pipeline"])


def _sum(parts: Sequence[Mapping[Round, float]]) -> dict[Round, float]:
    """The sum of the parts in each round that all of them have."""
    shared = set.intersection(*(set(p) for p in parts))
    return {key: sum(p[key] for p in parts) for key in sorted(shared)}
