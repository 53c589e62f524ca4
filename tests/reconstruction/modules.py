"""The family's networks as real torch modules, which say what the closed forms must give."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from resnet_bench.paper import PUBLISHED
from resnet_bench.reconstruction import Body, Design, reconstruct
from resnet_bench.reconstruction.family import BLOCK_WIDTHS, STEM_MAPS, STEM_WIDTHS

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

reconstruct_once = cache(reconstruct)  # for the strategies too, which take no fixtures


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
