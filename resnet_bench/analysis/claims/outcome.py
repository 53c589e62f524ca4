"""What a rule says about a claim."""

from __future__ import annotations

from typing import Literal, NamedTuple

Outcome = Literal["reproduced", "not reproduced", "holds elsewhere", "does not hold elsewhere", "undecided"]
REPRODUCED: Outcome = "reproduced"
NOT_REPRODUCED: Outcome = "not reproduced"
HOLDS_ELSEWHERE: Outcome = "holds elsewhere"
FAILS_ELSEWHERE: Outcome = "does not hold elsewhere"
UNDECIDED: Outcome = "undecided"
OUTCOMES = (REPRODUCED, NOT_REPRODUCED, HOLDS_ELSEWHERE, FAILS_ELSEWHERE, UNDECIDED)


class Judgement(NamedTuple):
    """What a rule returns.

    Attributes:
        evidence: the numbers with their intervals, or why there are none.
        place: the data set that the claim was judged on where that is not the study's; else empty.
    """

    outcome: Outcome
    evidence: str
    place: str = ""


class Undecided(Exception):
    """A rule raises this where the results may decide the claim, but do not; the message is the evidence."""


class Untestable(Undecided):
    """The results lack what the claim needs, whatever their values. Such a claim is no part of the family."""


def decided(holds: bool, evidence: str, place: str = "") -> Judgement:
    """The judgement of a rule that could decide."""
    if place:
        return Judgement(HOLDS_ELSEWHERE if holds else FAILS_ELSEWHERE, evidence, place)
    return Judgement(REPRODUCED if holds else NOT_REPRODUCED, evidence)
