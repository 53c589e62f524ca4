"""The rule of each claim, and what the results say about every claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from resnet_bench.analysis.claims.accuracy_rules import (
    below_baseline_throughout,
    cause_accounts_for_accuracy,
    converges,
    crosses_baseline,
    final_is_as_published,
    higher_peak_than_baseline,
    leads_baseline_early,
    lower_peak_than_baseline,
    peak_is_as_published,
    still_rises,
)
from resnet_bench.analysis.claims.count_rules import counts_are_as_printed, kernel_lowers_count
from resnet_bench.analysis.claims.outcome import UNDECIDABLE, Judgement, Outcome, Undecided
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
from resnet_bench.paper import CLAIMS, PUBLISHED, Claim
from resnet_bench.results.samples import Samples

Rule = Callable[[Selection], Judgement]

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
    **{f"{name}-peak": partial(peak_is_as_published, name=name) for name in PUBLISHED},
    "fc1-higher": partial(higher_peak_than_baseline, name="fc1"),
    "fc3-lower": partial(lower_peak_than_baseline, name="fc3"),
    "blocks2-lower": partial(lower_peak_than_baseline, name="blocks2"),
    "conv5x5-higher": partial(higher_peak_than_baseline, name="conv5x5"),
    "fc1-early-lead": partial(leads_baseline_early, name="fc1", epochs=5, lead=(0.05, 0.07)),
    "baseline-converges": partial(converges, name="baseline", epochs=(5, 6), level=0.35),
    "baseline-final": partial(final_is_as_published, name="baseline"),
    "fc3-converges": partial(converges, name="fc3", epochs=(4, 5)),
    "fc3-final": partial(final_is_as_published, name="fc3"),
    "blocks2-below": partial(below_baseline_throughout, name="blocks2"),
    "conv5x5-crossing": partial(crosses_baseline, name="conv5x5", last_below=10),
    "conv5x5-rising": partial(still_rises, name="conv5x5"),
    "parameters-time": in_every_setting(time_falls_with_parameters, "fc1", "blocks2-same"),
    "kernel-parameters": kernel_lowers_count,
    "kernel-time": in_every_setting(cause_accounts_for_time, "conv5x5", "conv5x5-same", cause="the kernel"),
    "depth-time": in_every_setting(cause_accounts_for_time, "blocks2", "blocks2-same", cause="the depth"),
    "depth-accuracy": partial(
        cause_accounts_for_accuracy, variant="blocks2", control="blocks2-same", cause="the depth"
    ),
}
"""The rule of each claim, by the claim's id."""


@dataclass(frozen=True)
class JudgedClaim:
    """A claim with its outcome.

    Attributes:
        evidence: one line with numbers, intervals and seeds, or the reason why there are none.
    """

    claim: Claim
    outcome: Outcome
    evidence: str


def judge(samples: Samples) -> list[JudgedClaim]:
    """Judge every claim of the study by all samples together, in the order of `paper.CLAIMS`."""
    selection = Selection(samples)
    judged = []
    for claim in CLAIMS:
        try:
            judgement = RULES[claim.id](selection)
        except Undecided as reason:
            judgement = Judgement(UNDECIDABLE, str(reason))
        judged.append(JudgedClaim(claim, judgement.outcome, " ".join(judgement.evidence.split())))
    return judged
