"""What is called forced is so in every design found, and what is not is called an assumption."""

from __future__ import annotations

from resnet_bench.reconstruction import against, decisions


def test_a_quantity_is_called_forced_only_where_all_matching_designs_agree(found):
    by_name = {d.quantity: d for d in decisions(found)}
    assert by_name["FC of the baseline"].decided_by == "counts"
    assert {(d.body.features, d.hidden) for d in found.designs} == {(8192, 1000)}
    assert by_name["block strides"].decided_by == "assumption"
    assert len({d.body.strides for d in found.designs if all(e.kind != "time" for e in against(d))}) > 1
    assert all(d.canonical in d.by_times and set(d.by_times) <= set(d.by_counts) for d in by_name.values())
