"""What decides between designs whose counts all round to the published ones, strongest first.

The published epoch times come first. Where they do not decide, only customary style does, and that is an assumption.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from resnet_bench.paper import PUBLISHED
from resnet_bench.reconstruction.family import Design

MOST_TIMES_FC3 = 2
"""blocks2 and fc3 took the same time, so neither may have more than this many times the other's parameters."""


@dataclass(frozen=True)
class Evidence:
    """Something beyond the published counts that accepts some designs and speaks against the others.

    Attributes:
        id: the name used in tables and JSON.
        kind: `time` for the published epoch times, `assumption` for customary style.
        statement: the evidence and what follows from it, in words.
        accepts: whether a design agrees with it.
    """

    id: str
    kind: Literal["time", "assumption"]
    statement: str
    accepts: Callable[[Design], bool]


def _minutes(architecture: str) -> str:
    return f"{PUBLISHED[architecture].epoch_minutes:g}"


BLOCKS2_SLOWER = Evidence(
    "blocks2-slower",
    "time",
    f"blocks2 took {_minutes('blocks2')} minutes an epoch, the baseline {_minutes('baseline')}. Fewer blocks mean "
    "less convolution, so the first FC layer of blocks2 must be the larger one",
    lambda d: d.blocks2.features > d.body.features,
)

EVIDENCE = (
    BLOCKS2_SLOWER,
    Evidence(
        "blocks2-as-fc3",
        "time",
        f"blocks2 took as long as fc3 ({_minutes('fc3')} minutes), so its count may not be far from fc3's; "
        f"a factor of {MOST_TIMES_FC3} is allowed",
        lambda d: d.counts["fc3"] / MOST_TIMES_FC3 <= d.counts["blocks2"] <= d.counts["fc3"] * MOST_TIMES_FC3,
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
"""All evidence, strongest first: published times, then assumptions, whose order is itself a matter of judgement."""


def against(design: Design) -> list[Evidence]:
    """The evidence that speaks against a design, strongest first; empty for the canonical one."""
    return [evidence for evidence in EVIDENCE if not evidence.accepts(design)]
