"""The FC layers of `fast`: their products without idle hidden units, and Adam's lazy update of their weights.

In a step, a hidden unit is *live* if its activation behind the ReLU is positive for some image of the batch, and *idle*
if its activation is 0 for every image. In this study nearly all hidden units soon become dead ReLU units, which are
idle in nearly every step. The weights that lead into an idle unit, and those that lead out of it, have a gradient of
exactly 0. A step makes use of that twice:

- Shorter products. The products that sum over hidden units leave out the terms of idle units, which are all 0. A
  library may add up the fewer terms in another order. So the next layer's activations, and the gradient with respect to
  the feature map, equal those of the products over all units up to rounding, not bit for bit.
- Lazy updates. Adam still moves the weights of an idle unit by its first moment, which decays. After some 250 idle
  steps the change is less than half the distance between neighbouring float32 numbers, so that rounding leaves the
  weights as they are, at whichever learning rate is still to come. From then on the unit *rests*: its weights are not
  touched, and the decay of its moments is made up for later, many steps in one pass. When the unit is live again, its
  weights and moments are, bit for bit, those that the same gradients give when every step updates all units.

The weight of an FC layer therefore lies in memory as [units, columns], so that each row belongs to one hidden unit: to
an output of the first layer, or to an input of a later one. (The inputs of the first layer are the feature map, little
of which is ever 0 for a whole batch.) docs/fast-engine.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from resnet_bench.engines import _adam, _coarse, _dots, _products
from resnet_bench.engines._coarse import CoarseCopy

aten = torch.ops.aten

MEAN, IGNORED_LABEL = 1, -100  # the defaults with which `F.cross_entropy` calls the operators of the loss

FUSED_BATCH = 16
"""Largest batch for which the gradient of a large FC weight, a sum over the batch, is formed in the pass that uses it.
For larger batches, and for smaller weights, a matrix product computes it, and it is stored."""

CHUNK_UNITS = 64
"""Units of which a copy is made at a time, so that it stays in the cache."""

PERIOD = 64
"""Every so many steps units may go to rest, and the moments of resting units are brought up to date."""

RESTING_SHARE = 0.75
"""Smallest share of a layer's units that may rest. With fewer, one walk through the memory of all units takes less time
than many short walks through the memory of some."""

WORTH_RESTING = 2**20
"""Elements of a hidden layer's weight from which its units may rest. A smaller weight and its moments (12 MB) stay in a
large cache, and updating all of them takes less time than choosing which."""


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


# Forward and backward pass ------------------------------------------------------------------------------------------


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
    for i, bias in enumerate(biases[:-1]):
        if i == 0 and activations is not None:
            out = activations
        else:
            out = _product(outs[i], weights[i], bias, live[i]).relu_()
        outs.append(out)
        live.append(None if idle_too else _products.live_units(out))
    log_probabilities = torch.log_softmax(_product(outs[-1], weights[-1], biases[-1], live[-1]), 1)
    loss, total = aten.nll_loss_forward(log_probabilities, labels, None, MEAN, IGNORED_LABEL)

    g = aten.nll_loss_backward(torch.ones(()), log_probabilities, labels, None, MEAN, IGNORED_LABEL, total)
    g = aten._log_softmax_backward_data(g, log_probabilities, 1, g.dtype)
    g_live = g  # the gradient of the live outputs only
    gradients: list[Gradient] = [UnitGradient(live[-1], outs[-1], g), g.sum(0)]
    for i in reversed(range(1, len(weights))):
        below = _products.selected(outs[i], live[i], 1)
        g_live = g = aten.threshold_backward(_products.product(g, weights[i].t(), outputs=live[i]), below, 0)
        if (alive := live[i]) is not None:
            g = torch.zeros_like(outs[i]).index_copy_(1, alive, g_live)
        of_weight = UnitGradient(alive, g, outs[0]) if i == 1 else UnitGradient(live[i - 1], outs[i - 1], g)
        gradients[:0] = [of_weight, g.sum(0)]
    x_gradient = _products.product(g_live, weights[0].t(), inputs=live[1] if len(weights) > 1 else None)
    return loss, x_gradient, gradients


def _product(x: Tensor, weight: Tensor, bias: Tensor, live: Tensor | None) -> Tensor:
    """x @ weight + bias, without the inputs that are not live."""
    return _products.product(_products.selected(x, live, 1), weight, bias, inputs=live)


# Adam ---------------------------------------------------------------------------------------------------------------


def adam_correction(lr: float, betas: tuple[float, float], step: int) -> Tensor:
    """[2], lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ) for step t, counted from 1: what `adam` needs to know of the step."""
    return torch.tensor([lr / (1 - betas[0] ** step), (1 - betas[1] ** step) ** 0.5])


def adam(
    parameter: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, gradient: Tensor,
    correction: Tensor, betas: tuple[float, float], eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """A parameter and its moments after one step of Adam (D. Kingma and J. Ba, 2015), with eps where torch adds it.

    Args:
        parameter: of any shape, as are `exp_avg`, `exp_avg_sq` (first and second moment) and `gradient`.
        correction: [2], of `adam_correction`.

    Returns:
        The new parameter, first moment and second moment.
    """
    step_size, root = correction
    exp_avg = exp_avg * betas[0] + gradient * (1 - betas[0])
    exp_avg_sq = exp_avg_sq * betas[1] + gradient * gradient * (1 - betas[1])
    return parameter - step_size * exp_avg / (exp_avg_sq.sqrt() / root + eps), exp_avg, exp_avg_sq


def update(
    parameters: _adam.Parameters,
    gradients: Sequence[Gradient],
    correction: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One step of `adam`, in place, for whole parameters.

    The gradient of an FC weight that stays in a cache is stored, always in the same memory: a matrix product and a
    second pass take less time than a sum for each row.

    Args:
        parameters: the weights of FC layers are [units, columns].
        gradients: of the parameters.
        correction: [2], of `adam_correction`.
        betas, eps: Adam's.
    """
    stored: list[Tensor | None] = []
    for i, (state, g) in enumerate(zip(parameters.states, gradients, strict=True)):
        if isinstance(g, Tensor):
            stored.append(g)
        elif len(g.units) > FUSED_BATCH or state[0].numel() < WORTH_RESTING:
            stored.append(torch.mm(g.units.t(), g.columns, out=parameters.memory(i)))
        else:
            _adam.update_rows(*state, None, g.units, g.columns, correction, betas, eps)
            stored.append(None)
    parameters.update(stored, correction, betas, eps)


