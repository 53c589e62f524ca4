"""Statistics: intervals cover as often as they say, pairs stay pairs, and proportions agree with published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnet_bench.analysis import bootstrap as module
from resnet_bench.analysis.bootstrap import bootstrap, effective_trials, mean_log, proportion_difference
from resnet_bench.intervals import wilson


def _column(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=float)[:, None]


@pytest.mark.parametrize(("base_blocks", "other_blocks"), [(2, 2), (3, 3), (5, 5), (5, 10), (10, 10), (30, 30)])
@pytest.mark.parametrize("noise", ["normal", "skewed"])
def test_interval_of_a_ratio_covers_the_true_ratio_in_95_percent(
    monkeypatch: pytest.MonkeyPatch, base_blocks: int, other_blocks: int, noise: str
) -> None:
    """Also with few blocks and with outliers; 91 % allows four standard deviations for 400 trials."""
    monkeypatch.setattr(module, "RESAMPLES", 2000)
    rng = np.random.default_rng([base_blocks, other_blocks])

    def draw(blocks: int) -> np.ndarray:
        if noise == "normal":
            return rng.normal(1, 0.03, blocks)
        return np.exp(rng.normal(0, 0.2, blocks)) / math.exp(0.02)

    covered = 0
    for _ in range(400):
        base, other = (
            bootstrap(_column(draw(base_blocks)), [1])[0],
            bootstrap(_column(1.1 * draw(other_blocks)), [2])[0],
        )
        interval = other.against(base).ratio()
        covered += interval.low <= 1.1 <= interval.high
    assert covered >= 0.91 * 400


def test_interval_narrows_as_welchs_t_interval_does() -> None:
    """For normal noise and many blocks the bootstrap agrees with the closed form on the log scale."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 0.05, 40), rng.normal(2, 0.1, 40)
    interval = bootstrap(_column(b), [1])[0].against(bootstrap(_column(a), [0])[0]).ratio()
    spread = math.sqrt(a.var(ddof=1) / 40 / a.mean() ** 2 + b.var(ddof=1) / 40 / b.mean() ** 2)
    assert interval.estimate == pytest.approx(b.mean() / a.mean())
    assert math.log(interval.high / interval.low) == pytest.approx(2 * 1.99 * spread, rel=0.05)


def test_drift_that_two_networks_share_cancels_in_their_ratio() -> None:
    """Rounds are drawn as a whole: the ratio within a machine is known far better than either time."""
    drift = np.linspace(1, 2, 10)
    slow, fast = bootstrap(np.stack([3 * drift, drift], axis=1), [0])
    interval = slow.within(fast).ratio()
    assert (interval.low, interval.high) == pytest.approx((3, 3))


def test_more_ratios_together_have_wider_intervals() -> None:
    values = _column(np.random.default_rng(3).normal(1, 0.03, 10))
    ratio = bootstrap(values, [1])[0].against(bootstrap(values[::-1], [2])[0])
    assert ratio.ratio(5).low < ratio.ratio().low < ratio.ratio().high < ratio.ratio(5).high


def test_geometric_mean_is_known_better_than_its_ratios() -> None:
    rng = np.random.default_rng(4)
    base, other = bootstrap(rng.normal(1, 0.03, (10, 5)), [1]), bootstrap(2 * rng.normal(1, 0.03, (10, 5)), [2])
    ratios = [o.against(b) for o, b in zip(other, base, strict=True)]
    mean = mean_log(ratios).ratio()
    assert mean.estimate == pytest.approx(math.prod(r.ratio().estimate for r in ratios) ** 0.2)
    assert mean.low < 2 < mean.high
    assert mean.relative < min(r.ratio().relative for r in ratios)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = _column(np.arange(1, 9))
    assert np.array_equal(bootstrap(values, [0, 1])[0].draws, bootstrap(values, [0, 1])[0].draws)


def test_a_network_that_was_not_in_every_round_uses_the_rounds_it_was_in() -> None:
    values = np.array([[1.0, 5.0], [1.1, np.nan], [0.9, 5.2], [1.0, np.nan]])
    whole, part = bootstrap(values, [0])
    assert math.exp(part.estimate) == pytest.approx(5.1)
    assert math.isfinite(whole.against(part).ratio().high)


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
