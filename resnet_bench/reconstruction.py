"""Which networks fit the published parameter counts: a search over a family of designs, and what decides between them.

The study prints four parameter counts, rounded to 0.1M, and no layer widths. `search` counts every design of `FAMILY`
exactly and keeps those whose four counts round to the published ones. Many do. `EVIDENCE` then says, in order of
strength, what speaks for the canonical design (the one in `resnet_bench.architectures`) against each of the rest: the
published epoch times where they decide, and else nothing but customary style, which is called an assumption here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from itertools import combinations_with_replacement, pairwise, product
from typing import Any

from tabulate import tabulate

from resnet_bench.architectures import ARCHITECTURES, BASELINE, IMAGE_SIZE, millions
from resnet_bench.paper import PUBLISHED

NUM_CLASSES = 100
STEM_KERNEL_SIZE = BASELINE.stem_kernel_size

# The family. Everything outside it (pooling, bottlenecks, other widths, parameter-free shortcuts) is not searched.
STEM_WIDTHS = (16, 32, 64)
STEM_MAPS = (32, 16, 8)
BLOCK_WIDTHS = (16, 32, 64, 128, 256)
BLOCKS = 4
SHORTCUT_KERNELS = (1, 3)
HIDDEN_WIDTHS = tuple(sorted({2**k for k in range(6, 13)} | set(range(100, 4001, 100))))
KERNELS_5X5 = ((5, 3), (3, 5), (5, 5))
FAMILY = {
    "stem": f"7×7 convolution, {'/'.join(map(str, STEM_WIDTHS))} channels, no pooling",
    "map after the stem": "/".join(f"{m}×{m}" for m in STEM_MAPS),
    "blocks": "4 basic blocks, batch norm after each of their convolutions",
    "block widths": f"{'/'.join(map(str, BLOCK_WIDTHS))}, never falling from block to block (the stem may be wider); "
    "others, such as 48 or 96, are not searched",
    "block strides": "1/2, each block on its own",
    "convolution bias": "all or none",
    "shortcut": "where the shape changes: 1×1 or 3×3 convolution, with or without batch norm; identity elsewhere",
    "FC": "hidden widths: powers of two 64…4096 and hundreds 100…4000; biases",
    "fc1": "the baseline without its hidden FC layer",
    "fc3": "two hidden FC layers instead of one, the second not wider than the first, none narrower than 100",
    "conv5x5": "5×5 kernels as first, second or both convolutions of each block; any block strides; the rest as before",
    "blocks2": "the first two blocks kept, the rest as before",
}
"""The designs searched, in words; the constants above are the same in numbers."""


@dataclass(frozen=True)
class Body:
    """Everything before the FC layers.

    Attributes:
        stem_map: side of the square feature map after the stem, in pixels.
        widths, strides: output channels, and stride of the first convolution, of each block.
        conv_bias: whether the convolutions have biases (all of them, shortcuts included).
        shortcut_kernel: 1 or 3, of the projection where a block changes the shape.
        kernels: of the two convolutions of each block.
    """

    stem_width: int
    stem_map: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    conv_bias: bool
    shortcut_kernel: int
    shortcut_batch_norm: bool
    kernels: tuple[int, int] = (3, 3)

    @property
    def map_size(self) -> int:
        """Side of the square feature map that reaches the FC layers, in pixels."""
        size = self.stem_map
        for stride in self.strides:
            size = -(-size // stride)  # every convolution is padded by half its kernel
        return size

    @property
    def features(self) -> int:
        """Inputs of the first FC layer."""
        return self.widths[-1] * self.map_size**2

    @property
    def parameters(self) -> int:
        """Exact number of trainable parameters, in closed form."""

        def convolution(inputs: int, outputs: int, kernel: int, batch_norm: bool = True) -> int:
            return outputs * (inputs * kernel**2 + self.conv_bias + 2 * batch_norm)

        total = convolution(3, self.stem_width, STEM_KERNEL_SIZE)
        inputs = self.stem_width
        for width, stride in zip(self.widths, self.strides, strict=True):
            total += convolution(inputs, width, self.kernels[0]) + convolution(width, width, self.kernels[1])
            if stride != 1 or inputs != width:
                total += convolution(inputs, width, self.shortcut_kernel, self.shortcut_batch_norm)
            inputs = width
        return total

    def count(self, *hidden: int) -> int:
        """Exact number of trainable parameters with FC layers features → `hidden` … → 100."""
        return self.parameters + fc_parameters(self.features, *hidden)

    def with_5x5(self, kernels: tuple[int, int], strides: tuple[int, ...]) -> Body:
        """The body of `conv5x5`."""
        return replace(self, kernels=kernels, strides=strides)

    def first_two_blocks(self) -> Body:
        """The body of `blocks2`."""
        return replace(self, widths=self.widths[:2], strides=self.strides[:2])


def fc_parameters(features: int, *hidden: int) -> int:
    """Weights and biases of the FC layers `features` → `hidden` … → 100."""
    sizes = (features, *hidden, NUM_CLASSES)
    return sum((i + 1) * o for i, o in pairwise(sizes))


@dataclass(frozen=True)
class Design:
    """One reconstruction of the whole study: the baseline and what its variants need besides."""

    body: Body
    hidden: int
    fc3_hidden: tuple[int, int]
    conv5x5_kernels: tuple[int, int]
    conv5x5_strides: tuple[int, ...]

    @property
    def conv5x5(self) -> Body:
        return self.body.with_5x5(self.conv5x5_kernels, self.conv5x5_strides)

    @property
    def blocks2(self) -> Body:
        return self.body.first_two_blocks()

    @cached_property
    def counts(self) -> dict[str, int]:
        """Exact number of trainable parameters by architecture id, for 100 classes."""
        return {
            "baseline": self.body.count(self.hidden),
            "fc1": self.body.count(),
            "fc3": self.body.count(*self.fc3_hidden),
            "blocks2": self.blocks2.count(self.hidden),
            "conv5x5": self.conv5x5.count(self.hidden),
        }

    @property
    def canonical(self) -> bool:
        """Whether this is the design of `resnet_bench.architectures`."""
        return self == CANONICAL

    @property
    def against(self) -> list[Evidence]:
        """What speaks against this design beyond the counts, strongest first; empty for the canonical one."""
        return [evidence for evidence in EVIDENCE if not evidence.accepts(self)]


def _canonical() -> Design:
    fc3, conv5x5 = ARCHITECTURES["fc3"], ARCHITECTURES["conv5x5"]
    body = Body(
        BASELINE.stem_width, IMAGE_SIZE // BASELINE.stem_stride, BASELINE.widths, BASELINE.strides, False, 1, True
    )
    return Design(
        body, BASELINE.hidden[0], (fc3.hidden[0], fc3.hidden[1]), (conv5x5.kernel_size, 3), conv5x5.strides
    )  # fmt: skip


CANONICAL = _canonical()


@dataclass(frozen=True)
class Evidence:
    """Something beyond the published counts that accepts some designs and speaks against the others.

    Attributes:
        kind: `time` for the published epoch times, `assumption` where only custom decides.
    """

    id: str
    kind: str
    statement: str
    accepts: Callable[[Design], bool]


def _minutes(architecture: str) -> str:
    return f"{PUBLISHED[architecture].epoch_minutes:g}"


SIMILAR = 2  # blocks2 and fc3 took the same time: their counts may differ by this factor at most

EVIDENCE = (
    Evidence(
        "blocks2-slower",
        "time",
        f"blocks2 took {_minutes('blocks2')} minutes an epoch, the baseline {_minutes('baseline')}. Fewer blocks mean "
        "less convolution, so the first FC layer of blocks2 must be the larger one",
        lambda d: d.blocks2.features > d.body.features,
    ),
    Evidence(
        "blocks2-as-fc3",
        "time",
        f"blocks2 took as long as fc3 ({_minutes('fc3')} minutes), so its count may not be far from fc3's; "
        f"a factor of {SIMILAR} is allowed",
        lambda d: d.counts["fc3"] / SIMILAR <= d.counts["blocks2"] <= d.counts["fc3"] * SIMILAR,
    ),
    Evidence(
        "shortcut-1x1",
        "assumption",
        "projection shortcuts are 1×1 convolutions, as in the ResNet paper and torchvision",
        lambda d: d.body.shortcut_kernel == 1,
    ),
    Evidence(
        "stem-not-wider",
        "assumption",
        "the stem is not wider than the first block",
        lambda d: d.body.stem_width <= d.body.widths[0],
    ),
    Evidence(
        "no-conv-bias",
        "assumption",
        "convolutions before batch norm have no bias (it would be cancelled), as in torchvision",
        lambda d: not d.body.conv_bias,
    ),
    Evidence(
        "shortcut-bn",
        "assumption",
        "the projection shortcut has batch norm, as in torchvision",
        lambda d: d.body.shortcut_batch_norm,
    ),
    Evidence(
        "fc3-thousands",
        "assumption",
        "the first hidden width of fc3 is a whole thousand, as the baseline's",
        lambda d: d.fc3_hidden[0] % 1000 == 0,
    ),
)
"""Strongest first: published times, then custom, whose order is itself a matter of judgement."""


def matches(count: int, architecture: str) -> bool:
    """Whether the paper, rounding to 0.1M, would print `count` as it printed the architecture's."""
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
    """The two hidden widths of `fc3` that give the published count; `any_order` lets the second be the wider."""
    return tuple(
        (first, second)
        for first, second in product(HIDDEN_WIDTHS, repeat=2)
        if (any_order or first >= second)
        and min(first, second) >= NUM_CLASSES
        and matches(body_parameters + fc_parameters(features, first, second), "fc3")
    )


