import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_bench.measure.points import training_points

ANY = {"epochs": st.integers(1, 200), "steps_per_epoch": st.integers(1, 20_000)}


def test_points_of_the_papers_recipe():
    """0, 200, 1000, and after the epochs 1, 3, 6, 10 and 15 of 12,500 steps."""
    points = training_points(15, 12_500)
    assert list(points) == [0, 200, 1000, 12_500, 37_500, 75_000, 125_000, 187_500]
    assert points[187_500] == pytest.approx(62_500 / 2 / 187_500)
    assert points[0] == pytest.approx(100 / 187_500)


def test_points_of_a_short_training():
    assert list(training_points(2, 125)) == [0, 125, 250]
    assert list(training_points(1, 1)) == [0, 1]


@given(**ANY)
def test_points_are_distinct_and_their_weights_make_one(epochs, steps_per_epoch):
    points = training_points(epochs, steps_per_epoch)
    assert list(points) == sorted(points)
    assert min(points) == 0
    assert max(points) == epochs * steps_per_epoch
    assert sum(points.values()) == pytest.approx(1)
    assert all(weight > 0 for weight in points.values())


@given(**ANY, first=st.floats(0.1, 10), last=st.floats(0.1, 10))
def test_a_time_that_changes_linearly_has_its_exact_mean(epochs, steps_per_epoch, first, last):
    points = training_points(epochs, steps_per_epoch)
    total = epochs * steps_per_epoch
    mean = sum(weight * (first + (last - first) * step / total) for step, weight in points.items())
    assert mean == pytest.approx((first + last) / 2)
