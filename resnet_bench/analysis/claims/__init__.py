"""The study's claims, judged: *reproduced*, *not reproduced* or *not decidable from these results*, with the evidence.

`judge` judges every claim of `paper.CLAIMS`; each has one rule in `RULES`. These principles hold for all rules:

- No rule decides on a point estimate. A network counts as faster, or its accuracy as higher, only where the 95 %
  interval leaves out equality.
- Accuracy. A rule uses only trainings on the whole of CIFAR-100, with the paper's recipe, for at least as many epochs
  as the claim speaks of, on an engine that computes the paper's training in float32. It uses one run of each seed, and
  of longer trainings only the first 15 epochs. Intervals are those of `resnet-bench compare`: Newcombe's interval for
  a difference of two proportions of the 10,000 test images, with the seeds pooled. Where seeds scatter more than the
  choice of test images explains, the pooled images count for fewer. A comparison of two networks needs at least
  `selection.LEAST_SEEDS` seeds of each, because one seed does not show that scatter.
- Time. A rule uses the paper's program: the `reference` engine with the `loader` pipeline, 2 workers and the paper's
  recipe. It compares times of a step, so any data set will do: in the paper every epoch has the same number of steps.
  It takes ratios within one machine, data set and number of threads. It pairs blocks by round where both networks were
  measured in one session; the interval is a bootstrap. Where there are several such settings, all that decide the
  claim have to agree. A measurement that several files hold counts once.
- Published numbers. A published number stands for the range that rounds to it: ± 0.5 points for an accuracy, which is
  also taken as one run with 10,000 test images; `paper.MINUTES_ROUNDING` for minutes. The number is reproduced where
  the measured interval overlaps that range. Where the interval is too wide for an overlap to mean something
  (`time_rules.TIME_PRECISION`, `accuracy_rules.ACCURACY_PRECISION`), the claim is not decidable.
- Causes. A claim about a cause is judged by a control network, which changes only the supposed cause or keeps it fixed.
  The claim is reproduced where the cause accounts for more than half of the effect that the paper's variant has in
  these results, and not reproduced where it accounts for less than half. Effects on accuracy are measured in points,
  effects on time by the logarithm of the ratio of times.
"""

from resnet_bench.analysis.claims.judging import RULES, JudgedClaim, judge
from resnet_bench.analysis.claims.outcome import NOT_REPRODUCED, REPRODUCED, UNDECIDABLE, Outcome

__all__ = ["NOT_REPRODUCED", "REPRODUCED", "RULES", "UNDECIDABLE", "JudgedClaim", "Outcome", "judge"]
