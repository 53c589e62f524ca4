"""Ratios of times: Student's and Welch's intervals of logarithms, as scipy has them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from resnet_bench.analysis.ratios import independent_ratio, over_networks, paired_ratio, widened
from resnet_bench.schema import Interval

BASE, OTHER = [60.0, 61.0, 59.0, 75.0], [66.0, 70.0, 65.0, 64.0]


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval
    return interval.low, interval.high


@pytest.mark.parametrize("together", [1, 5])
def test_pairs_have_students_interval_of_the_mean_logarithm(together: int) -> None:
    found = paired_ratio(BASE, OTHER, together)
    expected = stats.ttest_rel(np.log(OTHER), np.log(BASE)).confidence_interval(1 - 0.05 / together)
    assert ends(found) == pytest.approx(tuple(np.exp(expected)))
    assert found
    assert found.estimate == pytest.approx(stats.gmean(OTHER) / stats.gmean(BASE))
    assert found.method == ("paired log-t" if together == 1 else "paired log-t, 5 ratios together")


@pytest.mark.parametrize("together", [1, 5])
def test_others_have_welchs_interval(together: int) -> None:
    found = independent_ratio(BASE, OTHER[:3], together)
    welch = stats.ttest_ind(np.log(OTHER[:3]), np.log(BASE), equal_var=False)
    assert ends(found) == pytest.approx(tuple(np.exp(welch.confidence_interval(1 - 0.05 / together))))
    assert found
    assert found.estimate == pytest.approx(stats.gmean(OTHER[:3]) / stats.gmean(BASE))


@pytest.mark.parametrize("ratio", [paired_ratio, independent_ratio])
def test_two_processes_have_no_interval(ratio: object) -> None:
    assert callable(ratio)
    assert ratio(BASE[:2], OTHER[:2]) is None


@pytest.mark.parametrize("ratio", [paired_ratio, independent_ratio])
def test_processes_that_agree_have_an_interval_of_no_width(ratio: object) -> None:
    assert callable(ratio)
    assert ends(ratio([10.0] * 3, [12.0] * 3)) == pytest.approx((1.2, 1.2))


@given(st.lists(st.floats(1e-100, 1e100), min_size=3, max_size=6), st.lists(st.floats(1e-100, 1e100), min_size=3))
def test_any_positive_times_have_a_finite_interval_around_the_ratio(base: list[float], other: list[float]) -> None:
    found = independent_ratio(base, other)
    assert found
    assert 0 < found.low <= found.estimate <= found.high < math.inf


def test_the_mean_over_networks_is_that_of_the_processes_that_measured_all() -> None:
    assert over_networks([{0: 1.0, 1: 2.0, 3: 7.0}, {0: 4.0, 1: 8.0, 2: 1.0}]) == pytest.approx({0: 2.0, 1: 4.0})
    assert over_networks([]) == {}


def test_a_widened_interval_keeps_its_estimate() -> None:
    found = paired_ratio(BASE, OTHER)
    assert found
    wide = widened(found, 1.4)
    assert wide.estimate == found.estimate
    assert ends(wide) == pytest.approx((found.low / 1.4, found.high * 1.4))
    assert wide.method == "paired log-t, widened 1.4×"
