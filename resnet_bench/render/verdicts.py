"""What a comparison found, in words: verdicts with their numbers, what is missing, and remarks on the runs."""

from __future__ import annotations

from typing import Literal

from resnet_bench.analysis.comparison import AccuracyDifference, Comparison, Explanation, Mark, Missing, Ratio, Role
from resnet_bench.analysis.drift import SpeedRange
from resnet_bench.intervals import ENOUGH_PROCESSES, LEAST_VALUES
from resnet_bench.render.captions import drift_text
from resnet_bench.schema import Interval


def ratio_text(ratio: Ratio) -> str:
    """`1.42× faster [1.31, 1.54]`, `no significant difference (ratio 1.23 [1.00, 1.50])` or `cannot tell: …`."""
    i = ratio.interval
    if i is None:
        number = "" if ratio.estimate is None else f" (ratio {ratio.estimate:.2f})"
        return f"cannot tell: {ratio.reason}{number}"
    if ratio.verdict == "faster" or ratio.verdict == "slower":
        return factor_text(i, ratio.verdict)
    said = f"cannot tell: {ratio.reason}" if ratio.cause else ratio.verdict
    return f"{said} (ratio {i.estimate:.2f} [{i.low:.2f}, {i.high:.2f}])"


def factor_text(ratio: Interval, verdict: Literal["faster", "slower"]) -> str:
    """`1.42× faster [1.31, 1.54]`, of a ratio of times."""
    low, high = (1 / ratio.high, 1 / ratio.low) if verdict == "faster" else (ratio.low, ratio.high)
    return f"{_factor(ratio.estimate)} {verdict} [{low:.2f}, {high:.2f}]"


def explanation_text(explanation: Explanation, time: Ratio) -> str:
    """`2.10× faster; 1.90× expected from memory bandwidth; 1.11× unexplained`, where `time` is the measured ratio.

    A factor names its direction where that is not the measured one. Where no measured direction is significant, the
    verdict stands in its place, and every factor names its direction.
    """
    if time.interval is None:
        return ratio_text(time)
    measured = time.interval.estimate
    significant = time.verdict in ("faster", "slower")

    def factor(ratio: float) -> str:
        direction = "slower" if ratio > 1 else "faster"
        as_measured = significant and direction == time.verdict
        text = _factor(ratio)
        return text if as_measured or text == "1.00×" else f"{text} {direction}"

    whole = f"{_factor(measured)} {time.verdict}" if significant else ratio_text(time)
    rest = f"{factor(measured / explanation.expected)} unexplained"
    if explanation.unexplained.verdict == "no significant difference":
        rest += " (within noise)"
    return f"{whole}; {factor(explanation.expected)} expected from {explanation.resource}; {rest}"


def accuracy_text(difference: AccuracyDifference) -> str:
    """`+6.0 points [+4.7, +7.3], higher`."""
    i = difference.interval
    points = f"{100 * i.estimate:+.1f} points [{100 * i.low:+.1f}, {100 * i.high:+.1f}]"
    if difference.verdict == "no significant difference":
        return f"no significant difference ({points})"
    return f"{points}, {difference.verdict}"


def missing_text(missing: Missing) -> str:
    """`epoch time of fc1 (fast) is not in other`."""
    name = f"{missing.architecture} ({missing.engine})" if missing.engine else missing.architecture
    quantity = f"{missing.metric.replace('_seconds', ' time')} of " if missing.metric else ""
    return f"{quantity}{name} is not in {missing.file}"


def remarks(comparison: Comparison) -> list[str]:
    """Drift and doubts of BASE, then of OTHER; what of the drift cannot be seen; what the comparison leaves out."""
    found = []
    for role, drift in zip(_ROLES, comparison.drifts, strict=True):
        if drift:
            found.append(f"{role} drifted: between start and end of the run, {drift_text(drift)}")
        found += [_mark_text(mark) for mark in comparison.doubts if mark.file == role]
    judged = any(row.judged and row.judged.interval for row in comparison.rows)
    if judged and comparison.speed and not comparison.speed.seen:
        found.append(_unseen_text(comparison.speed))
    return found + [_mark_text(mark) for mark in comparison.omissions] + _remedies(comparison)


_ROLES: tuple[Role, ...] = ("base", "other")


def _unseen_text(speed: SpeedRange) -> str:
    if not speed.missing:
        return "calibrations do not compare: what the machine drifted from base to other cannot be seen"
    parts = []
    for run, role in enumerate(_ROLES):
        if when := [when for i, when in speed.missing if i == run]:
            parts.append(f"{role} has no calibration at its {' and '.join(when)}")
    return f"{' and '.join(parts)}: what the machine drifted cannot be seen, and no interval allows for it"


def _remedies(comparison: Comparison) -> list[str]:
    """What to do where nobody can tell."""
    judged = [row.judged for row in comparison.rows if row.judged]
    causes = {ratio.cause for ratio in judged}
    found = []
    if "drift" in causes:
        found.append("to tell in spite of the machine's drift, measure both in turn with resnet-bench duel")
    if "processes" in causes:
        found.append(f"a verdict needs {LEAST_VALUES} processes of each file: measure with --processes")
    if any(ratio.doubtful for ratio in judged):
        found.append(
            f"verdicts from fewer than {ENOUGH_PROCESSES} processes may be wrong where processes have modes, such as "
            f"two memory layouts: measure with --processes {ENOUGH_PROCESSES} or more"
        )
    return found


def _mark_text(mark: Mark) -> str:
    return f"{mark.file}, {', '.join(mark.networks)}: {mark.text}"


def _factor(ratio: float) -> str:
    """A ratio as a factor of at least 1: 0.5 and 2 are both `2.00×`."""
    factor = max(ratio, 1 / ratio)
    return f"{factor:.2f}×" if factor < 1000 else f"{factor:.1e}×"
