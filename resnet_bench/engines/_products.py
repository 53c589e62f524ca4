"""The matrix products of the FC layers: what computes them, and with which rows of the weight."""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_bench.engines import _dots

OWN_ELEMENTS = 2**19
"""Elements of a weight (2 MB) from which our own product is faster than MKL's, which torch takes for float32."""


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    inputs: Tensor | None = None,
    outputs: Tensor | None = None,
) -> Tensor:
    """The product of an FC layer, x @ weight + bias, or that of some of its inputs or outputs.

    Args:
        x: float32 [batch, inputs], of those inputs that take part.
        weight: float32 [inputs, outputs], in either order in memory.
        bias: float32 [outputs], of all outputs.
        inputs: int64, the inputs that take part; None for all.
        outputs: int64, the outputs to compute; None for all.

    Returns:
        float32 [batch, outputs], of those that were asked for.
    """
    if bias is not None and outputs is not None:
        bias = bias[outputs]
    large = weight.numel() >= OWN_ELEMENTS
    if large and outputs is None and weight.stride(1) == 1:
        out = _dots.combinations(x, weight, inputs)
    elif large and inputs is None and weight.stride(0) == 1:
        out = _dots.products(x, weight.t(), outputs)
    else:
        weight = selected(selected(weight, inputs, 0), outputs, 1)
        return x @ weight if bias is None else torch.addmm(bias, x, weight)
    return out if bias is None else out.add_(bias)


def live_units(activations: Tensor) -> Tensor | None:
    """The units whose activation is positive for some image: int64 [live units], rising; None for all units.

    Leaving the others out of a product pays only where at most half are live, so it is None where more are.

    Args:
        activations: [batch, units], none negative.
    """
    live = activations.amax(0).nonzero().squeeze(1)
    return live if 2 * len(live) <= activations.shape[1] else None


def selected(tensor: Tensor, live: Tensor | None, dim: int) -> Tensor:
    """The live units' part of a tensor whose dimension `dim` counts units."""
    return tensor if live is None else tensor.index_select(dim, live)
