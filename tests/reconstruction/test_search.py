"""The search is exact, sound and complete."""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_bench.reconstruction import CANONICAL, Body, Design, against, checked_claims
from resnet_bench.reconstruction.family import KERNELS_5X5
from tests.reconstruction.modules import BODIES, counted, counted_networks, fits, reconstruct_once


def test_canonical_design_is_found_once_and_first(found):
    assert [d.canonical for d in found.designs] == [True] + [False] * (len(found.designs) - 1)


def test_no_design_is_listed_twice(found):
    assert len(set(found.designs)) == len(found.designs)


def test_every_design_found_fits_when_counted_by_torch(found):
    for design in found.designs[::7]:
        assert fits(counted_networks(design))


@st.composite
def near_misses(draw: st.DrawFn) -> Design:
    """A family member one or two changes away from one that fits, so that both answers come up."""
    design = draw(st.sampled_from(reconstruct_once().designs))
    body, other = design.body, draw(BODIES)
    for name in draw(st.sets(st.sampled_from([f.name for f in fields(Body) if f.name != "kernels"]), max_size=2)):
        body = replace(body, **{name: getattr(other, name)})
    design = replace(design, body=body)
    if draw(st.booleans()):
        design = replace(
            design, fc3_hidden=draw(st.sampled_from([(2000, 600), (2048, 400), (1900, 1024), (2000, 700)]))
        )
    if draw(st.booleans()):
        options = st.sampled_from(list(product(KERNELS_5X5, product((1, 2), repeat=4))))
        kernels, strides = draw(options)
        design = replace(design, conv5x5_kernels=kernels, conv5x5_strides=strides)
    return design


@settings(deadline=None)
@given(near_misses())
def test_a_family_member_is_found_exactly_if_it_fits(design):
    assert (design in reconstruct_once().designs) == fits(design.counts)


def test_each_count_of_the_funnel_narrows_the_one_before(found):
    assert found.bodies == 3 * 3 * 70 * 16 * 2 * 2 * 2
    assert found.bodies > found.fc1_bodies >= len({body for body, _ in found.baselines})
    assert len(found.baselines) >= found.fc3_baselines >= found.conv5x5_baselines
    assert found.conv5x5_baselines == len({(d.body, d.hidden) for d in found.designs})


def test_another_first_fc_fits_the_baseline_and_fc1():
    """The counter-example to `8192→1000→100 is forced`, on real modules."""
    body = Body(64, 8, (128, 128, 128, 128), (1, 1, 1, 2), False, 3, True)
    assert body.features == 2048
    assert fits({"baseline": counted(body, 3500), "fc1": counted(body)}, ("baseline", "fc1"))
    assert (body, 3500) in reconstruct_once().baselines
    assert not checked_claims(reconstruct_once())[0].holds


def test_another_stem_fits_with_1x1_shortcuts():
    """The counter-example to `16, 64-64-128-128 is the only body with 1×1 shortcuts`, on real modules."""
    body = Body(64, 16, (32, 64, 128, 128), (1, 1, 1, 2), False, 1, True)
    other = replace(CANONICAL, body=body)
    counts = counted_networks(other)
    assert fits(counts)
    assert counts["blocks2"] > counts["baseline"]
    assert other in reconstruct_once().designs
    assert against(other)[0].id == "stem-not-wider"
