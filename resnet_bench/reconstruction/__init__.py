"""Which networks fit the published parameter counts: a search over a family of designs, and what decides between them.

The study prints four parameter counts, rounded to 0.1M, and no layer widths. The modules, in the order of the argument:

- `family`: the designs that are searched, with the exact counts of each.
- `evidence`: what speaks against a design beyond the counts. Published epoch times come first, customary style last.
- `search`: every design of the family whose counts round to the published ones. There are many.
- `conclusions`: how far each part of the canonical design (the one in `resnet_bench.architectures`) is thereby known.
"""

from resnet_bench.reconstruction.conclusions import (
    CheckedClaim,
    Decision,
    checked_claims,
    decisions,
    designs_by_body,
    designs_that_fit_times,
    funnel,
)
from resnet_bench.reconstruction.evidence import EVIDENCE, Evidence, against
from resnet_bench.reconstruction.family import CANONICAL, FAMILY, Body, Design
from resnet_bench.reconstruction.search import Reconstruction, reconstruct

__all__ = [
    "CANONICAL",
    "EVIDENCE",
    "FAMILY",
    "Body",
    "CheckedClaim",
    "Decision",
    "Design",
    "Evidence",
    "Reconstruction",
    "against",
    "checked_claims",
    "decisions",
    "designs_by_body",
    "designs_that_fit_times",
    "funnel",
    "reconstruct",
]
