"""One convolution with batch norm in C++, against its formulas in float64, and in memory with guards around it.

A bound of the error is followed along the formulas, from the rounding of float32, u = 2⁻²⁴. A sum of n products is
within λ·√n·u of the exact one, relative to the sum of the products' magnitudes, but for a probability of 2n·exp(-λ²/2),
in whatever order it is added up (Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, 2019); λ = 8
leaves 10⁻¹⁰ for the longest. Kernels of 3×3 with stride 1 may be multiplied by an algorithm of Winograd's kind. Its
error is a few times larger and depends on the whole neighbourhood: they may be 8 times as far off, and the magnitude is
that of the channel's largest sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight
from torch.overrides import TorchFunctionMode

from resnet_bench.engines import _layer
from resnet_bench.engines._layer import ChannelWeights, Layer, Map, Scratch

U = 2.0**-24
LAMBDA = 8
WINOGRAD = 8
SLACK = 4  # the same formulas in another order, and what a bound of a bound's own rounding would take
ZONE = 4096  # numbers on each side of a tensor; more than a row of the largest map

pytestmark = pytest.mark.usefixtures("vectors")


# ----------------------------------------------------------------------------------------------------------------------
# Problems


class Guarded(TorchFunctionMode):
    """Lays new tensors between zones of NaN, and fills with NaN what is not initialised.

    A write beside a tensor changes a zone, and a read that matters makes NaN of a result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.zones: list[Tensor] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        zeros, empty = function in (torch.zeros, torch.zeros_like), function in (torch.empty, torch.empty_like)
        if not (zeros or empty) or result.dtype != torch.float32:
            return result
        memory = torch.full((result.numel() + 2 * ZONE,), math.nan)
        self.zones += [memory[:ZONE], memory[-ZONE:]]
        tensor = memory.as_strided(result.shape, result.stride(), ZONE)
        return tensor.zero_() if zeros else tensor

    def assert_untouched(self) -> None:
        assert all(bool(zone.isnan().all()) for zone in self.zones)


@dataclass(frozen=True)
class Case:
    """A layer. `wider` is the border of its input beyond the padding, `added` that of the added map."""

    images: int = 2
    inputs: int = 5
    outputs: int = 3
    kernel: int = 3
    stride: int = 1
    height: int = 4
    width: int = 5
    wider: int = 0
    border: int = 1
    added: int | None = None
    relu: bool = True
    add: bool = False
    x_gradient: bool = True
    offset: float = 0.0  # mean of the input
    eps: float = 1e-5

    @property
    def out_shape(self) -> tuple[int, int, int, int]:
        height, width = -(-self.height // self.stride), -(-self.width // self.stride)
        return self.images, height, width, self.outputs

    @property
    def positions(self) -> int:
        return math.prod(self.out_shape[:3])


CHANNELS = st.sampled_from([1, 3, 5, 8, 17, 24, 40, 48, 64])


def cases(
    kernels: st.SearchStrategy[int], strides: st.SearchStrategy[int], sizes: st.SearchStrategy[int]
) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        images=st.integers(1, 4),
        inputs=CHANNELS,
        outputs=CHANNELS,
        kernel=kernels,
        stride=strides,
        height=sizes,
        width=sizes,
        wider=st.integers(0, 2),
        border=st.integers(0, 3),
        added=st.none() | st.integers(0, 2),
        relu=st.booleans(),
        add=st.booleans(),
        x_gradient=st.booleans(),
        offset=st.sampled_from([0.0, 3.0]),
        eps=st.sampled_from([1e-5, 0.1]),
    ).filter(lambda case: case.positions > 1)  # one number alone has no variance


CASES = cases(st.sampled_from([1, 3, 5, 7]), st.integers(1, 3), st.integers(1, 9))
WINOGRAD_CASES = cases(st.just(3), st.just(1), st.sampled_from([2, 4, 6, 8, 16, 18]))
SEEDS = st.integers(0, 1000)