def conv5x5_options(body: Body, hidden: int) -> list[tuple[tuple[int, int], tuple[int, ...]]]:
    """The (kernels, strides) of `conv5x5` that give the published count."""
    return [
        (kernels, strides)
        for kernels, strides in product(KERNELS_5X5, product((1, 2), repeat=BLOCKS))
        if matches(body.with_5x5(kernels, strides).count(hidden), "conv5x5")
    ]


@dataclass(frozen=True)
class Reconstruction:
    """What the search found.

    Attributes:
        bodies: how many bodies the family has.
        fc1_bodies: how many of them fit `fc1`.
        baselines: the (body, hidden width) that fit `fc1` and `baseline`.
        fc3_baselines, conv5x5_baselines: how many of those also fit `fc3`, and how many both.
        designs: all that fit the four published counts; the canonical first, then by what speaks against them.
    """

    bodies: int
    fc1_bodies: int
    baselines: tuple[tuple[Body, int], ...]
    fc3_baselines: int
    conv5x5_baselines: int
    designs: tuple[Design, ...]


def search() -> Reconstruction:
    """Every design of the family whose counts round to the published ones; takes about a second."""
    bodies = fc1_bodies = fc3_baselines = conv5x5_baselines = 0
    baselines: list[tuple[Body, int]] = []
    designs: list[Design] = []
    for body in family_bodies():
        bodies += 1
        if not matches(body.count(), "fc1"):
            continue
        fc1_bodies += 1
        for hidden in HIDDEN_WIDTHS:
            if not matches(body.count(hidden), "baseline"):
                continue
            baselines.append((body, hidden))
            pairs = fc3_pairs(body.parameters, body.features)
            options = conv5x5_options(body, hidden)
            fc3_baselines += bool(pairs)
            conv5x5_baselines += bool(pairs and options)
            designs += [Design(body, hidden, pair, *option) for pair, option in product(pairs, options)]
    designs.sort(key=lambda d: [not evidence.accepts(d) for evidence in EVIDENCE])
    return Reconstruction(
        bodies, fc1_bodies, tuple(baselines), fc3_baselines, conv5x5_baselines, tuple(designs)
    )  # fmt: skip


