"""Half a cosine, from the full rate down to 0, which the step after the last one would have.

I. Loshchilov and F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts (2017), equation 5 without restarts;
`torch.optim.lr_scheduler.CosineAnnealingLR`, stepped once for each batch.
"""

from __future__ import annotations

import math


def factor(step: int, steps: int) -> float:
    return (1 + math.cos(math.pi * step / steps)) / 2
