"""Steps down: a tenth of the rate after half of the steps, a hundredth after three quarters.

K. He et al., Deep Residual Learning for Image Recognition (2016), section 4.2, where these are 32,000 and 48,000 of
64,000 steps on CIFAR-10; `torch.optim.lr_scheduler.MultiStepLR`, stepped once for each batch.
"""

from __future__ import annotations


def factor(step: int, steps: int) -> float:
    return 0.1 ** ((step >= steps // 2) + (step >= 3 * steps // 4))
