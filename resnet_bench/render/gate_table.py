"""The table of the thresholds that were applied to a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from resnet_bench.analysis.gate import Check
from resnet_bench.render.table import Table
from resnet_bench.wording import short


def thresholds(checks: Sequence[Check], *, allow_missing: bool) -> Table:
    names = {"pass": "passes", "fail": "FAILS", "missing": "missing, allowed" if allow_missing else "FAILS: missing"}
    rows = [[str(c.threshold), short(c.network), c.measured, names[c.outcome]] for c in checks]
    return Table(
        "Thresholds",
        ["threshold", "network", "found", "result"],
        rows,
        "A network fails where its whole interval lies beyond the threshold.",
    )
