"""The judged claims, to read."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from resnet_bench.analysis.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDABLE, JudgedClaim
from resnet_bench.render.table import TEXT_WIDTH, Format, Table


def table(judged: Sequence[JudgedClaim]) -> Table:
    """One row for each claim; the caption counts the outcomes."""
    rows = [[j.claim.sentence, j.claim.where, j.outcome, j.evidence] for j in judged]
    notes = [
        "Claims are given in our words, except in «». Accuracy is judged only on the whole CIFAR-100 with the paper's "
        "recipe; time only with the paper's program (reference engine, loader pipeline), as a ratio of step times, on "
        "any data set; a cause only by a control network. Brackets: 95 % intervals. The rules are in "
        "resnet_bench/analysis/claims."
    ]
    return Table("Claims", ["Claim", "Where", "Verdict", "Evidence"], rows, _summary(judged), notes)


def render(judged: Sequence[JudgedClaim], format_: Format) -> str:
    """In one of the formats of `Table`; as text, a paragraph for each claim, because lines of evidence are long."""
    as_table = table(judged)
    if format_ != "text":
        return as_table.render(format_)
    lines = [f"{as_table.title}: {as_table.caption}"]
    for j in judged:
        lines += ["", f"{j.outcome.upper()}  {j.claim.id} ({j.claim.where})"]
        lines += [
            textwrap.fill(text, TEXT_WIDTH, initial_indent="  ", subsequent_indent="  ")
            for text in (j.claim.sentence, f"→ {j.evidence}")
        ]
    return "\n".join([*lines, "", *(textwrap.fill(note, TEXT_WIDTH) for note in as_table.notes)])


def _summary(judged: Sequence[JudgedClaim]) -> str:
    """`33 claims: 7 reproduced, 6 not reproduced, 20 not decidable from these results.`"""
    outcomes = [j.outcome for j in judged]
    counts = ", ".join(f"{outcomes.count(o)} {o}" for o in (REPRODUCED, NOT_REPRODUCED, UNDECIDABLE))
    return f"{len(judged)} claims: {counts}."
