"""The reconstruction as `resnet-bench reconstruct` prints it: text, Markdown or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tabulate import tabulate

from resnet_bench.architectures import millions
from resnet_bench.paper import PUBLISHED
from resnet_bench.reconstruction import (
    CANONICAL,
    EVIDENCE,
    FAMILY,
    Design,
    Reconstruction,
    against,
    checked_claims,
    decisions,
    designs_by_body,
    designs_that_fit_times,
    funnel,
)
from resnet_bench.reconstruction.conclusions import dashed


def render(found: Reconstruction, format_: Literal["text", "markdown", "json"]) -> str:
    """The result in one of the formats, without a newline at the end; text is at most 110 columns wide."""
    if format_ == "json":
        return json.dumps(_as_dict(found), indent=2)
    return "\n\n".join(section.render(markdown=format_ == "markdown") for section in _sections(found))


def _as_dict(found: Reconstruction) -> dict[str, Any]:
    return {
        "published": {a: p.parameters for a, p in PUBLISHED.items() if p.parameters},
        "family": FAMILY,
        "matching": funnel(found),
        "evidence": [{"id": e.id, "kind": e.kind, "statement": e.statement} for e in EVIDENCE],
        "decisions": [asdict(d) for d in decisions(found)],
        "findings": [asdict(c) for c in checked_claims(found)],
        "designs": [
            {
                **asdict(d),
                "features": d.body.features,
                "parameters": d.counts,
                "canonical": d.canonical,
                "decided_by": next((e.id for e in against(d)), None),
                "against": [e.id for e in against(d)],
            }
            for d in found.designs
        ],
    }


@dataclass(frozen=True)
class _Section:
    """A heading with a text, a table or both below it.

    Attributes:
        widths: the number of characters at which each column's cells wrap in text; Markdown needs no wrapping.
    """

    title: str
    text: str
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    widths: Sequence[int | None] = ()

    def render(self, markdown: bool) -> str:
        title = f"## {self.title}" if markdown else f"{self.title}\n{'=' * len(self.title)}"
        table = tabulate(
            self.rows,
            self.headers,
            "github" if markdown else "simple",
            disable_numparse=True,
            maxcolwidths=None if markdown else [*self.widths] or None,
            colalign=["right" if h in ("count", "designs", *CANONICAL.counts) else "left" for h in self.headers],
        )
        return "\n\n".join(filter(None, (title, self.text, table)))


def _sections(found: Reconstruction) -> list[_Section]:
    groups = designs_by_body(found)
    canonical_group = next(group for group in groups if CANONICAL in group)
    published = ", ".join(f"{a} {p.parameters}" for a, p in PUBLISHED.items() if p.parameters)
    return [
        _Section(
            "Reconstruction from the published parameter counts",
            f"{len(found.designs)} designs of the family fit the counts {published}.\n"
            f"The published epoch times leave {len(designs_that_fit_times(found))} of them; between those, only "
            "assumptions decide.",
        ),
        _Section("Family searched", "", ["part", "choices"], [[k, v] for k, v in FAMILY.items()], [None, 80]),
        _Section("How many fit", "", ["", "count"], [[k, f"{n:,}"] for k, n in funnel(found).items()]),
        _Section(
            "What is forced, and what is assumed",
            "Values left by the counts, and by counts and epoch times; `assumption` where those leave more than one.",
            ["quantity", "canonical", "by counts", "by counts and times", "decided by"],
            [
                [d.quantity, d.canonical, _values(d.by_counts), _values(d.by_times), d.decided_by]
                for d in decisions(found)
            ],
            [None, None, 22, 22, None],
        ),
        _Section(
            "Evidence beyond the counts, strongest first",
            "",
            ["id", "kind", "statement"],
            [[e.id, e.kind, e.statement] for e in EVIDENCE],
            [None, None, 72],
        ),
        _Section(
            "Claims checked",
            "",
            ["holds", "claim", "numbers"],
            [["yes" if c.holds else "no", c.claim, c.detail] for c in checked_claims(found)],
            [None, 36, 62],
        ),
        _Section(
            "Matching bodies",
            "A row covers convolution bias, shortcut batch norm, fc3 and conv5x5 in all their matching combinations\n"
            "(`--format json` lists each). What speaks most strongly for the canonical design instead comes last.\n"
            "`5×5` gives the block strides of conv5x5, `blocks2` its count.",
            ["stem, map", "widths", "strides", "shortcut", "5×5", "blocks2", "designs", "decided by"],
            [
                [
                    f"{d.body.stem_width}, {d.body.stem_map}×{d.body.stem_map}",
                    dashed(d.body.widths),
                    dashed(d.body.strides),
                    f"{d.body.shortcut_kernel}×{d.body.shortcut_kernel}",
                    ", ".join(sorted({dashed(e.conv5x5_strides) for e in group})),
                    millions(d.counts["blocks2"]),
                    len(group),
                    _decided_by(d),
                ]
                for group in groups
                for d in group[:1]  # designs are sorted: the one with the least against it
            ],
            [None, None, None, None, 9, None, None, None],
        ),
        _Section(
            "Designs with the canonical widths, strides and shortcut kernel",
            "Exact counts for 100 classes.",
            ["bias", "BN", "FC of fc3", *CANONICAL.counts, "decided by"],
            [
                [
                    "yes" if d.body.conv_bias else "no",
                    "yes" if d.body.shortcut_batch_norm else "no",
                    "→".join(map(str, d.fc3_hidden)),
                    *(f"{n:,}" for n in d.counts.values()),
                    _decided_by(d),
                ]
                for d in canonical_group
            ],
        ),
    ]


def _values(values: tuple[str, ...]) -> str:
    return "; ".join(values) if len(values) <= 6 else f"{len(values)} values"


def _decided_by(design: Design) -> str:
    if not (evidence := against(design)):
        return "canonical"
    return evidence[0].id if evidence[0].kind == "time" else f"assumption: {evidence[0].id}"
