"""Effects on the accuracy, on hand-made results: what is paired with what, the verdicts, and what a change costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from resnet_bench.analysis.effects import (
    Effect,
    EpochTimes,
    SeedsNeeded,
    effects,
    seeds_to_tell,
    times_of,
    verdicts,
)
from resnet_bench.analysis.ratios import independent_ratio
from resnet_bench.analysis.series import groups
from resnet_bench.analysis.speed import Ratio
from resnet_bench.recipe import Recipe
from resnet_bench.results import reading
from tests.handmade import accuracy, in_processes, machine, plans, save, together


def run(architecture: str, final: float, seed: int, epochs: int = 2, **recipe: Any) -> dict[str, Any]:
    entry = accuracy(architecture, [0.1] * (epochs - 1) + [final], seed)
    entry["recipe"] = {**entry["recipe"], "epochs": epochs, **recipe}
    entry["complete"] = True
    return entry


def found(path: Path, entries: list[dict[str, Any]]) -> list[Effect]:
    (group,) = groups(together([reading.read(save(path, entries))]))
    return effects(group)


def test_a_network_is_paired_with_the_baseline_by_seed(tmp_path: Path) -> None:
    entries = [run("baseline", f, s) for s, f in enumerate((0.30, 0.40, 0.50, 0.99))]
    entries += [run("fc1", f, s) for s, f in ((2, 0.53), (0, 0.31), (1, 0.42))]
    (effect,) = found(tmp_path / "a.json", entries)
    assert (effect.series.architecture, effect.control.architecture) == ("fc1", "baseline")
    assert effect.differences == pytest.approx([0.01, 0.02, 0.03])
    half = stats.t.ppf(0.975, 2) * 0.01 / 3**0.5
    assert (effect.interval.low, effect.interval.high) == pytest.approx((0.02 - half, 0.02 + half))


def test_a_schedule_is_paired_with_a_constant_rate_of_the_same_network(tmp_path: Path) -> None:
    """And a network under a schedule with the baseline under the same one."""
    entries = [
        run(network, 0.3 + seed / 100, seed, **recipe)
        for network in ("baseline", "fc1")
        for recipe in ({}, {"schedule": "cosine"}, {"schedule": "cosine", "warmup_steps": 5})
        for seed in range(3)
    ]

    def called(effect: Effect) -> list[tuple[str, str, int]]:
        return [
            (s.architecture, s.setting["schedule"], s.setting["warmup_steps"]) for s in (effect.series, effect.control)
        ]

    plain, cosine, warm = (("constant", 0), ("cosine", 0), ("cosine", 5))
    expected = [[(n, *changed), (n, *plain)] for n in ("baseline", "fc1") for changed in (cosine, warm)]
    expected += [[("fc1", *same), ("baseline", *same)] for same in (plain, cosine, warm)]
    assert sorted(map(called, found(tmp_path / "a.json", entries))) == sorted(expected)


def test_a_schedule_with_a_warm_up_is_paired_with_a_constant_rate_after_the_same_warm_up(tmp_path: Path) -> None:
    """And that with one without a warm-up."""
    recipes: list[dict[str, Any]] = [{}, {"warmup_steps": 5}, {"schedule": "cosine", "warmup_steps": 5}]
    entries = [run("fc1", 0.3 + seed / 100, seed, **recipe) for recipe in recipes for seed in range(3)]

    def rates(effect: Effect) -> list[tuple[str, int]]:
        return [(s.setting["schedule"], s.setting["warmup_steps"]) for s in (effect.series, effect.control)]

    assert sorted(map(rates, found(tmp_path / "a.json", entries))) == [
        [("constant", 5), ("constant", 0)],
        [("cosine", 5), ("constant", 5)],
    ]


@pytest.mark.parametrize(
    "entries",
    [
        [run(n, 0.3, s) for n in ("baseline", "fc1") for s in range(2)],  # too few seeds
        [run("baseline", 0.3, s) for s in range(3)] + [run("fc1", 0.3, s) for s in range(3, 6)],  # no seed in common
        [run("baseline", 0.3, s) for s in range(3)] + [run("fc1", 0.3, s, lr=0.1) for s in range(3)],  # another recipe
        [run("baseline", 0.3, s, 3) for s in range(3)]
        + [run("baseline", 0.3, s, 2, schedule="cosine") for s in range(3)],  # another length
        [run("fc1", 0.3, s) for s in range(3)] + [run("fc3", 0.3, s) for s in range(3)],  # no baseline
    ],
    ids=["few seeds", "other seeds", "other recipe", "other length", "no baseline"],
)
def test_what_does_not_pair_makes_no_effect(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    assert found(tmp_path / "a.json", entries) == []


def test_verdicts_say_higher_lower_or_nothing(tmp_path: Path) -> None:
    jitter = (0.0, 0.001, -0.001, 0.0005)
    entries = [run("baseline", 0.3, s) for s in range(4)]
    entries += [run("fc1", 0.4 + j, s) for s, j in enumerate(jitter)]
    entries += [run("fc3", 0.2 + j, s) for s, j in enumerate(jitter)]
    entries += [run("conv5x5", 0.3 + j, s) for s, j in enumerate(jitter)]
    effects_found = found(tmp_path / "a.json", entries)
    decided = verdicts(effects_found)
    assert {e.series.architecture: decided.get(i) for i, e in enumerate(effects_found)} == {
        "fc1": True,
        "fc3": False,
        "conv5x5": None,
    }


def test_no_more_than_one_table_in_twenty_claims_an_effect_that_is_not_there() -> None:
    """Of 1,000 simulated tables of four changes without effect; the bound is three standard errors above 5 %."""
    generator = np.random.default_rng(0)
    tables = 1000
    false = 0
    for _ in range(tables):
        made = [Effect(None, None, [], generator.normal(0, 0.01, 5).tolist()) for _ in range(4)]  # type: ignore[arg-type]
        false += bool(verdicts(made))
    assert false / tables < 0.05 + 3 * (0.05 * 0.95 / tables) ** 0.5


@pytest.mark.parametrize(("effect", "spread"), [(0.005, 0.005), (0.005, 0.01), (0.02, 0.01)])
def test_so_many_seeds_find_the_effect_in_four_of_five_cases(effect: float, spread: float) -> None:
    """By simulation; one seed fewer does not suffice by the formula."""
    seeds = seeds_to_tell(effect, spread)
    assert seeds is not None
    samples = np.random.default_rng(1).normal(effect, spread, (4000, seeds))
    told = fmean(stats.ttest_1samp(samples, 0, axis=1, alternative="two-sided").pvalue < 0.05)
    assert 0.77 < told < (0.9 if seeds > 5 else 1.0)


def test_scatter_that_is_too_large_has_no_plan() -> None:
    assert seeds_to_tell(0.005, 0.5) is None
    assert seeds_to_tell(0.005, 0.0) == seeds_to_tell(0.005, 5e-17) == 3


def test_more_effects_together_take_more_seeds() -> None:
    one, ten = seeds_to_tell(0.005, 0.01), seeds_to_tell(0.005, 0.01, 0.005)
    assert one is not None
    assert ten is not None
    assert ten > one


def test_seeds_needed_have_a_range_because_few_seeds_tell_little_of_their_scatter() -> None:
    """The ends are for 0.6 and 2.9 times the scatter of five values, by the tabulated quantiles of chi-squared."""
    effect = Effect(None, None, [], [0.002, 0.004, 0.006, 0.008, 0.010])  # type: ignore[arg-type]
    spread = 0.002 * 2.5**0.5
    ends = [seeds_to_tell(0.005, spread * (4 / divisor) ** 0.5, 0.05 / 4) for divisor in (4, 11.14329, 0.484419)]
    assert effect.seeds_needed(4) == SeedsNeeded(*ends)
    assert None not in ends
    assert Effect(None, None, [], [0.1, 0.2, 0.9]).seeds_needed(1) == SeedsNeeded(None, None, None)  # type: ignore[arg-type]


# What a change costs --------------------------------------------------------------------------------------------------

SCHEDULES = ("constant", "cosine", "onecycle")


def costs(path: Path, entries: list[dict[str, Any]], *others: Path) -> dict[tuple[str, str, str], EpochTimes | None]:
    """{(network, its schedule, what it is held against): times}, from the entries and from other files."""
    (group,) = groups(together(map(reading.read, [save(path, entries), *others])))
    return {
        (e.series.architecture, e.series.setting["schedule"], "baseline" if e.of_network else "constant"): times_of(
            e, group
        )
        for e in effects(group)
    }


def ratio_of(times: EpochTimes | None) -> Ratio:
    assert times is not None
    assert times.ratio is not None
    return times.ratio


def timed(architecture: str, seconds: float | Sequence[float], **settings: Any) -> dict[str, Any]:
    return in_processes(architecture, seconds, noise=0, engine="fast", **{"pipeline": "vectorized", **settings})


def test_trainings_side_by_side_tell_no_times(tmp_path: Path) -> None:
    found = costs(tmp_path / "a.json", plans({}, jobs=2))
    assert len(found) == 12
    assert set(found.values()) == {None}


def test_trainings_one_after_the_other_tell_times_that_nothing_pairs(tmp_path: Path) -> None:
    entries = plans({})
    own: dict[tuple[str, str], list[float]] = {}
    for entry in entries:
        seconds = 60.0 + entry["seed"] + (6 if entry["architecture"] == "baseline-se" else 0)
        own.setdefault((entry["architecture"], entry["recipe"]["schedule"]), []).append(seconds)
        for epoch in entry["epochs"]:
            epoch["train_seconds"] = seconds
    times = costs(tmp_path / "a.json", entries)["baseline-se", "cosine", "baseline"]
    assert times is not None
    assert times.seconds == pytest.approx(68)
    ratio = ratio_of(times)
    assert ratio.interval == independent_ratio(own["baseline", "cosine"], own["baseline-se", "cosine"])
    assert ratio.value == pytest.approx(68 / 62, rel=1e-3)


def test_epoch_times_of_the_same_networks_come_before_those_of_trainings(tmp_path: Path) -> None:
    """They were timed with a constant rate: what a network costs is taken from there; what a schedule does is not."""
    networks = {"baseline": 60.0, "baseline-se": 66.0, "baseline-eca": 63.0}
    for jobs in (1, 2):
        found = costs(tmp_path / "a.json", plans({}, jobs=jobs) + [timed(n, s) for n, s in networks.items()])
        for schedule in SCHEDULES:
            times = found["baseline-se", schedule, "baseline"]
            assert times is not None
            assert (times.seconds, ratio_of(times).value) == pytest.approx((66, 1.1))
            assert times.series.setting["schedule"] == times.control.setting["schedule"] == "constant"
        (own,) = {found["baseline", schedule, "constant"] is None for schedule in SCHEDULES[1:]}
        assert own == (jobs == 2)


def test_times_under_the_nearest_setting_count(tmp_path: Path) -> None:
    """Those that differ in one setting before those that differ in two; never those of another engine."""
    networks = {"baseline": 60.0, "baseline-se": 66.0}
    few = plans({}, jobs=2)
    other_threads = [timed(n, s, threads=1) for n, s in networks.items()]
    times = costs(tmp_path / "a.json", few + other_threads)["baseline-se", "constant", "baseline"]
    assert times is not None
    assert (times.series.setting["threads"], ratio_of(times).value) == (1, pytest.approx(1.1))
    cosine = {**few[0]["recipe"], "schedule": "cosine"}
    nearer = [timed(n, 2 * s - 60, recipe=cosine) for n, s in networks.items()]
    found = costs(tmp_path / "a.json", few + other_threads + nearer)
    for schedule in ("cosine", "onecycle"):
        assert ratio_of(found["baseline-se", schedule, "baseline"]).value == pytest.approx(1.2)
    other_engine = [in_processes(n, s, noise=0) for n, s in networks.items()]
    assert costs(tmp_path / "a.json", few + other_engine)["baseline-se", "constant", "baseline"] is None


PAIRS = [[2, 0, 1], [1, 2, 0], [0, 1, 2]]
"""The process of each schedule, by round."""


def arm(folder: Path, schedule: str, seconds: dict[str, list[float]], **duel: Any) -> Path:
    """The file of one arm of a duel of the three schedules: {network: seconds of an epoch by round}."""
    told = {"id": "d" * 16, "arm": schedule, "arms": list(SCHEDULES), "pairs": PAIRS, **duel}
    recipe = Recipe(schedule=schedule).as_dict()
    rounds = [[pair[SCHEDULES.index(schedule)] for pair in PAIRS].index(process) for process in range(3)]
    entries = [
        timed(n, [s[i] for i in rounds], recipe=recipe, process=schedule.ljust(16, "0")) for n, s in seconds.items()
    ]
    return save(folder / f"{schedule}.json", entries, machine(duel=told))


def test_a_duel_tells_what_a_schedule_costs_round_by_round(tmp_path: Path) -> None:
    """The machine becomes three times slower in the course of the duel, which hits all schedules alike."""
    speeds, factors = [60.0, 90.0, 180.0], {"constant": 1.0, "cosine": 0.9, "onecycle": 1.3}
    arms = [
        arm(tmp_path, s, {"baseline": [factors[s] * x for x in speeds], "baseline-se": [1.1 * x for x in speeds]})
        for s in SCHEDULES
    ]
    found = costs(tmp_path / "a.json", plans({}, jobs=2), *arms)
    for schedule in ("cosine", "onecycle"):
        times = found["baseline", schedule, "constant"]
        assert times is not None
        assert times.source == "turns"
        assert times.seconds == pytest.approx(110 * factors[schedule])
        ratio = ratio_of(times)
        assert ratio.interval is not None
        assert (ratio.value, ratio.interval.low, ratio.interval.high) == pytest.approx([factors[schedule]] * 3)
        network = found["baseline-se", schedule, "baseline"]
        assert network is not None
        assert network.source == "processes"
        assert ratio_of(network).value == pytest.approx(1.1 / factors[schedule])


def test_sessions_of_their_own_tell_the_time_of_an_epoch_but_no_ratio(tmp_path: Path) -> None:
    """The machine drifts from one session to the next by more than most changes cost."""
    times = {"baseline": [60.0, 61.0, 62.0]}
    apart = [arm(tmp_path, "constant", times), arm(tmp_path, "cosine", times, id="e" * 16)]
    found = costs(tmp_path / "a.json", plans({}, jobs=2), *apart)["baseline", "cosine", "constant"]
    assert found is not None
    assert found.seconds == pytest.approx(61)
    assert found.ratio is None
