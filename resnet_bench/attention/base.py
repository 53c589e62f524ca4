"""The interface of a block of channel attention."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class ChannelAttention(nn.Module, ABC):
    """Multiplies each channel of a feature map by a weight that it computes from the means of all channels.

    It is made with the number of channels as its only argument, with torch's default initialisation. Its weights depend
    on the means and its parameters alone: it draws no random numbers and has no buffers, such as those of batch norm.

    Attributes:
        multiply_accumulates: multiply-accumulate operations for one image in products and convolutions; the mean over
            the map and the scaling do not count, as batch norm does not.
    """

    multiply_accumulates: int

    @abstractmethod
    def weights(self, means: Tensor) -> Tensor:
        """The weights of the channels from their means over the map; both [batch, channels]."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] → the same, each channel of each image multiplied by its weight."""
        return x * self.weights(x.mean((2, 3)))[:, :, None, None]
