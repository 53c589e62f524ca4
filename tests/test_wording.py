"""How values, counts and times are written in a sentence."""

from __future__ import annotations

import pytest

from resnet_bench.wording import counted, duration


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "round", "1 round"), (0, "round", "0 rounds"), (1200, "step", "1,200 steps"), (2, "process", "2 processes")],
)
def test_a_count_has_its_noun_in_the_number_that_fits(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59, "59 s"), (60, "1 min"), (3569, "59 min"), (3571, "1 h 0 min"), (7800, "2 h 10 min")],
)
def test_a_time_has_the_units_that_one_thinks_in(seconds: float, text: str) -> None:
    assert duration(seconds) == text
