"""What follows from the search: how far each part of the canonical design is known, and which claims about it hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from resnet_bench.architectures import millions
from resnet_bench.reconstruction.evidence import BLOCKS2_SLOWER, EVIDENCE, against
from resnet_bench.reconstruction.family import BLOCKS, CANONICAL, NUM_CLASSES, Body, Design
from resnet_bench.reconstruction.search import Reconstruction, conv5x5_options, fc3_pairs


def designs_that_fit_times(found: Reconstruction) -> list[Design]:
    """The designs that fit the published counts and epoch times; only assumptions decide between them."""
    return [d for d in found.designs if all(e.kind != "time" for e in against(d))]


def designs_by_body(found: Reconstruction) -> list[list[Design]]:
    """The designs grouped by stem, block widths, block strides and shortcut kernel, in the order of `found.designs`."""
    groups: dict[tuple[Any, ...], list[Design]] = defaultdict(list)
    for d in found.designs:
        groups[d.body.stem_width, d.body.stem_map, d.body.widths, d.body.strides, d.body.shortcut_kernel].append(d)
    return list(groups.values())


def funnel(found: Reconstruction) -> dict[str, int]:
    """How many candidates are left after each published count and each piece of evidence, by its description."""
    left = {
        "bodies in the family": found.bodies,
        "bodies that fit fc1": found.fc1_bodies,
        "baselines (body and hidden width) that fit fc1 and baseline": len(found.baselines),
        "baselines that also fit fc3": found.fc3_baselines,
        "baselines that also fit fc3 and conv5x5": found.conv5x5_baselines,
        "designs (baseline, fc3, conv5x5) that fit all four counts": len(found.designs),
    }
    designs = list(found.designs)
    for evidence in EVIDENCE:
        designs = [d for d in designs if evidence.accepts(d)]
        left[f"designs that also pass {evidence.id} ({evidence.kind})"] = len(designs)
    return left


# Decisions ----------------------------------------------------------------------------------------------------------


def dashed(values: Iterable[object]) -> str:
    """(64, 64, 128, 128) → `64-64-128-128`."""
    return "-".join(map(str, values))


def _first_fc(body: Body, hidden: int) -> str:
    return f"{body.features}→{hidden}→{NUM_CLASSES}"


QUANTITIES: dict[str, Callable[[Design], str]] = {
    "FC of the baseline": lambda d: _first_fc(d.body, d.hidden),
    "map before the FC": lambda d: f"{d.body.map_size}×{d.body.map_size}",
    "conv5x5: map before the FC": lambda d: f"{d.conv5x5.map_size}×{d.conv5x5.map_size}",
    "conv5x5: kernels in a block": lambda d: ", ".join(f"{k}×{k}" for k in d.conv5x5_kernels),
    "stem width": lambda d: str(d.body.stem_width),
    "map after the stem": lambda d: f"{d.body.stem_map}×{d.body.stem_map}",
    "block widths": lambda d: dashed(d.body.widths),
    "block strides": lambda d: dashed(d.body.strides),
    "conv5x5: block strides": lambda d: dashed(d.conv5x5_strides),
    "blocks2: count": lambda d: millions(d.counts["blocks2"]),
    "shortcut kernel": lambda d: f"{d.body.shortcut_kernel}×{d.body.shortcut_kernel}",
    "shortcut batch norm": lambda d: "yes" if d.body.shortcut_batch_norm else "no",
    "convolution bias": lambda d: "yes" if d.body.conv_bias else "no",
    "fc3: hidden widths": lambda d: "→".join(map(str, d.fc3_hidden)),
}
"""The quantities that make up a design, by name; each function gives a design's value as text."""


@dataclass(frozen=True)
class Decision:
    """How far one quantity of the canonical design is known.

    Attributes:
        quantity: a key of `QUANTITIES`.
        canonical: the canonical design's value.
        by_counts: the values of all designs that fit the published counts.
        by_times: the values of those that also fit the published epoch times.
        decided_by: the strongest of `counts`, `times` and `assumption` that leaves the canonical value alone.
    """

    quantity: str
    canonical: str
    by_counts: tuple[str, ...]
    by_times: tuple[str, ...]
    decided_by: Literal["counts", "times", "assumption"]


def decisions(found: Reconstruction) -> list[Decision]:
    """One `Decision` for each of `QUANTITIES`."""
    timed = designs_that_fit_times(found)
    result = []
    for quantity, value in QUANTITIES.items():
        by_counts = tuple(dict.fromkeys(map(value, found.designs)))
        by_times = tuple(dict.fromkeys(map(value, timed)))
        decided_by: Literal["counts", "times", "assumption"] = (
            "counts" if len(by_counts) == 1 else "times" if len(by_times) == 1 else "assumption"
        )
        result.append(Decision(quantity, value(CANONICAL), by_counts, by_times, decided_by))
    return result


