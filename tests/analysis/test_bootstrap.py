"""Statistics: intervals cover as often as they say, pairs stay pairs, and proportions agree with published examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from resnet_bench.analysis import bootstrap as module
from resnet_bench.analysis.bootstrap import bootstrap, mean_log


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
