"""Intervals of times are positive and cover as often as they say; that of a scatter is the tabulated one."""

import math

import numpy as np
import pytest
from scipy import stats

from resnet_bench.intervals import deviation_interval, mean_interval, positive_mean_interval


def test_mean_interval_is_students():
    """Against the textbook formula; it may reach below 0, as differences do."""
    values = [-2.0, -1.0, 1.0, 2.0]
    half = stats.t.ppf(0.975, 3) * math.sqrt(sum(v**2 for v in values) / 3) / math.sqrt(4)
    interval = mean_interval(values)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0, -half, half))
    assert interval.method == "student-t"


def test_interval_of_times_is_students_on_the_logarithmic_scale():
    """Against the textbook formula: the estimate is the mean, and both ends are as many times away from it."""
    values = [1.0, 2.0, 4.0, 5.0]
    half = stats.t.ppf(0.975, 3) * math.sqrt(sum((v - 3) ** 2 for v in values) / 3) / math.sqrt(4)
    interval = positive_mean_interval(values)
    ends = 3 * math.exp(-half / 3), 3 * math.exp(half / 3)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((3, *ends))
    assert interval.method == "log-t"


@pytest.mark.parametrize("n", [2, 3, 10])
def test_interval_of_times_stays_above_0_however_far_they_lie_apart(n):
    """The widest there is: one value that is not 0, whose standard error is as large as the mean."""
    interval = positive_mean_interval([0.0] * (n - 1) + [1.0])
    assert interval.estimate == pytest.approx(1 / n)
    assert interval.low == pytest.approx(math.exp(-stats.t.ppf(0.975, n - 1)) / n)
    assert interval.low > 0


@pytest.mark.parametrize(("n", "low", "high"), [(3, 7.378, 0.0506), (5, 11.143, 0.484), (10, 19.023, 2.700)])
def test_interval_of_a_scatter_is_from_the_tables_of_chi_squared(n, low, high):
    """The quantiles for 97.5 % and 2.5 %, as printed tables have them."""
    values = [float(i) for i in range(n)]
    found = deviation_interval(values)
    squares = sum((v - (n - 1) / 2) ** 2 for v in values)
    expected = [math.sqrt(squares / divisor) for divisor in (n - 1, low, high)]
    assert [found.estimate, found.low, found.high] == pytest.approx(expected, rel=1e-3)


def test_values_that_do_not_scatter_have_an_interval_of_no_width():
    found = deviation_interval([0.1] * 5)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


@pytest.mark.parametrize("interval", [mean_interval, positive_mean_interval])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_values_have_an_interval_of_no_width(interval, value):
    found = interval([value] * 3)
    assert (found.estimate, found.low, found.high) == (value, value, value)


SAMPLES = 1000


@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize(
    ("scatter", "least"), [(0.03, 0.94), (0.3, 0.935), (0.6, 0.91)], ids=["3 %", "30 %, skewed", "60 %, more skewed"]
)
def test_interval_of_times_covers_the_true_mean(n, scatter, least):
    """Log-normal times of mean 1; 1,000 samples tell 95 % to ±1.4 %. Student's own interval covers no more often."""
    rng = np.random.default_rng(n)
    samples = rng.lognormal(-(scatter**2) / 2, scatter, (SAMPLES, n))
    covered = {
        interval: sum(i.low <= 1 <= i.high for i in map(interval, samples)) / SAMPLES
        for interval in (positive_mean_interval, mean_interval)
    }
    assert least <= covered[positive_mean_interval] <= 0.964
    assert covered[positive_mean_interval] >= covered[mean_interval] - 0.005
