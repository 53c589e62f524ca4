"""Comparison of two result files, network by network: ratios and differences, each with its interval.

`compare` compares one file, OTHER, with another, BASE. These principles hold for all of it:

- Values. Each process gives one value, the mean of an epoch over the training; where a file has several sessions, each
  of these gives one (`resnet_bench.analysis.replicates`). Where a network was measured in both modes, only one mode
  counts, one that both files have.
- Intervals of times. Student's t on the logarithmic scale (`resnet_bench.analysis.ratios`): over pairs of processes for
  the files of one duel, by Welch's method otherwise. The intervals of all networks hold together with 95 %, so that a
  look at five networks does not find differences that do not exist. A difference is significant where the interval
  leaves out 1. A network with fewer than three processes in either file is «cannot tell».
- Drift. Files of one machine that were measured one after the other also differ by what the machine itself drifted,
  which no process of either shows. The calibrations at the start and the end of both say how far its speed differed
  (`resnet_bench.analysis.drift.speed_range`), and the intervals are wider by that factor at both ends. What is no
  longer significant then is «cannot tell».
- Machines. On one kind of machine the verdict is on the ratio of times. Between machines it is on the network's ratio
  to the baseline, which is taken within each machine and carries over to another. The ratio of times is then only
  explained: one factor is what the measured calibrations predict (the ratio of `machine.step_bound`), the other one is
  the rest. A calibration makes no verdict; it can only take one away.
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