class Problem:
    """A layer for a case, all in guarded memory, with what it reads and writes."""

    def __init__(self, case: Case, weighed: bool = False) -> None:
        c = self.case = case
        self.guards = Guarded()
        with self.guards:
            self.conv = nn.Conv2d(c.inputs, c.outputs, c.kernel, c.stride, c.kernel // 2, bias=False)
            self.conv.weight.data = torch.zeros(c.kernel, c.kernel, c.inputs, c.outputs).permute(3, 2, 0, 1)
            self.norm = nn.BatchNorm2d(c.outputs, eps=c.eps, momentum=0.25)
            self.x = Map(c.images, c.height, c.width, c.inputs, c.kernel // 2 + c.wider)
            self.added = None if c.added is None else Map(*c.out_shape, c.added)
            self.x_gradient = torch.zeros(c.images, c.height, c.width, c.inputs) if c.x_gradient else None
            self.channel_weights = ChannelWeights(c.images, c.outputs) if weighed else None
            self.layer = Layer(
                self.conv, self.norm, self.x, Scratch(), border=c.border, x_gradient=self.x_gradient, added=self.added,
                relu=c.relu, add=c.add, channel_weights=self.channel_weights,
            )  # fmt: skip

    @torch.no_grad()
    def fill(self, seed: int) -> None:
        """Give everything that the layer reads, and will add to, new values."""
        generator = torch.Generator().manual_seed(seed)

        def random(tensor: Tensor, scale: float = 1.0, offset: float = 0.0) -> None:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale + offset)

        random(self.conv.weight, (self.case.inputs * self.case.kernel**2) ** -0.5)
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var):
            assert tensor is not None
            random(tensor)
        assert self.norm.running_var is not None
        self.norm.running_var.abs_()
        random(self.x.inside, offset=self.case.offset)
        if self.added:
            random(self.added.inside)
        if self.x_gradient is not None:
            random(self.x_gradient)
        self.g = torch.empty(self.case.out_shape)
        random(self.g)

    def run(self, seed: int) -> dict[str, Tensor]:
        """Forward and backward pass, and one in evaluation, with a seed's values; copies of all results by name."""
        self.fill(seed)
        self.forward()
        self.backward()
        weight, scale, shift = self.layer.gradients
        found = {
            "out": self.layer.out.tensor, "gradient": self.layer.gradient, "weight": weight, "scale": scale,
            "shift": shift, "x": self.x_gradient, "running_mean": self.norm.running_mean,
            "running_var": self.norm.running_var,
        }  # fmt: skip
        copies = {name: tensor.clone() for name, tensor in found.items() if tensor is not None}
        self.forward(training=False)
        return {**copies, "evaluated": self.layer.out.tensor.clone()}

    def forward(self, training: bool = True) -> None:
        self.layer.forward(training)
        if of := self.channel_weights:
            of.weights.copy_(torch.sigmoid(2 * of.means))
            self.layer.weigh()

    def backward(self) -> None:
        self.layer.gradient.copy_(self.g)
        if of := self.channel_weights:
            self.layer.weigh_backward()
            of.means_gradient.copy_(of.weights_gradient * 2 * of.weights * (1 - of.weights))
        self.layer.backward()


# ----------------------------------------------------------------------------------------------------------------------
# The formulas in float64


@dataclass(frozen=True)
class Bounded:
    """Numbers in float64, and how far the same ones may be off in float32; maps are [images, channels, …]."""

    value: Tensor
    error: Tensor

    @classmethod
    def exactly(cls, tensor: Tensor) -> Bounded:
        value = tensor.detach().double().clone()
        return cls(value, torch.zeros_like(value))

    def __add__(self, other: Bounded) -> Bounded:
        return rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other: Bounded) -> Bounded:
        return rounded(self.value - other.value, self.error + other.error)

    def __mul__(self, other: Bounded) -> Bounded:
        error = self.error * other.magnitude + self.value.abs() * other.error
        return rounded(self.value * other.value, error)

    @property
    def magnitude(self) -> Tensor:
        return self.value.abs() + self.error

    def sum(self) -> Bounded:
        """Over the positions of each channel."""

        def over(tensor: Tensor) -> Tensor:
            return tensor.sum((0, 2, 3), keepdim=True)

        return Bounded(over(self.value), over(self.error) + of_sum(self.value[:, 0].numel()) * over(self.magnitude))

    def mean(self) -> Bounded:
        total, n = self.sum(), self.value[:, 0].numel()
        return rounded(total.value / n, total.error / n)

    def rsqrt(self) -> Bounded:
        value = self.value.rsqrt()
        lowest = (self.value - self.error).clamp(min=1e-9)
        return rounded(value, lowest.rsqrt() - value)


def rounded(value: Tensor, error: Tensor) -> Bounded:
    return Bounded(value, error + U * (value.abs() + error))


def of_sum(terms: int) -> float:
    """The error of a sum, relative to the sum of the terms' magnitudes."""
    return LAMBDA * terms**0.5 * U


