"""Series: the intervals of their times are of positive quantities, from wherever the times come."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from resnet_bench.analysis.series import Series, groups
from resnet_bench.results import reading
from tests.handmade import accuracy, epoch_time, save, together


@pytest.fixture
def series(tmp_path: Path) -> Any:
    def single(*entries: dict[str, Any]) -> Series:
        (group,) = groups(together([reading.read(save(tmp_path / "results.json", entries))]))
        (only,) = group.series
        return only

    return single


def far_apart(*seconds: float) -> tuple[float, float, float]:
    """Mean, low and high; of 10 s and 90 s Student's own interval would reach down to -458 s."""
    mean = sum(seconds) / len(seconds)
    factor = math.exp(stats.t.ppf(0.975, len(seconds) - 1) * stats.sem(seconds) / mean)
    return mean, mean / factor, mean * factor


def test_mean_over_sessions_that_lie_far_apart(series: Any) -> None:
    sessions = [epoch_time("fc1", 10, noise=0), epoch_time("fc1", 90, noise=0, seed=1)]
    time = series(*sessions).epoch_time()
    assert (time.seconds, time.low, time.high) == pytest.approx(far_apart(10, 90))


def test_epochs_of_trainings_that_lie_far_apart(series: Any) -> None:
    """Over all epochs, and epoch by epoch over the seeds."""
    runs = [accuracy("fc1", [0.1], seed=seed) for seed in (0, 1)]
    for run, seconds in zip(runs, (10.0, 90.0), strict=True):
        run["epochs"][0]["train_seconds"] = seconds
    found = series(*runs)
    time, ((epoch, interval),) = found.epoch_time(), found.seconds_by_epoch()
    assert (time.seconds, time.low, time.high) == pytest.approx(far_apart(10, 90))
    assert (epoch, interval.method) == (1, "log-t")
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(far_apart(10, 90))
