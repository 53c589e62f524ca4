"""Aged states: a training's early state, with its dead hidden units carried many idle steps on.

The gradient of a hidden unit that answers no image is 0, so that its weights and Adam's moments of them depend on
nothing but themselves. Arithmetic tells what they are k such steps later. Adam still moves the weights for up to some
300 steps, which are computed (`_units.adam` with a gradient of 0). From then on rounding keeps the weights as they are,
as the docstring of `_units.UnitWeight` explains, and each step multiplies the moments by β₁ and β₂. `multiplied` gives
the outcome of any number of such multiplications, each rounded, with denormal numbers and their fixed points. The
result has the bits that k steps of the engine `fast` give. `torch.optim.Adam` rounds in another order: its second
moments have the same bits, weights and first moments differ by rounding, and first moments that have come to rest as
denormal numbers are the same again. (Without a compiler, square roots are those of eager torch, as in `reference`.)

Bound: after the 300 steps, a moment of n elements takes log₂(k) passes over n integers, and as many over a table of
2²⁴, whatever denormal numbers cost on the CPU. So 175,000 idle steps of 8.2 million elements take some 10 s on one
core. The multiplications themselves would take minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor, nn

from resnet_bench import compiler
from resnet_bench.data import pipelines
from resnet_bench.data.datasets import Dataset
from resnet_bench.engines import _adam
from resnet_bench.engines._units import adam, adam_correction, changes_shrink, may_move, resting_limits
from resnet_bench.errors import UserError
from resnet_bench.networks import ResidualNetwork
from resnet_bench.recipe import Recipe
from resnet_bench.schedules import LearningRates
from resnet_bench.training.checkpoint import TrainingState

SAMPLE_IMAGES = 2000
"""Training images that tell live hidden units from dead ones: the first ones of the first epoch, augmented as there."""

CHUNK = 2**16
"""Elements whose idle steps of Adam are computed together: with their moments they stay in a core's cache."""

_MANTISSAS = 2**23  # float32 numbers of one exponent
_ONE = 127 * _MANTISSAS  # the bits of 1.0


