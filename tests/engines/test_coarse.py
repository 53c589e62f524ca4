"""The 8-bit copy of weights: every unit that it calls idle is idle, and it calls most idle units so."""

from __future__ import annotations

import itertools
import math

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from resnet_bench.engines import _dots
from resnet_bench.engines._coarse import CoarseCopy

BATCH, UNITS, COLUMNS = 4, 12, 33


def copied(weight: Tensor) -> CoarseCopy:
    coarse = CoarseCopy(*weight.shape)
    coarse.copy(torch.arange(len(weight)), weight)
    return coarse


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def live(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Bool [units]: whether a unit is live in float32, by torch or by our own product, in some orders."""
    orders = [torch.arange(x.shape[1]), *(torch.randperm(x.shape[1]) for _ in range(4))]
    products = (_dots.products, lambda x, rows: x @ rows.t())
    out = [product(x[:, order], weight[:, order]) + bias for order, product in itertools.product(orders, products)]
    return ~(torch.stack(out) <= 0).all(0).all(0)


def floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, width=32, allow_subnormal=False)


@settings(max_examples=200, deadline=None)
@given(
    weight=st.one_of(
        arrays.arrays(np.int8, (3, COLUMNS), elements=st.integers(-8, 8)),
        arrays.arrays(np.float32, (3, COLUMNS), elements=floats(-1, 1)),
    ),
    x=arrays.arrays(np.float32, (2, COLUMNS), elements=floats(0, 1000)),
    offset=st.floats(-1e-2, 1e-2),
    exponent=st.integers(-120, 60),
)
@torch.no_grad()
def test_no_live_unit_is_called_idle(weight: np.ndarray, x: np.ndarray, offset: float, exponent: int) -> None:
    """The bias is such that the largest value of each unit before the ReLU is just above or just below 0."""
    w, inputs = torch.from_numpy(weight).float() * 2.0**exponent, torch.from_numpy(x)
    largest = (inputs.double() @ w.t().double()).amax(0)
    bias = (-largest * (1 + offset)).float()
    told = copied(w).may_be_live(inputs, bias)
    assert told[live(inputs, w, bias)].all()


@torch.no_grad()
def test_no_live_unit_is_called_idle_when_all_roundings_go_down() -> None:
    weight, x = torch.full((1, COLUMNS), 127.0), torch.ones(1, COLUMNS)
    weight[0, 1:] = 100.499 * copied(weight).scale.double()  # the first remains the largest
    exact = x.double() @ weight.t().double()
    coarse = copied(weight)
    lost = exact - coarse.scale.double() * coarse.quantized.double().sum()
    assert lost > 0.002 * exact
    assert coarse.may_be_live(x, -(exact[0] * (1 - 1e-6)).float()).all()


@torch.no_grad()
def test_the_bound_is_not_larger_than_it_has_to_be() -> None:
    """The worst case for a row: each rounding as large as it may be, and all to the same side."""
    weight = torch.full((1, COLUMNS), 2.5)
    weight[0, 0] = 127.0  # the scale is 1, and a little more
    x = torch.ones(1, COLUMNS)
    x[0, 0] = 0.0
    coarse = copied(weight)
    exact = float((x.double() @ weight.t().double())[0, 0])
    error = (COLUMNS - 1) * 0.501 * float(coarse.scale[0])
    assert coarse.may_be_live(x, torch.tensor([-exact])).all()
    assert not coarse.may_be_live(x, torch.tensor([-exact - 1.05 * 2 * error])).any()


@torch.no_grad()
def test_units_far_below_0_are_told_from_live_ones() -> None:
    """With numbers such as the study's networks have: some thousand inputs, weights of the size of their start."""
    columns, units = 4096, 200
    x = random(BATCH, columns).relu()
    weight = random(units, columns, seed=1) / columns**0.5
    bias = torch.full((units,), -3.0)
    bias[:10] = 3.0
    told = copied(weight).may_be_live(x, bias)
    assert told[:10].all()
    assert told[10:].float().mean() < 0.2
    assert told[live(x, weight, bias)].all()


@pytest.mark.parametrize(
    ("where", "value"),
    [*itertools.product(("weight", "bias"), (math.nan, math.inf, -math.inf)), ("input", math.nan), ("input", math.inf)],
)
@torch.no_grad()
def test_no_unit_is_called_idle_where_a_number_is_infinite_or_nan(where: str, value: float) -> None:
    weight, x, bias = random(UNITS, COLUMNS), random(BATCH, COLUMNS).relu(), torch.full((UNITS,), -1e6)
    {"weight": weight, "input": x, "bias": bias[None]}[where][0, 0] = value
    told = copied(weight).may_be_live(x, bias)
    assert told[0]
    assert told[1:].all() == (where == "input")  # a number of all units, or of one


@pytest.mark.parametrize(
    ("row", "inputs", "bias"),
    [
        ([-1e-3, *[1e-3] * 32], [3e36, *[1e36] * 32], 0.0),  # Σ q·x is -∞, Σ w·x is 3·10³⁴
        ([-1e30, 1e30, *[0.0] * 31], [9e8, 4e8, *[0.0] * 31], -1.0),  # Σ w·x is -∞ + ∞ in some orders, Σ q·x is finite
    ],
    ids=["of the copy", "of the weight"],
)
@torch.no_grad()
def test_no_unit_is_called_idle_where_a_sum_may_overflow(row: list[float], inputs: list[float], bias: float) -> None:
    assert copied(torch.tensor([row])).may_be_live(torch.tensor([inputs]), torch.tensor([bias])).all()


@torch.no_grad()
def test_rows_of_zeros_and_rows_without_a_copy_are_judged_by_their_bias() -> None:
    weight = torch.zeros(4, COLUMNS)
    coarse = CoarseCopy(4, COLUMNS)
    coarse.copy(torch.tensor([0, 1]), weight)
    told = coarse.may_be_live(random(BATCH, COLUMNS).relu(), torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    assert told.tolist() == [False, True, False, True]


@torch.no_grad()
def test_only_the_rows_named_are_copied_again() -> None:
    weight = random(UNITS, COLUMNS)
    coarse = copied(weight)
    before = coarse.quantized.clone(), coarse.scale.clone()
    changed = -2 * weight
    coarse.copy(torch.tensor([3, 5]), changed)
    same = torch.ones(UNITS, dtype=torch.bool)
    same[[3, 5]] = False
    assert torch.equal(coarse.quantized[same], before[0][same])
    assert torch.equal(coarse.scale[same], before[1][same])
    other = copied(changed)
    assert torch.equal(coarse.quantized[~same], other.quantized[~same])


@torch.no_grad()
def test_a_copy_is_within_half_a_step_of_the_weight() -> None:
    weight = random(UNITS, COLUMNS) * 10.0 ** torch.arange(UNITS)[:, None]
    coarse = copied(weight)
    scale = coarse.scale.double()[:, None]
    assert coarse.quantized.abs().max() <= 127
    assert ((coarse.quantized * scale - weight.double()).abs() <= 0.501 * scale).all()
    assert (scale.squeeze(1) * 127 >= weight.double().abs().amax(1)).all()
    assert (scale.squeeze(1) * 127 <= weight.double().abs().amax(1) * 1.02).all()
