"""One cycle: from 1/25 of the rate up to it in the first 30 % of the steps, then down to 1/250,000, each half a cosine.

L. Smith and N. Topin, Super-Convergence (2018), with the numbers and the shape of
`torch.optim.lr_scheduler.OneCycleLR`, stepped once for each batch. That also moves Adam's β₁, unless told otherwise;
here the betas stay as the recipe has them.
"""

from __future__ import annotations

import math

FIRST = 1 / 25
LAST = FIRST / 1e4
RISING_SHARE = 0.3


def factor(step: int, steps: int) -> float:
    top, end = RISING_SHARE * steps - 1, steps - 1  # the top is a place, not always a step
    if step <= top:
        return _between(FIRST, 1.0, step / top)
    return _between(1.0, LAST, (step - top) / (end - top))


def _between(start: float, stop: float, share: float) -> float:
    return stop + (start - stop) / 2 * (1 + math.cos(math.pi * share))
