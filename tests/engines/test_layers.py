"""All layers of a network as `fast` computes them, against autograd in float64.

The networks' norms are set so that most activations are on, and a few in every map off: then none is so close to 0 that
rounding decides about it. Where one did, a whole gradient would come or go.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from resnet_bench import architectures, networks
from resnet_bench.architectures import Architecture
from resnet_bench.engines._layers import Layers, in_product_order
from resnet_bench.networks import BasicBlock, ResidualNetwork

DIGITS = 1e-4  # relative to the largest number; rounding of single sums, 1e-6, grows over some ten layers and back
SAME_WIDTH = Architecture("same-width", "", "", widths=(16, 16), strides=(1, 1))  # as the stem: no projection
NARROW = replace(SAME_WIDTH, id="narrow", widths=(16, 5, 5), strides=(1, 3, 1), attention="se")
EVERY = [*architectures.every().values(), SAME_WIDTH, replace(SAME_WIDTH, id="attended", attention="eca"), NARROW]

pytestmark = pytest.mark.usefixtures("vectors")


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def build(architecture: Architecture) -> ResidualNetwork:
    """The network with norms as the module's docstring says."""
    network = networks.build(architecture, 10, seed=0).train()
    for i, norm in enumerate(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.copy_(1 + 0.1 * random(norm.num_features, seed=i))
        norm.bias.copy_(2.5 + 0.1 * random(norm.num_features, seed=100 + i))
    for block in network.blocks:
        assert isinstance(block, BasicBlock)
        if isinstance(block.shortcut, nn.Sequential):
            block.shortcut[1].bias.sub_(2.5)  # type: ignore[operator, union-attr]
        else:
            block.bn2.bias.sub_(2.5)
    return network


class ReluInputs(TorchFunctionMode):
    """Notes of what reaches each ReLU the smallest magnitude and the share below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.smallest, self.off = float("inf"), list[float]()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function in (torch.relu, F.relu) and args[0].dim() == 4:
            self.smallest = min(self.smallest, float(args[0].detach().abs().min()))
            self.off.append(float((args[0] < 0).double().mean()))
        return function(*args, **(kwargs or {}))


def assert_close(found: Tensor, expected: Tensor, what: str = "") -> None:
    assert found.shape == expected.shape
    assert float((found.double() - expected).abs().max()) <= DIGITS * (1e-6 + float(expected.abs().max())), what


def assert_like_autograd(
    layers: Layers, network: ResidualNetwork, plain: ResidualNetwork, seed: int, size: int
) -> None:
    """One pass in both directions; `network` is the one of `layers`, `plain` the same in float64."""
    images = random(size, 3, 32, 32, seed=seed)
    inputs = ReluInputs()
    with inputs:
        expected = plain.blocks(plain.stem(images.double()))
    assert inputs.smallest > 5e-6  # another seed of images may help
    assert 0 < max(inputs.off) < 0.5
    g = random(*expected.shape, seed=seed + 1)
    parameters = {k: p for k, p in plain.named_parameters() if not k.startswith("fc.")}
    gradients = torch.autograd.grad(expected, list(parameters.values()), g.double())

    with torch.no_grad():
        assert_close(layers.forward(images), expected.detach(), "feature map")
        mine = layers.backward(g)
    for (name, parameter), gradient, found in zip(parameters.items(), gradients, mine, strict=True):
        assert_close(found, gradient, name)
        assert found.shape == parameter.shape
    for name, buffer in plain.named_buffers():
        assert_close(network.get_buffer(name), buffer.double(), name)


@pytest.mark.parametrize("architecture", EVERY, ids=lambda a: a.id)
def test_feature_map_statistics_and_gradients_are_those_of_autograd(architecture: Architecture) -> None:
    """Twice in the same memory, and in that for batches of another size, which has the same weights."""
    network = build(architecture)
    plain = deepcopy(network).double()
    in_product_order(network)
    layers, of_two = Layers(network, 3, ()), Layers(network, 2, ())
    assert_like_autograd(layers, network, plain, seed=12, size=3)
    assert_like_autograd(of_two, network, plain, seed=22, size=2)
    assert_like_autograd(layers, network, plain, seed=32, size=3)


@pytest.mark.parametrize("architecture", [SAME_WIDTH, NARROW], ids=lambda a: a.id)
def test_a_pass_depends_on_nothing_that_came_before(architecture: Architecture) -> None:
    """Bit by bit: after other images, and where a backward pass was left out or ran on something that is no number."""
    network = build(architecture)
    in_product_order(network)
    layers = Layers(network, 2, ())

    def both(seed: int) -> list[Tensor]:
        x = layers.forward(random(2, 3, 32, 32, seed=seed)).clone()
        return [x, *(g.clone() for g in layers.backward(random(*x.shape, seed=seed)))]

    with torch.no_grad():
        first = both(0)
        both(1)
        layers.forward(random(2, 3, 32, 32, seed=2))
        x = layers.forward(torch.full((2, 3, 32, 32), torch.nan))
        assert x.isnan().all()
        layers.backward(torch.full_like(x, torch.nan))
        again = both(0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("architecture", EVERY, ids=lambda a: a.id)
def test_in_evaluation_the_feature_map_is_that_of_the_running_statistics(architecture: Architecture) -> None:
    """One image too; and a later pass in training mode has the bits that it has without an evaluation before."""
    network = build(architecture)
    for i, norm in enumerate(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(0.1 * random(norm.num_features, seed=200 + i))
        norm.running_var.copy_(1 + 0.1 * random(norm.num_features, seed=300 + i).abs())
    plain, again = deepcopy(network).double().eval(), deepcopy(network)
    for each in (network, again):
        in_product_order(each)
    layers = Layers(network, 3, ())
    with torch.no_grad():
        for size, of_size in ((3, layers), (1, Layers(network, 1, ()))):
            images = random(size, 3, 32, 32, seed=size)
            expected = plain.blocks(plain.stem(images.double()))
            assert_close(of_size.forward(images, training=False), expected)
        images = random(3, 3, 32, 32, seed=4)
        assert torch.equal(layers.forward(images), Layers(again, 3, ()).forward(images))
    for mine, its in zip(network.buffers(), again.buffers(), strict=True):
        assert torch.equal(mine, its)


def test_weights_that_change_in_place_are_seen() -> None:
    network = build(SAME_WIDTH)
    in_product_order(network)
    layers, images = Layers(network, 2, ()), random(2, 3, 32, 32, seed=0)
    with torch.no_grad():
        layers.forward(images)
        for parameter in network.parameters():
            parameter.mul_(0.9)
        expected = Layers(network, 2, ()).forward(images)
        assert torch.equal(layers.forward(images), expected)


def test_the_order_of_products_keeps_shapes_and_values() -> None:
    network, plain = build(NARROW), build(NARROW)
    in_product_order(network)
    for mine, its in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, its)
    kernels = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert all(weight.permute(2, 3, 1, 0).is_contiguous() for weight in kernels)
