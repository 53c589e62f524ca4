"""The convolutional part of a network in functions of torch, with the backward pass written out.

`fast-bf16` runs these functions compiled, with oneDNN's convolutions; `fast` has its own convolutions in `_layers.py`.
Autograd computes the same, but spends time on book-keeping in every step. Channel attention is the exception: whichever
it is, PyTorch derives its backward pass, which is compiled with the rest. `tests/engines/test_features.py` compares
both directions with autograd in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_bench.attention import ChannelAttention
from resnet_bench.networks import BasicBlock, ResidualNetwork

aten = torch.ops.aten


class Convolutions(Protocol):
    """The convolutional part of a network, whatever computes it."""

    def forward(self, images: Tensor) -> Tensor:
        """The feature map of a batch in training mode; the running statistics are updated.

        Args:
            images: float32 [batch, 3, 32, 32].

        Returns:
            [batch, channels, size, size].
        """

    def backward(self, g: Tensor) -> list[Tensor]:
        """The gradients of the parameters of stem and blocks, in the parameters' order in the network.

        Args:
            g: the gradient with respect to the feature map that `forward` has just returned, of its shape and dtype.
        """


UNFOLDED_POSITIONS = 64
"""Largest number of output positions in a batch (images × pixels) for which `kernel_gradient` computes the gradient.

On larger maps oneDNN's own code is faster, because unfolding copies the input once for each tap of the kernel.
"""


class Saved(NamedTuple):
    """What the backward pass needs of one convolution with batch norm.

    Attributes:
        x: the convolution's input, [batch, in, height, width].
        out: the convolution's output, [batch, out, height, width].
        mean: float32 [out], each channel's mean of `out` over the batch.
        rstd: float32 [out], each channel's 1 / √(variance + eps) over the batch.
    """

    x: Tensor
    out: Tensor
    mean: Tensor
    rstd: Tensor


class SavedBlock(NamedTuple):
    """What the backward pass needs of one basic block.

    Attributes:
        first, second: of its two convolutions.
        shortcut: of its projection shortcut; None where the shortcut is the identity.
        attended: the input of its channel attention, of the shape of `out`; None where it has none.
        out: the block's output, [batch, out, height, width].
    """

    first: Saved
    second: Saved
    shortcut: Saved | None
    attended: Tensor | None
    out: Tensor


def layers(module: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The convolution and the batch norm of the stem or of a projection shortcut."""
    conv, norm = list(module.children())[:2]
    return cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)


