"""The study's claims, judged: *reproduced*, *not reproduced*, *holds* or *does not hold elsewhere*, or *undecided*.

`judge` judges every claim of `paper.CLAIMS`; each has one rule in `RULES`. These principles hold for all rules:

- A claim is one or more conditions (`analysis.conditions`): the mean of a quantity lies in a range. A condition holds
  where the whole Student-t interval lies in the range, and fails where the whole interval lies outside. So no rule
  decides on a point estimate, and nothing is reproduced because it is not significant.
- The interval is over seeds for accuracies and over processes for times. Fewer than `intervals.LEAST_VALUES` decide
  nothing. The evidence then says how many more seeds would do, from the scatter of those there are.
- The probability that any verdict of the table is false is `judging.FALSE_VERDICTS` at most. The claims for which there
  are data share it by Holm's method, and so do the conditions of a claim, such as its epochs.
- Accuracy. A rule uses trainings on the whole of CIFAR-100, with the paper's recipe, for as many epochs as the claim
  speaks of, on an engine that computes the paper's training in float32. It uses one run of each seed, and of longer
  trainings only the first 15 epochs. Networks are compared seed by seed (`accuracy_rules` says why). A peak is a
  maximum, so it is compared with a peak of as many epochs on as many test images.
- Elsewhere. A claim about order or shape for which there are not enough seeds of that is judged on other real images,
  with the paper's recipe but for the number of epochs, under a verdict that names them. Published accuracies and leads
  in points are no yardstick there. Synthetic images have no such verdict.
- Time. A rule uses the paper's program: the `reference` engine with the `loader` pipeline, 2 workers and the paper's
  recipe. It compares times of a step, within one session, process by process. Whether a network is faster is judged on
  any data set. Published minutes and their factors are means over 15 epochs, so they are judged only on times whose
  points span as many steps on real images. Where there are several sessions, all that decide a claim have to agree.
- Published numbers. An accuracy is reproduced within `accuracy_rules.ACCURACY_MARGIN` of the printed one, which is one
  run: its scatter is that of one more seed. A time is reproduced within `time_rules.TIME_MARGIN` of what rounds to the
  printed ones (`paper.MINUTES_ROUNDING`). The margins are stated here, before anything is measured.
- Causes. A claim about a cause is judged by a control network, which changes only the supposed cause or keeps it fixed.
  The claim is reproduced where the cause accounts for more than half of the effect that the paper's variant has in
  these results, and not reproduced where it accounts for less than half. Effects on accuracy are measured in points,
  effects on time by the logarithm of the ratio of times.
"""

from resnet_bench.analysis.claims.judging import RULES, JudgedClaim, judge
from resnet_bench.analysis.claims.outcome import (
    FAILS_ELSEWHERE,
    HOLDS_ELSEWHERE,
    NOT_REPRODUCED,
    OUTCOMES,
    REPRODUCED,
    UNDECIDED,
    Outcome,
)

__all__ = [
    "FAILS_ELSEWHERE",
    "HOLDS_ELSEWHERE",
    "NOT_REPRODUCED",
    "OUTCOMES",
    "REPRODUCED",
    "RULES",
    "UNDECIDED",
    "JudgedClaim",
    "Outcome",
    "judge",
]
