"""The interface of a block of channel attention."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ChannelAttention(nn.Module, ABC):
    """Scales each channel of a feature map by a weight that it computes from the whole map.

    It is made with the number of channels as its only argument, with torch's default initialisation. Every engine runs
    one whose output depends on its input and its parameters alone: it draws no random numbers, leaves its input as it
    is, has no buffers or counters that a forward pass changes, as batch norm has, and trains all of its parameters.

    Attributes:
        multiply_accumulates: multiply-accumulate operations for one image in products and convolutions; the mean over
            the map and the scaling do not count, as batch norm does not.
    """

    multiply_accumulates: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → the same, each channel of each image scaled."""
