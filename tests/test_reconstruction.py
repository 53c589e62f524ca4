"""The search for designs that fit the published counts: exact, sound, complete, and honest about what it decides."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from functools import cache
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resnet_bench import cli
from resnet_bench.architectures import ARCHITECTURES, parameter_count
from resnet_bench.paper import PUBLISHED
from resnet_bench.reconstruction import (
    BLOCK_WIDTHS,
    CANONICAL,
    EVIDENCE,
    HIDDEN_WIDTHS,
    KERNELS_5X5,
    STEM_MAPS,
    STEM_WIDTHS,
    Body,
    Design,
    Reconstruction,
    decisions,
    findings,
    search,
)

FIT = ("baseline", "fc1", "fc3", "conv5x5")  # the networks whose counts are published

BODIES = st.builds(
    Body,
    stem_width=st.sampled_from(STEM_WIDTHS),
    stem_map=st.sampled_from(STEM_MAPS),
    widths=st.tuples(*[st.sampled_from(BLOCK_WIDTHS)] * 4).map(lambda widths: tuple(sorted(widths))),
    strides=st.tuples(*[st.sampled_from((1, 2))] * 4),
    conv_bias=st.booleans(),
    shortcut_kernel=st.sampled_from((1, 3)),
    shortcut_batch_norm=st.booleans(),
)
HIDDEN = st.sampled_from(HIDDEN_WIDTHS)


class Block(nn.Module):
    """A basic block with every option of the family, written without regard to the closed form."""

    def __init__(self, body: Body, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
            return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=body.conv_bias)

        first, second = body.kernels
        self.residual = nn.Sequential(
            convolution(inputs, outputs, first, stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            convolution(outputs, outputs, second),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(convolution(inputs, outputs, body.shortcut_kernel, stride))
            if body.shortcut_batch_norm:
                self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.residual(x) + self.shortcut(x))


def module(body: Body) -> nn.Sequential:
    """The body as a torch module."""
    inputs = (body.stem_width, *body.widths)
    return nn.Sequential(
        nn.Conv2d(3, body.stem_width, 7, 32 // body.stem_map, padding=3, bias=body.conv_bias),
        nn.BatchNorm2d(body.stem_width),
        nn.ReLU(),
        *(Block(body, i, o, s) for i, o, s in zip(inputs, body.widths, body.strides, strict=False)),
        nn.Flatten(),
    )


def counted(body: Body, *hidden: int) -> int:
    """Parameters of the real module, whose FC layers take what its body really gives; on the `meta` device."""
    with torch.device("meta"):
        network = module(body)
        sizes = (network(torch.empty(2, 3, 32, 32)).shape[1], *hidden, 100)
        for i, o in pairwise(sizes):
            network.append(nn.Linear(i, o))
    return sum(p.numel() for p in network.parameters())


def counted_networks(design: Design) -> dict[str, int]:
    """Parameters of the five networks as real modules."""
    body = design.body
    conv5x5 = replace(body, kernels=design.conv5x5_kernels, strides=design.conv5x5_strides)
    return {
        "baseline": counted(body, design.hidden),
        "fc1": counted(body),
        "fc3": counted(body, *design.fc3_hidden),
        "blocks2": counted(replace(body, widths=body.widths[:2], strides=body.strides[:2]), design.hidden),
        "conv5x5": counted(conv5x5, design.hidden),
    }


def fits(counts: dict[str, int], networks: tuple[str, ...] = FIT) -> bool:
    return all(f"{counts[a] / 1e6:.1f}M" == PUBLISHED[a].parameters for a in networks)


search_once = cache(search)  # for the strategies too, which take no fixtures


@pytest.fixture(scope="module")
def found() -> Reconstruction:
    return search_once()


@settings(deadline=None, max_examples=40)
@given(
    BODIES, HIDDEN, st.tuples(HIDDEN, HIDDEN), st.sampled_from(KERNELS_5X5), st.tuples(*[st.sampled_from((1, 2))] * 4)
)
def test_closed_form_counts_what_torch_counts(body, hidden, fc3_hidden, kernels, strides):
    design = Design(body, hidden, fc3_hidden, kernels, strides)
    assert design.counts == counted_networks(design)


def test_canonical_design_is_the_five_architectures():
    assert CANONICAL.counts == {a: parameter_count(architecture) for a, architecture in ARCHITECTURES.items()}


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
    design = draw(st.sampled_from(search_once().designs))
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
    assert (design in search_once().designs) == fits(design.counts)


def test_each_count_of_the_funnel_narrows_the_one_before(found):
    assert found.bodies == 3 * 3 * 70 * 16 * 2 * 2 * 2
    assert found.bodies > found.fc1_bodies >= len({body for body, _ in found.baselines})
    assert len(found.baselines) >= found.fc3_baselines >= found.conv5x5_baselines
    assert found.conv5x5_baselines == len({(d.body, d.hidden) for d in found.designs})


def test_evidence_rejects_every_design_but_the_canonical(found):
    assert [d for d in found.designs if not d.against] == [CANONICAL]


def test_published_times_come_before_assumptions():
    kinds = [e.kind for e in EVIDENCE]
    assert kinds == sorted(kinds, key=["time", "assumption"].index)


def test_blocks2_evidence_accepts_only_designs_whose_blocks2_is_larger_than_the_baseline(found):
    for design in found.designs:
        assert EVIDENCE[0].accepts(design) == (design.counts["blocks2"] > design.counts["baseline"])


def test_a_quantity_is_called_forced_only_where_all_matching_designs_agree(found):
    by_name = {d.quantity: d for d in decisions(found)}
    assert by_name["FC of the baseline"].decided_by == "counts"
    assert {(d.body.features, d.hidden) for d in found.designs} == {(8192, 1000)}
    assert by_name["block strides"].decided_by == "assumption"
    assert len({d.body.strides for d in found.designs if all(e.kind != "time" for e in d.against)}) > 1
    assert all(d.canonical in d.by_times and set(d.by_times) <= set(d.by_counts) for d in by_name.values())


def test_another_first_fc_fits_the_baseline_and_fc1():
    """The counter-example to `8192→1000→100 is forced`, on real modules."""
    body = Body(64, 8, (128, 128, 128, 128), (1, 1, 1, 2), False, 3, True)
    assert body.features == 2048
    assert fits({"baseline": counted(body, 3500), "fc1": counted(body)}, ("baseline", "fc1"))
    assert (body, 3500) in search_once().baselines
    assert not findings(search_once())[0].holds


def test_another_stem_fits_with_1x1_shortcuts():
    """The counter-example to `16, 64-64-128-128 is the only body with 1×1 shortcuts`, on real modules."""
    body = Body(64, 16, (32, 64, 128, 128), (1, 1, 1, 2), False, 1, True)
    other = replace(CANONICAL, body=body)
    counts = counted_networks(other)
    assert fits(counts)
    assert counts["blocks2"] > counts["baseline"]
    assert other in search_once().designs
    assert other.against[0].id == "stem-not-wider"


@pytest.mark.parametrize("output", ["text", "markdown"])
def test_command_prints_within_110_columns_or_as_markdown(output, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reconstruct", "--format", output])
    assert not exit_.value.code
    printed = capsys.readouterr().out
    assert "canonical" in printed
    assert "assumption" in printed
    if output == "text":
        assert max(map(len, printed.splitlines())) <= 110
    else:
        assert printed.startswith("## ")
        assert "|---" in printed


def test_command_prints_every_design_as_json(capsys, found):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reconstruct", "--format", "json"])
    assert not exit_.value.code
    result = json.loads(capsys.readouterr().out)
    assert len(result["designs"]) == len(found.designs)
    (canonical,) = (d for d in result["designs"] if d["canonical"])
    assert canonical["parameters"] == CANONICAL.counts
    assert canonical["decided_by"] is None
    ids = {e["id"] for e in result["evidence"]}
    assert all(d["decided_by"] in ids for d in result["designs"] if not d["canonical"])


def test_command_refuses_an_unknown_format(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reconstruct", "--format", "yaml"])
    assert exit_.value.code == 2
    assert "yaml" in capsys.readouterr().err
