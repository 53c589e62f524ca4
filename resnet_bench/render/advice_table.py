"""What makes results of this machine doubtful, as `resnet-bench machine --check` prints it."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_bench.machine.advice import Finding
from resnet_bench.render.table import MISSING, Table
from resnet_bench.wording import listed

_NAMES = {"turbo": "turbo", "smt": "SMT", "governor": "clock governor", "aslr": "ASLR"}
_NAMES |= {"transparent_hugepages": "huge pages", "container": "container limits"}

_CAPTION = (
    "Effect on times: none, on its own; scatter: they differ from run to run, so that intervals are wider; bias: all "
    "are longer, or intervals too narrow, and no interval shows it. Nothing is changed here."
)


def table(findings: Sequence[Finding]) -> Table:
    """One row for each finding; below it a sentence for each that is doubtful, and the summary last."""
    rows = [
        [_name(f), f.found or "not told here", f.effect or MISSING, f.command or MISSING if f.doubtful else ""]
        for f in findings
    ]
    why = [f"{_name(f)}: {f.why}" for f in findings if f.why and (f.doubtful or f.found is None)]
    columns = ["what", "here", "effect", "what changes it"]
    return Table("What makes results here doubtful", columns, rows, _CAPTION, [*why, "", summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    """The findings in one sentence."""
    doubtful = [_name(f) for f in findings if f.doubtful]
    untold = [_name(f) for f in findings if f.found is None]
    text = f"Results here are doubtful by {listed(doubtful)}" if doubtful else "Nothing found makes results doubtful"
    return text + (f"; not told here: {', '.join(untold)}." if untold else ".")


def _name(finding: Finding) -> str:
    return _NAMES.get(finding.name, finding.name)
