"""Conditions on means: intervals with known ends, three answers, and answers that are false as seldom as promised."""

import json
import math
from itertools import groupby
from pathlib import Path
from statistics import variance

import numpy as np
import pytest
from scipy import stats

from resnet_bench.analysis.conditions import TYPICAL_SPREAD, Condition, step_down

REPORT = Path(__file__).parents[2] / "reports" / "accuracy-cifar10"


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ((0.4, 0.5, 0.6), True),
        ((1.4, 1.5, 1.6), False),
        ((-0.4, -0.5, -0.6), False),
        ((0.0, 0.5, 1.0), None),  # the middle, but not told
        ((1.0, 1.0, 1.0), None),  # the very end
        ((0.5, 0.5), None),  # two values decide nothing
    ],
)
def test_the_mean_lies_in_the_range_outside_or_it_is_not_told(values: tuple[float, ...], answer: bool | None) -> None:
    assert Condition(values, 0, 1).answer(0.05) is answer


def test_the_interval_is_students_and_allows_for_one_more_run_where_that_was_published() -> None:
    """Values 1, 2, 3 have the deviation 1, so the interval against one run is t · √(1/3 + 1) on each side."""
    t = stats.t.ppf(0.995, 2)
    mine = Condition((1, 2, 3)).interval(0.01)
    against = Condition((1, 2, 3), against_one=True).interval(0.01)
    assert (mine.estimate, mine.high) == pytest.approx((2, 2 + t / math.sqrt(3)))
    assert (against.low, against.high) == pytest.approx((2 - t * math.sqrt(4 / 3), 2 + t * math.sqrt(4 / 3)))


def test_as_many_values_are_needed_as_give_an_answer_with_this_mean_and_scatter() -> None:
    """Mean 1, deviation 1: t(n-1) / √n is 1.049 for 6 values and 0.925 for 7."""
    assert Condition((0, 1, 2), low=0).needed(0.05) == 7
    assert Condition((10.0, 11.0, 12.0), low=0).needed(0.05) == 3
    assert Condition((-1, 0, 1), low=0).needed(0.05) is None
    assert Condition((0, 1, 2), low=0, against_one=True).needed(0.05) is None  # one run scatters by 1 itself


def test_the_typical_spread_is_that_of_the_report_that_it_names() -> None:
    trainings = sorted((json.loads(path.read_text()) for path in REPORT.glob("*.json")), key=_network_and_engine)
    finals = [[t["epochs"][-1]["test_accuracy"] for t in own] for _, own in groupby(trainings, _network_and_engine)]
    assert [len(own) for own in finals] == [3] * 15
    assert round(math.sqrt(sum(map(variance, finals)) / 15), 3) == TYPICAL_SPREAD


def _network_and_engine(training: dict[str, str]) -> tuple[str, str]:
    return training["architecture"], training["engine"]


def test_step_down_shares_the_error_among_what_is_still_open() -> None:
    """Holm's method with p-values 0.01, 0.02 and 0.06: 0.01 ≤ 0.05/3, then 0.02 ≤ 0.05/2, but 0.06 > 0.05."""
    p_values = {"a": 0.02, "b": 0.06, "c": 0.01}
    questions = {key: (lambda error, p=p: True if p <= error else None) for key, p in p_values.items()}
    assert step_down(questions, 0.05) == {"a": True, "c": True}
    assert step_down({k: questions[k] for k in "ab"}, 0.03) == {}  # 0.02 > 0.03/2


def test_a_condition_is_answered_wrong_at_the_end_of_its_range_in_at_most_half_of_the_error() -> None:
    """4,000 times four values whose true mean is the upper end; 2.5 % of either answer are expected."""
    draws = np.random.default_rng(3).normal(1, 0.2, (4000, 4))
    answers = [Condition(list(own), 0, 1).answer(0.05) for own in draws]
    assert answers.count(True) / 4000 == pytest.approx(0.025, abs=0.01)
    assert answers.count(False) / 4000 == pytest.approx(0.025, abs=0.01)
