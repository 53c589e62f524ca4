"""The written-out forward and backward pass of `fast`, against autograd, in float64 and so to many digits."""

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


def products(network: networks.ResidualNetwork) -> list[str]:
    convs = {k: m for k, m in network.blocks.named_modules() if isinstance(m, nn.Conv2d)}
    return [k for k, conv in convs.items() if _features.runs_as_product(conv)]


@pytest.mark.parametrize("positions", [0, _features.PRODUCT_POSITIONS, 10**6], ids=["by oneDNN", "as chosen", "all"])
@pytest.mark.parametrize("name", EVERY)
def test_feature_map_statistics_and_gradients_are_those_of_autograd(
    name: str, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every network, so with and without projection, strides 1 and 2, kernels 1 to 7, maps large and tiny.

    With each choice of the convolutions that run as products. The batch here has another size than they were chosen
    for, as the last one of an epoch may have.
    """
    generator = torch.Generator().manual_seed(0)
    plain = networks.build(architectures.get(name), 10, seed=0).double().train()
    network = deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    monkeypatch.setattr(_features, "PRODUCT_POSITIONS", positions)
    _features.lay_out_for_products(network, 4)
    convs = sum(isinstance(module, nn.Conv2d) for module in network.blocks.modules())
    assert len(products(network)) == {0: 0, 10**6: convs}.get(positions, 8 if name in ("conv5x5", "conv5x5-se") else 0)
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
        assert found.stride() == network.get_parameter(key).stride(), "the update walks both in the same order"
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
def test_a_convolution_as_a_product_is_that_of_torch(
    batch: int, channels: int, outputs: int, size: int, kernel: int, stride: int, seed: int
) -> None:
    """Both gradients too, also where the kernel is larger than the map and most of its taps see nothing but padding."""
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(channels, outputs, kernel, stride, kernel // 2, bias=False).double()
    x = torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64, requires_grad=True)
    out = conv(x)
    g = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    expected_x, expected_kernel = torch.autograd.grad(out, (x, conv.weight), g)
    with torch.no_grad():
        unfolded = _features.unfold(x, conv)
        product = unfolded @ conv.weight.permute(2, 3, 1, 0).reshape(-1, outputs)
        x_gradient, kernel_gradient = _features.product_backward(g, conv, x, unfolded)
    assert_close(product, out.detach().permute(0, 2, 3, 1).reshape(-1, outputs))
    assert_close(x_gradient, expected_x)
    assert_close(kernel_gradient, expected_kernel)
    assert kernel_gradient.permute(2, 3, 1, 0).is_contiguous()


def test_convolutions_on_small_maps_run_as_products() -> None:
    """At batch size 4 those on maps of up to 4×4 pixels, which only `conv5x5` has."""

    def chosen(name: str, batch_size: int) -> list[str]:
        network = networks.build(architectures.get(name), 10, seed=0)
        _features.lay_out_for_products(network, batch_size)
        return products(network)

    assert chosen("baseline", 4) == chosen("conv5x5", 17) == []
    small = ["1.conv1", "1.conv2", "1.shortcut.0", "2.conv1", "2.conv2", "2.shortcut.0", "3.conv1", "3.conv2"]
    assert chosen("conv5x5", 4) == small
    assert chosen("conv5x5", 16) == small[3:]
    assert chosen("baseline", 1) == ["2.conv1", "2.conv2", "2.shortcut.0", "3.conv1", "3.conv2"]


def test_the_stems_input_has_no_gradient() -> None:
    network = networks.build(architectures.BASELINE, 10, seed=0)
    conv, norm = _features.layers(network.stem)
    with torch.no_grad():
        out, saved = _features.convolution(torch.ones(2, 3, 32, 32), conv, norm, torch.float32)
        x_gradient, _ = _features.convolution_backward(out, conv, norm, saved, input_gradient=False)
    assert x_gradient is None or x_gradient.numel() == 0


@pytest.mark.parametrize("as_products", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_have_the_parameters_precision(dtype: torch.dtype, as_products: bool) -> None:
    network = networks.build(architectures.get("conv5x5"), 10, seed=0).train()
    if as_products:
        _features.lay_out_for_products(network, 2)
    with torch.no_grad():
        x, saved = _features.features(network, torch.randn(2, 3, 32, 32), dtype)
        gradients = _features.features_backward(network, x, saved)
    assert x.dtype == dtype
    assert {g.dtype for g in gradients} == {torch.float32}
