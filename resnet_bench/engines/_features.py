"""The convolutional part of a network, with its forward and backward pass written out for `fast`.

Autograd computes the same, but spends time on book-keeping in every step. Written out, each direction is one compiled
function. `tests/engines/test_features.py` compares both directions with autograd in float64. Channel attention is the
exception: whichever it is, PyTorch derives its backward pass, which is compiled with the rest.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.attention import ChannelAttention
from resnet_bench.networks import BasicBlock, ResidualNetwork

aten = torch.ops.aten

PRODUCT_POSITIONS = 64
"""Largest number of output positions in a batch (images × pixels) for which a convolution runs as one matrix product.

Unfolding copies the input once for each tap of the kernel. On larger maps that costs more than oneDNN's own overhead, a
reordering of the kernel in memory in every call, both ways.
"""


class Saved(NamedTuple):
    """What the backward pass needs of one convolution with batch norm.

    Attributes:
        x: the convolution's input, [batch, in, height, width].
        unfolded: the same unfolded, where the convolution ran as a product; else None.
        out: the convolution's output, [batch, out, height, width].
        mean: float32 [out], each channel's mean of `out` over the batch.
        rstd: float32 [out], each channel's 1 / √(variance + eps) over the batch.
    """

    x: Tensor
    unfolded: Tensor | None
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


def lay_out_for_products(network: ResidualNetwork, batch_size: int) -> None:
    """Store those kernels as [height, width, in, out] whose convolutions run as products for batches of this size.

    That is the order in which the products read a kernel and write its gradient. The parameters keep their shape.
    """
    stem, _ = layers(network.stem)
    size = IMAGE_SIZE // stem.stride[0]
    for block in network.blocks:
        assert isinstance(block, BasicBlock)
        size = -(-size // block.conv1.stride[0])
        convs = [block.conv1, block.conv2]
        if isinstance(block.shortcut, nn.Sequential):
            convs.append(layers(block.shortcut)[0])
        for conv in convs:
            if batch_size * size**2 <= PRODUCT_POSITIONS:
                conv.weight.data = conv.weight.data.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


def runs_as_product(conv: nn.Conv2d) -> bool:
    """Whether `lay_out_for_products` chose this convolution: its kernel lies in memory as [height, width, in, out]."""
    return conv.weight.permute(2, 3, 1, 0).is_contiguous()


def unfold(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """What each output position of a convolution sees, tap by tap.

    Args:
        x: the convolution's input, [batch, in, height, width].

    Returns:
        [batch × out height × out width, kernel × kernel × in].
    """
    (size, _), (stride, _), (padding, _) = conv.kernel_size, conv.stride, cast(tuple[int, int], conv.padding)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *(padding,) * 4)).contiguous()
    out = (padded.shape[1] - size) // stride + 1
    image, row, column, _ = padded.stride()
    # A view, so that Inductor stores `padded`. Else it would compute what led to it again for every tap.
    taps = padded.as_strided(
        (len(x), out, out, size, size, x.shape[1]), (image, row * stride, column * stride, row, column, 1)
    )
    return taps.reshape(-1, size * size * x.shape[1])


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def seen_rows(batch: int, size: int, kernel: int, stride: int, padding: int) -> Tensor:
    """For each pixel of a batch, the rows of `unfold`'s result, taken tap by tap, in which it occurs.

    Args:
        size: pixels on each side of the input.

    Returns:
        int64 [rows], pixel by pixel; a row is ((image × out + y) × out + x) × kernel² + tap.
    """
    return _seen_rows(batch, size, kernel, stride, padding)[0]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def first_rows(batch: int, size: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Where each pixel's rows begin in `seen_rows`: int64 [batch × size × size]."""
    return _seen_rows(batch, size, kernel, stride, padding)[1]


