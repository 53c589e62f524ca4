"""Whether a supposed cause accounts for an effect: what the rules on causes share."""

from __future__ import annotations

import math
from dataclasses import replace

from resnet_bench.analysis.conditions import Condition

MAIN_SHARE = 0.5
"""A cause is the cause of an effect where it accounts for more than this share of it."""


def beyond_halfway(effect: Condition, alone: Condition) -> Condition:
    """The control is farther from the baseline than half of the variant's effect, on the effect's side.

    Seed by seed, or process by process, it is alone - effect / 2, so that what both share drops out.

    Args:
        effect: the variant against the baseline, which has to lie on one side of 0.
        alone: the control against the baseline, for the same seeds or processes.
    """
    values = [a - MAIN_SHARE * e for a, e in zip(alone.values, effect.values, strict=True)]
    return replace(effect, values=values)


def short_of_halfway(effect: Condition, held: Condition) -> Condition:
    """The opposite: of a control that keeps the cause and changes the rest, less than half of the effect is left."""
    beyond = beyond_halfway(effect, held)
    low, high = (-math.inf, 0.0) if beyond.high == math.inf else (0.0, math.inf)
    return replace(beyond, low=low, high=high)
