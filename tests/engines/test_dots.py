"""The products with large weights, against float64, and their bits against themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from resnet_bench.engines import _dots, _products
from resnet_bench.engines._coarse import CoarseCopy
from resnet_bench.errors import UserError

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


# Products that the compiler made wrong --------------------------------------------------------------------------------


@pytest.fixture
def untried() -> Iterator[None]:
    """As in a process that has computed no product yet."""
    _dots._fault.cache_clear()
    yield
    _dots._fault.cache_clear()


Product = Callable[[Tensor, Tensor], Tensor]
"""Of inputs and weight, by the rows that were asked for."""


def in_20_bits(x: Tensor) -> Tensor:
    return (x.view(torch.int32) & ~0xF).view(torch.float32)


def rounded_down(product: Product, x: Tensor, weight: Tensor, rows: Tensor | None) -> Tensor:
    exact = x.double() @ (weight if rows is None else weight[rows]).double().t()
    near = exact.float()
    return torch.where(near.double() > exact, near.nextafter(torch.tensor(-torch.inf)), near)


def backwards_by_rows(product: Product, x: Tensor, weight: Tensor, rows: Tensor | None) -> Tensor:
    return product(x, weight) if rows is None else product(x.flip(1), weight.flip(1))


WRONG: dict[str, tuple[Callable[[Product, Tensor, Tensor, Tensor | None], Tensor], str]] = {
    "inputs in bfloat16": (lambda product, x, w, rows: product(x.bfloat16().float(), w), "other sums than float32"),
    "inputs in 20 bits": (lambda product, x, w, rows: product(in_20_bits(x), w), "other sums than float32"),
    "sums in 20 bits": (lambda product, x, w, rows: in_20_bits(product(x, w)), "other sums than float32"),
    "weights without a sign": (lambda product, x, w, rows: product(x, w.abs()), "other sums than float32"),
    "sums rounded down": (rounded_down, "does not round sums to the nearest number"),
    "rows added up backwards": (backwards_by_rows, "gives rows other bits than the whole product has"),
}
"""What may go wrong with a product, and what is said of it."""


@pytest.mark.usefixtures("untried")
@pytest.mark.parametrize("of", ["products_int8", "products_float32"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_product_that_is_made_wrong_is_one_sentence(of: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found at the first product, before a unit is called idle by it."""
    right, (made, said) = _dots._called, WRONG[wrong]

    def called(function: str, x: Tensor, weight: Tensor, rows: Tensor | None, *rest: Any) -> Tensor:
        def product(x: Tensor, weight: Tensor) -> Tensor:
            return right(function, x, weight, rows, *rest)

        return made(product, x, weight, rows) if function == of else product(x, weight)

    monkeypatch.setattr(_dots, "_called", called)
    with pytest.raises(UserError) as raised:
        CoarseCopy(3, 20).may_be_live(random(2, 20).abs(), random(3))
    assert str(raised.value).startswith("What the C++ compiler made of _dots.cpp ")
    assert said in str(raised.value)
    assert str(raised.value).endswith(
        ", so that --engine fast could leave out units that are not idle; name another compiler in CXX, or take "
        "--engine reference, which runs without."
    )


@pytest.mark.usefixtures("untried")
def test_products_are_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    functions: list[str] = []
    right = _dots._called

    def called(function: str, *rest: Any) -> Tensor:
        functions.append(function)
        return right(function, *rest)

    monkeypatch.setattr(_dots, "_called", called)
    x, weight = random(2, 20), random(6, 20)
    _dots.products(x, weight)
    assert set(functions) == {"products_int8", "products_float32"}
    functions.clear()
    _dots.products(x, weight)
    assert functions == ["products_float32"]