def _side_by_side(values: Iterable[object]) -> str:
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
    "block widths": lambda d: _side_by_side(d.body.widths),
    "block strides": lambda d: _side_by_side(d.body.strides),
    "conv5x5: block strides": lambda d: _side_by_side(d.conv5x5_strides),
    "blocks2: count": lambda d: millions(d.counts["blocks2"]),
    "shortcut kernel": lambda d: f"{d.body.shortcut_kernel}×{d.body.shortcut_kernel}",
    "shortcut batch norm": lambda d: "yes" if d.body.shortcut_batch_norm else "no",
    "convolution bias": lambda d: "yes" if d.body.conv_bias else "no",
    "fc3: hidden widths": lambda d: "→".join(map(str, d.fc3_hidden)),
}
"""What there is to decide about a design, each as text."""


@dataclass(frozen=True)
class Decision:
    """How far one quantity of the design is known.

    Attributes:
        by_counts, by_times: the values left by the published counts, and by counts and times together.
        decided_by: `counts`, `times` or `assumption`: what leaves the canonical value alone.
    """

    quantity: str
    canonical: str
    by_counts: tuple[str, ...]
    by_times: tuple[str, ...]
    decided_by: str


def decisions(found: Reconstruction) -> list[Decision]:
    """For each of `QUANTITIES`, which values are left and what decides."""
    timed = [d for d in found.designs if all(e.kind != "time" for e in d.against)]
    result = []
    for quantity, value in QUANTITIES.items():
        by_counts = tuple(dict.fromkeys(map(value, found.designs)))
        by_times = tuple(dict.fromkeys(map(value, timed)))
        decided_by = "counts" if len(by_counts) == 1 else "times" if len(by_times) == 1 else "assumption"
        result.append(Decision(quantity, value(CANONICAL), by_counts, by_times, decided_by))
    return result


