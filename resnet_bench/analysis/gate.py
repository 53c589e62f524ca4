"""Thresholds for continuous integration: `resnet-bench compare --fail-if METRIC:LIMIT`.

A check fails only where the regression is significantly larger than the threshold: where the whole interval lies beyond
it. So `epoch_seconds:5%` fails where even the lower end of the interval is more than 5 % slower, and `accuracy:1` where
even the upper end is more than 1 point lower. «Cannot tell» passes, and the table says so. A training that was cut off
cannot be checked against a complete one: its last accuracy is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from resnet_bench import paper
from resnet_bench.analysis.comparison import AccuracyDifference, Comparison, Missing, Ratio, Row
from resnet_bench.errors import UserError

Metric = Literal["epoch_seconds", "accuracy"]
METRICS: tuple[Metric, ...] = ("epoch_seconds", "accuracy")
CheckOutcome = Literal["pass", "fail", "cannot tell", "missing"]


@dataclass(frozen=True)
class Threshold:
    """A limit for a regression, e.g. `conv5x5.epoch_seconds:3%`.

    Attributes:
        architecture: the network that it is for; None for all networks without a threshold of their own for the metric.
        limit: per cent of time, or percentage points of accuracy.
    """

    architecture: str | None
    metric: Metric
    limit: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read a threshold as `--fail-if` takes it.

        Raises:
            UserError: the text is not a threshold.
        """
        match = re.fullmatch(
            r"(?:(?P<architecture>[^.:]+)\.)?(?P<metric>\w+):(?P<limit>\d+(?:\.\d+)?)(?P<percent>%?)", text
        )
        usage = "write epoch_seconds:5%, accuracy:1 (points) or conv5x5.epoch_seconds:3%"
        if match is None:
            raise UserError(f"--fail-if {text!r} is not METRIC:LIMIT; {usage}.")
        metric = next((m for m in METRICS if m == match["metric"]), None)
        if metric is None:
            raise UserError(f"--fail-if {text!r} names no metric that can be compared; {usage}.")
        if metric == "accuracy" and match["percent"]:
            raise UserError(f"--fail-if {text!r} gives accuracy in per cent, but it is in points; {usage}.")
        return cls(match["architecture"], metric, float(match["limit"]))

    def __str__(self) -> str:
        name = f"{self.architecture}.{self.metric}" if self.architecture else self.metric
        return f"{name}:{self.limit:g}{'%' if self.metric == 'epoch_seconds' else ''}"


@dataclass(frozen=True)
class Check:
    """One threshold applied to one network.

    Attributes:
        network: its architecture; `all` for a general threshold on a quantity that neither file has.
        found: what was compared, or what a file lacks; None where neither file has the quantity.
    """

    threshold: Threshold
    network: str
    found: Ratio | AccuracyDifference | Missing | None
    outcome: CheckOutcome


def check(comparison: Comparison, thresholds: Sequence[Threshold]) -> list[Check]:
    """Apply all thresholds; a network's own threshold replaces the general one for the same metric.

    The outcome is `missing` where only one of the files has the network or the metric, where neither file has it, and
    for accuracies of which only one file has complete trainings.

    Raises:
        UserError: a threshold names a network that the suite does not know.
    """
    checks = []
    for threshold in thresholds:
        found = list(_checks(comparison, threshold, thresholds))
        if not found:
            found = [Check(threshold, threshold.architecture or "all", None, "missing")]
        checks += found
    return checks


def _checks(comparison: Comparison, threshold: Threshold, thresholds: Sequence[Threshold]) -> Iterator[Check]:
    networks = {r.architecture for r in comparison.rows} | {m.architecture for m in comparison.missing}
    if threshold.architecture is not None and threshold.architecture not in networks | set(paper.PUBLISHED):
        from resnet_bench import architectures  # imports torch

        architectures.get(threshold.architecture)  # raises for an unknown name
    with_own = {t.architecture for t in thresholds if t.metric == threshold.metric and t.architecture}

    def concerns(architecture: str) -> bool:
        return architecture == threshold.architecture if threshold.architecture else architecture not in with_own

    for row in filter(lambda r: concerns(r.architecture), comparison.rows):
        yield from _check_row(threshold, row)
    for missing in comparison.missing:
        if concerns(missing.architecture) and missing.metric in (None, threshold.metric):
            yield Check(threshold, missing.architecture, missing, "missing")


def _check_row(threshold: Threshold, row: Row) -> Iterator[Check]:
    if threshold.metric == "epoch_seconds" and row.judged:
        interval = row.judged.interval
        worse = interval is not None and interval.low > 1 + threshold.limit / 100
        judged: CheckOutcome = "cannot tell" if row.judged.verdict == "cannot tell" else "fail" if worse else "pass"
        yield Check(threshold, row.architecture, row.judged, judged)
    if threshold.metric == "accuracy" and row.accuracy:
        worse = 100 * row.accuracy.interval.high < -threshold.limit
        # Accuracies after the last common epoch do not say where the training that was cut off would have ended.
        outcome: CheckOutcome = "missing" if row.accuracy.cut_off else "fail" if worse else "pass"
        yield Check(threshold, row.architecture, row.accuracy, outcome)


def failed(checks: Sequence[Check], *, allow_missing: bool) -> bool:
    """Whether any check fails; without `allow_missing` what is missing fails too."""
    return any(c.outcome == "fail" or (c.outcome == "missing" and not allow_missing) for c in checks)
