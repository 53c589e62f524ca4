"""The matrix products of the FC layers: which library computes them, and with which rows of the weight."""

from __future__ import annotations

import functools
from typing import cast

import torch
from torch import Tensor

ONEDNN_ELEMENTS = 2**19
"""Elements of a weight (2 MB) from which oneDNN's product is faster than MKL's, which torch takes for float32."""

ROW_MULTIPLE = 32
"""Rows of a weight that are read without the others are padded to a multiple of this many. That leaves few different
numbers of rows, so that `rows_have_same_bits` can try them all."""


def prefers_onednn(weight: Tensor) -> bool:
    """Whether oneDNN computes a product with the weight faster than MKL: it reads large weights at twice the speed."""
    return weight.numel() >= ONEDNN_ELEMENTS and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, onednn: bool | None = None) -> Tensor:
    """The product of an FC layer, x @ weight + bias.

    Args:
        x: float32 [batch, inputs].
        weight: float32 [inputs, outputs], in either order in memory.
        bias: float32 [outputs].
        onednn: whether oneDNN computes it; None for `prefers_onednn`. The operator is the one that Inductor takes for
            inference.

    Returns:
        float32 [batch, outputs].
    """
    if prefers_onednn(weight) if onednn is None else onednn:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "none", [], ""))
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


@functools.cache
def rows_have_same_bits(batch_size: int, units: int, columns: int, threads: int) -> bool:
    """Whether `product` with some rows of a weight [units, columns] has the same bits as those rows of the whole one.

    A library may add up in another order where sizes differ. oneDNN, where it was observed, does so for a single row
    only. So this tries every number of rows that `UnitWeight.activations` may ask for, on random numbers. It does so
    once in a process for given arguments; `threads` is one of them because the order may depend on it.
    """
    generator = torch.Generator().manual_seed(0)
    x, bias = torch.rand(batch_size, columns, generator=generator), torch.rand(units, generator=generator)
    weight = torch.rand(units, columns, generator=generator) - 0.5
    whole = product(x, weight.t(), bias)
    order = torch.randperm(units, generator=generator)
    some = (order[:size] for size in range(ROW_MULTIPLE, units // 2 + 1, ROW_MULTIPLE))
    onednn = prefers_onednn(weight)
    return all(torch.equal(product(x, weight[s].t(), bias[s], onednn), whole[:, s]) for s in some)


def live_units(activations: Tensor) -> Tensor | None:
    """The units whose activation is positive for some image: int64 [live units], rising; None for all units.

    A product that leaves the others out first copies the rows of the live units. That pays only where these are at most
    half, so it is None where more are live.

    Args:
        activations: [batch, units], none negative.
    """
    live = activations.amax(0).nonzero().squeeze(1)
    return live if 2 * len(live) <= activations.shape[1] else None


def selected(tensor: Tensor, live: Tensor | None, dim: int) -> Tensor:
    """The live units' part of a tensor whose dimension `dim` counts units."""
    return tensor if live is None else tensor.index_select(dim, live)