@dataclass(frozen=True)
class Finding:
    """A tempting claim about the design, whether it holds in the family, and the numbers behind the answer."""

    claim: str
    holds: bool
    detail: str


def findings(found: Reconstruction) -> list[Finding]:
    """Claims that one would like to make about the canonical design, each checked against the whole search."""
    body = CANONICAL.body
    canonical_fc = _first_fc(body, CANONICAL.hidden)
    result = []

    fits = Counter(_first_fc(b, h) for b, h in found.baselines)
    rounder = {_first_fc(b, h) for b, h in found.baselines if h & (h - 1) == 0 or h % 1000 == 0}
    left = {_first_fc(d.body, d.hidden) for d in found.designs}
    result.append(
        Finding(
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
        Finding(
            f"with 1×1 shortcuts, stem and widths are {_shape(body)}",
            set(shapes) == {_shape(body)},
            f"designs: {_tally(shapes)}. Where the stem is not wider than the first block: only {_listed(narrow)}",
        )
    )

    slower = [d for d in found.designs if EVIDENCE[0].accepts(d) and d.body.stem_map == body.stem_map]
    orders = Counter(f"{_side_by_side(d.body.strides)} ({_shape(d.body)})" for d in slower)
    same = {_side_by_side(d.body.strides) for d in slower if _shape(d.body) == _shape(body)}
    other_stems = {d.body.stem_map for d in found.designs if EVIDENCE[0].accepts(d)} - {body.stem_map}
    result.append(
        Finding(
            f"after a stride-2 stem, only strides {_side_by_side(body.strides)} explain why blocks2 is slower",
            {_side_by_side(d.body.strides) for d in slower} == {_side_by_side(body.strides)},
            f"designs: {_tally(orders)}. With {_shape(body)}: only {_listed(same)}. Other stems that explain it: "
            + (_listed(f"map {m}×{m}" for m in other_stems) or "none"),
        )
    )

    maps = {f"{d.conv5x5.map_size}×{d.conv5x5.map_size}" for d in found.designs}
    result.append(
        Finding("conv5x5 needs a 2×2 map before its FC layers", maps == {"2×2"}, f"maps found: {_listed(maps)}")
    )

    options = conv5x5_options(body, CANONICAL.hidden)
    family = {
        (d.body.stem_map, d.body.strides, d.conv5x5_kernels, d.conv5x5_strides)
        for d in found.designs
        if _shape(d.body) == _shape(body) and d.body.shortcut_kernel == 1
    }
    result.append(
        Finding(
            "with the canonical baseline, one conv5x5 fits",
            len(options) == 1,
            "; ".join(f"{k[0]}×{k[0]} then {k[1]}×{k[1]}, strides {_side_by_side(s)}" for k, s in options)
            + f". With its widths and 1×1 shortcuts but any stem map and strides of the baseline: {len(family)}",
        )
    )

    smallest = min(body.with_5x5((5, 5), s).parameters for s in product((1, 2), repeat=BLOCKS))
    result.append(
        Finding(
            "with both convolutions 5×5, the canonical body alone is above 1.8M",
            smallest > 1_800_000,
            f"the smallest has {smallest:,} parameters",
        )
    )

    pairs = fc3_pairs(body.parameters, body.features)
    unordered = fc3_pairs(body.parameters, body.features, any_order=True)
    result.append(
        Finding(
            f"with the canonical baseline, fc3's hidden widths {'→'.join(map(str, CANONICAL.fc3_hidden))} are forced",
            pairs == (CANONICAL.fc3_hidden,),
            f"{len(pairs)} pairs fit: {_listed('→'.join(map(str, p)) for p in pairs)}. "
            f"If the second may be the wider: {len(unordered)}",
        )
    )
    return result


def _shape(body: Body) -> str:
    return f"{body.stem_width}, {_side_by_side(body.widths)}"


def _tally(counter: Counter[str]) -> str:
    return "; ".join(f"{name}: {number}" for name, number in counter.most_common())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def as_dict(found: Reconstruction) -> dict[str, Any]:
    """The whole result as JSON-ready data: family, every matching design, evidence, decisions and findings."""
    return {
        "published": {a: p.parameters for a, p in PUBLISHED.items() if p.parameters},
        "family": FAMILY,
        "matching": dict(_funnel(found)),
        "evidence": [{"id": e.id, "kind": e.kind, "statement": e.statement} for e in EVIDENCE],
        "decisions": [asdict(d) for d in decisions(found)],
        "findings": [asdict(f) for f in findings(found)],
        "designs": [
            {
                **asdict(d),
                "features": d.body.features,
                "parameters": d.counts,
                "canonical": d.canonical,
                "decided_by": d.against[0].id if d.against else None,
                "against": [e.id for e in d.against],
            }
            for d in found.designs
        ],
    }


def _funnel(found: Reconstruction) -> list[tuple[str, int]]:
    return [
        ("bodies in the family", found.bodies),
        ("bodies that fit fc1", found.fc1_bodies),
        ("baselines (body and hidden width) that fit fc1 and baseline", len(found.baselines)),
        ("baselines that also fit fc3", found.fc3_baselines),
        ("baselines that also fit fc3 and conv5x5", found.conv5x5_baselines),
        ("designs (baseline, fc3, conv5x5) that fit all four counts", len(found.designs)),
        *((f"designs that also pass {e.id} ({e.kind})", n) for e, n in _passing(found)),
    ]


def _passing(found: Reconstruction) -> Iterator[tuple[Evidence, int]]:
    left: Iterable[Design] = found.designs
    for evidence in EVIDENCE:
        left = [d for d in left if evidence.accepts(d)]
        yield evidence, len(left)


def as_text(found: Reconstruction, table_format: str = "simple") -> str:
    """The result for people, at most 110 columns wide; `table_format` is one of tabulate's, `github` for Markdown."""
    groups: dict[tuple[Any, ...], list[Design]] = defaultdict(list)
    for d in found.designs:
        groups[d.body.stem_width, d.body.stem_map, d.body.widths, d.body.strides, d.body.shortcut_kernel].append(d)
    canonical_group = next(group for group in groups.values() if CANONICAL in group)
    published = ", ".join(f"{a} {p.parameters}" for a, p in PUBLISHED.items() if p.parameters)
    timed = sum(all(e.kind != "time" for e in d.against) for d in found.designs)

    sections = [
        _Section(
            "Reconstruction from the published parameter counts",
            f"{len(found.designs)} designs of the family fit the counts {published}.\n"
            f"The published epoch times leave {timed} of them; between those, only assumptions decide.",
        ),
        _Section("Family searched", "", ["part", "choices"], [[k, v] for k, v in FAMILY.items()], [None, 80]),
        _Section("How many fit", "", ["", "count"], [[k, f"{n:,}"] for k, n in _funnel(found)]),
        _Section(
            "What is forced, and what is assumed",
            "Values left by the counts, and by counts and epoch times; `assumption` where those leave more than one.",
            ["quantity", "canonical", "by counts", "by counts and times", "decided by"],
            [
                [d.quantity, d.canonical, _values(d.by_counts), _values(d.by_times), d.decided_by]
                for d in decisions(found)
            ],
            [None, None, 22, 22, None],
        ),
        _Section(
            "Evidence beyond the counts, strongest first",
            "",
            ["id", "kind", "statement"],
            [[e.id, e.kind, e.statement] for e in EVIDENCE],
            [None, None, 72],
        ),
        _Section(
            "Claims checked",
            "",
            ["holds", "claim", "numbers"],
            [["yes" if f.holds else "no", f.claim, f.detail] for f in findings(found)],
            [None, 36, 62],
        ),
        _Section(
            "Matching bodies",
            "A row covers convolution bias, shortcut batch norm, fc3 and conv5x5 in all their matching combinations\n"
            "(`--format json` lists each). What speaks most strongly for the canonical design instead comes last.\n"
            "`5×5` gives the block strides of conv5x5, `blocks2` its count.",
            ["stem, map", "widths", "strides", "shortcut", "5×5", "blocks2", "designs", "decided by"],
            [
                [
                    f"{d.body.stem_width}, {d.body.stem_map}×{d.body.stem_map}",
                    _side_by_side(d.body.widths),
                    _side_by_side(d.body.strides),
                    f"{d.body.shortcut_kernel}×{d.body.shortcut_kernel}",
                    ", ".join(sorted({_side_by_side(e.conv5x5_strides) for e in group})),
                    millions(d.counts["blocks2"]),
                    len(group),
                    _decided_by(d),
                ]
                for group in groups.values()
                for d in group[:1]  # designs are sorted: the one with the least against it
            ],
            [None, None, None, None, 9, None, None, None],
        ),
        _Section(
            "Designs with the canonical widths, strides and shortcut kernel",
            "Exact counts for 100 classes.",
            ["bias", "BN", "FC of fc3", *CANONICAL.counts, "decided by"],
            [
                [
                    "yes" if d.body.conv_bias else "no",
                    "yes" if d.body.shortcut_batch_norm else "no",
                    "→".join(map(str, d.fc3_hidden)),
                    *(f"{n:,}" for n in d.counts.values()),
                    _decided_by(d),
                ]
                for d in canonical_group
            ],
        ),
    ]
    return "\n\n".join(section.render(table_format) for section in sections)


@dataclass(frozen=True)
class _Section:
    title: str
    text: str
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    widths: Sequence[int | None] = ()  # where cells wrap, in characters; Markdown needs no wrapping

    def render(self, table_format: str) -> str:
        markdown = table_format == "github"
        title = f"## {self.title}" if markdown else f"{self.title}\n{'=' * len(self.title)}"
        table = tabulate(
            self.rows,
            self.headers,
            table_format,
            disable_numparse=True,
            maxcolwidths=None if markdown else [*self.widths] or None,
            colalign=["right" if h in ("count", "designs", *CANONICAL.counts) else "left" for h in self.headers],
        )
        return "\n\n".join(filter(None, (title, self.text, table)))


def _values(values: tuple[str, ...]) -> str:
    return "; ".join(values) if len(values) <= 6 else f"{len(values)} values"


def _decided_by(design: Design) -> str:
    if not design.against:
        return "canonical"
    evidence = design.against[0]
    return evidence.id if evidence.kind == "time" else f"assumption: {evidence.id}"