# Claims -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckedClaim:
    """A tempting claim about the canonical design, checked against all designs found.

    Attributes:
        claim: the claim, in words.
        holds: whether it holds in the family.
        detail: the numbers behind the answer.
    """

    claim: str
    holds: bool
    detail: str


def checked_claims(found: Reconstruction) -> list[CheckedClaim]:
    """The claims that one would like to make about the canonical design, each with the answer of the search."""
    body = CANONICAL.body
    canonical_fc = _first_fc(body, CANONICAL.hidden)
    result = []

    fits = Counter(_first_fc(b, h) for b, h in found.baselines)
    rounder = {_first_fc(b, h) for b, h in found.baselines if h & (h - 1) == 0 or h % 1000 == 0}
    left = {_first_fc(d.body, d.hidden) for d in found.designs}
    result.append(
        CheckedClaim(
            f"FC {canonical_fc} is the only one that fits the baseline and fc1 together",
            set(fits) == {canonical_fc},
            f"bodies that fit both: {_tally(fits)}. Hidden widths that are powers of two or whole thousands: only "
            f"{_listed(rounder)}. With fc3 and conv5x5: only {_listed(left)}",
        )
    )

    usual = [d for d in found.designs if d.body.shortcut_kernel == 1]
    shapes = Counter(_shape(d.body) for d in usual)
    narrow = {_shape(d.body) for d in usual if d.body.stem_width <= d.body.widths[0]}
    result.append(
        CheckedClaim(
            f"with 1×1 shortcuts, stem and widths are {_shape(body)}",
            set(shapes) == {_shape(body)},
            f"designs: {_tally(shapes)}. Where the stem is not wider than the first block: only {_listed(narrow)}",
        )
    )

    any_stem = [d for d in found.designs if BLOCKS2_SLOWER.accepts(d)]
    slower = [d for d in any_stem if d.body.stem_map == body.stem_map]
    orders = Counter(f"{dashed(d.body.strides)} ({_shape(d.body)})" for d in slower)
    same = {dashed(d.body.strides) for d in slower if _shape(d.body) == _shape(body)}
    other_stems = {d.body.stem_map for d in any_stem} - {body.stem_map}
    result.append(
        CheckedClaim(
            f"after a stride-2 stem, only strides {dashed(body.strides)} explain why blocks2 is slower",
            {dashed(d.body.strides) for d in slower} == {dashed(body.strides)},
            f"designs: {_tally(orders)}. With {_shape(body)}: only {_listed(same)}. Other stems that explain it: "
            + (_listed(f"map {m}×{m}" for m in other_stems) or "none"),
        )
    )

    maps = {f"{d.conv5x5.map_size}×{d.conv5x5.map_size}" for d in found.designs}
    result.append(
        CheckedClaim("conv5x5 needs a 2×2 map before its FC layers", maps == {"2×2"}, f"maps found: {_listed(maps)}")
    )

    options = conv5x5_options(body, CANONICAL.hidden)
    variants = {
        (d.body.stem_map, d.body.strides, d.conv5x5_kernels, d.conv5x5_strides)
        for d in usual
        if _shape(d.body) == _shape(body)
    }
    result.append(
        CheckedClaim(
            "with the canonical baseline, one conv5x5 fits",
            len(options) == 1,
            "; ".join(f"{k[0]}×{k[0]} then {k[1]}×{k[1]}, strides {dashed(s)}" for k, s in options)
            + f". With its widths and 1×1 shortcuts but any stem map and strides of the baseline: {len(variants)}",
        )
    )

    smallest = min(body.with_5x5((5, 5), s).parameters for s in product((1, 2), repeat=BLOCKS))
    result.append(
        CheckedClaim(
            "with both convolutions 5×5, the canonical body alone is above 1.8M",
            smallest > 1_800_000,
            f"the smallest has {smallest:,} parameters",
        )
    )

    pairs = fc3_pairs(body.parameters, body.features)
    unordered = fc3_pairs(body.parameters, body.features, any_order=True)
    result.append(
        CheckedClaim(
            f"with the canonical baseline, fc3's hidden widths {'→'.join(map(str, CANONICAL.fc3_hidden))} are forced",
            pairs == (CANONICAL.fc3_hidden,),
            f"{len(pairs)} pairs fit: {_listed('→'.join(map(str, p)) for p in pairs)}. "
            f"If the second may be the wider: {len(unordered)}",
        )
    )
    return result


def _shape(body: Body) -> str:
    return f"{body.stem_width}, {dashed(body.widths)}"


def _tally(counter: Counter[str]) -> str:
    return "; ".join(f"{name}: {number}" for name, number in counter.most_common())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
