"""The thresholds that were applied to a comparison, as a table to read and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resnet_bench.analysis.comparison import AccuracyDifference, Missing
from resnet_bench.analysis.gate import Check
from resnet_bench.render.table import Table
from resnet_bench.render.verdicts import accuracy_text, missing_text, ratio_text
from resnet_bench.wording import short


def thresholds(checks: Sequence[Check], *, allow_missing: bool) -> Table:
    """One row for each threshold and network."""
    names = {
        "pass": "passes",
        "fail": "FAILS",
        "cannot tell": "passes: cannot tell",
        "missing": "missing, allowed" if allow_missing else "FAILS: missing",
    }
    rows = [[str(c.threshold), short(c.network), _found_text(c), names[c.outcome]] for c in checks]
    return Table(
        "Thresholds",
        ["threshold", "network", "found", "result"],
        rows,
        "A network fails where its whole interval lies beyond the threshold; where nobody can tell, it passes.",
    )


def as_dicts(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """A list of `threshold`, `architecture`, `found` (words), `outcome`: `pass`, `fail`, `cannot tell`, `missing`."""
    return [
        {"threshold": str(c.threshold), "architecture": c.network, "found": _found_text(c), "outcome": c.outcome}
        for c in checks
    ]


def _found_text(check: Check) -> str:
    found = check.found
    if found is None:
        return f"neither file has {check.threshold.metric}"
    if isinstance(found, Missing):
        return missing_text(found)
    if not isinstance(found, AccuracyDifference):
        return ratio_text(found)
    cut_off = f"training in {found.cut_off} stopped early; after epoch {found.epoch}: " if found.cut_off else ""
    return f"{cut_off}{accuracy_text(found)}"
