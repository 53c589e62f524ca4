"""Comparison of two result files, network by network: ratios and differences, each with its interval.

`compare` compares one file, OTHER, with another, BASE. These principles hold for all of it:

- Values. Each block says how long an epoch takes; these are the values of a network. Where a file has several runs of
  a network, its values are the means of the runs. Where a network was measured in both modes, only one mode counts,
  one that both files have.
- Intervals of times. The values of each file are resampled on their own, a round of all networks at once
  (`resnet_bench.analysis.bootstrap`), which gives the ratio of the means an interval. The intervals of all networks
  hold together with 95 %, so that a look at five networks does not find differences that do not exist. A difference is
  significant where the interval leaves out 1. A network with fewer than two values in either file is «cannot tell».
- Machines. On one kind of machine the verdict is on the ratio of times. Between machines it is on the network's ratio
  to the baseline, which is taken within each machine and carries over to another. The ratio of times is then only
  explained: one factor is what the measured calibrations predict (the ratio of `machine.step_bound`), the other one is
  the rest. A calibration never enters a verdict.
- Accuracy. The difference of two proportions of the test images, after the last epoch that all runs reached, with
  Newcombe's interval. Seeds are pooled, and each run counts once. Where seeds scatter, the interval gets wider, by
  Student's t.
"""

from resnet_bench.analysis.comparison.accuracy import AccuracyDifference
from resnet_bench.analysis.comparison.comparing import Comparison, Missing, Row, compare
from resnet_bench.analysis.comparison.explanation import Explanation
from resnet_bench.analysis.comparison.marks import Mark
from resnet_bench.analysis.comparison.networks import Role
from resnet_bench.analysis.comparison.times import BASELINE, Ratio, Verdict

__all__ = [
    "BASELINE",
    "AccuracyDifference",
    "Comparison",
    "Explanation",
    "Mark",
    "Missing",
    "Ratio",
    "Role",
    "Row",
    "Verdict",
    "compare",
]