def may_move(
    before: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, correction: Tensor, limits: Tensor, eps: float
) -> Tensor:
    """Which weights moved in a step, or may still move if their gradient is 0 from now on; see `UnitWeight`.

    Args:
        before: the weights before the step; those after it may move if they would at the next one.
        exp_avg, exp_avg_sq: their moments after it.
        correction: [2], the step's.
        limits: [2], of `resting_limits`.
        eps: Adam's.
    """
    highest_step_size, smallest = limits
    after_highest = before - highest_step_size * exp_avg / (exp_avg_sq.sqrt() / correction[1] + eps)
    moving: Tensor = (after_highest != before) | ((before.abs() < smallest) & (exp_avg != 0))
    return moving


def resting_limits(highest: float, betas: tuple[float, float], eps: float, step: int) -> Tensor:
    """What decides whether a unit may rest after this step: float32 [2]; see `UnitWeight`.

    Args:
        highest: the highest learning rate of this step and all later ones.
        betas, eps: Adam's.
        step: its number, counted from 1.

    Returns:
        The step size that Adam would have at that rate, and the magnitude from which no weight is moved by a denormal
        first moment.
    """
    largest_change = 2 * highest / (1 - betas[0]) * torch.finfo(torch.float32).tiny / eps if eps else math.inf
    smallest = 2.0**25 * largest_change  # at w, float32 numbers are at least |w| · 2⁻²⁴ apart
    return torch.tensor([highest / (1 - betas[0] ** step), smallest])


def changes_shrink(betas: tuple[float, float], step: int) -> bool:
    """Whether, at one learning rate, each idle step from this one on changes weights less; see `UnitWeight`."""
    return betas[0] * math.sqrt((1 + 1 / step) / betas[1]) < 0.99  # and not 1, because of rounding


