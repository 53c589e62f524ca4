"""One convolution with batch norm, computed by `_layer.cpp`.

oneDNN, which torch calls, turns kernels into an order of its own in every call, and a call costs some 40 µs beside the
arithmetic. At batch size 4, on maps of 16×16 pixels and fewer, that is a good part of a step. Here a weight lies in
memory as the products read it, all of a layer is done in one call, and its tensors are allocated once.
docs/fast-engine.md has the measurements.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from resnet_bench.engines._cpp import library

WINOGRAD_TILES = 16
"""Blocks of 2×2 outputs for each thread from which Winograd's algorithm computes 3×3 convolutions. With fewer,
transforming the kernels, which each thread does for itself, takes the time that it saves. A rule, not a measurement at
the start, so the same training always takes the same path; docs/fast-engine.md has what it gives away."""


class Map:
    """A float32 feature map, channels-last in memory, with a border of zeros around each image.

    Attributes:
        tensor: [images, height + 2 border, width + 2 border, channels].
        border: in pixels; as wide as the padding of the convolutions that read the map.
    """

    def __init__(self, images: int, height: int, width: int, channels: int, border: int = 0) -> None:
        self.tensor = torch.zeros(images, height + 2 * border, width + 2 * border, channels)
        self.border = border

    @property
    def inside(self) -> Tensor:
        """The map without its border, as torch has it: a view [images, channels, height, width]."""
        b = self.border
        inside = self.tensor[:, b:-b, b:-b] if b else self.tensor
        return inside.permute(0, 3, 1, 2)


class Scratch:
    """Memory for what lives for a moment, handed out again to whatever asks for the same.

    A step writes several megabytes. What it writes where it has just written stays in the nearest cache.
    """

    def __init__(self) -> None:
        self._maps: dict[tuple[str, tuple[int, ...], int], Map] = {}

    def map(self, purpose: str, shape: tuple[int, int, int, int], border: int = 0) -> Map:
        """A map [images, height, width, channels]; those of another purpose have other memory."""
        key = purpose, shape, border
        if key not in self._maps:
            self._maps[key] = Map(*shape, border)
        return self._maps[key]


class _Map(ctypes.Structure):
    _fields_ = (("values", ctypes.c_void_p), ("border", ctypes.c_int64))


class _Layer(ctypes.Structure):
    """The fields of `Layer` in `_layer.cpp`, in its order.

    Beside what the classes `Layer` and `ChannelWeights` name: `convolved`, `mean` and `rstd` are the convolution's
    output and what batch norm takes for it; `sums` those of each row of it; `transposed` is the weight for the gradient
    of `x`; `winograd` tells whether the kernels go through Winograd's transformation, and `partial_gradients` has the
    weight's gradient of each thread then; `deviations` are the differences between an image's mean of `convolved` and
    the batch's.
    """

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "inputs", "outputs", "kernel", "stride")),
        *((name, ctypes.c_float) for name in ("momentum", "eps")),
        ("x", _Map),
        *((name, ctypes.c_void_p) for name in ("weight", "convolved", "sums", "mean", "rstd", "scale", "shift")),
        *((name, ctypes.c_void_p) for name in ("running_mean", "running_var", "batches_tracked")),
        ("added", _Map),
        ("out", _Map),
        ("relu", ctypes.c_int64),
        ("gradient", ctypes.c_void_p),
        ("convolved_gradient", _Map),
        *((name, ctypes.c_void_p) for name in ("weight_gradient", "scale_gradient", "shift_gradient")),
        *((name, ctypes.c_void_p) for name in ("transposed", "x_gradient")),
        ("add_to_x_gradient", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("winograd", ctypes.c_int64),
        ("partial_gradients", ctypes.c_void_p),
        *((name, ctypes.c_void_p) for name in ("deviations", "channel_means", "channel_weights")),
        *((name, ctypes.c_void_p) for name in ("channel_weights_gradient", "channel_means_gradient")),
    )


class ChannelWeights:
    """What each channel of each image is multiplied by, and the means that this comes from; all [images, channels].

    Attributes:
        means: of each map of the batch norm's output; `Layer.forward` computes them.
        weights: to be filled in, from the means, before `Layer.weigh`.
        weights_gradient: `Layer.weigh_backward` computes it.
        means_gradient: that of the means through the weights; to be filled in before `Layer.backward`.
        deviations: for `_layer.cpp` alone.
    """

    def __init__(self, images: int, channels: int) -> None:
        self.means, self.weights = torch.zeros(images, channels), torch.zeros(images, channels)
        self.weights_gradient, self.means_gradient = torch.zeros_like(self.means), torch.zeros_like(self.means)
        self.deviations = torch.zeros_like(self.means)


class Layer:
    """`out = relu(norm(conv(x)) · weights + added)`, and its backward pass in training mode.

    Without channel weights, one call of `forward` and one of `backward` do all. With them, `forward` ends with their
    means, and `weigh` does the rest; `weigh_backward` gives the gradient of the weights, and `backward` does the rest.

    It works on the memory that the modules and maps have when it is made: their values may change, but they must not be
    given other memory.

    Attributes:
        x: its input, [images, in, height, width].
        out: its output.
        gradient: of `out`, [images, height, width, out] as in memory: to be filled before `backward`, which sets it to
            0 where the ReLU is off.
        weight_gradient: of `conv.weight`, of its shape and in its order in memory.
        scale_gradient, shift_gradient: of `norm.weight` and `norm.bias`.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d,
        x: Map,
        scratch: Scratch,
        *,
        border: int = 0,
        gradient: Tensor | None = None,
        x_gradient: Tensor | None = None,
        added: Map | None = None,
        relu: bool = False,
        add: bool = False,
        channel_weights: ChannelWeights | None = None,
    ) -> None:
        """Allocate what the layer keeps.

        Args:
            conv: float32, square, of odd size, without bias, padded by half the kernel; its weight lies in memory as
                [kernel, kernel, in, out].
            norm: the batch norm that follows it.
            x: see the class; its border is at least `conv`'s padding.
            scratch: for what only `backward` needs.
            border: of `out`.
            gradient: see the class; None for memory from `scratch`.
            x_gradient: `backward` writes the gradient of `x` there, [images, height, width, in]; None to leave it out.
            added: what is added behind the batch norm, of the size of `out`.
            relu: whether a ReLU follows.
            add: whether the gradient is added to what is in `x_gradient`.
            channel_weights: see the class; None where there are none.
        """
        (kernel, _), (stride, _) = conv.kernel_size, conv.stride
        assert conv.bias is None
        assert kernel % 2 == 1
        assert conv.padding == (kernel // 2,) * 2 <= (x.border,) * 2
        assert conv.weight.permute(2, 3, 1, 0).is_contiguous()
        assert conv.weight.dtype == torch.float32
        assert norm.momentum is not None
        threads = torch.get_num_threads()
        images, inputs, height, width = x.inside.shape
        shape = (images, -(-height // stride), -(-width // stride), conv.out_channels)
        self.x, self.out = x, Map(*shape, border)
        self.gradient = scratch.map("gradient", shape).tensor if gradient is None else gradient
        self.weight_gradient = torch.zeros_like(conv.weight)
        self.scale_gradient, self.shift_gradient = torch.zeros_like(norm.weight), torch.zeros_like(norm.bias)
        self._tensors = {
            "convolved": torch.empty(shape),
            "sums": scratch.map("sums", (2, images, shape[1], conv.out_channels)).tensor,
            "mean": torch.empty_like(norm.weight),
            "rstd": torch.empty_like(norm.weight),
            "weight": conv.weight.detach(),
            "scale": norm.weight.detach(),
            "shift": norm.bias.detach(),
            "running_mean": norm.running_mean,
            "running_var": norm.running_var,
            "batches_tracked": norm.num_batches_tracked,
            "gradient": self.gradient,
            "weight_gradient": self.weight_gradient,
            "scale_gradient": self.scale_gradient,
            "shift_gradient": self.shift_gradient,
            "x_gradient": x_gradient,
        }  # keeps them alive
        tiles = images * (height // 2) * (width // 2)
        winograd = kernel == 3 and stride == 1 and height % 2 == width % 2 == 0 and tiles >= threads * WINOGRAD_TILES
        if winograd:
            partial = scratch.map("partial gradients", (threads, 9, inputs, conv.out_channels))
            self._tensors["partial_gradients"] = partial.tensor
        elif x_gradient is not None:
            turned = scratch.map("transposed", (kernel, kernel, inputs, conv.out_channels))
            self._tensors["transposed"] = turned.tensor
        before_norm = scratch.map("convolved gradient", shape, kernel // 2)
        if channel_weights:
            self._tensors |= {
                "deviations": channel_weights.deviations,
                "channel_means": channel_weights.means,
                "channel_weights": channel_weights.weights,
                "channel_weights_gradient": channel_weights.weights_gradient,
                "channel_means_gradient": channel_weights.means_gradient,
            }
        self._maps = {"x": x, "out": self.out, "added": added, "convolved_gradient": before_norm}
        self._layer = ctypes.pointer(
            _Layer(
                images=images, height=height, width=width, inputs=inputs, outputs=conv.out_channels, kernel=kernel,
                stride=stride, momentum=norm.momentum, eps=norm.eps, relu=relu, add_to_x_gradient=add,
                threads=threads, winograd=winograd,
                **{name: t.data_ptr() for name, t in self._tensors.items() if t is not None},
                **{name: _Map(m.tensor.data_ptr(), m.border) for name, m in self._maps.items() if m is not None},
            )
        )  # fmt: skip

    @property
    def gradients(self) -> list[Tensor]:
        """Those of the weight and of batch norm's weight and bias, which the next `backward` overwrites."""
        return [self.weight_gradient.detach(), self.scale_gradient.detach(), self.shift_gradient.detach()]

    def forward(self, training: bool = True) -> None:
        """Compute `out` from `x`: in training mode, which updates the running statistics, or in evaluation mode."""
        code = library("_layer.cpp")
        (code.forward if training else code.evaluate)(self._layer)

    def weigh(self) -> None:
        """Compute `out` from the channel weights."""
        library("_layer.cpp").weigh(self._layer)

    def weigh_backward(self) -> None:
        """Compute the gradient of the channel weights from `gradient`."""
        library("_layer.cpp").weigh_backward(self._layer)

    def backward(self) -> None:
        """Compute the gradients from `gradient` and from what `forward` has kept."""
        library("_layer.cpp").backward(self._layer)
