"""The products with large weights, against float64, and their bits against themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from resnet_bench.engines import _dots, _products

pytestmark = pytest.mark.usefixtures("threads", "vectors")

U = 2.0**-24  # largest relative rounding error of float32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gamma(terms: int) -> float:
    """The bound of a sum of so many products, relative to the sum of their magnitudes (see `test_fast.py`)."""
    return (terms + 1) * U / (1 - (terms + 1) * U)


def assert_within_rounding(found: Tensor, x: Tensor, weight: Tensor) -> None:
    """`weight` is [terms, outputs]."""
    exact, magnitude = x.double() @ weight.double(), x.double().abs() @ weight.double().abs()
    assert found.shape == exact.shape
    assert ((found.double() - exact).abs() <= gamma(len(weight)) * magnitude).all()


SIZES = {"batch": st.integers(1, 17), "units": st.integers(1, 40), "columns": st.integers(1, 200)}


@settings(max_examples=100, deadline=None)
@given(**SIZES, seed=st.integers(0, 1000), wide=st.booleans(), eight_bits=st.booleans())
def test_products_of_some_rows_are_those_of_all_to_the_last_bit(
    batch: int, units: int, columns: int, seed: int, wide: bool, eight_bits: bool
) -> None:
    """In whichever order the rows are named, with any number of threads, and where the rows lie apart in memory."""
    x, weight = random(batch, columns, seed=seed), random(units, columns + 7 * wide, seed=seed + 1)
    if eight_bits:
        weight = (weight * 40).clamp(-127, 127).to(torch.int8)
    whole = _dots.products(x, weight)
    assert_within_rounding(whole, x, weight[:, :columns].t())
    rows = torch.randperm(units, generator=torch.Generator().manual_seed(seed))[: 1 + seed % units]
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(_dots.products(x, weight, rows), whole[:, rows])
    torch.set_num_threads(1)
    assert torch.equal(_dots.products(x[:1], weight, rows[:0]), torch.empty(1, 0))


@settings(max_examples=100, deadline=None)
@given(**SIZES, seed=st.integers(0, 1000))
def test_combinations_are_within_the_rounding_of_a_sum(batch: int, units: int, columns: int, seed: int) -> None:
    weight = random(units, columns, seed=seed)
    rows = torch.randperm(units, generator=torch.Generator().manual_seed(seed))[: 1 + seed % units]
    every, some = random(batch, units, seed=seed + 1), random(batch, len(rows), seed=seed + 2)
    assert_within_rounding(_dots.combinations(every, weight), every, weight)
    first = _dots.combinations(some, weight, rows)
    assert_within_rounding(first, some, weight[rows])
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(_dots.combinations(some, weight, rows), first)


def test_no_row_gives_zeros() -> None:
    none = torch.empty(0, dtype=torch.int64)
    assert torch.equal(_dots.combinations(torch.empty(2, 0), random(5, 9), none), torch.zeros(2, 9))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(value: float) -> None:
    x, weight = random(2, 30), random(6, 30)
    weight[4, 29] = value
    assert not _dots.products(x, weight)[:, 4].isfinite().any()
    assert _dots.products(x, weight)[:, :4].isfinite().all()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("selection", ["all", "inputs", "outputs", "both"])
def test_a_product_takes_the_inputs_and_outputs_that_are_named(
    large: bool, transposed: bool, selection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever computes it, and in whichever order the weight lies in memory."""
    monkeypatch.setattr(_products, "OWN_ELEMENTS", 1 if large else 2**30)
    weight, bias = random(40, 33), random(33, seed=1)
    if transposed:
        weight = weight.t().contiguous().t()
    inputs = torch.tensor([3, 4, 39]) if selection in ("inputs", "both") else None
    outputs = torch.tensor([32, 0]) if selection in ("outputs", "both") else None
    taken = _products.selected(_products.selected(weight, inputs, 0), outputs, 1)
    x = random(4, len(taken), seed=2)
    assert_within_rounding(_products.product(x, weight, inputs=inputs, outputs=outputs), x, taken)
    with_bias = _products.product(x, weight, bias, inputs=inputs, outputs=outputs)
    ones = torch.cat([x, torch.ones(4, 1)], 1)
    assert_within_rounding(with_bias, ones, torch.cat([taken, _products.selected(bias[None], outputs, 1)]))
