"""The convolutional part of a network as `_layer.py` computes it, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.attention import ChannelAttention
from resnet_bench.engines._features import attention_backward, layers
from resnet_bench.engines._layer import ChannelWeights, Layer, Map, Scratch
from resnet_bench.networks import BasicBlock, ResidualNetwork


def as_map(gradient: Tensor) -> Tensor:
    """A gradient [images, height, width, channels] as torch has a map: a view [images, channels, height, width]."""
    return gradient.permute(0, 3, 1, 2)


def convolutions(network: ResidualNetwork) -> Iterator[nn.Conv2d]:
    """Those of stem and blocks, in the order of their parameters; attention has its own."""
    yield layers(network.stem)[0]
    for block in network.blocks:
        assert isinstance(block, BasicBlock)
        yield from (block.conv1, block.conv2)
        if isinstance(block.shortcut, nn.Sequential):
            yield layers(block.shortcut)[0]


def in_product_order(network: ResidualNetwork) -> None:
    """Put the kernels into the order in which `Layer` reads them: [kernel, kernel, in, out] in memory.

    Shapes and values stay the same.
    """
    for conv in convolutions(network):
        conv.weight.data = conv.weight.data.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1)


class Weights(nn.Module):
    """The weights of channel attention as a module of the means: [batch, channels] → the same."""

    def __init__(self, attention: ChannelAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, means: Tensor) -> Tensor:
        return self.attention.weights(means)


def weights(module: Weights, means: Tensor) -> Tensor:
    """A call of a module as a function, which can be compiled."""
    of_means: Tensor = module(means)
    return of_means


@dataclass(frozen=True)
class AttentionFunctions:
    """`weights` and its backward pass, compiled for one block or uncompiled."""

    forward: Callable[..., Any] = weights
    backward: Callable[..., Any] = attention_backward


class _Attention:
    """Channel attention behind a layer: its weights. The maps it leaves to the layer."""

    def __init__(self, attention: ChannelAttention, images: int, channels: int, functions: AttentionFunctions) -> None:
        self._weights, self._functions = Weights(attention), functions
        self.of = ChannelWeights(images, channels)

    def forward(self) -> None:
        """Fill in the weights from the means."""
        self.of.weights.copy_(self._functions.forward(self._weights, self.of.means))

    def backward(self) -> list[Tensor]:
        """Fill in the gradient of the means; those of the parameters, in their order in the module."""
        of_means, gradients = self._functions.backward(self.of.weights_gradient, self._weights, self.of.means)
        self.of.means_gradient.copy_(of_means)
        return cast(list[Tensor], gradients)


class _Block:
    """The layers of a basic block, and its attention."""

    def __init__(
        self,
        block: BasicBlock,
        x: Map,
        x_gradient: Tensor,
        scratch: Scratch,
        border: int,
        functions: AttentionFunctions,
    ) -> None:
        """`x_gradient` is of `x`, and `border` of the block's output; an identity shortcut shares its gradient."""
        middle = block.conv2.kernel_size[0] // 2
        first = partial(Layer, block.conv1, block.bn1, x, scratch, border=middle, x_gradient=x_gradient, relu=True)
        self.shortcut: Layer | None = None
        if isinstance(block.shortcut, nn.Sequential):
            self.first = first()
            gradient = torch.empty_like(self.first.gradient)
            self.shortcut = Layer(
                *layers(block.shortcut), x, scratch, gradient=gradient, x_gradient=x_gradient, add=True
            )
            added = self.shortcut.out
        else:
            self.first = first(add=True)
            added, gradient = x, x_gradient
        self.attention: _Attention | None = None
        if isinstance(block.attention, ChannelAttention):
            self.attention = _Attention(block.attention, len(x.tensor), block.conv2.out_channels, functions)
        self.second = Layer(
            block.conv2, block.bn2, self.first.out, scratch, border=border, gradient=gradient,
            x_gradient=self.first.gradient, added=added, relu=True,
            channel_weights=self.attention.of if self.attention else None,
        )  # fmt: skip
        self.out, self.gradient = self.second.out, gradient

    def forward(self, training: bool) -> None:
        self.first.forward(training)
        if self.shortcut:
            self.shortcut.forward(training)
        self.second.forward(training)
        if self.attention:
            self.attention.forward()
            self.second.weigh()

    def backward(self) -> list[Tensor]:
        """The gradients of the parameters, in their order in the block, from `gradient`."""
        of_attention: list[Tensor] = []
        if self.attention:
            self.second.weigh_backward()
            of_attention = self.attention.backward()
        self.second.backward()
        self.first.backward()  # writes the gradient of `x`, to which the shortcut adds
        if self.shortcut:
            self.shortcut.backward()
        ran = [self.first, self.second, *([self.shortcut] if self.shortcut else [])]
        return [g for layer in ran for g in layer.gradients] + of_attention


class Layers:
    """Stem and blocks of a network, for batches of one size; see `_features.Convolutions`.

    All maps and gradients are allocated once, so what it returns is overwritten in the next step.
    """

    def __init__(self, network: ResidualNetwork, images: int, functions: Sequence[AttentionFunctions]) -> None:
        """Allocate.

        Args:
            network: float32, with its kernels as `in_product_order` puts them; its tensors must not
                be given other memory afterwards.
            images: in a batch.
            functions: for the attention of each block; where there are none, it runs uncompiled.
        """
        blocks = [cast(BasicBlock, block) for block in network.blocks]
        borders = [*(block.conv1.kernel_size[0] // 2 for block in blocks), 0]
        conv, norm = layers(network.stem)
        self._images = Map(images, IMAGE_SIZE, IMAGE_SIZE, conv.in_channels, conv.kernel_size[0] // 2)
        # its gradient lives on while the first block's own gradients come and go
        self._stem = Layer(conv, norm, self._images, Scratch(), border=borders[0], relu=True)
        scratch = Scratch()
        self._blocks: list[_Block] = []
        last: Layer | _Block = self._stem
        for i, block in enumerate(blocks):
            of_block = functions[i] if functions else AttentionFunctions()
            last = _Block(block, last.out, last.gradient, scratch, borders[i + 1], of_block)
            self._blocks.append(last)
        self._last = last

    def forward(self, images: Tensor, training: bool = True) -> Tensor:
        self._images.inside.copy_(images)
        self._stem.forward(training)
        for block in self._blocks:
            block.forward(training)
        return self._last.out.inside

    def backward(self, g: Tensor) -> list[Tensor]:
        as_map(self._last.gradient).copy_(g)
        gradients: list[Tensor] = []
        for block in reversed(self._blocks):
            gradients[:0] = block.backward()
        self._stem.backward()
        return [*self._stem.gradients, *gradients]
