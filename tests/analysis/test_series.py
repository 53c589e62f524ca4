"""Series: what counts as one value of a time, the course of a training, trends and spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from resnet_bench.analysis.series import Series, groups
from resnet_bench.results import reading
from tests.handmade import accuracy, epoch_time, in_processes, machine, save, together, told


@pytest.fixture
def series(tmp_path: Path) -> Any:
    """The one series of these entries, each list of them in a file and session of its own."""

    def single(*sessions: Sequence[dict[str, Any]]) -> Series:
        files = []
        for i, entries in enumerate(sessions):
            described = machine(session=f"{i:016x}", code={"version": "1"})
            files.append(reading.read(save(tmp_path / f"{i}.json", entries, described)))
        (group,) = groups(together(files))
        (only,) = group.series
        return only

    return single


def over(*seconds: float) -> tuple[float, float, float]:
    """Mean, low and high; of 10, 20 and 90 s Student's own interval would reach below 0."""
    mean = sum(seconds) / len(seconds)
    factor = math.exp(stats.t.ppf(0.975, len(seconds) - 1) * stats.sem(seconds) / mean)
    return mean, mean / factor, mean * factor


FAR_APART = (10.0, 20.0, 90.0)


def test_processes_that_lie_far_apart(series: Any) -> None:
    """However many blocks each of them timed."""
    time = series([in_processes("fc1", FAR_APART, noise=0, blocks=20)]).epoch_time()
    assert (time.seconds, time.low, time.high) == pytest.approx(over(*FAR_APART))
    assert time.measured == "measured in 3 processes"


@pytest.mark.parametrize("processes", [1, 2])
def test_fewer_than_three_processes_have_no_interval(series: Any, processes: int) -> None:
    time = series([in_processes("fc1", 60, processes=processes, noise=0)]).epoch_time()
    assert (time.seconds, time.low, time.high) == (pytest.approx(60), None, None)
    assert time.measured == ("measured in 1 process" if processes == 1 else "measured in 2 processes")


def test_blocks_of_an_older_file_are_of_one_process(series: Any) -> None:
    time = series([epoch_time("fc1", blocks=30)]).epoch_time()
    assert (time.low, time.high, time.measured) == (None, None, "measured in 1 process")


def test_of_several_sessions_each_counts_once(series: Any) -> None:
    """Processes that agree within a session do not make up for sessions that do not."""
    sessions = [[in_processes("fc1", s, noise=0, process=f"{i:016x}")] for i, s in enumerate(FAR_APART)]
    two, three = series(*sessions[:2]).epoch_time(), series(*sessions).epoch_time()
    assert (two.seconds, two.low, two.measured) == (pytest.approx(15), None, "measured in 2 sessions")
    assert (three.seconds, three.low, three.high) == pytest.approx(over(*FAR_APART))
    assert three.measured == "measured in 3 sessions"


def trainings(seconds: Sequence[float], processes: Sequence[str]) -> list[dict[str, Any]]:
    """A training of one epoch for each of these times, in these processes."""
    found = []
    for seed, (taken, process) in enumerate(zip(seconds, processes, strict=True)):
        entry = told(accuracy("fc1", [0.1], seed=seed), process * 16)
        entry["epochs"][0]["train_seconds"] = taken
        found.append(entry)
    return found


def test_epochs_of_trainings_that_lie_far_apart(series: Any) -> None:
    """Over all epochs, and epoch by epoch."""
    found = series(trainings(FAR_APART, "abc"))
    time, ((epoch, interval),) = found.epoch_time(), found.seconds_by_epoch()
    assert (time.seconds, time.low, time.high) == pytest.approx(over(*FAR_APART))
    assert (epoch, interval.method, time.source) == (1, "log-t", "training")
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(over(*FAR_APART))


