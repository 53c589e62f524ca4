"""The FC layers of `fast`: computed with, and updated, for those hidden units that have something to do.

Behind a ReLU many hidden units answer 0 to every image of a batch, and in this study nearly all of them soon do. In
such a step the unit is *idle*, and its weights, those into it and those out of it, have a gradient of exactly 0:

- Products leave idle units out, which adds the same numbers but for zeros.
- Adam still moves the weights of an idle unit, by its decaying first moment, and after some 250 idle steps by less than
  half a unit in the last place: not at all. Then the unit *rests*. Its weights stay as they are, as they would if they
  were updated, and its moments, which every idle step multiplies by β₁ and β₂, are caught up with for many steps in one
  pass. When it answers again, it is as if it had never rested, bit for bit.

An FC weight therefore lies in memory as [units, columns]: the first layer's by its outputs, a later one's by its
inputs. Units of the first layer's inputs, the feature map, are hardly ever idle. docs/fast-engine.md has the
measurements.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from resnet_bench.engines import _coarse
from resnet_bench.engines._coarse import CoarseCopy

aten = torch.ops.aten

MEAN, IGNORED_LABEL = 1, -100  # how `F.cross_entropy` calls the operators of the loss, by default

UNROLLED_BATCH = 16
"""Up to this batch size sums over the batch are written out and cost one pass; above, they are matrix products."""

CHUNK_UNITS = 64
"""Units updated by one call: their moments and weights, 6 MB for 8192 columns, are written while still in the cache."""

PERIOD = 64
"""Steps after which units may go to rest, and after which the moments of resting units are caught up with."""

DECAY_STEPS = 32
"""Multiplications of a moment's element in one pass over a chunk of rows. Each has to wait for the one before, and of
more of them a CPU does not see far enough ahead to work on other elements meanwhile."""

RESTING_SHARE = 0.75
"""Of a layer's units: fewer do not rest at all, since one walk over all is faster then than many over some."""

LARGE = 2**19
"""Elements of a weight (2 MB) from which oneDNN's product is faster than MKL's, which torch takes for float32."""

ROW_MULTIPLE = 32
"""The rows of a weight that are read without the others are made up to a multiple of so many, so that
`product_by_rows` can try all numbers there can be."""

SETTLING_STEPS = 8 * PERIOD
"""Steps of a training with the study's recipe after which nearly all units that will ever rest do."""

WORTH_RESTING = 2**20
"""Elements of a hidden layer's weight from which its units may rest: below, the weight and its moments (12 MB) stay in
a large cache, and updating all of them with the other parameters takes less time than choosing."""


class UnitGradient(NamedTuple):
    """The gradient of a weight [units, columns]: `units.T @ columns`, which is 0 but in the rows `live`.

    Attributes:
        live: int64 [live units], rising; None for all.
        units: [batch, units].
        columns: [batch, columns].
    """

    live: Tensor | None
    units: Tensor
    columns: Tensor


Gradient = Tensor | UnitGradient
"""Of a parameter; of an FC layer's weight always a `UnitGradient`."""


# Products -----------------------------------------------------------------------------------------------------------


def of_onednn(weight: Tensor) -> bool:
    """Whether oneDNN is the faster one to take the product with a weight: it reads large ones at twice MKL's speed."""
    return weight.numel() >= LARGE and torch.backends.mkldnn.is_available()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, onednn: bool | None = None) -> Tensor:
    """x [batch, inputs] times weight [inputs, outputs], plus bias [outputs]; by oneDNN where that is faster or asked.

    The operator is Inductor's own for inference.
    """
    if of_onednn(weight) if onednn is None else onednn:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight.t(), bias, "none", [], ""))
    return x @ weight if bias is None else torch.addmm(bias, x, weight)


