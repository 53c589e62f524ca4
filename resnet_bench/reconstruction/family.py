"""The family of designs that the search goes through, and the exact parameter counts of each of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from resnet_bench.architectures import ARCHITECTURES, BASELINE, IMAGE_SIZE

NUM_CLASSES = 100
STEM_KERNEL_SIZE = BASELINE.stem_kernel_size

# The family. Everything outside it (pooling, bottlenecks, other widths, parameter-free shortcuts) is not searched.
STEM_WIDTHS = (16, 32, 64)
STEM_MAPS = (32, 16, 8)
BLOCK_WIDTHS = (16, 32, 64, 128, 256)
BLOCKS = 4
SHORTCUT_KERNELS = (1, 3)
HIDDEN_WIDTHS = tuple(sorted({2**k for k in range(6, 13)} | set(range(100, 4001, 100))))
KERNELS_5X5 = ((5, 3), (3, 5), (5, 5))
FAMILY = {
    "stem": f"7×7 convolution, {'/'.join(map(str, STEM_WIDTHS))} channels, no pooling",
    "map after the stem": "/".join(f"{m}×{m}" for m in STEM_MAPS),
    "blocks": "4 basic blocks, batch norm after each of their convolutions",
    "block widths": f"{'/'.join(map(str, BLOCK_WIDTHS))}, never falling from block to block (the stem may be wider); "
    "others, such as 48 or 96, are not searched",
    "block strides": "1/2, each block on its own",
    "convolution bias": "all or none",
    "shortcut": "where the shape changes: 1×1 or 3×3 convolution, with or without batch norm; identity elsewhere",
    "FC": "hidden widths: powers of two 64…4096 and hundreds 100…4000; biases",
    "fc1": "the baseline without its hidden FC layer",
    "fc3": "two hidden FC layers instead of one, the second not wider than the first, none narrower than 100",
    "conv5x5": "5×5 kernels as first, second or both convolutions of each block; any block strides; the rest as before",
    "blocks2": "the first two blocks kept, the rest as before",
}
"""The family in words, by part of the network; the constants above are the same in numbers."""


@dataclass(frozen=True)
class Body:
    """Everything before the FC layers.

    Attributes:
        stem_width: output channels of the stem.
        stem_map: side of the square feature map after the stem, in pixels.
        widths: output channels of each block.
        strides: stride of the first convolution of each block.
        conv_bias: whether the convolutions, those of the shortcuts included, have biases.
        shortcut_kernel: kernel size (1 or 3) of the shortcut's convolution in blocks that change the shape.
        shortcut_batch_norm: whether batch norm follows that convolution.
        kernels: kernel sizes of the two convolutions of every block.
    """

    stem_width: int
    stem_map: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    conv_bias: bool
    shortcut_kernel: int
    shortcut_batch_norm: bool
    kernels: tuple[int, int] = (3, 3)

    @property
    def map_size(self) -> int:
        """Side of the square feature map that reaches the FC layers, in pixels."""
        size = self.stem_map
        for stride in self.strides:
            size = -(-size // stride)  # every convolution is padded by half its kernel
        return size

    @property
    def features(self) -> int:
        """Inputs of the first FC layer."""
        return self.widths[-1] * self.map_size**2

    @property
    def parameters(self) -> int:
        """Exact number of trainable parameters, in closed form."""

        def convolution(inputs: int, outputs: int, kernel: int, batch_norm: bool = True) -> int:
            return outputs * (inputs * kernel**2 + self.conv_bias + 2 * batch_norm)

        total = convolution(3, self.stem_width, STEM_KERNEL_SIZE)
        inputs = self.stem_width
        for width, stride in zip(self.widths, self.strides, strict=True):
            total += convolution(inputs, width, self.kernels[0]) + convolution(width, width, self.kernels[1])
            if stride != 1 or inputs != width:
                total += convolution(inputs, width, self.shortcut_kernel, self.shortcut_batch_norm)
            inputs = width
        return total

    def count(self, *hidden: int) -> int:
        """Exact number of trainable parameters with FC layers features → `hidden` … → 100."""
        return self.parameters + fc_parameters(self.features, *hidden)

    def with_5x5(self, kernels: tuple[int, int], strides: tuple[int, ...]) -> Body:
        """The body of `conv5x5`."""
        return replace(self, kernels=kernels, strides=strides)

    def first_two_blocks(self) -> Body:
        """The body of `blocks2`."""
        return replace(self, widths=self.widths[:2], strides=self.strides[:2])


def fc_parameters(features: int, *hidden: int) -> int:
    """Number of weights and biases of the FC layers `features` → `hidden` … → 100."""
    sizes = (features, *hidden, NUM_CLASSES)
    return sum((i + 1) * o for i, o in pairwise(sizes))


@dataclass(frozen=True)
class Design:
    """One reconstruction of all five networks: the baseline, and what sets the variants apart from it.

    Attributes:
        body: the baseline before its FC layers.
        hidden: width of the baseline's hidden FC layer.
        fc3_hidden: widths of the two hidden FC layers of `fc3`.
        conv5x5_kernels: kernel sizes of the two convolutions of every block of `conv5x5`.
        conv5x5_strides: stride of the first convolution of each block of `conv5x5`.
    """

    body: Body
    hidden: int
    fc3_hidden: tuple[int, int]
    conv5x5_kernels: tuple[int, int]
    conv5x5_strides: tuple[int, ...]

    @property
    def conv5x5(self) -> Body:
        return self.body.with_5x5(self.conv5x5_kernels, self.conv5x5_strides)

    @property
    def blocks2(self) -> Body:
        return self.body.first_two_blocks()

    @cached_property
    def counts(self) -> dict[str, int]:
        """Exact number of trainable parameters by architecture id, for 100 classes."""
        return {
            "baseline": self.body.count(self.hidden),
            "fc1": self.body.count(),
            "fc3": self.body.count(*self.fc3_hidden),
            "blocks2": self.blocks2.count(self.hidden),
            "conv5x5": self.conv5x5.count(self.hidden),
        }

    @property
    def canonical(self) -> bool:
        """Whether this is the design of `resnet_bench.architectures`."""
        return self == CANONICAL


def _canonical() -> Design:
    fc3, conv5x5 = ARCHITECTURES["fc3"], ARCHITECTURES["conv5x5"]
    body = Body(
        stem_width=BASELINE.stem_width,
        stem_map=IMAGE_SIZE // BASELINE.stem_stride,
        widths=BASELINE.widths,
        strides=BASELINE.strides,
        conv_bias=False,
        shortcut_kernel=1,
        shortcut_batch_norm=True,
    )
    return Design(
        body=body,
        hidden=BASELINE.hidden[0],
        fc3_hidden=(fc3.hidden[0], fc3.hidden[1]),
        conv5x5_kernels=(conv5x5.kernel_size, 3),
        conv5x5_strides=conv5x5.strides,
    )


CANONICAL = _canonical()
"""The design of `resnet_bench.architectures`."""
