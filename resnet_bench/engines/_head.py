"""The FC layers and the loss of `fast`: forward and backward pass, without idle hidden units.

In a step, a hidden unit is *live* if its activation behind the ReLU is positive for some image of the batch, and *idle*
if its activation is 0 for every image. In this study nearly all hidden units soon become dead ReLU units, which are
idle in nearly every step. The weights that lead into an idle unit, and those that lead out of it, have a gradient of
exactly 0.

The products that sum over hidden units leave out the terms of idle units, which are all 0. A library may add up the
fewer terms in another order. So the next layer's activations, and the gradient with respect to the feature map, equal
those of the products over all units up to rounding, not bit for bit.

The gradient of an FC layer's weight is not computed here: `UnitGradient` keeps its two factors, and `_adam.py` forms it
inside the update.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from resnet_bench.engines import _products

aten = torch.ops.aten

MEAN, IGNORED_LABEL = 1, -100  # the defaults with which `F.cross_entropy` calls the operators of the loss


class UnitGradient(NamedTuple):
    """The gradient of a weight [units, columns] as two factors: `units.T @ columns`, 0 but in the rows `live`.

    Attributes:
        live: int64 [live units], rising; None for all units.
        units: float32 [batch, units].
        columns: float32 [batch, columns].
    """

    live: Tensor | None
    units: Tensor
    columns: Tensor


Gradient = Tensor | UnitGradient
"""The gradient of a parameter; that of an FC layer's weight is always a `UnitGradient`."""


def head(
    x: Tensor,
    labels: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    idle_too: bool = False,
    activations: Tensor | None = None,
) -> tuple[Tensor, Tensor, list[Gradient]]:
    """FC layers and mean cross-entropy, forward and backward.

    Args:
        x: feature map, float32 [batch, inputs].
        labels: int64 [batch].
        weights: of each layer, float32 [inputs, outputs]; where there are several, the first is transposed in memory.
        biases: of each layer, float32 [outputs].
        idle_too: leave no unit out, to measure what leaving idle ones out gives.
        activations: of the first hidden layer, float32 [batch, units], where they are computed already.

    Returns:
        loss: scalar.
        x_gradient: the gradient with respect to `x`, of its shape.
        gradients: those of each layer's weight and bias in turn.
    """
    live: list[Tensor | None] = [None]  # the live units among each layer's inputs
    outs = [x]  # each layer's inputs, [batch, inputs]
    read = [(outs[0], weights[0])]  # the same without idle units, and the weight without their rows
    for bias, weight in zip(biases[:-1], weights[1:], strict=True):
        known = activations if len(outs) == 1 else None
        out = _products.product(*read[-1], bias).relu_() if known is None else known
        outs.append(out)
        live.append(None if idle_too else _products.live_units(out))
        read.append((_products.selected(out, live[-1], 1), _products.selected(weight, live[-1], 0)))
    log_probabilities = torch.log_softmax(_products.product(*read[-1], biases[-1]), 1)
    loss, total = aten.nll_loss_forward(log_probabilities, labels, None, MEAN, IGNORED_LABEL)

    g = aten.nll_loss_backward(torch.ones(()), log_probabilities, labels, None, MEAN, IGNORED_LABEL, total)
    g = aten._log_softmax_backward_data(g, log_probabilities, 1, g.dtype)
    g_live = g  # the gradient of the live outputs only
    gradients: list[Gradient] = [UnitGradient(live[-1], outs[-1], g), g.sum(0)]
    for i in reversed(range(1, len(weights))):
        below, rows = read[i]
        g_live = g = aten.threshold_backward(_products.product(g, rows.t()), below, 0)
        if (alive := live[i]) is not None:
            g = torch.zeros_like(outs[i]).index_copy_(1, alive, g_live)
        of_weight = UnitGradient(alive, g, outs[0]) if i == 1 else UnitGradient(live[i - 1], outs[i - 1], g)
        gradients[:0] = [of_weight, g.sum(0)]
    x_gradient = _products.product(g_live, _products.selected(weights[0].t(), live[1] if len(weights) > 1 else None, 0))
    return loss, x_gradient, gradients
