"""Intervals cover as often as they say, and the same code is rarely called faster or slower: a small simulation.

`tests/surroundings/simulate_coverage.py` has the model and the whole tables. Bounds allow three standard deviations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from resnet_bench import intervals
from resnet_bench.analysis import drift, ratios
from resnet_bench.schema import Interval
from tests.handmade import calibration, machine
from tests.surroundings import simulate_coverage as simulated

TRIALS = 2000
SLACK = 3 * math.sqrt(0.05 * 0.95 / TRIALS)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


# What is simulated is what the package computes ----------------------------------------------------------------------


def same(found: simulated.Ends, expected: list[Interval | None]) -> None:
    assert all(expected)
    assert found.low == pytest.approx([i.low for i in expected if i], rel=1e-9)
    assert found.high == pytest.approx([i.high for i in expected if i], rel=1e-9)


@pytest.mark.parametrize("processes", [3, 8])
def test_the_simulated_intervals_are_the_packages(random: np.random.Generator, processes: int) -> None:
    base, other = np.exp(random.normal(0, 0.3, (2, 10, processes)))
    same(simulated.over_processes(base), [intervals.over_processes(list(own)) for own in base])
    for together in (1, 5):
        for many, one in (
            (simulated.paired_ratio, ratios.paired_ratio),
            (simulated.independent_ratio, ratios.independent_ratio),
        ):
            expected = [one(list(b), list(o), together) for b, o in zip(base, other, strict=True)]
            same(many(base, other, together), expected)
            wide = simulated.widened(many(base, other, together), np.full(10, 1.4))
            same(wide, [ratios.widened(i, 1.4) for i in expected if i])


def test_the_simulated_drift_is_the_packages(random: np.random.Generator) -> None:
    rates = random.normal(0, 0.1, (2, 4, 4))  # resource, calibration, measurement
    rates[1, :, 2:] = rates[1, :, :2]  # there are but two of the arithmetic, which is repeated
    names = (("read 98 MB", "update 98 MB", "read 197 MB", "update 197 MB"), ("gemm 1024", ARITHMETIC))
    taken: list[dict[str, Any]] = []
    for i in range(4):
        taken.append(calibration())
        for resource, own in enumerate(names):
            for name, rate in zip(own, rates[resource, i], strict=False):
                taken[i]["measurements"][name]["median"] *= math.exp(rate)
    base, other = (machine(calibration={"start": taken[i], "end": taken[i + 1]}) for i in (0, 2))
    assert drift.speed_range(base, other).factor == pytest.approx(float(simulated.speed_factor(rates)))


ARITHMETIC = "conv 64-64 3x3 stride 1 on 16x16"


# Coverage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", simulated.CORRELATIONS)
@pytest.mark.parametrize("processes", [3, 5, 10])
@pytest.mark.parametrize("effect", ["0 %", "3 %", "30 %"])
def test_the_interval_over_processes_covers_however_blocks_are_correlated(
    random: np.random.Generator, effect: simulated.Effect, processes: int, correlation: float
) -> None:
    covered = simulated.coverage(random, effect, correlation, processes, TRIALS)
    assert 0.93 - SLACK <= covered <= 0.97 + SLACK


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("processes", [3, 8])
@pytest.mark.parametrize("effect", ["0 %", "3 %", "30 %"])
def test_the_interval_of_a_ratio_covers(
    random: np.random.Generator, effect: simulated.Effect, processes: int, paired: bool
) -> None:
    covered = simulated.ratio_coverage(random, effect, 0.3, processes, TRIALS, paired=paired)
    assert 0.93 - SLACK <= covered <= 0.97 + SLACK


def test_two_modes_need_five_processes_and_a_rare_one_fifteen(random: np.random.Generator) -> None:
    """Three processes are all of one mode in a quarter of the trials, and then know nothing of the other."""

    def covered(effect: simulated.Effect, processes: int) -> float:
        return simulated.coverage(random, effect, 0.3, processes, TRIALS)

    assert covered("two modes", 3) == pytest.approx(0.75, abs=0.04)
    assert covered("two modes", 5) >= 0.93 - SLACK
    assert covered("two modes, 1 of 5", 5) == pytest.approx(0.67, abs=0.04)
    assert covered("two modes, 1 of 5", 15) >= 0.93 - SLACK


# Verdicts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift", simulated.DRIFTS, ids=str)
def test_the_same_code_is_rarely_called_faster_or_slower_however_the_machine_drifts(
    random: np.random.Generator, drift: simulated.Drift
) -> None:
    found = simulated.compared(random, "3 %", 5, TRIALS, drift=drift)
    assert max(found.any, found.mean) <= 0.05 + SLACK


def test_without_what_the_calibrations_show_drift_would_be_called_a_difference(random: np.random.Generator) -> None:
    drift = simulated.Drift(between=0.1)
    assert simulated.compared(random, "3 %", 5, TRIALS, drift=drift, widen=False).any > 0.5


@pytest.mark.parametrize("effect", ["0 %", "30 %", "two modes", "two modes, 1 of 5"])
def test_the_same_code_is_rarely_called_faster_or_slower_whatever_processes_keep(
    random: np.random.Generator, effect: simulated.Effect
) -> None:
    """In files one after the other, and in a duel whose machine drifts."""
    files = simulated.compared(random, effect, 5, TRIALS)
    duel = simulated.dueled(random, effect, simulated.PAIRS, TRIALS, drift=simulated.Drift(trend=0.2))
    assert max(*files[:2], *duel[:2]) <= 0.05 + SLACK


def test_three_processes_do_not_carry_a_verdict_where_there_are_two_modes(random: np.random.Generator) -> None:
    """So `compare` doubts the verdicts of fewer than five."""
    assert simulated.compared(random, "two modes", 3, TRIALS).any > 0.1


@pytest.mark.parametrize("drift", [simulated.Drift(), simulated.Drift(trend=0.1)], ids=str)
def test_a_duel_finds_10_percent_in_each_network_where_processes_scatter_by_3_percent(
    random: np.random.Generator, drift: simulated.Drift
) -> None:
    found = simulated.dueled(random, "3 %", simulated.PAIRS, TRIALS, slowdown=1.1, drift=drift)
    assert found.each >= 0.95
    assert found.mean >= 0.999
