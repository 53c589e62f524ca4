"""Steps are found where there are some, and seldom where there are none. All seeds are fixed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_bench.analysis.steps import ERROR, steps

TRIALS = 250
STEP = math.log(1.12)


def noise(length, correlation=0.0, trials=TRIALS, seed=0):
    """Logarithms of session times that scatter by 3 %, one series a row; neighbours correlate."""
    found = np.random.default_rng([seed, length]).standard_normal((trials, length))
    for i in range(1, length):
        found[:, i] = correlation * found[:, i - 1] + math.sqrt(1 - correlation**2) * found[:, i]
    return 0.03 * found


def share(series):
    """Of the series that have a step."""
    return np.mean([bool(steps(60 * np.exp(logs))) for logs in series])


@pytest.mark.parametrize("length", [6, 8, 12, 20, 40])
@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.4])
def test_sessions_of_the_same_code_seldom_have_a_step(length, correlation):
    """5 %, and two standard errors of the simulation."""
    assert share(noise(length, correlation)) <= ERROR + 2 * math.sqrt(ERROR * (1 - ERROR) / TRIALS)


@pytest.mark.parametrize("length", [8, 20, 40])
def test_stronger_correlation_makes_some_more(length):
    """Tests for independent sessions would find a step in a third of these series."""
    assert share(noise(length, 0.6)) <= 0.2


@pytest.mark.parametrize("length", [8, 20, 40])
def test_heavy_tails_and_single_busy_sessions_make_no_steps(length):
    random = np.random.default_rng(length)
    tails = 0.03 * random.standard_t(3, (TRIALS, length))
    busy = noise(length) + 0.25 * (random.random((TRIALS, length)) < 0.1)
    highest = ERROR + 2 * math.sqrt(ERROR * (1 - ERROR) / TRIALS)
    assert share(tails) <= highest
    assert share(busy) <= highest


def test_twelve_per_cent_are_found_after_six_sessions():
    series = noise(12)
    series[:, 6:] += STEP
    found = [steps(np.exp(logs)) for logs in series]
    assert np.mean([bool(f) for f in found]) > 0.85
    assert np.mean([f[0].first == 6 for f in found if f]) > 0.85
    assert np.mean([len(f) == 1 for f in found if f]) > 0.9


@pytest.mark.parametrize(("size", "scatter"), [(0.05, 0.01), (STEP, 0.03)])
def test_one_busy_session_seldom_hides_a_step_or_moves_it(size, scatter):
    """Wherever it lies, also next to the step."""
    series = noise(20) * scatter / 0.03
    series[:, 10:] += size
    series[np.arange(TRIALS), np.random.default_rng(1).integers(0, 20, TRIALS)] += math.log(1.6)
    found = [steps(np.exp(logs)) for logs in series]
    assert np.mean([bool(f) for f in found]) > 0.8
    assert np.mean([len(f) == 1 for f in found if f]) > 0.9
    assert np.mean([any(abs(s.first - 10) <= 1 for s in f) for f in found if f]) > 0.9


def test_a_busy_session_inside_a_level_is_not_taken_for_the_step():
    series = noise(20, trials=100) / 3
    series[:, 10:] += 0.05
    series[:, 15] += math.log(1.6)
    assert np.mean([[s.first for s in steps(np.exp(logs))] == [10] for logs in series]) > 0.85


def test_the_newest_three_sessions_may_be_a_step():
    series = noise(24)
    series[:, -3:] += 2 * STEP
    found = [steps(np.exp(logs)) for logs in series]
    assert np.mean([bool(f) and f[-1].first == 21 for f in found]) > 0.85


def test_a_slow_spell_that_ended_is_two_steps():
    """A single cut does not show it."""
    series = noise(24, trials=100)
    series[:, 8:16] += STEP
    found = [steps(np.exp(logs)) for logs in series]
    assert np.mean([len(f) == 2 for f in found]) > 0.8


def test_a_staircase_keeps_each_of_its_steps():
    series = noise(60, trials=20)
    for start in (15, 30, 45):
        series[:, start:] += STEP
    found = [[step.first for step in steps(np.exp(logs))] for logs in series]
    assert np.mean([len(f) == 3 for f in found]) > 0.8
    assert np.median([abs(a - b) for f in found if len(f) == 3 for a, b in zip(f, (15, 30, 45), strict=True)]) == 0


@pytest.mark.parametrize(
    "seconds",
    [
        [],
        [1.0],
        [1, 1, 2, 2, 2],
        [5.0] * 30,
        [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 3.0],
        [1.0, 1.01, 0.99, 1.02, 3.0, 0.98, 1.0, 1.01, 0.99, 1.0],
        [1e-99, 1e99] * 5,
    ],
    ids=["none", "one", "five", "equal", "one slow at the end", "one slow in the middle", "absurd"],
)
def test_no_steps(seconds):
    assert steps(seconds) == []


def test_equal_times_on_both_sides_of_a_step():
    assert [step.first for step in steps([1.0] * 8 + [1.2] * 8)] == [8]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.floats(0, 0.3),
    factor=st.floats(1e-9, 1e9),
    length=st.sampled_from([7, 12, 20]),
)
def test_the_unit_does_not_matter(seed, size, factor, length):
    """Nor does it matter whether times or rates are given."""
    logs = noise(length, 0.3, 1, seed)[0]
    logs[length // 2 :] += size
    seconds = np.exp(logs)
    assert steps(seconds) == steps(factor * seconds) == steps(1 / seconds)