# Dead units ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def live_units(network: ResidualNetwork, dataset: Dataset, recipe: Recipe, seed: int) -> list[Tensor]:
    """For each hidden layer, which of its units answer some image of the sample: bool [units].

    The images pass through the network as in a training: batch by batch, with the batch's own statistics in batch norm.
    """
    if not network.architecture.hidden:
        return []
    network = deepcopy(network).train()  # batch norm keeps statistics of what it sees
    batches = pipelines.batches("vectorized", dataset, recipe, seed, epoch=1)
    sample = islice(batches, -(-min(SAMPLE_IMAGES, len(dataset.train)) // recipe.batch_size))
    x = torch.cat([network.blocks(network.stem(images)).flatten(1) for images, _ in sample])
    live = []
    for layer in list(_fc_layers(network).values())[:-1]:
        x = torch.relu(layer(x))
        live.append((x > 0).any(0))
    return live


def live_share(live: Sequence[Tensor]) -> float | None:
    """The share of the first hidden layer's units that are live; None without a hidden layer."""
    return float(live[0].double().mean()) if live else None


def _fc_layers(network: ResidualNetwork) -> dict[str, nn.Linear]:
    return {f"fc.{name}": layer for name, layer in network.fc.named_children() if isinstance(layer, nn.Linear)}


# Ageing -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def aged(
    state: TrainingState, network: ResidualNetwork, live: Sequence[Tensor], steps: int, recipe: Recipe,
    rates: LearningRates,
) -> TrainingState:  # fmt: skip
    """The state after so many further steps in which dead units were idle, and in which nothing else happened.

    The weights into and out of the units that are not live, their biases and the moments of all these are carried on.
    Everything else stays as it was, except that Adam counts the steps.

    Args:
        state: a training's state, after at least one step.
        network: any of its architecture.
        live: which units of each hidden layer are live.
        steps: how many.
        recipe: the training's.
        rates: the learning rates of its steps.

    Returns:
        A new state, whose epoch and step are those of `state`.
    """
    weights = {name: tensor.clone() for name, tensor in state.network.items()}
    moments = {i: {name: t.clone() for name, t in entry.items()} for i, entry in state.optimizer["state"].items()}
    first = int(moments[0]["step"]) + 1
    for entry in moments.values():
        entry["step"] += steps
    index = {name: i for i, (name, _) in enumerate(network.named_parameters())}
    places = [
        (weights[name], moments[index[name]]["exp_avg"], moments[index[name]]["exp_avg_sq"], idle)
        for name, idle in _idle_elements(network, live)
    ]
    if places:
        w, m, v = (torch.cat([place[i][place[3]] for place in places]) for i in range(3))
        sizes = [int(idle.sum()) for *_, idle in places]
        for i, result in enumerate(idle_steps(w, m, v, range(first, first + steps), recipe, rates)):
            for place, part in zip(places, result.split(sizes), strict=True):
                place[i][place[3]] = part
    return replace(state, network=weights, optimizer={**state.optimizer, "state": moments})


def _idle_elements(network: ResidualNetwork, live: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The parameters of the FC layers by name, and which of their elements belong to a dead unit."""
    if not live:
        return
    layers = _fc_layers(network)
    for i, (name, layer) in enumerate(layers.items()):
        outputs = ~live[i] if i < len(live) else torch.zeros(layer.out_features, dtype=torch.bool)
        inputs = ~live[i - 1] if i else torch.zeros(layer.in_features, dtype=torch.bool)
        yield f"{name}.weight", outputs[:, None] | inputs
        yield f"{name}.bias", outputs


def idle_steps(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, steps: range, recipe: Recipe, rates: LearningRates
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and moments, float32 [n] each, after steps of Adam with these numbers in which the gradient is 0."""
    state = [tensor.clone() for tensor in (weight, exp_avg, exp_avg_sq)]
    left = torch.zeros(len(weight), dtype=torch.int32)  # steps in which a weight rests
    idle_step = _compiled_idle_step if _compiles() else _idle_step
    for begin in range(0, len(left), CHUNK):
        chunk = slice(begin, begin + CHUNK)
        w, m, v = (tensor[chunk] for tensor in state)
        for step in steps:
            correction = adam_correction(rates.at(step - 1), recipe.betas, step)
            limits = resting_limits(rates.highest_from(step - 1), recipe.betas, recipe.eps, step)
            moving = idle_step(w, m, v, correction, limits, recipe.betas, recipe.eps)
            if changes_shrink(recipe.betas, step) and not moving:
                left[chunk] = steps[-1] - step
                break
    w, m, v = state
    return w, multiplied(m, recipe.betas[0], left), multiplied(v, recipe.betas[1], left)


def _compiles() -> bool:
    """Whether the C++ of the engine `fast` can be compiled here; square roots of eager torch are rounded otherwise."""
    try:
        compiler.require()
    except UserError:
        return False
    return True


def _compiled_idle_step(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, correction: Tensor, limits: Tensor,
    betas: tuple[float, float], eps: float,
) -> bool:  # fmt: skip
    """A step of Adam, in place, on float32 [n]; whether any weight moves at the highest rate or may still move."""
    units, columns = weight.new_empty(0, 1), weight.new_empty(0, len(weight))  # of no image
    moved = _adam.update_rows(
        weight[None], exp_avg[None], exp_avg_sq[None], None, units, columns, correction, betas, eps, limits
    )
    assert moved is not None
    return bool(moved)


def _idle_step(
    weight: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, correction: Tensor, limits: Tensor,
    betas: tuple[float, float], eps: float,
) -> bool:  # fmt: skip
    """The same without a compiler."""
    before = weight.clone()
    new = adam(weight, exp_avg, exp_avg_sq, torch.zeros_like(weight), correction, betas, eps)
    for tensor, value in zip((weight, exp_avg, exp_avg_sq), new, strict=True):
        tensor.copy_(value)
    return bool(may_move(before, exp_avg, exp_avg_sq, correction, limits, eps).any())


def multiplied(x: Tensor, factor: float, times: Tensor) -> Tensor:
    """`x` multiplied by `factor` as often as `times` says, and rounded to float32 after every multiplication.

    What a multiplication by the factor gives depends only on the mantissa, as long as the product is not denormal. So
    one table of all mantissas holds what it adds to the bits of a number, read as an integer. The table for twice as
    many multiplications follows from the table itself, and with the tables for 1, 2, 4 … any number of multiplications
    is done. The numbers near and below the smallest normal one have a table of their own, from bits to bits.

    Args:
        x: float32 [n], finite.
        factor: above 0.5 and below 1; it is rounded to float32, as torch does.
        times: int32 [n], none negative.
    """
    factor = float(torch.tensor(factor))
    if not 0.5 < factor < 1:
        raise ValueError(f"the factor is {factor}")
    bits, mask = x.abs().view(torch.int32), _MANTISSAS - 1
    # As often as this, no product is denormal, even if every rounding were downwards; then it is less than twice the
    # smallest normal number.
    safe = (x.abs().double() / torch.finfo(torch.float32).tiny).log_().div_(2.0**-23 - math.log(factor))
    safe = torch.minimum(safe.clamp_(0, 2.0**30).to(torch.int32), times)
    mantissas = torch.arange(_MANTISSAS, dtype=torch.int32)
    added = _product_bits(mantissas + _ONE, factor) - (mantissas + _ONE)
    for digit in range(int(safe.max()).bit_length() if len(safe) else 0):
        if digit:
            added += added.index_select(0, (mantissas + added) & mask)
        chosen = (safe >> digit) & 1 == 1
        bits = torch.where(chosen, bits + added.index_select(0, bits & mask), bits)

    low = (times > safe).nonzero().squeeze(1)
    rest, low_bits = (times - safe)[low], bits[low]
    table = _product_bits(torch.arange(2 * _MANTISSAS, dtype=torch.int32), factor)
    for digit in range(int(rest.max()).bit_length() if len(rest) else 0):
        if digit:
            table, before = table.index_select(0, table), table
            if torch.equal(table, before):  # all are at a fixed point
                low_bits = torch.where(rest >> digit > 0, table.index_select(0, low_bits), low_bits)
                break
        low_bits = torch.where((rest >> digit) & 1 == 1, table.index_select(0, low_bits), low_bits)
    bits[low] = low_bits
    return bits.view(torch.float32).copysign(x)


def _product_bits(bits: Tensor, factor: float) -> Tensor:
    return (bits.view(torch.float32) * factor).view(torch.int32)