def products(
    function: Callable[[Tensor, Tensor], Tensor], a: Bounded, b: Bounded, error: float, over: tuple[int, ...]
) -> Bounded:
    """A convolution or its gradient, `function`; `error` is relative to the largest magnitude along `over`."""
    magnitude = function(a.magnitude, b.magnitude)
    carried = magnitude - function(a.value.abs(), b.value.abs())
    return Bounded(function(a.value, b.value), carried.abs() + error * magnitude.amax(over, keepdim=True))


def per_channel(tensor: Tensor | None) -> Bounded:
    assert tensor is not None
    return Bounded.exactly(tensor.reshape(1, -1, 1, 1))


def as_map(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2)


def assert_within(found: Tensor, expected: Bounded) -> None:
    assert found.numel() == expected.value.numel()
    assert bool(((found.double().view_as(expected.value) - expected.value).abs() <= SLACK * expected.error).all())


def assert_exact(case: Case, seed: int, factor: int) -> None:
    """Both passes, in training mode."""
    problem = Problem(case)
    problem.fill(seed)
    x, w = Bounded.exactly(problem.x.inside), Bounded.exactly(problem.conv.weight)
    scale, shift, *running = (
        per_channel(t)
        for t in (problem.norm.weight, problem.norm.bias, problem.norm.running_mean, problem.norm.running_var)
    )
    read = [m.tensor.clone() for m in (problem.x, problem.added) if m]
    found = problem.run(seed)
    geometry = {"stride": case.stride, "padding": case.kernel // 2}

    convolved = products(
        lambda x, w: F.conv2d(x, w, None, **geometry), x, w, factor * of_sum(case.inputs * case.kernel**2), (0, 2, 3)
    )
    mean = convolved.mean()
    d = convolved - mean
    variance = (d * d).mean()
    rstd = (variance + Bounded.exactly(torch.tensor(case.eps, dtype=torch.float64))).rsqrt()
    out = d * (scale * rstd) + shift
    if problem.added:
        out = out + Bounded.exactly(problem.added.inside)
    b = case.border
    inside = as_map(found["out"])[..., b : b + case.out_shape[1], b : b + case.out_shape[2]]
    assert_within(inside, Bounded(torch.relu(out.value), out.error) if case.relu else out)

    def kept(new: Bounded, old: Bounded) -> Bounded:
        momentum = torch.full((1,), 0.25, dtype=torch.float64)
        return new * Bounded.exactly(momentum) + old * Bounded.exactly(1 - momentum)

    unbiased = Bounded.exactly(torch.tensor(case.positions / (case.positions - 1), dtype=torch.float64))
    assert_within(found["running_mean"], kept(mean, running[0]))
    assert_within(found["running_var"], kept(variance * unbiased, running[1]))
    assert problem.norm.num_batches_tracked == 1

    # From here on with the layer's own idea of where the ReLU is on.
    g = problem.g * (inside.permute(0, 2, 3, 1) > 0) if case.relu else problem.g
    assert torch.equal(found["gradient"], g)
    masked = Bounded.exactly(as_map(g))
    of_shift, of_scale = masked.sum(), (masked * d * rstd).sum()
    assert_within(found["shift"], of_shift)
    assert_within(found["scale"], of_scale)
    before_norm = (masked - masked.mean() - d * rstd * (masked * d * rstd).mean()) * (scale * rstd)
    expected = products(
        lambda x, g: conv2d_weight(x, w.value.shape, g, **geometry),
        x, before_norm, factor * of_sum(case.positions), (2, 3),
    )  # fmt: skip
    assert_within(found["weight"], expected)
    if case.x_gradient:
        expected = products(
            lambda w, g: conv2d_input(x.value.shape, w, g, **geometry),
            w, before_norm, factor * of_sum(case.outputs * case.kernel**2), (0, 2, 3),
        )  # fmt: skip
        if case.add:
            problem.fill(seed)
            assert problem.x_gradient is not None
            expected = expected + Bounded.exactly(as_map(problem.x_gradient))
        assert_within(as_map(found["x"]).contiguous(), expected)

    assert all(
        torch.equal(m.tensor, t) for m, t in zip((m for m in (problem.x, problem.added) if m), read, strict=True)
    )
    problem.guards.assert_untouched()


def assert_exact_in_evaluation(case: Case, seed: int, factor: int) -> None:
    """With the running statistics, which stay as they are."""
    problem = Problem(case)
    problem.fill(seed)
    norm = problem.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    buffers = [b.clone() for b in norm.buffers()]
    problem.layer.forward(training=False)

    geometry = {"stride": case.stride, "padding": case.kernel // 2}
    out = products(
        lambda x, w: F.conv2d(x, w, None, **geometry),
        Bounded.exactly(problem.x.inside), Bounded.exactly(problem.conv.weight),
        factor * of_sum(case.inputs * case.kernel**2), (0, 2, 3),
    )  # fmt: skip
    eps = Bounded.exactly(torch.tensor(case.eps, dtype=torch.float64))
    rstd = (per_channel(norm.running_var) + eps).rsqrt()
    out = (out - per_channel(norm.running_mean)) * (per_channel(norm.weight) * rstd) + per_channel(norm.bias)
    if problem.added:
        out = out + Bounded.exactly(problem.added.inside)
    assert_within(problem.layer.out.inside, Bounded(torch.relu(out.value), out.error) if case.relu else out)
    assert all(torch.equal(a, b) for a, b in zip(norm.buffers(), buffers, strict=True))
    problem.guards.assert_untouched()


Check = Callable[[Case, int, int], None]
CHECKS = pytest.mark.parametrize("check", [assert_exact, assert_exact_in_evaluation], ids=["training", "evaluation"])


@CHECKS
@settings(max_examples=60, deadline=None)
@given(case=CASES, seed=SEEDS)
def test_a_layer_is_exact_within_the_rounding_of_its_sums(check: Check, case: Case, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_layer, "WINOGRAD_TILES", 2**30)
        check(case, seed, 1)


@CHECKS
@settings(max_examples=60, deadline=None)
@given(case=WINOGRAD_CASES, seed=SEEDS)
def test_so_is_it_by_winograds_algorithm(check: Check, case: Case, seed: int) -> None:
    """With few tiles and with many, of which a thread takes several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_layer, "WINOGRAD_TILES", 0)
        check(case, seed, WINOGRAD)


@settings(max_examples=60, deadline=None)
@given(case=CASES, seed=SEEDS, winograd=st.booleans())
def test_channel_weights_and_their_gradients_are_those_of_autograd(case: Case, seed: int, winograd: bool) -> None:
    """In training and in evaluation mode, to five digits; `eps` keeps batch norm from magnifying the rounding."""
    case = replace(case, eps=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_layer, "WINOGRAD_TILES", 0 if winograd else 2**30)
        problem = Problem(case, weighed=True)
    layer, of, norm = problem.layer, problem.channel_weights, problem.norm
    assert of is not None

    def close(found: Tensor, expected: Tensor) -> None:
        largest = float(expected.detach().abs().max())
        torch.testing.assert_close(found.double(), expected.detach(), rtol=0, atol=1e-4 * largest + 1e-5)

    def expected_out(training: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
        leaves = [
            t.detach().double().contiguous().requires_grad_()
            for t in (problem.x.inside, problem.conv.weight, norm.weight, norm.bias)
        ]
        x, weight, scale, shift = leaves
        convolved = F.conv2d(x, weight, None, case.stride, case.kernel // 2)
        statistics = [None if training else t.double() for t in (norm.running_mean, norm.running_var)]  # type: ignore[union-attr]
        y = F.batch_norm(convolved, *statistics, scale, shift, training, eps=case.eps)
        means = y.mean((2, 3))
        out = y * torch.sigmoid(2 * means)[:, :, None, None]
        return means, out + problem.added.inside.double() if problem.added else out, leaves

    problem.fill(seed)
    for training in (False, True):
        means, out, leaves = expected_out(training)
        problem.forward(training)
        close(of.means, means)
        close(layer.out.inside, torch.relu(out) if case.relu else out)

    before = None if problem.x_gradient is None else problem.x_gradient.double()
    problem.backward()
    g = problem.g * (layer.out.inside.permute(0, 2, 3, 1) > 0) if case.relu else problem.g
    assert torch.equal(layer.gradient, g)  # that of what is added
    of_x, *gradients = torch.autograd.grad(out, leaves, as_map(g).double())
    for found, expected in zip(layer.gradients, gradients, strict=True):
        close(found, expected)
    if problem.x_gradient is not None and before is not None:
        close(as_map(problem.x_gradient), of_x + as_map(before) if case.add else of_x)
    problem.guards.assert_untouched()


# ----------------------------------------------------------------------------------------------------------------------
# Memory and threads


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("tiles", [0, 2**30], ids=["winograd", "direct"])
def test_the_same_bits_again_and_with_any_number_of_threads(tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same memory, after a pass with other numbers; and the border of the output is still 0.

    Only the weight's gradient by Winograd's algorithm is a sum of what each thread has.
    """
    monkeypatch.setattr(_layer, "WINOGRAD_TILES", tiles)

    @settings(max_examples=30, deadline=None)
    @given(case=WINOGRAD_CASES if tiles == 0 else CASES, seed=SEEDS, weighed=st.booleans())
    def check(case: Case, seed: int, weighed: bool) -> None:
        of_one: dict[str, Tensor] = {}
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            problem = Problem(case, weighed)
            expected = problem.run(seed)
            of_one = of_one or expected
            other = problem.run(seed + 1)
            again = problem.run(seed)
            assert not torch.equal(other["running_mean"], expected["running_mean"])
            for name, tensor in expected.items():
                assert torch.equal(again[name], tensor), (count, name)
                if name == "weight" and tiles == 0:
                    torch.testing.assert_close(tensor, of_one[name], rtol=1e-4, atol=1e-5 * float(tensor.abs().max()))
                else:
                    assert torch.equal(of_one[name], tensor), (count, name)
            border = problem.layer.out.tensor.clone()
            b = case.border
            border[:, b : b + case.out_shape[1], b : b + case.out_shape[2]] = 0
            assert not border.any()
            problem.guards.assert_untouched()

    check()


@pytest.mark.parametrize("outputs", [3, 16, 32])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_what_is_not_a_number_does_not_disappear(kernel: int, outputs: int) -> None:
    """Neither behind the ReLU nor in the running statistics; in the backward pass neither."""
    problem = Problem(Case(kernel=kernel, outputs=outputs, added=0))
    problem.fill(0)
    problem.x.inside[1, 2, 3, 4] = math.nan
    problem.layer.forward()
    assert problem.layer.out.inside.isnan().all()
    for statistic in (problem.norm.running_mean, problem.norm.running_var):
        assert statistic is not None
        assert statistic.isnan().all()

    problem.fill(0)
    problem.layer.forward()
    problem.layer.gradient.copy_(problem.g)
    (image, y, x, channel), *_ = (problem.layer.out.inside.permute(0, 2, 3, 1) > 0).nonzero().tolist()
    problem.layer.gradient[image, y, x, channel] = math.nan
    problem.layer.backward()
    weight, scale, shift = problem.layer.gradients
    assert weight.isnan().any((1, 2, 3)).nonzero().tolist() == [[channel]]
    assert scale.isnan().nonzero().tolist() == shift.isnan().nonzero().tolist() == [[channel]]
    assert problem.x_gradient is not None
    assert problem.x_gradient.isnan().all()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("case", "threads", "winograd"),
    [
        (Case(images=4, height=4, width=4), 1, True),  # 16 blocks of 2×2 for each thread
        (Case(images=4, height=4, width=4), 2, False),
        (Case(images=4, height=8, width=8), 4, True),
        (Case(images=4, height=8, width=8), 5, False),
        (Case(images=3, height=4, width=4), 1, False),
        (Case(images=4, height=16, width=15), 1, False),  # no whole number of blocks
        (Case(images=4, height=16, width=16, stride=2), 1, False),
        (Case(images=4, height=16, width=16, kernel=5), 1, False),
    ],
)
def test_winograds_algorithm_needs_16_blocks_for_each_thread(case: Case, threads: int, winograd: bool) -> None:
    torch.set_num_threads(threads)
    assert bool(Problem(case).layer._layer.contents.winograd) == winograd


def test_gradients_have_the_shapes_and_strides_of_their_parameters() -> None:
    problem = Problem(Case(kernel=5, stride=2))
    parameters = (problem.conv.weight, problem.norm.weight, problem.norm.bias)
    for gradient, parameter in zip(problem.layer.gradients, parameters, strict=True):
        assert (gradient.shape, gradient.stride()) == (parameter.shape, parameter.stride())


def test_a_weight_in_another_order_in_memory_is_refused() -> None:
    conv, norm = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
    with pytest.raises(AssertionError):
        Layer(conv, norm, Map(1, 4, 4, 2, 1), Scratch())


def test_layers_share_memory_of_one_purpose_and_size() -> None:
    scratch = Scratch()
    assert scratch.map("a", (1, 2, 3, 4), 1) is scratch.map("a", (1, 2, 3, 4), 1)
    others = [scratch.map("b", (1, 2, 3, 4), 1), scratch.map("a", (1, 2, 3, 5), 1), scratch.map("a", (1, 2, 3, 4), 2)]
    assert scratch.map("a", (1, 2, 3, 4), 1) not in others