def test_trainings_of_one_process_are_one_value(series: Any) -> None:
    found = series(trainings(FAR_APART, "aaa"))
    time, ((_, interval),) = found.epoch_time(), found.seconds_by_epoch()
    assert (time.seconds, time.low, time.measured) == (pytest.approx(40), None, "measured in 1 process")
    assert (interval.low, interval.estimate, interval.high, interval.method) == (*[pytest.approx(40)] * 3, "none")


def test_epochs_of_a_training_with_others_beside_it_are_no_times(series: Any) -> None:
    found = series([told(accuracy("fc1", [0.1]), jobs=2)])
    assert (found.epoch_time(), found.seconds_by_epoch()) == (None, [])


def test_an_older_result_does_not_count_beside_one_with_points(series: Any) -> None:
    """Its first minute is not the mean over the training."""
    time = series([epoch_time("fc1", 10)], [in_processes("fc1", 60, noise=0)]).epoch_time()
    assert (time.seconds, time.runs, time.measured) == (pytest.approx(60), 1, "measured in 5 processes")


# The course of a training --------------------------------------------------------------------------------------------


def test_time_early_late_and_in_the_mean(series: Any) -> None:
    found = series([in_processes("fc1", 60.1, noise=0, late=3)])
    course = found.course("epoch")
    assert (course.early.mean, course.late.mean, course.mean.mean) == pytest.approx((30.1, 90.1, 60.1))
    assert (course.early_step, course.late_step) == (0, 100_000)
    assert course.mean.measured == "measured in 5 processes"
    step = found.course()
    assert (step.early.mean, step.late.mean, step.mean.mean) == pytest.approx((30 / 12500, 90 / 12500, 60 / 12500))
    assert found.step_seconds() == step.mean.mean


def test_without_points_there_is_no_early_or_late(series: Any) -> None:
    course = series([epoch_time("fc1", 60, noise=0)]).course("epoch")
    assert (course.early, course.late, course.mean.mean) == (None, None, pytest.approx(60))


@pytest.mark.parametrize(("late", "changes"), [(1.2, True), (0.8, True), (1.04, False), (1, False)])
def test_step_times_trend_where_late_ones_differ_by_more_than_5_percent(
    series: Any, late: float, changes: bool
) -> None:
    found = series([in_processes("fc1", late=late, noise=0.001)])
    trend = next(t for t in found.trends() if t.quantity == "step time")
    assert (trend.changes, trend.step) == (changes, 100_000)
    assert trend.ratio.estimate == pytest.approx(late, rel=0.01)


def test_what_processes_share_is_no_doubt_of_a_trend(series: Any) -> None:
    """Processes of 10, 20 and 90 s all become 20 % slower."""
    trend = series([in_processes("fc1", FAR_APART, late=1.2, noise=0.001)]).trends()[0]
    assert (trend.quantity, trend.changes) == ("step time", True)


def test_parameters_that_rest_late_in_the_training_are_a_trend(series: Any) -> None:
    entry = in_processes("fc1")
    for block in entry["blocks"]:
        block["updated_parameters"] *= 0.5 if block["point"] else 1
    found = {t.quantity: (t.ratio.estimate, t.changes) for t in series([entry]).trends()}
    assert found["updated parameters"] == (pytest.approx(0.5), True)
    assert found["read parameters"] == (pytest.approx(1), False)


def test_two_processes_show_no_trend(series: Any) -> None:
    assert series([in_processes("fc1", processes=2, late=3)]).trends() == []


@pytest.mark.parametrize(("noise", "level"), [(0.01, "usual"), (0.12, "large"), (0.3, "very large")])
def test_spread_is_that_of_blocks_within_points(series: Any, noise: float, level: str) -> None:
    """For normal noise the interquartile range is 1.35 deviations. Late steps that take longer are no spread."""
    spread = series([in_processes("fc1", noise=noise, late=3, blocks=200)]).spread()
    assert spread.relative == pytest.approx(1.35 * noise, rel=0.1)
    assert spread.level == level


def test_processes_that_lie_apart_are_spread(series: Any) -> None:
    assert series([in_processes("fc1", (17, 40, 17, 40), noise=0)]).spread().level == "very large"
