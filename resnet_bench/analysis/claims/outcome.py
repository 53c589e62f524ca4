"""What a rule says about a claim."""

from __future__ import annotations

from typing import Literal, NamedTuple

Outcome = Literal["reproduced", "not reproduced", "not decidable from these results"]
REPRODUCED: Outcome = "reproduced"
NOT_REPRODUCED: Outcome = "not reproduced"
UNDECIDABLE: Outcome = "not decidable from these results"


class Judgement(NamedTuple):
    """What a rule returns; `evidence` has the numbers with their intervals, or says why there are none."""

    outcome: Outcome
    evidence: str


class Undecided(Exception):
    """A rule raises this where the results do not decide the claim; the message is the evidence."""


def decided(reproduced: bool, evidence: str) -> Judgement:
    """The judgement of a rule that could decide."""
    return Judgement(REPRODUCED if reproduced else NOT_REPRODUCED, evidence)
