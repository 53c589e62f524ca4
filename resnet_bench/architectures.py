"""The five networks of the study and a few beside them, each described by one frozen `Architecture`.

The study prints no layer widths; the designs here are the reconstruction that `resnet-bench reconstruct` derives
(see `resnet_bench.reconstruction`), and `networks.py` builds them. This module needs no torch, whose import takes
seconds. A new architecture is one more entry in one of the dicts below.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from resnet_bench.errors import UserError

IMAGE_SIZE = 32  # pixels; every data set of the suite has 3×32×32 images


@dataclass(frozen=True)
class Architecture:
    """A small residual network: 7×7 stem, basic blocks, fully connected (FC) layers.

    Attributes:
        id: the name used in options, JSON and tables.
        published_name: the row label of the paper's tables; empty for networks that are not the paper's.
        change: what differs from the baseline.
        widths: output channels of each basic block.
        strides: stride of the first convolution of each basic block.
        kernel_size: kernel size (3 or 5) of the first convolution of each block; that of the second is always 3.
        hidden: widths of the FC layers before the last one.
        attention: channel attention on the residual branch of each block, by its name in `resnet_bench.attention`.
        stem_width: output channels of the stem.
        stem_kernel_size: kernel size of the stem.
        stem_stride: stride of the stem.
    """

    id: str
    published_name: str
    change: str
    widths: tuple[int, ...] = (64, 64, 128, 128)
    strides: tuple[int, ...] = (1, 1, 2, 1)
    kernel_size: int = 3
    hidden: tuple[int, ...] = (1000,)
    attention: str | None = None

    stem_width = 16
    stem_kernel_size = 7
    stem_stride = 2

    @property
    def map_size(self) -> int:
        """Side of the square feature map that reaches the first FC layer, in pixels."""
        size = IMAGE_SIZE // self.stem_stride
        for stride in self.strides:
            size = -(-size // stride)
        return size

    @property
    def features(self) -> int:
        """Inputs of the first FC layer."""
        return self.widths[-1] * self.map_size**2

    def fc_shapes(self, num_classes: int) -> list[tuple[int, int]]:
        """(inputs, outputs) of each FC layer, first to last."""
        sizes = [self.features, *self.hidden, num_classes]
        return list(itertools.pairwise(sizes))


BASELINE = Architecture("baseline", "Original(Baseline Residual Network)", "7×7 stem, 4 basic blocks, 2 FC layers")

CONV5X5 = Architecture(
    "conv5x5",
    "#4 Variation(ResNet_with_5x5ConvolutionLayer_in_BasickBlock)",
    "3×3 → 5×5 convolutions in the blocks",
    strides=(2, 2, 2, 1),
    kernel_size=5,
)

ARCHITECTURES: dict[str, Architecture] = {
    a.id: a
    for a in (
        BASELINE,
        Architecture("fc1", "#1 Variation(ResNet with 1 FC)", "last FC layer removed", hidden=()),
        Architecture("fc3", "#2 Variation(ResNet with 3 FC)", "one FC layer added", hidden=(2000, 600)),
        Architecture("blocks2", "#3 Variation (2 basic blocks)", "4 → 2 basic blocks", widths=(64, 64), strides=(1, 1)),
        CONV5X5,
    )
}
"""The study's five networks, in its order."""

CONTROLS: dict[str, Architecture] = {
    a.id: a
    for a in (
        Architecture(
            "conv5x5-same", "", "5×5 convolutions, baseline's strides: only the kernel changes", kernel_size=5
        ),
        Architecture(
            "blocks2-same", "", "2 basic blocks, baseline's 128×8×8 map: only the depth changes", (64, 128), (1, 2)
        ),
    )
}
"""Networks that are not the paper's, run on request to separate causes the paper's variants mix."""

WITH_ATTENTION: dict[str, Architecture] = {
    a.id: a
    for a in (
        replace(BASELINE, id="baseline-se", published_name="", change="squeeze-and-excitation added", attention="se"),
        replace(
            BASELINE, id="baseline-eca", published_name="", change="efficient channel attention added", attention="eca"
        ),
        replace(CONV5X5, id="conv5x5-se", published_name="", change="squeeze-and-excitation added", attention="se"),
    )
}
"""Networks that answer a question that the study leaves to the future; run on request."""


def every() -> dict[str, Architecture]:
    """All networks by name: the study's five, the controls and those with attention."""
    return {**ARCHITECTURES, **CONTROLS, **WITH_ATTENTION}


def get(name: str) -> Architecture:
    """The network called `name`.

    Raises:
        UserError: there is none; the message lists the known ones.
    """
    known = every()
    if name not in known:
        raise UserError(f"There is no architecture {name!r}; choose one of {', '.join(known)}.")
    return known[name]


def fc_parameter_count(architecture: Architecture, num_classes: int = 100) -> int:
    """Number of trainable parameters in the FC layers: weights and biases."""
    return sum((i + 1) * o for i, o in architecture.fc_shapes(num_classes))


@dataclass(frozen=True)
class Convolution:
    """One convolution of a network that runs on a 32×32 image.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the square kernel.
        stride: stride in both directions.
        input_size: side of the square input, in pixels; the input is padded by half the kernel.
    """

    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    input_size: int

    @property
    def output_size(self) -> int:
        """Side of the square output, in pixels."""
        return -(-self.input_size // self.stride)

    @property
    def multiply_accumulates(self) -> int:
        """Multiply-accumulate operations of one image's forward pass; those with padding are counted too, as usual."""
        return self.in_channels * self.out_channels * self.kernel_size**2 * self.output_size**2


def convolutions(architecture: Architecture) -> Iterator[Convolution]:
    """Every convolution of the network, in the order of the forward pass; a block's projection shortcut comes last."""
    a = architecture
    yield Convolution(3, a.stem_width, a.stem_kernel_size, a.stem_stride, IMAGE_SIZE)
    size, channels = IMAGE_SIZE // a.stem_stride, a.stem_width
    for width, stride in zip(a.widths, a.strides, strict=True):
        first = Convolution(channels, width, a.kernel_size, stride, size)
        yield first
        yield Convolution(width, width, 3, 1, first.output_size)
        if stride != 1 or channels != width:
            yield Convolution(channels, width, 1, stride, size)
        size, channels = first.output_size, width


def plain_parameter_count(architecture: Architecture, num_classes: int = 100) -> int:
    """Number of trainable parameters without those of attention, as `networks.parameter_count` counts them.

    The kernels of the convolutions, scale and shift of the batch norm behind each, and the FC layers; for this, nothing
    has to be built and torch need not be imported.
    """
    kernels_and_norms = sum(c.out_channels * (c.in_channels * c.kernel_size**2 + 2) for c in convolutions(architecture))
    return kernels_and_norms + fc_parameter_count(architecture, num_classes)


def millions(count: int) -> str:
    """A parameter count as the paper prints it: 8942524 → `8.9M`."""
    return f"{count / 1e6:.1f}M"
