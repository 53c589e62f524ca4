"""The search for every design of the family whose parameter counts round to the published ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, product

from resnet_bench.architectures import millions
from resnet_bench.paper import PUBLISHED
from resnet_bench.reconstruction.evidence import EVIDENCE
from resnet_bench.reconstruction.family import (
    BLOCK_WIDTHS,
    BLOCKS,
    HIDDEN_WIDTHS,
    KERNELS_5X5,
    NUM_CLASSES,
    SHORTCUT_KERNELS,
    STEM_MAPS,
    STEM_WIDTHS,
    Body,
    Design,
    fc_parameters,
)


@dataclass(frozen=True)
class Reconstruction:
    """What the search found.

    Attributes:
        bodies: how many bodies the family has.
        fc1_bodies: how many of them fit `fc1`.
        baselines: the pairs of body and hidden width that fit `fc1` and `baseline`.
        fc3_baselines: how many of these pairs also fit `fc3`.
        conv5x5_baselines: how many of these pairs also fit `fc3` and `conv5x5`.
        designs: all designs that fit the four published counts. They are sorted by the strongest evidence against
            them, the weakest first, so that the canonical design stands at the start.
    """

    bodies: int
    fc1_bodies: int
    baselines: tuple[tuple[Body, int], ...]
    fc3_baselines: int
    conv5x5_baselines: int
    designs: tuple[Design, ...]


def reconstruct() -> Reconstruction:
    """Search the whole family; takes about a second."""
    bodies = fc1_bodies = fc3_baselines = conv5x5_baselines = 0
    baselines: list[tuple[Body, int]] = []
    designs: list[Design] = []
    for body in family_bodies():
        bodies += 1
        if not rounds_to_published(body.count(), "fc1"):
            continue
        fc1_bodies += 1
        for hidden in HIDDEN_WIDTHS:
            if not rounds_to_published(body.count(hidden), "baseline"):
                continue
            baselines.append((body, hidden))
            pairs = fc3_pairs(body.parameters, body.features)
            options = conv5x5_options(body, hidden)
            fc3_baselines += bool(pairs)
            conv5x5_baselines += bool(pairs and options)
            designs += [Design(body, hidden, pair, *option) for pair, option in product(pairs, options)]
    designs.sort(key=lambda d: [not evidence.accepts(d) for evidence in EVIDENCE])
    return Reconstruction(bodies, fc1_bodies, tuple(baselines), fc3_baselines, conv5x5_baselines, tuple(designs))


def rounds_to_published(count: int, architecture: str) -> bool:
    """Whether a parameter count, rounded to 0.1M, is the one that the paper prints for the architecture."""
    return millions(count) == PUBLISHED[architecture].parameters


def family_bodies() -> Iterator[Body]:
    """Every body of the family."""
    for stem_width, stem_map, widths, strides, bias, kernel, batch_norm in product(
        STEM_WIDTHS,
        STEM_MAPS,
        combinations_with_replacement(BLOCK_WIDTHS, BLOCKS),
        product((1, 2), repeat=BLOCKS),
        (False, True),
        SHORTCUT_KERNELS,
        (False, True),
    ):
        yield Body(stem_width, stem_map, widths, strides, bias, kernel, batch_norm)


@cache
def fc3_pairs(body_parameters: int, features: int, any_order: bool = False) -> tuple[tuple[int, int], ...]:
    """The pairs of hidden widths that give `fc3` its published count; `any_order` lets the second be the wider."""
    return tuple(
        (first, second)
        for first, second in product(HIDDEN_WIDTHS, repeat=2)
        if (any_order or first >= second)
        and min(first, second) >= NUM_CLASSES
        and rounds_to_published(body_parameters + fc_parameters(features, first, second), "fc3")
    )


def conv5x5_options(body: Body, hidden: int) -> list[tuple[tuple[int, int], tuple[int, ...]]]:
    """The kernels and block strides that give `conv5x5` its published count."""
    return [
        (kernels, strides)
        for kernels, strides in product(KERNELS_5X5, product((1, 2), repeat=BLOCKS))
        if rounds_to_published(body.with_5x5(kernels, strides).count(hidden), "conv5x5")
    ]
