"""The written-out forward and backward pass of `fast-bf16`, against autograd, in float64 and so to many digits."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_bench import architectures, networks
from resnet_bench.engines import _features

DIGITS = 1e-10  # relative; float64 rounds at 1e-16 and the networks' longest sums have some ten thousand terms
EVERY = list(architectures.every())


def assert_close(mine: torch.Tensor, expected: torch.Tensor, what: str = "") -> None:
    assert mine.shape == expected.shape
    assert float((mine - expected).abs().max()) <= DIGITS * (1e-6 + float(expected.abs().max())), what


@pytest.mark.parametrize("name", EVERY)
def test_feature_map_statistics_and_gradients_are_those_of_autograd(name: str) -> None:
    """For every network, so with and without projection, strides 1 and 2, kernels 1 to 7, maps large and tiny."""
    generator = torch.Generator().manual_seed(0)
    plain = networks.build(architectures.get(name), 10, seed=0).double().train()
    network = deepcopy(plain)
    images = torch.randn(3, 3, 32, 32, generator=generator, dtype=torch.float64)
    expected = plain.blocks(plain.stem(images))
    g = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    parameters = dict(plain.named_parameters())
    convolutional = {k: p for k, p in parameters.items() if not k.startswith("fc.")}
    gradients = torch.autograd.grad(expected, list(convolutional.values()), g)

    with torch.no_grad():
        x, saved = _features.features(network, images, torch.float64)
        mine = _features.features_backward(network, g, saved)

    assert_close(x, expected.detach())
    for (key, gradient), found in zip(zip(convolutional, gradients, strict=True), mine, strict=True):
        assert_close(found, gradient, key)
    for key, buffer in plain.named_buffers():
        assert_close(network.get_buffer(key).double(), buffer.double(), key)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 3),
    outputs=st.integers(1, 3),
    size=st.integers(1, 6),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    seed=st.integers(0, 100),
)
def test_the_unfolded_product_is_the_kernels_gradient(
    batch: int, channels: int, outputs: int, size: int, kernel: int, stride: int, seed: int
) -> None:
    """Also where the kernel is larger than the map and most of its taps see nothing but padding."""
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, bias=False).double()
    x = torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)
    out = conv(x)
    g = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    (expected,) = torch.autograd.grad(out, conv.weight, g)
    found = _features.kernel_gradient(x, g, conv)
    assert_close(found, expected)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_stems_input_has_no_gradient() -> None:
    network = networks.build(architectures.BASELINE, 10, seed=0)
    conv, norm = _features.layers(network.stem)
    with torch.no_grad():
        out, saved = _features.convolution(torch.ones(2, 3, 32, 32), conv, norm, torch.float32)
        x_gradient, _ = _features.convolution_backward(out, conv, norm, saved, input_gradient=False)
    assert x_gradient is None or x_gradient.numel() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_have_the_parameters_precision(dtype: torch.dtype) -> None:
    network = networks.build(architectures.get("conv5x5"), 10, seed=0).train()
    with torch.no_grad():
        x, saved = _features.features(network, torch.randn(2, 3, 32, 32), dtype)
        gradients = _features.features_backward(network, x, saved)
    assert x.dtype == dtype
    assert {g.dtype for g in gradients} == {torch.float32}
