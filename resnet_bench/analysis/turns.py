"""Files of one duel: whose processes ran in turn, so that each process of one belongs to a process of the other."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel, Field, ValidationError


class _Duel(BaseModel):
    """What `resnet-bench duel` adds to the machine's description of each arm's file.

    Attributes:
        id: equal in the files of one duel.
        arm: which of `arms` this file is of.
        pairs: for each turn the index of each arm's process; null for an arm that has none in that turn.
    """

    id: str = Field(min_length=1)
    arm: str
    arms: list[str]
    pairs: list[list[int | None]]


class Turn(NamedTuple):
    """Indices of the processes that ran one right after the other."""

    base: int
    other: int


def turns(base: dict[str, Any], other: dict[str, Any]) -> tuple[Turn, ...]:
    """The turns of two files of one duel, given the machine's description in each; empty for any others."""
    try:
        mine, theirs = (_Duel.model_validate(machine.get("duel")) for machine in (base, other))
    except ValidationError:
        return ()
    if (mine.id, mine.arms, mine.pairs) != (theirs.id, theirs.arms, theirs.pairs):
        return ()
    if not {mine.arm, theirs.arm} <= set(mine.arms):
        return ()
    i, j = mine.arms.index(mine.arm), mine.arms.index(theirs.arm)
    found = [(pair[i], pair[j]) for pair in mine.pairs if len(pair) == len(mine.arms)]
    return tuple(Turn(base, other) for base, other in found if base is not None and other is not None)
