"""Channel attention: blocks that scale each channel of a feature map by a weight that depends on all channels' means.

A block is one file of this folder with a class `Attention`, and one entry in `ATTENTION`. It sits on the residual
branch of a basic block, behind the second batch norm and before the addition of the shortcut. Every engine runs it;
`fast` has PyTorch derive the backward pass of the weights.
"""

from __future__ import annotations

from collections.abc import Callable

from resnet_bench.attention import eca, se
from resnet_bench.attention.base import ChannelAttention
from resnet_bench.errors import UserError

__all__ = ["ATTENTION", "ChannelAttention", "build"]

ATTENTION: dict[str, Callable[[int], ChannelAttention]] = {"se": se.Attention, "eca": eca.Attention}
"""The class of each block by the block's name."""


def build(name: str, channels: int) -> ChannelAttention:
    """The block called `name`, for so many channels; `UserError` lists the known ones if there is none."""
    if name not in ATTENTION:
        raise UserError(f"There is no attention {name!r}; choose one of {', '.join(ATTENTION)}.")
    return ATTENTION[name](channels)
