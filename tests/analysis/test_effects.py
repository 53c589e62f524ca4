"""Effects on the accuracy, on hand-made results: what is paired with what, and which verdicts there are."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from resnet_bench.analysis.effects import Effect, effects, seeds_to_tell, verdicts
from resnet_bench.analysis.series import groups
from resnet_bench.results import reading
from tests.handmade import accuracy, save, together


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
