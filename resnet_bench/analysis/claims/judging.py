"""The rule of each claim, and what the results say about every claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from resnet_bench.analysis.claims.accuracy_rules import (
    below_baseline_throughout,
    cause_lowers_accuracy,
    converges,
    crosses_baseline,
    final_is_as_published,
    higher_peak_than_baseline,
    leads_baseline,
    lower_peak_than_baseline,
    of_curves,
    peak_is_as_published,
    still_rises,
)
from resnet_bench.analysis.claims.count_rules import counts_are_as_printed, kernel_lowers_count
from resnet_bench.analysis.claims.outcome import UNDECIDED, Judgement, Outcome, Undecided, Untestable
from resnet_bench.analysis.claims.selection import Selection
from resnet_bench.analysis.claims.time_rules import (
    cause_accounts_for_time,
    factor_is_as_published,
    faster_than_baseline,
    in_every_setting,
    minutes_are_as_published,
    slower_than_baseline,
    time_falls_with_parameters,
)
from resnet_bench.analysis.conditions import step_down
from resnet_bench.paper import CLAIMS, EPOCHS, PUBLISHED, Claim
from resnet_bench.results.samples import Samples

FALSE_VERDICTS = 0.05
"""The probability that any verdict on any claim is false, at most."""

LEAST_EPOCHS = 3
"""Elsewhere, a claim about peaks or about every epoch needs so many epochs: with fewer, a training has only begun."""

Rule = Callable[[Selection, float], Judgement]
"""What judges a claim, given the probability with which its verdict may be false."""

_against_baseline = partial(of_curves, least_epochs=LEAST_EPOCHS)
_whole_curve = partial(of_curves, least_epochs=EPOCHS)

RULES: dict[str, Rule] = {
    "table1": partial(counts_are_as_printed, table=1),
    "table2": partial(counts_are_as_printed, table=2),
    "baseline-minutes": in_every_setting(minutes_are_as_published, "baseline"),
    "fc1-faster": in_every_setting(faster_than_baseline, "fc1"),
    "fc1-factor": in_every_setting(factor_is_as_published, "fc1"),
    "fc3-slower": in_every_setting(slower_than_baseline, "fc3"),
    "fc3-factor": in_every_setting(factor_is_as_published, "fc3"),
    "blocks2-slower": in_every_setting(slower_than_baseline, "blocks2"),
    "blocks2-factor": in_every_setting(factor_is_as_published, "blocks2"),
    "conv5x5-faster": in_every_setting(faster_than_baseline, "conv5x5"),
    "conv5x5-factor": in_every_setting(factor_is_as_published, "conv5x5"),
    **{f"{name}-peak": of_curves(peak_is_as_published, name) for name in PUBLISHED},
    "fc1-higher": _against_baseline(higher_peak_than_baseline, "fc1", "baseline"),
    "fc3-lower": _against_baseline(lower_peak_than_baseline, "fc3", "baseline"),
    "blocks2-lower": _against_baseline(lower_peak_than_baseline, "blocks2", "baseline"),
    "conv5x5-higher": _against_baseline(higher_peak_than_baseline, "conv5x5", "baseline"),
    "fc1-early-lead": of_curves(leads_baseline, "fc1", "baseline", epochs=5, least_epochs=5, lead=(0.05, 0.07)),
    "baseline-converges": _whole_curve(converges, "baseline", first=5, last=6, level=0.35),
    "baseline-final": of_curves(final_is_as_published, "baseline"),
    "fc3-converges": _whole_curve(converges, "fc3", first=4, last=5),
    "fc3-final": of_curves(final_is_as_published, "fc3"),
    "blocks2-below": _against_baseline(below_baseline_throughout, "blocks2", "baseline"),
    "conv5x5-crossing": _whole_curve(crosses_baseline, "conv5x5", "baseline", last_below=10),
    "conv5x5-rising": _whole_curve(still_rises, "conv5x5"),
    "parameters-time": in_every_setting(time_falls_with_parameters, "fc1", "blocks2-same"),
    "kernel-parameters": kernel_lowers_count,
    "kernel-time": in_every_setting(cause_accounts_for_time, "conv5x5", "conv5x5-same", cause="the kernel"),
    "depth-time": in_every_setting(cause_accounts_for_time, "blocks2", "blocks2-same", cause="the depth"),
    "depth-accuracy": _against_baseline(
        cause_lowers_accuracy, "blocks2", "blocks2-same", "baseline", cause="the depth"
    ),
}
"""The rule of each claim, by the claim's id."""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its outcome.

    Attributes:
        evidence: one line with numbers, intervals and seeds, or the reason why there are none.
        place: the data set that it was judged on where the outcome is one of those elsewhere; else empty.
    """

    claim: Claim
    outcome: Outcome
    evidence: str
    place: str = ""

    @property
    def verdict(self) -> str:
        """`reproduced`, or `holds on CIFAR-10`."""
        return self.outcome.replace("elsewhere", f"on {self.place}") if self.place else self.outcome


def judge(samples: Samples) -> list[JudgedClaim]:
    """Judge every claim of the study by all samples together, in the order of `paper.CLAIMS`."""
    return judge_selection(Selection(samples))


def judge_selection(selection: Selection) -> list[JudgedClaim]:
    """Judge every claim so that any verdict is false with the probability `FALSE_VERDICTS` at most.

    The claims that the results can say something about are the family, and share this error by Holm's method. Whether a
    claim is one of them depends on what was measured, not on the values.
    """
    without_data: dict[str, str] = {}
    still_open: dict[str, str] = {}

    def ask(claim: str, error: float) -> Judgement | None:
        try:
            return RULES[claim](selection, error)
        except Untestable as reason:
            without_data[claim] = str(reason)
        except Undecided as reason:
            still_open[claim] = str(reason)
        return None

    ids = [claim.id for claim in CLAIMS]
    for claim in ids:
        ask(claim, FALSE_VERDICTS)
    family = [claim for claim in ids if claim not in without_data]
    judgements = step_down({claim: partial(ask, claim) for claim in family}, FALSE_VERDICTS)
    left = len(ids) - len(judgements)
    for claim in without_data:  # how many seeds it takes, once the claim is one of those that share the error
        ask(claim, FALSE_VERDICTS / left)

    def judged(claim: Claim) -> JudgedClaim:
        reason = without_data.get(claim.id) or still_open.get(claim.id, "")
        found = judgements.get(claim.id) or Judgement(UNDECIDED, reason)
        return JudgedClaim(claim, found.outcome, " ".join(found.evidence.split()), found.place)

    return [judged(claim) for claim in CLAIMS]
