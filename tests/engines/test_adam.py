"""Adam in C++, against float64, against torch's own operations, and its bits against themselves."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from resnet_bench.engines import _adam, _units

pytestmark = pytest.mark.usefixtures("threads", "vectors")

U = 2.0**-24  # largest relative rounding error of float32
SLACK = 4
BETAS, EPS = (0.9, 0.999), 1e-8


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state(units: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return (
        random(units, columns, seed=seed), random(units, columns, seed=seed + 1) * 0.1,
        random(units, columns, seed=seed + 2).square() * 0.1,
    )  # fmt: skip


SIZES = {
    "batch": st.integers(1, 16),
    "units": st.integers(1, 9),
    "columns": st.sampled_from([1, 5, 16, 33, 2048, 2100]),
}


@settings(max_examples=60, deadline=None)
@given(**SIZES, seed=st.integers(0, 1000), step=st.sampled_from([1, 10, 100_000]))
def test_a_step_is_adams_in_float64_within_the_rounding(
    batch: int, units: int, columns: int, seed: int, step: int
) -> None:
    """The bound is followed along the formula, to first order."""
    weight, m, v = state(units, columns, seed)
    w64, m64, v64 = (t.double() for t in (weight, m, v))
    of_units, x = random(batch, units, seed=seed + 3), random(batch, columns, seed=seed + 4)
    correction = _units.adam_correction(1e-2, BETAS, step)
    _adam.update_rows(weight, m, v, None, of_units, x, correction, BETAS, EPS)
    g = of_units.double().t() @ x.double()
    g_error = SLACK * (batch + 1) * U * (of_units.double().abs().t() @ x.double().abs())
    exact = _units.adam(w64, m64, v64, g, correction.double(), BETAS, EPS)
    m_error = 0.1 * g_error + 8 * U * (m64.abs() + g.abs())
    v_error = 0.001 * (2 * g.abs() * g_error + g_error**2) + 8 * U * (v64 + g * g)
    assert ((m.double() - exact[1]).abs() <= SLACK * m_error).all()
    assert ((v.double() - exact[2]).abs() <= SLACK * v_error).all()
    step_size, root = correction.double()
    lowest = (exact[2] - SLACK * v_error).clamp(min=0)
    change = exact[1].abs() / (exact[2].sqrt() / root + EPS)
    largest = (exact[1].abs() + SLACK * m_error) / (lowest.sqrt() / root + EPS)
    w_error = step_size * (largest - change + 16 * U * largest) + 2 * U * w64.abs()
    assert ((weight.double() - exact[0]).abs() <= SLACK * w_error).all()


@settings(max_examples=60, deadline=None)
@given(**SIZES, seed=st.integers(0, 1000))
def test_the_numbers_of_a_row_do_not_depend_on_the_other_rows_or_on_the_threads(
    batch: int, units: int, columns: int, seed: int
) -> None:
    of_units, x = random(batch, units, seed=seed + 3), random(batch, columns, seed=seed + 4)
    arguments = _units.adam_correction(1e-2, BETAS, 7), BETAS, EPS, torch.tensor([1e-2, 0.1])
    torch.set_num_threads(1)
    every = state(units, columns, seed)
    moved = _adam.update_rows(*every, None, of_units, x, *arguments)
    assert moved is not None
    rows = torch.randperm(units, generator=torch.Generator().manual_seed(seed))[: 1 + seed % units]
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        some, before = state(units, columns, seed), state(units, columns, seed)
        found = _adam.update_rows(*some, rows, of_units, x, *arguments)
        assert found is not None
        assert torch.equal(found, moved[rows])
        others = torch.ones(units, dtype=torch.bool)
        others[rows] = False
        for a, b, c in zip(some, every, before, strict=True):
            assert torch.equal(a[rows], b[rows])
            assert torch.equal(a[others], c[others])


def test_a_row_moved_if_any_of_its_weights_did_or_may() -> None:
    columns = 2100  # two parts of a row
    weight = torch.ones(5, columns)
    m, v = torch.zeros(5, columns), torch.ones(5, columns)
    m[1, -1] = 1e-3  # moves
    m[2, 0] = 1e-30  # is too small to
    weight[3, 2050], m[3, 2050] = 1e-9, 1e-38  # a small weight may move as long as the moment is not 0
    weight[4, 2050] = 1e-9
    none = torch.zeros(1, 5), torch.zeros(1, columns)
    limits = torch.tensor([1e-2, 1e-6])
    moved = _adam.update_rows(weight, m, v, None, *none, torch.tensor([1e-2, 1.0]), BETAS, EPS, limits)
    assert moved is not None
    assert moved.tolist() == [False, True, False, True, False]
    told = _units.may_move(torch.where(weight < 0.5, 1e-9, 1.0), m, v, torch.tensor([1e-2, 1.0]), limits, EPS)
    assert told.any(1).tolist() == moved.tolist()


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    transposed=st.booleans(),
)
def test_whole_parameters_have_the_bits_of_rows(shapes: list[tuple[int, int]], seed: int, transposed: bool) -> None:
    """With any number of threads and gradients in another order in memory; the last one is left out.

    Nothing beside them is written.
    """
    arguments = _units.adam_correction(1e-2, BETAS, 7), BETAS, EPS
    starts = [state(*shape, seed + i) for i, shape in enumerate(shapes)]
    gradients = [random(*shape, seed=seed + 10 + i) for i, shape in enumerate(shapes)]
    expected = deepcopy(starts)
    for one, g in zip(expected, gradients, strict=True):
        flat = tuple(t.view(1, -1) for t in one)
        _adam.update_rows(*flat, None, torch.ones(1, 1), g.view(1, -1), *arguments)
    given = [g.t().contiguous().t() for g in gradients] if transposed else gradients
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        memory = [[torch.full((t.numel() + 64,), torch.nan) for t in one] for one in starts]
        found = [
            tuple(room[32:-32].view(t.shape).copy_(t) for room, t in zip(rooms, one, strict=True))
            for rooms, one in zip(memory, starts, strict=True)
        ]
        _adam.Parameters(found).update([*given[:-1], None], *arguments)  # type: ignore[arg-type]
        for a, b in zip(found, [*expected[:-1], starts[-1]], strict=True):
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert all(room[:32].isnan().all() and room[-32:].isnan().all() for rooms in memory for room in rooms)


@settings(max_examples=30, deadline=None)
@given(columns=SIZES["columns"], times=st.integers(0, 130), factor=st.sampled_from([0.9, 0.999, 0.5]))
def test_decay_rounds_after_each_product(columns: int, times: int, factor: float) -> None:
    """Down to denormal numbers too."""
    moment = random(6, columns) * 10.0 ** -torch.linspace(0, 44, 6)[:, None]
    expected, rows = moment.clone(), torch.tensor([4, 0, 5])
    for _ in range(times):
        expected[rows] *= factor
    _adam.decay_rows(moment, rows, factor, times)
    assert torch.equal(moment, expected)


def test_what_is_not_a_number_stays_so() -> None:
    weight, m, v = state(2, 20, 0)
    x = random(1, 20)
    x[0, 3] = float("nan")
    _adam.update_rows(weight, m, v, None, torch.ones(1, 2), x, torch.tensor([1e-2, 1.0]), BETAS, EPS)
    for tensor in (weight, m, v):
        assert tensor[:, 3].isnan().all()
        assert not tensor[:, 4:].isnan().any()
