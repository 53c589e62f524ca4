"""How much of an effect a supposed cause accounts for: what all rules on causes share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from resnet_bench.schema import Interval

MAIN_SHARE = 0.5
"""A cause is the cause of an effect where it accounts for more than this share of it."""


def share_of_effect(part: Interval, whole: Interval, scale: Callable[[float], float] = math.log) -> tuple[float, float]:
    """Lower and upper bound of scale(part) / scale(whole), a share of 1.

    The bounds are wide: they combine the ends of both intervals in every way.

    Args:
        part: the control network against the baseline.
        whole: the paper's variant against the baseline. Its interval has to leave out «no effect».
        scale: `math.log` for ratios, where 1 is no effect; `float` for differences, where 0 is.
    """
    corners = [scale(p) / scale(w) for p, w in itertools.product((part.low, part.high), (whole.low, whole.high))]
    return min(corners), max(corners)