def convolution(x: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> tuple[Tensor, Saved]:
    """`norm(conv(x))` in training mode, which also updates the running statistics.

    Args:
        x: [batch, in, height, width].
        conv: without bias.
        norm: the batch norm that follows it.
        dtype: the input and the kernel are rounded to it, and the convolution computes in it.

    Returns:
        normalized: [batch, out, height, width], of `dtype`.
        saved: what `convolution_backward` needs.
    """
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

    On maps of a few pixels oneDNN spends most of its time on reordering the gradient in memory to the weight's order,
    which is channels-last. The result of this product already is in that order, [out, kernel, kernel, in].

    Args:
        x: the convolution's input, [batch, in, height, width].
        g: the gradient with respect to the convolution's output, [batch, out, …].

    Returns:
        [out, in, kernel, kernel], channels-last in memory.
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
    """The backward pass of `convolution`.

    Args:
        g: the gradient with respect to `convolution`'s output, of its shape and dtype.
        conv, norm: as in the forward pass.
        saved: what `convolution` returned.
        input_gradient: whether the gradient with respect to the input is computed.

    Returns:
        x_gradient: the gradient with respect to the input, of its shape; empty if not asked for.
        gradients: those of the kernel and of batch norm's weight and bias.
    """
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


def block_dtype(module: nn.Module) -> torch.dtype:
    """The type of number in which channel attention computes: that of its parameters; float32 where it has none."""
    return next((p.dtype for p in module.parameters()), torch.float32)


def attention_backward(g: Tensor, module: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The backward pass of channel attention, whatever it computes; its forward pass is computed again for that.

    Args:
        g: the gradient with respect to the module's output, of its shape and dtype.
        module: the channel attention, or what computes its weights.
        x: its input: [batch, channels, height, width], or the means [batch, channels].

    Returns:
        x_gradient: the gradient with respect to `x`, of its shape and dtype.
        gradients: those of the parameters, in their order in the module.
    """
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def forward(x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(module, parameters, (x,))
        return out

    dtype = block_dtype(module)
    backward = torch.func.vjp(forward, x.to(dtype), parameters)[1]
    x_gradient, gradients = backward(g.to(dtype))
    return x_gradient.to(x.dtype), [gradients[name] for name in parameters]


def features(
    network: ResidualNetwork, images: Tensor, dtype: torch.dtype
) -> tuple[Tensor, tuple[Saved, Tensor, list[SavedBlock]]]:
    """The feature map of a batch in training mode, and what `features_backward` needs.

    Args:
        network: in training mode; the running statistics of its batch norms are updated.
        images: float32 [batch, 3, 32, 32].
        dtype: the convolutions compute in it.

    Returns:
        x: feature map [batch, channels, size, size], of `dtype`.
        saved: what was saved of the stem, the stem's output, and what was saved of each block.
    """
    x, stem = convolution(images, *layers(network.stem), dtype)
    stem_out = x = torch.relu(x)
    blocks = []
    for block in network.blocks:
        assert isinstance(block, BasicBlock)
        out, first = convolution(x, block.conv1, block.bn1, dtype)
        out, second = convolution(torch.relu(out), block.conv2, block.bn2, dtype)
        attended = None
        if isinstance(block.attention, ChannelAttention):
            attended, out = out, block.attention(out.to(block_dtype(block.attention))).to(dtype)
        shortcut = None
        if isinstance(block.shortcut, nn.Sequential):
            x, shortcut = convolution(x, *layers(block.shortcut), dtype)
        x = torch.relu(out + x)
        blocks.append(SavedBlock(first, second, shortcut, attended, x))
    return x, (stem, stem_out, blocks)


def features_backward(
    network: ResidualNetwork, g: Tensor, saved: tuple[Saved, Tensor, list[SavedBlock]]
) -> list[Tensor]:
    """The gradients of the parameters of stem and blocks, in the parameters' order in the network.

    Args:
        network: as in the forward pass.
        g: the gradient with respect to the feature map, of its shape and dtype.
        saved: what `features` returned.
    """
    stem, stem_out, saved_blocks = saved
    gradients: list[Tensor] = []
    for block, kept in zip(reversed(list(network.blocks)), reversed(saved_blocks), strict=True):
        assert isinstance(block, BasicBlock)
        inner = g = g * (kept.out > 0)
        of_attention: list[Tensor] = []
        if kept.attended is not None:
            inner, of_attention = attention_backward(g, block.attention, kept.attended)
        inner, second = convolution_backward(inner, block.conv2, block.bn2, kept.second)
        inner, first = convolution_backward(inner * (kept.second.x > 0), block.conv1, block.bn1, kept.first)
        shortcut: list[Tensor] = []
        if kept.shortcut is not None:
            g, shortcut = convolution_backward(g, *layers(block.shortcut), kept.shortcut)
        g = inner + g
        gradients[:0] = [*first, *second, *shortcut, *of_attention]
    _, first = convolution_backward(g * (stem_out > 0), *layers(network.stem), stem, input_gradient=False)
    return [*first, *gradients]


class TorchConvolutions:
    """`features` and `features_backward`, compiled or not; see `Convolutions`."""

    def __init__(
        self,
        network: ResidualNetwork,
        dtype: torch.dtype,
        forward: Callable[..., Any] = features,
        backward: Callable[..., Any] = features_backward,
    ) -> None:
        self._network, self._dtype = network, dtype
        self._forward, self._backward = forward, backward
        self._saved: Any = None

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        x, self._saved = self._forward(self._network, images, self._dtype)
        return cast(Tensor, x)

    def backward(self, g: Tensor) -> list[Tensor]:
        saved, self._saved = self._saved, None
        return cast(list[Tensor], self._backward(self._network, g, saved))
