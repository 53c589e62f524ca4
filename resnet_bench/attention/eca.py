"""Efficient channel attention: each channel's weight comes from the means of its neighbours, by a 1-D convolution.

Q. Wang et al., ECA-Net (2020): the kernel's size is (log₂(channels) + 1) / 2, rounded down, and 1 more where that is
even; equation 12 with γ = 2 and b = 1. Its code and timm take at least 3, and so does this. There is no bias.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_bench.attention.base import ChannelAttention


def kernel_size(channels: int) -> int:
    """Of the convolution across channels: odd and at least 3."""
    return max(int((math.log2(channels) + 1) / 2) | 1, 3)


class Attention(ChannelAttention):
    """x · sigmoid(convolution of mean(x)), where the mean is over the map and the convolution over the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = kernel_size(channels)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)
        self.multiply_accumulates = channels * size

    def weights(self, means: Tensor) -> Tensor:
        kernel = self.conv.weight.flatten()
        padded = F.pad(means, (len(kernel) // 2,) * 2)
        # Written out, as torch fuses it where it is compiled; a call of its convolution takes longer.
        terms = [kernel[i] * padded[:, i : i + means.shape[1]] for i in range(len(kernel))]
        return torch.sigmoid(functools.reduce(torch.add, terms))