@functools.cache
def product_by_rows(batch_size: int, units: int, columns: int, threads: int) -> bool:
    """Whether `product` gives units the same bits alone as among all: tried, for each number that `answers` may ask.

    A library may add in another order where sizes differ. oneDNN, where it was seen, does so for a single unit only.
    """
    generator = torch.Generator().manual_seed(0)
    x, bias = torch.rand(batch_size, columns, generator=generator), torch.rand(units, generator=generator)
    weight = torch.rand(units, columns, generator=generator) - 0.5
    whole = product(x, weight.t(), bias)
    order = torch.randperm(units, generator=generator)
    some = (order[:size] for size in range(ROW_MULTIPLE, units // 2 + 1, ROW_MULTIPLE))
    onednn = of_onednn(weight)
    return all(torch.equal(product(x, weight[s].t(), bias[s], onednn), whole[:, s]) for s in some)


def outer_product(x: Tensor, g: Tensor) -> Tensor:
    """x.T times g, for x [batch, inputs] and g [batch, outputs]: the gradient of a weight [inputs, outputs].

    Up to `UNROLLED_BATCH`, a row of it has the same bits whatever other rows are asked for. Of a matrix product that
    is not so.
    """
    if len(x) > UNROLLED_BATCH:
        return x.t() @ g
    return functools.reduce(torch.add, [x[i][:, None] * g[i] for i in range(len(x))])


def live_units(out: Tensor) -> Tensor | None:
    """The units that answer some image of the batch: int64 [live units], rising; None for all where it is most.

    Leaving the others out means to copy the rows of weights of these, which pays only for the smaller part.

    Args:
        out: [batch, units], none negative.
    """
    live = out.amax(0).nonzero().squeeze(1)
    return live if 2 * len(live) <= out.shape[1] else None


def of_units(tensor: Tensor, live: Tensor | None, dim: int) -> Tensor:
    return tensor if live is None else tensor.index_select(dim, live)


def head(
    x: Tensor,
    labels: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    idle_too: bool = False,
    answers: Tensor | None = None,
) -> tuple[Tensor, Tensor, list[Gradient]]:
    """FC layers and mean cross-entropy, forward and backward.

    Args:
        x: feature map, float32 [batch, inputs].
        labels: int64 [batch].
        weights: of each layer, [inputs, outputs]; the first of several is transposed in memory.
        biases: of each layer, [outputs].
        idle_too: also compute with idle units, for the measurement of what leaving them out gives.
        answers: of the first hidden layer, [batch, units], where they are known.

    Returns:
        loss: scalar.
        x_gradient: like `x`.
        gradients: of each layer's weight and bias in turn.
    """
    live: list[Tensor | None] = [None]  # of each layer's inputs
    outs = [x]  # the inputs, [batch, inputs]
    read = [(outs[0], weights[0])]  # the live ones and their rows of the weight
    for bias, weight in zip(biases[:-1], weights[1:], strict=True):
        out = product(*read[-1], bias).relu_() if answers is None or len(outs) > 1 else answers
        outs.append(out)
        live.append(None if idle_too else live_units(out))
        read.append((of_units(out, live[-1], 1), of_units(weight, live[-1], 0)))
    log_probabilities = torch.log_softmax(product(*read[-1], biases[-1]), 1)
    loss, total = aten.nll_loss_forward(log_probabilities, labels, None, MEAN, IGNORED_LABEL)

    g = aten.nll_loss_backward(torch.ones(()), log_probabilities, labels, None, MEAN, IGNORED_LABEL, total)
    g = aten._log_softmax_backward_data(g, log_probabilities, 1, g.dtype)
    g_live = g  # of the live ones only
    gradients: list[Gradient] = [UnitGradient(live[-1], outs[-1], g), g.sum(0)]
    for i in reversed(range(1, len(weights))):
        below, rows = read[i]
        g_live = g = aten.threshold_backward(product(g, rows.t()), below, 0)
        if (alive := live[i]) is not None:
            g = torch.zeros_like(outs[i]).index_copy_(1, alive, g_live)
        of_weight = UnitGradient(alive, g, outs[0]) if i == 1 else UnitGradient(live[i - 1], outs[i - 1], g)
        gradients[:0] = [of_weight, g.sum(0)]
    x_gradient = product(g_live, of_units(weights[0].t(), live[1] if len(weights) > 1 else None, 0))
    return loss, x_gradient, gradients


# Adam ---------------------------------------------------------------------------------------------------------------


def adam(
    parameter: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, gradient: Tensor,
    correction: Tensor, betas: tuple[float, float], eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """A parameter and its moments after one step: `torch.optim.Adam`'s rule, with its placement of `eps`.

    Args:
        correction: [2], lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ) for step t; a tensor, since a number would be compiled in.
    """
    step_size, root = correction
    exp_avg = exp_avg * betas[0] + gradient * (1 - betas[0])
    exp_avg_sq = exp_avg_sq * betas[1] + gradient * gradient * (1 - betas[1])
    return parameter - step_size * exp_avg / (exp_avg_sq.sqrt() / root + eps), exp_avg, exp_avg_sq


def update(
    parameters: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    gradients: Sequence[Gradient],
    correction: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One step of `adam`, in place, for whole parameters. FC weights are [units, columns]."""
    for parameter, exp_avg, exp_avg_sq, g in zip(parameters, exp_avgs, exp_avg_sqs, gradients, strict=True):
        gradient = outer_product(g.units, g.columns) if isinstance(g, UnitGradient) else g
        new = adam(parameter, exp_avg, exp_avg_sq, gradient, correction, betas, eps)
        for tensor, value in zip((parameter, exp_avg, exp_avg_sq), new, strict=True):
            tensor.copy_(value)


def update_units(
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor,
    units: Tensor,
    columns: Tensor,
    correction: Tensor,
    betas: tuple[float, float],
    eps: float,
    smallest: Tensor,
) -> Tensor:
    """One step of `adam`, in place, for some rows of a weight [units, columns], whose gradient is units.T @ columns.

    Args:
        rows: int64 [rows], each once.
        units: [batch, units].
        columns: [batch, columns].
        smallest: scalar; see `UnitWeight`.

    Returns:
        bool [rows]: whether an element of the row moved, or may yet move if the gradient is 0 from now on.
    """
    before = weight[rows]
    gradient = outer_product(units[:, rows], columns)
    after, m, v = adam(before, exp_avg[rows], exp_avg_sq[rows], gradient, correction, betas, eps)
    weight[rows], exp_avg[rows], exp_avg_sq[rows] = after, m, v
    return ((after != before) | ((after.abs() < smallest) & (m != 0))).any(1)


def decay(moment: Tensor, rows: Tensor, factors: Tensor) -> None:
    """Multiply some rows of a moment [units, columns] by one factor after the other, in place, as so many steps would.

    Args:
        rows: int64 [rows], each once.
        factors: [DECAY_STEPS].
    """
    after = moment[rows]
    for factor in factors:
        after = after * factor
    moment[rows] = after


class UnitFunctions(NamedTuple):
    """What `UnitWeight` does its arithmetic with: the functions above, compiled or not."""

    update: Callable[..., None] = update
    update_units: Callable[..., Tensor] = update_units
    decay: Callable[..., None] = decay


class UnitWeight:
    """A large weight of a hidden layer under Adam, [units, columns] in memory.

    Why a unit may rest: `update_units` says of a row that an idle step left it as it was. If t is the step, the next
    idle one multiplies the change of each weight, lr·m / (√v / √(1 - β₂ᵗ) + eps), by less than
    β₁ · √((1 + 1/t) / β₂). Where that is below 1, a change that was rounded away will be rounded away in every idle
    step to come; until m is no longer a normal number, and its own rounding keeps it from falling. All changes after
    that are below half a unit in the last place of any weight of at least `smallest`, and rows with smaller ones do not
    go to rest.

    Attributes:
        weight, exp_avg, exp_avg_sq: [units, columns]; the moments are behind by `pending` steps where `resting`.
        resting: bool [units].
        settled: bool [units], a part of `resting`: the first moment no longer changes when it decays, since it is 0 or
            a denormal number that rounding keeps.
        pending: steps.
        coarse: tells which of the resting units may answer; None where none rests.
        read_parameters: weights that the last `answers` read.
        updated_parameters: weights that the last update went over.
    """

    def __init__(
        self, weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        self.weight, self.exp_avg, self.exp_avg_sq = weight, exp_avg, exp_avg_sq
        self.betas, self.eps = betas, eps
        largest_change = 2 * lr / (1 - betas[0]) * torch.finfo(torch.float32).tiny / eps if eps else math.inf
        self.smallest = torch.tensor(2.0**25 * largest_change)
        self.resting = torch.zeros(len(weight), dtype=torch.bool)
        self.settled = torch.zeros_like(self.resting)
        self.pending = 0
        self.coarse: CoarseCopy | None = None
        self.read_parameters: float = 0
        self.updated_parameters = 0

    def wake(self) -> None:
        """Forget who rests, after weight or moments were changed from outside."""
        self.resting.fill_(False)
        self.settled.fill_(False)
        self.pending = 0
        self.coarse = None

    def answers(self, x: Tensor, bias: Tensor, whole: bool = False) -> Tensor:
        """relu(x @ weight.T + bias), [batch, units], from the weights of those units that may not answer 0.

        Args:
            x: [batch, columns], none negative.
            bias: [units].
            whole: read all units' weights, as for a batch of a size that `product_by_rows` did not try yet.
        """
        units, columns = self.weight.shape
        if not whole and self.coarse is not None and product_by_rows(len(x), units, columns, torch.get_num_threads()):
            rows = (~self.resting | self.coarse.may_answer(x, bias)).nonzero().squeeze(1)
            padded = torch.cat([rows, rows[-1:].expand(-len(rows) % ROW_MULTIPLE)])
            if 2 * len(padded) <= units:
                self.read_parameters = columns * (len(rows) + units * _coarse.BYTES)
                some = self.weight.index_select(0, padded)
                out = product(x, some.t(), bias[padded], of_onednn(self.weight)).relu_()
                return x.new_zeros(len(x), units).index_copy_(1, rows, out[:, : len(rows)])
        self.read_parameters = self.weight.numel()
        return product(x, self.weight.t(), bias).relu_()

    def update(self, gradient: UnitGradient, correction: Tensor, step: int, functions: UnitFunctions) -> None:
        """Adam's step number `step`, from 1."""
        live = torch.arange(len(self.weight)) if gradient.live is None else gradient.live
        woken = live[self.resting[live]]
        if len(woken):
            self._decay(woken, functions)
            self.resting[woken] = self.settled[woken] = False
        awake = (~self.resting).nonzero().squeeze(1)
        self.updated_parameters = len(awake) * self.weight.shape[1]
        self.pending += 1
        if step % PERIOD and len(awake) == len(self.weight):  # one walk through memory is faster than row by row
            functions.update(
                [self.weight], [self.exp_avg], [self.exp_avg_sq], [gradient._replace(live=None)], correction,
                self.betas, self.eps,
            )  # fmt: skip
            return
        moved = [self._update_units(rows, gradient, correction, functions) for rows in chunks(awake)]
        if step % PERIOD == 0:
            self.catch_up(functions)
            if moved and self.betas[0] * math.sqrt((1 + 1 / step) / self.betas[1]) < 0.99:
                idle = torch.ones_like(self.resting)
                idle[live] = False
                self._rest(awake[idle[awake] & ~torch.cat(moved)])

    def _rest(self, rows: Tensor) -> None:
        """Let `rows` rest too, if most of the layer then does; else none."""
        self.resting[rows] = True
        if self.resting.sum() < RESTING_SHARE * len(self.resting):
            self.wake()
            return
        self.coarse = self.coarse or CoarseCopy(*self.weight.shape)
        for some in chunks(rows):
            self.coarse.copy(some, self.weight)

    def catch_up(self, functions: UnitFunctions) -> None:
        """Bring the moments of all resting units up to date."""
        self._decay(self.resting.nonzero().squeeze(1), functions)
        self.pending = 0

    def _update_units(
        self, rows: Tensor, gradient: UnitGradient, correction: Tensor, functions: UnitFunctions
    ) -> Tensor:
        return functions.update_units(
            self.weight, self.exp_avg, self.exp_avg_sq, rows, gradient.units, gradient.columns, correction,
            self.betas, self.eps, self.smallest,
        )  # fmt: skip

    def _decay(self, rows: Tensor, functions: UnitFunctions) -> None:
        if not self.pending:
            return
        first, second = torch.ones(2, -(-self.pending // DECAY_STEPS) * DECAY_STEPS)
        first[: self.pending], second[: self.pending] = self.betas
        for some in chunks(rows[~self.settled[rows]]):
            for factors in first.split(DECAY_STEPS):
                functions.decay(self.exp_avg, some, factors)
            m = self.exp_avg[some]
            self.settled[some] = (m * self.betas[0] == m).all(1)
        for some in chunks(rows):
            for factors in second.split(DECAY_STEPS):
                functions.decay(self.exp_avg_sq, some, factors)

    def compile(self, batch_size: int, functions: UnitFunctions) -> None:
        """Call the functions once, for any number of rows to come; the update is one with a gradient of 0."""
        rows = torch.arange(min(CHUNK_UNITS, len(self.weight)))
        torch._dynamo.mark_dynamic(rows, 0)
        units, columns = (torch.zeros(batch_size, size) for size in self.weight.shape)
        # Writing to rows by index would be compiled into a slow detour where it has to be deterministic. Since each row
        # is there once, it is.
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        try:
            functions.decay(self.exp_avg, rows, torch.ones(DECAY_STEPS))
            self._update_units(rows, UnitGradient(rows, units, columns), torch.ones(2), functions)
        finally:
            torch.use_deterministic_algorithms(deterministic)
        product_by_rows(batch_size, *self.weight.shape, torch.get_num_threads())


def chunks(rows: Tensor) -> Iterator[Tensor]:
    return (some for some in rows.split(CHUNK_UNITS) if len(some))
