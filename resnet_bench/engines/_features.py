"""The convolutional part of a network, forward and backward, written out for `fast`.

Autograd would do the same, at the price of its book-keeping in every step; written out, each direction is one compiled
function. `tests/engines/test_features.py` holds it against autograd in float64.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_bench.architectures import BasicBlock, ResidualNetwork

aten = torch.ops.aten

UNFOLDED_POSITIONS = 64
"""Up to so many output positions in a batch a kernel's gradient is one product with the unfolded input; see `kernel`.

On larger maps oneDNN's own kernel is faster, because unfolding copies the input once for each tap of the kernel.
"""


class Saved(NamedTuple):
    """What the backward pass needs of one convolution with batch norm.

    Attributes:
        x: the convolution's input.
        out: its output.
        mean, rstd: of the batch, per channel: mean of `out` and 1 / √(variance + eps).
    """

    x: Tensor
    out: Tensor
    mean: Tensor
    rstd: Tensor


class SavedBlock(NamedTuple):
    """What the backward pass needs of one basic block; `shortcut` is None where it is the identity."""

    first: Saved
    second: Saved
    shortcut: Saved | None
    out: Tensor


def layers(module: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Convolution and batch norm of the stem or of a projection shortcut."""
    conv, norm = list(module.children())[:2]
    return cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)


def convolution(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Saved]:
    """`norm(conv(x))` in training mode, running statistics included, with inputs and kernel rounded to `dtype`."""
    x = x.to(dtype)
    out = F.conv2d(x, conv.weight.to(dtype), None, conv.stride, conv.padding)
    normalized, mean, rstd = aten.native_batch_norm(
        out, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
    )
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return normalized, Saved(x, out, mean, rstd)


def kernel_gradient(x: Tensor, g: Tensor, conv: nn.Conv2d) -> Tensor:
    """The gradient of `conv.weight`, as one product of `g` with the unfolded input.

    On maps of a few pixels oneDNN spends most of the time on bringing the gradient into the weight's order of memory.
    The product comes out in it: [out, kernel, kernel, in], which is channels-last.

    Args:
        x: the convolution's input [batch, in, height, width].
        g: the loss's gradient with respect to its output [batch, out, …].
    """
    (size, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, cast(tuple[int, int], conv.padding)
    padded = F.pad(x, (padding,) * 4).permute(0, 2, 3, 1)
    taps = padded.unfold(1, size, stride).unfold(2, size, stride)  # [batch, height, width, in, kernel, kernel]
    unfolded = taps.permute(0, 1, 2, 4, 5, 3).reshape(-1, size * size * x.shape[1])
    product = g.permute(1, 0, 2, 3).reshape(g.shape[1], -1) @ unfolded
    return product.view(g.shape[1], size, size, x.shape[1]).permute(0, 3, 1, 2)


def convolution_backward(
    g: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, saved: Saved, input_gradient: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """From the gradient `g` of `convolution`'s output: of its input (empty if not asked for); of kernel, γ and β."""
    g, weight, bias = aten.native_batch_norm_backward(
        g, saved.out, norm.weight, norm.running_mean, norm.running_var, saved.mean, saved.rstd, True, norm.eps,
        [True, True, True],
    )  # fmt: skip
    unfold = g.shape[0] * g.shape[2] * g.shape[3] <= UNFOLDED_POSITIONS
    x_gradient, kernel, _ = aten.convolution_backward(
        g, saved.x, conv.weight.to(g.dtype), None, conv.stride, conv.padding, conv.dilation, False, [0, 0], 1,
        [input_gradient, not unfold, False],
    )  # fmt: skip
    if unfold:
        kernel = kernel_gradient(saved.x, g, conv)
    return x_gradient, [kernel.to(conv.weight.dtype), weight, bias]


def features(
    network: ResidualNetwork, images: Tensor, dtype: torch.dtype
) -> tuple[Tensor, tuple[Saved, Tensor, list[SavedBlock]]]:
    """The feature map of a batch in training mode, and what `features_backward` needs.

    Args:
        network: its running statistics are updated.
        images: float32 [batch, 3, 32, 32].
        dtype: what convolutions compute in.

    Returns:
        x: feature map [batch, channels, size, size], of `dtype`.
        saved: of the stem, its output, and of each block.
    """
    x, stem = convolution(images, *layers(network.stem), dtype)
    stem_out = x = torch.relu(x)
    blocks = []
    for block in network.blocks:
        assert isinstance(block, BasicBlock)
        out, first = convolution(x, block.conv1, block.bn1, dtype)
        out, second = convolution(torch.relu(out), block.conv2, block.bn2, dtype)
        shortcut = None
        if isinstance(block.shortcut, nn.Sequential):
            x, shortcut = convolution(x, *layers(block.shortcut), dtype)
        x = torch.relu(out + x)
        blocks.append(SavedBlock(first, second, shortcut, x))
    return x, (stem, stem_out, blocks)


def features_backward(
    network: ResidualNetwork, g: Tensor, saved: tuple[Saved, Tensor, list[SavedBlock]]
) -> list[Tensor]:
    """Gradients of the parameters of stem and blocks, in their order in the network.

    Args:
        g: the loss's gradient with respect to the feature map, of its shape and dtype.
        saved: what `features` returned.
    """
    stem, stem_out, saved_blocks = saved
    gradients: list[Tensor] = []
    for block, kept in zip(reversed(list(network.blocks)), reversed(saved_blocks), strict=True):
        assert isinstance(block, BasicBlock)
        g = g * (kept.out > 0)
        inner, second = convolution_backward(g, block.conv2, block.bn2, kept.second)
        inner, first = convolution_backward(inner * (kept.second.x > 0), block.conv1, block.bn1, kept.first)
        shortcut: list[Tensor] = []
        if kept.shortcut is not None:
            g, shortcut = convolution_backward(g, *layers(block.shortcut), kept.shortcut)
        g = inner + g
        gradients[:0] = [*first, *second, *shortcut]
    _, first = convolution_backward(g * (stem_out > 0), *layers(network.stem), stem, input_gradient=False)
    return [*first, *gradients]
