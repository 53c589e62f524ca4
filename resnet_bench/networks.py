"""The networks themselves, as modules of PyTorch: what an `Architecture` describes, built and counted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnet_bench import attention
from resnet_bench.architectures import Architecture, convolutions


class BasicBlock(nn.Module):
    """Two convolutions with batch norm, channel attention if asked for, and a shortcut that is added to their output.

    The shortcut is the identity, or a 1×1 convolution with batch norm where the block changes the shape: the basic
    block of K. He et al., Deep Residual Learning for Image Recognition (2016), with option B for its shortcuts.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, kernel_size: int, attention_name: str | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.attention: nn.Module = nn.Identity()
        if attention_name is not None:
            self.attention = attention.build(attention_name, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, in_channels, h, w] → [batch, out_channels, ⌈h/stride⌉, ⌈w/stride⌉]."""
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.attention(self.bn2(self.conv2(out))) + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """The network that an `Architecture` describes, with torch's default initialisation.

    Attributes:
        stem: convolution, batch norm and ReLU.
        blocks: the basic blocks.
        fc: the FC layers, with ReLU between them.
    """

    def __init__(self, architecture: Architecture, num_classes: int = 100) -> None:
        super().__init__()
        self.architecture = architecture
        self.num_classes = num_classes
        a = architecture
        self.stem = nn.Sequential(
            nn.Conv2d(3, a.stem_width, a.stem_kernel_size, a.stem_stride, a.stem_kernel_size // 2, bias=False),
            nn.BatchNorm2d(a.stem_width),
            nn.ReLU(),
        )
        inputs = (a.stem_width, *a.widths)
        self.blocks = nn.Sequential(
            *(
                BasicBlock(i, o, s, a.kernel_size, a.attention)
                for i, o, s in zip(inputs, a.widths, a.strides, strict=False)
            )
        )
        layers: list[nn.Module] = []
        for i, o in a.fc_shapes(num_classes):
            layers += [nn.Linear(i, o), nn.ReLU()]
        self.fc = nn.Sequential(*layers[:-1])  # logits come from the last linear layer, without ReLU

    def forward(self, images: Tensor) -> Tensor:
        """Images [batch, 3, 32, 32] → logits [batch, num_classes], both floating-point."""
        logits: Tensor = self.fc(self.blocks(self.stem(images)).flatten(1))
        return logits


def build(architecture: Architecture, num_classes: int, seed: int) -> ResidualNetwork:
    """The network with initial weights that depend on `seed` alone; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResidualNetwork(architecture, num_classes)


def parameter_count(architecture: Architecture, num_classes: int = 100) -> int:
    """Number of trainable parameters, counted on the real module (on torch's `meta` device, which stores no values)."""
    with torch.device("meta"):
        return sum(p.numel() for p in ResidualNetwork(architecture, num_classes).parameters())


def multiply_accumulates(architecture: Architecture, num_classes: int = 100) -> int:
    """Multiply-accumulate operations of one image's forward pass, in convolutions, FC layers and attention."""
    of_attention = 0
    if architecture.attention is not None:
        with torch.device("meta"):
            blocks = [attention.build(architecture.attention, width) for width in architecture.widths]
        of_attention = sum(block.multiply_accumulates for block in blocks)
    return (
        of_attention
        + sum(c.multiply_accumulates for c in convolutions(architecture))
        + sum(i * o for i, o in architecture.fc_shapes(num_classes))
    )