class UnitWeight:
    """A large weight of a hidden layer, [units, columns] in memory, with Adam's lazy update.

    Why a unit may rest. Step t of Adam changes a weight by lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps). Let lr be the
    highest rate of this step and all later ones; `_adam.update_rows` tells that even at that rate every weight of a row
    stays as it is. In the next idle step m is multiplied by β₁ and v by β₂, so the change at one rate is multiplied by
    less than β₁ · √((1 + 1/t) / β₂). Where that factor is below 1, every later change is smaller, at whichever rate the
    schedule has for it, and rounding leaves the weight as it is for as long as the unit is idle.

    That holds until m becomes a denormal number, which its own rounding may keep from falling further. Changes by such
    an m are less than half the distance between neighbouring float32 numbers for every weight of magnitude `smallest`
    or more. So a row does not go to rest while it has a smaller weight whose m is not 0.

    Attributes:
        weight: float32 [units, columns].
        exp_avg, exp_avg_sq: first and second moment, float32 [units, columns]; where a unit rests, they lack the decay
            of the last `pending` steps.
        betas, eps: Adam's.
        highest: the highest learning rate that the units at rest were told of; should it ever rise, all wake.
        resting: bool [units].
        settled: bool [units], a part of `resting`: decay no longer changes the first moment, because it is 0 or a
            denormal number that rounding keeps.
        pending: steps since the moments of resting units were brought up to date.
        coarse: tells which of the resting units may be live; None where no unit rests.
        read_parameters: elements of the weight that the last call of `activations` read.
        updated_parameters: elements of the weight that the last update went over.
    """

    def __init__(
        self, weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, betas: tuple[float, float], eps: float
    ) -> None:
        self.weight, self.exp_avg, self.exp_avg_sq = weight, exp_avg, exp_avg_sq
        self.betas, self.eps = betas, eps
        self.highest = math.inf
        self.resting = torch.zeros(len(weight), dtype=torch.bool)
        self.settled = torch.zeros_like(self.resting)
        self.pending = 0
        self.coarse: CoarseCopy | None = None
        self.read_parameters: float = 0
        self.updated_parameters = 0

    def wake(self) -> None:
        """Let no unit rest, because the weight or the moments were changed from outside."""
        self.resting.fill_(False)
        self.settled.fill_(False)
        self.pending = 0
        self.coarse = None

    def look(self, highest: float, step: int) -> None:
        """Find the units that may rest after this step, in a state that was loaded or changed from outside.

        Args:
            highest: the highest learning rate of the next step and all later ones.
            step: the number of the last step, counted from 1; 0 before the first.
        """
        self.wake()
        self.highest = highest
        if step == 0 or not changes_shrink(self.betas, step):
            return
        correction = adam_correction(highest, self.betas, step)
        limits = resting_limits(highest, self.betas, self.eps, step)
        w, m, v = self.weight, self.exp_avg, self.exp_avg_sq
        still = [
            ~may_move(w[some], m[some], v[some], correction, limits, self.eps).any(1)
            for some in chunks(torch.arange(len(w)))
        ]
        self._rest(torch.cat(still).nonzero().squeeze(1))

    def activations(self, x: Tensor, bias: Tensor) -> Tensor:
        """relu(x @ weight.T + bias), float32 [batch, units]; idle units may be found without reading their weights.

        The bits are the same whichever rows of the weight are read.

        Args:
            x: float32 [batch, columns], none negative.
            bias: float32 [units].
        """
        units, columns = self.weight.shape
        if self.coarse is not None:
            rows = (~self.resting | self.coarse.may_be_live(x, bias)).nonzero().squeeze(1)
            if 2 * len(rows) <= units:
                self.read_parameters = columns * (len(rows) + units * _coarse.RELATIVE_SIZE)
                out = _dots.products(x, self.weight, rows).add_(bias[rows]).relu_()
                return x.new_zeros(len(x), units).index_copy_(1, rows, out)
        self.read_parameters = self.weight.numel()
        return _dots.products(x, self.weight).add_(bias).relu_()

    def update(self, gradient: UnitGradient, correction: Tensor, highest: float, step: int) -> None:
        """One step of Adam.

        Args:
            gradient: of this step.
            correction: [2], of `adam_correction`.
            highest: the highest learning rate of this step and all later ones.
            step: the step's number, counted from 1.
        """
        if highest > self.highest:
            self.catch_up()
            self.wake()
        self.highest = highest
        live = torch.arange(len(self.weight)) if gradient.live is None else gradient.live
        woken = live[self.resting[live]]
        if len(woken):
            self._decay(woken)
            self.resting[woken] = self.settled[woken] = False
        awake = (~self.resting).nonzero().squeeze(1)
        self.updated_parameters = len(awake) * self.weight.shape[1]
        self.pending += 1
        limits = None if step % PERIOD else resting_limits(highest, self.betas, self.eps, step)
        moved = _adam.update_rows(
            self.weight, self.exp_avg, self.exp_avg_sq, None if len(awake) == len(self.weight) else awake,
            gradient.units, gradient.columns, correction, self.betas, self.eps, limits,
        )  # fmt: skip
        if moved is not None:
            self.catch_up()
            if changes_shrink(self.betas, step):
                idle = torch.ones_like(self.resting)
                idle[live] = False
                self._rest(awake[idle[awake] & ~moved])

    def _rest(self, rows: Tensor) -> None:
        """Let `rows` rest too, where at least `RESTING_SHARE` of the units then do; else wake all."""
        self.resting[rows] = True
        if self.resting.sum() < RESTING_SHARE * len(self.resting):
            self.wake()
            return
        self.coarse = self.coarse or CoarseCopy(*self.weight.shape)
        for some in chunks(rows):
            self.coarse.copy(some, self.weight)
            self._settle(some)

    def _settle(self, rows: Tensor) -> None:
        """Find out which of some resting units are settled; after a state was loaded, dead units are at once."""
        m = self.exp_avg[rows]
        self.settled[rows] = (m * self.betas[0] == m).all(1)

    def catch_up(self) -> None:
        """Bring the moments of all resting units up to date, and with that the optimiser's state."""
        self._decay(self.resting.nonzero().squeeze(1))
        self.pending = 0

    def _decay(self, rows: Tensor) -> None:
        if not self.pending:
            return
        unsettled = rows[~self.settled[rows]]
        _adam.decay_rows(self.exp_avg, unsettled, self.betas[0], self.pending)
        for some in chunks(unsettled):
            self._settle(some)
        _adam.decay_rows(self.exp_avg_sq, rows, self.betas[1], self.pending)


def chunks(rows: Tensor) -> Iterator[Tensor]:
    """`rows` in parts of `CHUNK_UNITS`, none of them empty."""
    return (some for some in torch.split(rows, CHUNK_UNITS) if len(some))
