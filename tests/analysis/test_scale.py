"""How the cost of a step grows: verdicts on `fast` from smallest to largest value, and what a study costs."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from resnet_bench.analysis import scale
from resnet_bench.analysis.scale import Mean, Sweep
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import Samples
from resnet_bench.schema import ScaleResult
from tests.handmade import machine, scaled


def samples(*entries: dict[str, Any], session: str = "s" * 16) -> Samples:
    results = tuple(ScaleResult.model_validate(entry) for entry in entries)
    return Samples((ResultFile(Path("x.json"), {**machine(), "session": session}, "", results, session),))


def sweep(*entries: dict[str, Any]) -> Sweep:
    (found,) = scale.sweeps(samples(*entries))
    return found


def engines(factors: dict[int, tuple[float, float, float]]) -> Sweep:
    """Of fc1 at batch sizes: in three rounds, how many times as long a step of reference takes as one of fast."""
    rounds = (10.0, 12.0, 14.0)
    plain = [
        scaled("fc1", "reference", "batch-size", b, [r * f for r, f in zip(rounds, own, strict=True)])
        for b, own in factors.items()
    ]
    return sweep(*plain, *(scaled("fc1", "fast", "batch-size", b, rounds) for b in factors))


EQUAL, FASTER, SLOWER = (0.9, 1.0, 1.1), (2.0, 2.02, 1.98), (0.5, 0.51, 0.49)


# A result -----------------------------------------------------------------------------------------------------------


def test_a_round_of_processes_side_by_side_is_their_mean_and_their_rate_together() -> None:
    r = ScaleResult.model_validate(scaled("fc1", "fast", "processes", 2, [10.0, 20.0]))
    slower = r.blocks[1].model_copy(update={"seconds": 3 * r.blocks[1].seconds})
    r = r.model_copy(update={"blocks": (r.blocks[0], slower, *r.blocks[2:])})
    assert r.step_times == pytest.approx((0.02, 0.02))
    assert r.rates == pytest.approx((100 + 100 / 3, 100))
    assert r.value == 2


def test_an_epoch_is_its_steps_and_the_opening_of_its_pipeline() -> None:
    r = ScaleResult.model_validate(scaled("fc1", "fast", "images", 1000, [10.0], startup=0.5))
    assert r.epoch_times == pytest.approx((0.5 + 250 * 0.01,))
    assert scale.startup_share(r) == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"processes": []}, "processes"),
        ({"jobs": 2}, "a round lacks some of its processes"),
        ({"blocks": []}, "a process has no block"),
        ({"recipe": {"batch_size": 0}}, "the recipe lacks its batch size"),
        ({"recipe": {}}, "the recipe lacks its batch size"),
        ({"varied": "depth"}, "varied"),
        ({"first_steps": 0}, "first_steps"),
        ({"more": 1}, "more"),
    ],
)
def test_impossible_results_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScaleResult.model_validate({**scaled("fc1", "fast", "batch-size", 4), **change})


# Sweeps -------------------------------------------------------------------------------------------------------------


def test_a_sweep_has_all_values_of_one_quantity_and_session() -> None:
    entries = [scaled("fc1", e, "batch-size", b) for e in ("reference", "fast") for b in (16, 4)]
    other = scaled("fc1", "fast", "threads", 2)
    found = scale.sweeps(Samples((*samples(*entries, other).files, *samples(*entries, session="t" * 16).files)))
    assert [(s.varied, s.values, s.engines) for s in found] == [
        ("batch-size", [4, 16], ["reference", "fast"]),
        ("threads", [2], ["fast"]),
    ]  # the second session has the same process, so it is a copy of the first


def test_sessions_are_kept_apart() -> None:
    first = samples(scaled("fc1", "fast", "threads", 1))
    again = samples(scaled("fc1", "fast", "threads", 1, process="f" * 16), session="t" * 16)
    assert len(scale.sweeps(Samples((*first.files, *again.files)))) == 2


# Verdicts -----------------------------------------------------------------------------------------------------------


def test_the_gain_is_paired_by_round() -> None:
    """The rounds differ by up to 40 %, the ratios in them by 2 %."""
    gain = engines({4: FASTER}).gain("fc1", 4)
    assert gain
    assert gain.interval
    assert gain.value == pytest.approx((2.0 * 2.02 * 1.98) ** (1 / 3))
    assert 1.9 < gain.interval.low < gain.value < gain.interval.high < 2.1


def test_more_values_make_each_interval_wider() -> None:
    one, two = (engines(dict.fromkeys(values, FASTER)).gain("fc1", 4) for values in ((4,), (4, 8)))
    assert one
    assert two
    assert one.interval
    assert two.interval
    assert two.interval.relative > one.interval.relative


def test_neighbours_with_the_same_verdict_are_a_stretch() -> None:
    found = scale.stretches(engines({1: FASTER, 4: FASTER, 16: EQUAL, 64: SLOWER, 256: SLOWER}), "fc1")
    assert found == [("faster", (1, 4)), ("cannot tell", (16,)), ("slower", (64, 256))]


def test_two_rounds_decide_nothing() -> None:
    entries = [scaled("fc1", e, "batch-size", 4, ms) for e, ms in (("reference", [50, 50]), ("fast", [10, 10]))]
    assert scale.stretches(sweep(*entries), "fc1") == [("cannot tell", (4,))]


def test_one_engine_has_no_verdict() -> None:
    assert scale.stretches(sweep(scaled("fc1", "fast", "batch-size", 4)), "fc1") == []


@given(st.dictionaries(st.integers(1, 512), st.sampled_from([EQUAL, FASTER, SLOWER]), min_size=1, max_size=5))
def test_stretches_have_each_value_once_in_order_and_change_their_verdict(
    factors: dict[int, tuple[float, float, float]],
) -> None:
    found = scale.stretches(engines(factors), "fc1")
    assert [value for own in found for value in own.values] == sorted(factors)
    assert all(a.verdict != b.verdict for a, b in itertools.pairwise(found))


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=6), st.floats(1e-3, 1e3))
def test_a_ratio_of_proportional_times_is_that_factor(times: list[float], factor: float) -> None:
    found = scale.ratio(times, [factor * t for t in times])
    assert found.value == pytest.approx(factor)
    assert (found.interval is None) == (len(times) < 3)


# What a study costs -------------------------------------------------------------------------------------------------


def five(varied: str, value: int, milliseconds: float, **overrides: Any) -> list[dict[str, Any]]:
    return [scaled(a, "fast", varied, value, [milliseconds] * 3, **overrides) for a in ARCHITECTURES]


def test_a_study_takes_the_steps_of_five_trainings_one_after_the_other() -> None:
    """5 × 15 × (12,500 × 10 ms + 0.1 s)."""
    (cost,) = scale.study_costs([sweep(*five("threads", 2, 10.0))])
    assert cost.seconds.value == pytest.approx(5 * 15 * (12_500 * 0.01 + 0.1))
    assert (cost.jobs, cost.threads, cost.best, cost.classes) == (1, 2, True, 100)
    assert cost.seconds.interval
    assert math.isclose(cost.seconds.interval.low, cost.seconds.interval.high)


def test_two_side_by_side_take_as_long_as_three_of_the_five() -> None:
    found = [sweep(*five("threads", 2, 10.0)), sweep(*five("processes", 2, 14.0), *five("processes", 1, 12.0))]
    costs = scale.study_costs(found)
    assert [(c.jobs, c.threads, c.best) for c in costs] == [(1, 1, False), (1, 2, False), (2, 1, True)]
    assert costs[2].seconds.value == pytest.approx(3 * 15 * (12_500 * 0.014 + 0.1))


def test_the_pipeline_is_that_of_the_most_images() -> None:
    images = sweep(*(scaled(a, "fast", "images", 40_000, [10.0] * 3, startup=2.0) for a in ARCHITECTURES))
    (cost,) = scale.study_costs([sweep(*five("threads", 2, 10.0)), images])
    assert cost.seconds.value == pytest.approx(5 * 15 * (12_500 * 0.01 + 2.0))


@pytest.mark.parametrize(
    "entries",
    [
        five("threads", 2, 10.0)[:4],  # a network is missing
        five("images", 1000, 10.0),  # nothing about threads or packing
        [{**e, "recipe": {**e["recipe"], "batch_size": 8}} for e in five("threads", 2, 10.0)],  # not the study's
    ],
    ids=["four networks", "images", "batch of 8"],
)
def test_where_nothing_is_said_about_a_study(entries: list[dict[str, Any]]) -> None:
    assert scale.study_costs([sweep(*entries)]) == []


def test_a_mean_of_fewer_than_three_rounds_has_no_interval() -> None:
    assert scale.mean([1.0, 2.0]) == Mean(1.5, None)
