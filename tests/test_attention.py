"""Channel attention: counts against closed forms, outputs against timm's, gradients against finite differences."""

from __future__ import annotations

import pytest
import torch
from timm import layers as timm_layers
from torch import Tensor, nn

from resnet_bench import architectures, attention, networks
from resnet_bench.attention import eca, se
from resnet_bench.errors import UserError

WIDTHS = (64, 64, 128, 128)  # of the baseline's blocks, and of those of conv5x5
OF_SE = sum(2 * c * (c // 16) + c // 16 + c for c in WIDTHS)  # two layers with bias
OF_ECA = 3 + 3 + 5 + 5  # one kernel for each block


@pytest.mark.parametrize(
    ("name", "plain", "added", "exact"),
    [
        ("baseline-se", "baseline", OF_SE, 8_948_052),
        ("baseline-eca", "baseline", OF_ECA, 8_942_540),
        ("conv5x5-se", "conv5x5", OF_SE, 1_747_412),
    ],
)
def test_exact_parameter_count(name: str, plain: str, added: int, exact: int) -> None:
    counts = [networks.parameter_count(architectures.get(n)) for n in (name, plain)]
    assert counts == [exact, exact - added]


@pytest.mark.parametrize(("channels", "size"), [(1, 3), (16, 3), (32, 3), (64, 3), (128, 5), (256, 5), (512, 5)])
def test_the_kernel_across_channels_is_odd_and_at_least_3(channels: int, size: int) -> None:
    assert eca.kernel_size(channels) == size


def test_multiply_accumulates_count_the_products_of_attention() -> None:
    plain, with_se, with_eca = (
        networks.multiply_accumulates(architectures.get(n)) for n in ("baseline", "baseline-se", "baseline-eca")
    )
    assert with_se - plain == sum(2 * c * (c // 16) for c in WIDTHS)
    assert with_eca - plain == 3 * 64 + 3 * 64 + 5 * 128 + 5 * 128


def maps(channels: int) -> Tensor:
    return torch.randn(3, channels, 5, 4, generator=torch.Generator().manual_seed(channels), dtype=torch.float64)


@pytest.mark.parametrize("channels", [16, 64, 128])
def test_se_is_timms_with_equal_weights(channels: int) -> None:
    """timm would round the inner width of 64 channels from 4 up to 8; here it is told not to."""
    mine = se.Attention(channels).double()
    other = timm_layers.SEModule(channels, rd_channels=channels // 16).double()
    for layer, conv in ((mine.reduce, other.fc1), (mine.expand, other.fc2)):
        conv.weight.data.copy_(layer.weight.data[:, :, None, None])
        conv.bias.data.copy_(layer.bias.data)
    torch.testing.assert_close(mine(maps(channels)), other(maps(channels)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("channels", [16, 64, 128, 512])
def test_eca_is_timms_with_equal_weights(channels: int) -> None:
    mine, other = eca.Attention(channels).double(), timm_layers.EcaModule(channels).double()
    other.load_state_dict(mine.state_dict())
    torch.testing.assert_close(mine(maps(channels)), other(maps(channels)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", attention.ATTENTION)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    module = attention.build(name, 8).double()
    x = torch.randn(2, 8, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parameters = [p.detach().requires_grad_() for p in module.parameters()]
    names = [n for n, _ in module.named_parameters()]

    def out(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(out, (x.requires_grad_(), *parameters))


@pytest.mark.parametrize("name", attention.ATTENTION)
def test_each_channel_is_scaled_by_one_number_between_0_and_1(name: str) -> None:
    module = attention.build(name, 64).double()
    x = maps(64)
    ratio = module(x) / x
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert bool(((ratio > 0) & (ratio < 1)).all())


def test_attention_sits_on_the_residual_branch_before_the_addition() -> None:
    block = networks.BasicBlock(8, 8, 1, 3, "se").eval()
    assert isinstance(block.attention, se.Attention)
    nn.init.zeros_(block.attention.expand.weight)
    nn.init.constant_(block.attention.expand.bias, -100.0)  # closes every channel
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x), torch.relu(x))


def test_networks_without_attention_have_the_weights_they_had() -> None:
    """Nothing is drawn for what is not there, so that digests of older results stay true."""
    network = networks.build(architectures.BASELINE, 10, seed=0)
    assert not any("attention" in name for name in network.state_dict())


def test_an_unknown_attention_is_said_in_one_sentence() -> None:
    with pytest.raises(UserError, match="There is no attention 'cbam'; choose one of se, eca"):
        attention.build("cbam", 8)