@functools.cache
def _seen_rows(batch: int, size: int, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    out = (size + 2 * padding - kernel) // stride + 1
    # Output place o sees input place o × stride + tap - padding.
    seen = [[(o, i + padding - o * stride) for o in range(out) if 0 <= i + padding - o * stride < kernel]
            for i in range(size)]  # fmt: skip
    rows: list[int] = []
    first: list[int] = []
    for image, vertical, horizontal in itertools.product(range(batch), seen, seen):
        first.append(len(rows))
        for (y, tap_y), (x, tap_x) in itertools.product(vertical, horizontal):
            rows.append((((image * out + y) * out + x) * kernel + tap_y) * kernel + tap_x)
    return torch.tensor(rows, dtype=torch.int64), torch.tensor(first, dtype=torch.int64)


def fold(taps: Tensor, batch: int, size: int, conv: nn.Conv2d) -> Tensor:
    """The sum over all taps in which each pixel of a convolution's input occurs: the adjoint of `unfold`.

    Args:
        taps: [batch × out height × out width, kernel × kernel × in].
        size: pixels on each side of the input.

    Returns:
        [batch, in, size, size], channels-last in memory.
    """
    channels = conv.in_channels
    table = (batch, size, conv.kernel_size[0], conv.stride[0], cast(tuple[int, int], conv.padding)[0])
    pixels, *_ = aten._embedding_bag(taps.view(-1, channels), seen_rows(*table), first_rows(*table))
    return cast(Tensor, pixels).view(batch, size, size, channels).permute(0, 3, 1, 2)


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
    weight = conv.weight.to(dtype)
    unfolded = None
    if runs_as_product(conv):
        unfolded = unfold(x, conv)
        product = unfolded @ weight.permute(2, 3, 1, 0).reshape(-1, len(weight))
        size = -(-x.shape[2] // conv.stride[0])
        out = product.view(len(x), size, size, -1).permute(0, 3, 1, 2)  # channels-last in memory
    else:
        out = F.conv2d(x, weight, None, conv.stride, conv.padding)
    normalized, mean, rstd = aten.native_batch_norm(
        out, norm.weight, norm.bias, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
    )
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return normalized, Saved(x, unfolded, out, mean, rstd)


def product_backward(g: Tensor, conv: nn.Conv2d, x: Tensor, unfolded: Tensor) -> tuple[Tensor, Tensor]:
    """The backward pass of a convolution that ran as a product.

    Args:
        g: the gradient with respect to the convolution's output, [batch, out, height, width].
        x: the convolution's input.
        unfolded: `unfold` of it.

    Returns:
        x_gradient: the gradient with respect to the input, of its shape.
        kernel: the kernel's gradient, [out, in, kernel, kernel], in the kernel's order in memory.
    """
    weight = conv.weight.to(g.dtype).permute(2, 3, 1, 0)
    rows = g.permute(0, 2, 3, 1).reshape(-1, g.shape[1])
    kernel = (unfolded.t() @ rows).view(weight.shape).permute(3, 2, 0, 1)
    taps = rows @ weight.reshape(-1, g.shape[1]).t()
    return fold(taps, len(x), x.shape[2], conv), kernel


def convolution_backward(
    g: Tensor, conv: nn.Conv2d, norm: nn.BatchNorm2d, saved: Saved, input_gradient: bool = True
) -> tuple[Tensor, list[Tensor]]:
    """The backward pass of `convolution`.

    Args:
        g: the gradient with respect to `convolution`'s output, of its shape and dtype.
        conv, norm: as in the forward pass.
        saved: what `convolution` returned.
        input_gradient: whether the gradient with respect to the input is needed.

    Returns:
        x_gradient: the gradient with respect to the input, of its shape; may be empty where it is not needed.
        gradients: those of the kernel and of batch norm's weight and bias.
    """
    g, weight, bias = aten.native_batch_norm_backward(
        g, saved.out, norm.weight, norm.running_mean, norm.running_var, saved.mean, saved.rstd, True, norm.eps,
        [True, True, True],
    )  # fmt: skip
    if saved.unfolded is not None:
        x_gradient, kernel = product_backward(g, conv, saved.x, saved.unfolded)
    else:
        x_gradient, kernel, _ = aten.convolution_backward(
            g, saved.x, conv.weight.to(g.dtype), None, conv.stride, conv.padding, conv.dilation, False, [0, 0], 1,
            [input_gradient, True, False],
        )  # fmt: skip
    return x_gradient, [kernel.to(conv.weight.dtype), weight, bias]


def block_dtype(module: nn.Module) -> torch.dtype:
    """The type of number in which channel attention computes: that of its parameters; float32 where it has none."""
    return next((p.dtype for p in module.parameters()), torch.float32)


def attention_backward(g: Tensor, module: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The backward pass of channel attention, whatever it computes; its forward pass is computed again for that.

    Args:
        g: the gradient with respect to the module's output, of its shape and dtype.
        module: the channel attention.
        x: its input, [batch, channels, height, width].

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
