"""Squeeze-and-excitation: two FC layers see the means of all channels and give each channel its weight.

J. Hu et al., Squeeze-and-Excitation Networks (2018), section 3, with the reduction of 16 that it recommends and a bias
in both layers. timm rounds the inner width to a multiple of 8; here it is channels / 16, as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnet_bench.attention.base import ChannelAttention

REDUCTION = 16


class Attention(ChannelAttention):
    """x · sigmoid(W₂ · relu(W₁ · mean(x) + b₁) + b₂), where the mean is over the map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(channels // REDUCTION, 1)
        self.reduce = nn.Linear(channels, width)
        self.expand = nn.Linear(width, channels)
        self.multiply_accumulates = 2 * channels * width

    def weights(self, means: Tensor) -> Tensor:
        return torch.sigmoid(self.expand(torch.relu(self.reduce(means))))
