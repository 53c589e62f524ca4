"""The head of `fast` leaves idle units out of its products: they agree with those of all units up to rounding."""

from __future__ import annotations

import pytest
import torch

from resnet_bench.engines import _head, _products
from resnet_bench.engines._head import UnitGradient

BATCH = 4


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.3, 3), (0.5, 5), (0.6, None), (1.0, None)])
def test_live_units_are_those_with_a_positive_activation_for_some_image(share: float, expected: int | None) -> None:
    out = torch.zeros(BATCH, 10)
    for unit in range(round(share * 10)):
        out[unit % BATCH, unit] = 1e-30
    live = _products.live_units(out)
    assert (live if expected is None else live.tolist()) == (None if expected is None else list(range(expected)))


@torch.no_grad()
def test_leaving_idle_units_out_changes_products_by_rounding_only() -> None:
    """With most units idle, against computing with all of them; all quantities of the head."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(64, 50), (50, 30), (30, 10)]
    weights = [torch.randn(i, o, generator=generator) / i**0.5 for i, o in sizes]
    biases = [torch.randn(o, generator=generator) for _, o in sizes]
    biases[0][8:] = -100
    biases[1][5:] = -100
    x, labels = torch.rand(BATCH, 64, generator=generator), torch.tensor([1, 2, 3, 4])
    loss, x_gradient, gradients = _head.head(x, labels, weights, biases)
    loss_all, x_gradient_all, gradients_all = _head.head(x, labels, weights, biases, idle_too=True)
    torch.testing.assert_close(loss, loss_all)
    torch.testing.assert_close(x_gradient, x_gradient_all)
    for g, g_all in zip(gradients, gradients_all, strict=True):
        if isinstance(g, UnitGradient):
            assert isinstance(g_all, UnitGradient)
            torch.testing.assert_close(g.units.t() @ g.columns, g_all.units.t() @ g_all.columns)
        else:
            torch.testing.assert_close(g, g_all)
    live = [g.live for g in gradients if isinstance(g, UnitGradient)]
    assert all(part is not None for part in live)
