"""The difference of two proportions, and proportions of several runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnet_bench.analysis.proportions import effective_trials, proportion_difference
from resnet_bench.intervals import wilson


@pytest.mark.parametrize(
    ("mine", "theirs", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_difference_of_proportions_agrees_with_newcombes_table_2(
    mine: tuple[int, int], theirs: tuple[int, int], low: float, high: float
) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 873–890: method 10 (score, no continuity correction)."""
    interval = proportion_difference(mine[0] / mine[1], mine[1], theirs[0] / theirs[1], theirs[1])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@given(st.floats(0, 1), st.integers(1, 10**6), st.floats(0, 1), st.integers(1, 10**6))
def test_difference_of_proportions_holds_its_estimate_and_turns_with_its_sides(
    p: float, n: int, q: float, m: int
) -> None:
    there, back = proportion_difference(p, n, q, m), proportion_difference(q, m, p, n)
    assert -1 - 1e-9 <= there.low <= there.estimate + 1e-9
    assert there.estimate <= there.high + 1e-9 <= 1 + 2e-9
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_wilson_agrees_with_scipy() -> None:
    from resnet_bench.intervals import wilson_interval

    interval = wilson_interval(3412, 10_000)
    assert wilson(0.3412, 10_000) == pytest.approx((interval.low, interval.high))


def test_seeds_that_scatter_more_than_sampling_count_for_less() -> None:
    """Runs as far apart as sampling alone explains count in full; runs ten times as far for a hundredth by (z/t)²."""
    sampling = math.sqrt(0.3 * 0.7 / 10_000)
    assert effective_trials([0.3, 0.3, 0.3], 10_000) == 30_000
    apart = [0.3 - 10 * sampling, 0.3, 0.3 + 10 * sampling]
    assert effective_trials(apart, 10_000) == pytest.approx(300 * (1.95996 / 4.30265) ** 2, rel=1e-4)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_interval_of_an_accuracy_is_as_long_as_students_where_seeds_scatter(seeds: int) -> None:
    accuracies = np.random.default_rng(seeds).normal(0.3, 0.002, seeds)
    low, high = wilson(float(accuracies.mean()), effective_trials(list(accuracies), 10**6))
    expected = stats.t.interval(0.95, seeds - 1, accuracies.mean(), stats.sem(accuracies))
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.05)


def test_a_single_seed_counts_in_full() -> None:
    assert effective_trials([0.3], 10_000) == 10_000


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("scatter", [0.0, 0.005, 0.02])
def test_intervals_over_few_seeds_cover_the_true_accuracy_and_the_true_difference(seeds: int, scatter: float) -> None:
    """Seeds that scatter not at all, as much as the choice of 10,000 images does, and four times as much.

    93 % allows three standard deviations for 1,000 trials. With a normal quantile, seeds that scatter are covered in
    72 to 93 %.
    """
    rng = np.random.default_rng([seeds, round(1000 * scatter)])

    def draw(truth: float) -> tuple[float, float]:
        accuracies = rng.binomial(10_000, rng.normal(truth, scatter, seeds).clip(0, 1)) / 10_000
        return float(accuracies.mean()), effective_trials(list(accuracies), 10_000)

    covered = np.zeros(2)
    for _ in range(1000):
        mine, base = draw(0.33), draw(0.30)
        low, high = wilson(*mine)
        difference = proportion_difference(*mine, *base)
        covered += low <= 0.33 <= high, difference.low <= 0.03 <= difference.high
    assert min(covered) >= 930
