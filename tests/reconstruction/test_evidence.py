"""The evidence beyond the counts leaves one design, and its order is from the strongest to the weakest."""

from __future__ import annotations

from resnet_bench.reconstruction import CANONICAL, EVIDENCE, against
from resnet_bench.reconstruction.evidence import BLOCKS2_SLOWER


def test_evidence_rejects_every_design_but_the_canonical(found):
    assert [d for d in found.designs if not against(d)] == [CANONICAL]


def test_published_times_come_before_assumptions():
    kinds = [e.kind for e in EVIDENCE]
    assert kinds == sorted(kinds, key=["time", "assumption"].index)


def test_blocks2_evidence_accepts_only_designs_whose_blocks2_is_larger_than_the_baseline(found):
    for design in found.designs:
        assert BLOCKS2_SLOWER.accepts(design) == (design.counts["blocks2"] > design.counts["baseline"])
