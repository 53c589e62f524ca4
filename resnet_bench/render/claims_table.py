"""The judged claims, to read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from resnet_bench.analysis.claims import OUTCOMES, JudgedClaim, Outcome
from resnet_bench.render.table import TEXT_WIDTH, Format, Table


def table(judged: Sequence[JudgedClaim]) -> Table:
    """One row for each claim; the caption counts the outcomes."""
    rows = [[j.claim.sentence, j.claim.where, j.verdict, j.evidence] for j in judged]
    return Table("Claims", ["Claim", "Where", "Verdict", "Evidence"], rows, _summary(judged), NOTES)


def by_outcome(judged: Sequence[JudgedClaim]) -> dict[Outcome, list[JudgedClaim]]:
    """The claims of each outcome that there is, the decided ones first."""
    found = {outcome: [j for j in judged if j.outcome == outcome] for outcome in OUTCOMES}
    return {outcome: own for outcome, own in found.items() if own}


NOTES = (
    "Claims are in our words, except in «». Accuracy is judged on the whole CIFAR-100 with the paper's recipe. "
    "Where that has fewer than three seeds, an order or a shape is judged on other real images, and the verdict "
    "names them. Time is judged only with the paper's program (reference engine, loader pipeline), in three or "
    "more processes; a cause only by a control network.",
    "Brackets: Student-t intervals over seeds or processes, so wide that any verdict of the table is false in at "
    "most 5 % of cases (Holm's method over all claims that there are data for). The rules are in "
    "resnet_bench/analysis/claims.",
)
"""How the claims were judged."""


def render(judged: Sequence[JudgedClaim], format_: Format) -> str:
    """In one of the formats of `Table`; as text, a paragraph for each claim, by outcome."""
    as_table = table(judged)
    if format_ != "text":
        return as_table.render(format_)
    lines = [as_table.title, _filled(as_table.caption)]
    for own in by_outcome(judged).values():
        for j in own:
            lines += ["", _filled(f"{j.verdict.upper()}  {j.claim.id}: {j.claim.sentence} ({j.claim.where})")]
            lines += [_filled(j.evidence, indent="    ")]
    return "\n".join([*lines, *(f"\n{textwrap.fill(note, TEXT_WIDTH)}" for note in as_table.notes)])


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, TEXT_WIDTH, initial_indent=indent, subsequent_indent="    ", break_on_hyphens=False)


def _summary(judged: Sequence[JudgedClaim]) -> str:
    """`reproduced 9 · not reproduced 3 · holds elsewhere 6 · does not hold elsewhere 2 · undecided 13`."""
    outcomes = [j.outcome for j in judged]
    return " · ".join(f"{outcome} {outcomes.count(outcome)}" for outcome in OUTCOMES)
