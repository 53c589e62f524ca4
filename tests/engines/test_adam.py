"""The lazy update of `fast` gives weights and moments with the same bits as an update of all units.

The activations of the first hidden layer have the same bits too, although they are computed for some units only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from resnet_bench.engines import _adam, _products, fast
from resnet_bench.engines._adam import UnitFunctions, UnitWeight
from resnet_bench.engines._head import UnitGradient

BATCH, UNITS, COLUMNS = 4, 70, 37  # more units than a chunk has, and columns that leave a rest in vectors
LR, BETAS, EPS = 4e-4, (0.9, 0.999), 1e-8


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("inductor")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def compiled() -> UnitFunctions:
    functions = UnitFunctions(
        fast.compiled(_adam.update, fast.SINGLE_PASS),
        fast.compiled(_adam.update_units, fast.SINGLE_PASS, dynamic=None),
        fast.compiled(_adam.decay, fast.SINGLE_PASS, dynamic=None),
    )
    with torch.no_grad():
        unit_weight().compile(BATCH, functions)
    return functions


def unit_weight(seed: int = 0, betas: tuple[float, float] = BETAS, eps: float = EPS) -> UnitWeight:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(UNITS, COLUMNS, generator=generator) * 0.01
    return UnitWeight(weight, torch.zeros(UNITS, COLUMNS), torch.zeros(UNITS, COLUMNS), LR, betas, eps)


def gradient(step: int, live: Tensor, columns: int = COLUMNS) -> UnitGradient:
    generator = torch.Generator().manual_seed(step)
    units = torch.zeros(BATCH, UNITS)
    units[:, live] = torch.randn(BATCH, len(live), generator=generator)
    return UnitGradient(live, units, torch.randn(BATCH, columns, generator=generator))


@dataclass
class Pair:
    """The same weight twice: units of `lazy` rest, all of `eager` are updated in every step by Adam's plain formula."""

    functions: UnitFunctions
    lazy: UnitWeight
    eager: UnitWeight
    rested: int = 0  # units that rested, summed over the steps

    def step(self, number: int, live: Tensor) -> None:
        g = gradient(number, live)
        correction = torch.tensor([LR / (1 - self.lazy.betas[0] ** number), (1 - self.lazy.betas[1] ** number) ** 0.5])
        self.lazy.update(g, correction, number, self.functions)
        e = self.eager
        self.functions.update(
            [e.weight], [e.exp_avg], [e.exp_avg_sq], [g._replace(live=None)], correction, e.betas, e.eps
        )
        self.rested += int(self.lazy.resting.sum())

    def assert_identical(self) -> None:
        self.lazy.catch_up(self.functions)
        for name in ("weight", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                getattr(self.lazy, name), getattr(self.eager, name), rtol=0, atol=0, equal_nan=True
            )  # without epsilon, Adam divides 0 by 0


def pair(functions: UnitFunctions, **options: object) -> Pair:
    return Pair(functions, unit_weight(**options), unit_weight(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["compiled", "eager"])
@torch.no_grad()
def test_weights_and_moments_are_those_of_updating_all_units_to_the_last_bit(how: str, compiled: UnitFunctions) -> None:
    """Through all that can happen to units: always live, never live, long idle, live again, most live at once."""
    functions = compiled if how == "compiled" else UnitFunctions()
    both = pair(functions)
    for step in range(1, 1501):
        live = list(range(3))
        live += [u for u in range(3, 13) if step % (40 * u) < 3]
        live += [u for u in range(13, 40) if step < 100 or step == 900 + u]
        live += [u for u in range(40, 46) if step > 1000]
        live += [u for u in range(50, 60) if 1400 < step < 1410]
        live = live if step != 1450 else list(range(60))
        both.step(step, torch.tensor(live))
        assert torch.equal(both.lazy.weight, both.eager.weight), step
        if step in (1, 64, 65, 500, 901, 1425, 1449):
            both.assert_identical()
        if step == 1390:
            assert both.lazy.resting.any()
            assert both.lazy.settled.any()
    both.assert_identical()
    assert both.rested > 1000 * UNITS / 2


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    share=st.sampled_from([0.001, 0.01, 0.3]),
    stop=st.integers(1, 500),
    betas=st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.8, 0.99)]),
    eps=st.sampled_from([1e-8, 1e-3, 0.0]),
)
@torch.no_grad()
def test_weights_and_moments_are_the_same_whichever_units_are_live(
    seed: int, share: float, stop: int, betas: tuple[float, float], eps: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    both = pair(UnitFunctions(), seed=seed, betas=betas, eps=eps)
    for step in range(1, 500):
        chance = share if step > stop else 0.9
        both.step(step, (torch.rand(UNITS, generator=generator) < chance).nonzero().squeeze(1))
    both.assert_identical()


@torch.no_grad()
def test_it_does_not_matter_when_moments_are_brought_up_to_date_or_units_are_woken(compiled: UnitFunctions) -> None:
    """What a checkpoint in between does, and a resume from it."""
    interrupted, other = pair(compiled), pair(compiled)
    for step in range(1, 700):
        live = torch.arange(5 if step > 50 else UNITS)
        interrupted.step(step, live)
        other.step(step, live)
        if step == 333:
            interrupted.lazy.catch_up(compiled)
        if step == 500:
            interrupted.lazy.catch_up(compiled)
            interrupted.lazy.wake()
            assert other.lazy.resting.any()
    interrupted.assert_identical()
    other.assert_identical()
    assert torch.equal(interrupted.lazy.exp_avg, other.lazy.exp_avg)


@torch.no_grad()
def test_units_whose_first_moment_outlives_the_second_do_not_rest() -> None:
    """Their weights may move again, since m / √v grows while both decay."""
    both = pair(UnitFunctions(), betas=(0.999, 0.9))
    for step in range(1, 700):
        both.step(step, torch.arange(UNITS if step < 10 else 2))
    assert both.rested == 0
    both.assert_identical()


@torch.no_grad()
def test_units_do_not_rest_while_a_weight_is_moved_by_however_little() -> None:
    """A weight of 0 is, until the first moment is 0 as well: by 10⁻³⁵ in a step."""
    both = pair(UnitFunctions())
    for step in range(1, 700):
        both.step(step, torch.arange(UNITS if step < 10 else 2))
    assert both.lazy.resting[2:].all()
    both.assert_identical()
    for w in (both.lazy, both.eager):
        w.weight[3:8, 1] = 0.0
        w.wake()
    for step in range(700, 900):
        both.step(step, torch.arange(2))
    assert both.lazy.resting.tolist() == [False] * 2 + [True] + [False] * 5 + [True] * (UNITS - 8)
    assert both.lazy.weight[3:8, 1].all()
    both.assert_identical()


@torch.no_grad()
def test_only_live_units_are_updated_once_the_others_rest() -> None:
    both = pair(UnitFunctions())
    for step in range(1, 520):
        both.step(step, torch.arange(UNITS if step < 100 else 7))
    assert both.lazy.updated_parameters == 7 * COLUMNS
    both.step(520, torch.arange(9))
    assert both.lazy.updated_parameters == 9 * COLUMNS


@torch.no_grad()
@pytest.mark.parametrize(("idle", "rests"), [(UNITS // 2, False), (UNITS - 17, True)])
def test_units_rest_where_most_of_the_layer_can(idle: int, rests: bool) -> None:
    both = pair(UnitFunctions())
    for step in range(1, 400):
        both.step(step, torch.arange(UNITS if step < 10 else UNITS - idle))
    assert bool(both.lazy.resting.any()) == rests
    assert both.lazy.updated_parameters == (UNITS - idle if rests else UNITS) * COLUMNS
    both.assert_identical()


@torch.no_grad()
def test_a_layer_without_live_units_is_no_error() -> None:
    both = pair(UnitFunctions())
    for step in range(1, 200):
        both.step(step, torch.arange(0))
    assert both.lazy.resting.all()
    both.assert_identical()


def test_the_weight_below_which_no_unit_rests_covers_denormal_moments() -> None:
    """Half the distance to its neighbours exceeds a change by a denormal first moment, at which √v is below eps."""
    change = 2 * LR / (1 - BETAS[0]) * torch.finfo(torch.float32).tiny / EPS
    assert unit_weight().smallest * 2.0**-25 >= change * (1 - 1e-6)
    assert unit_weight(eps=0.0).smallest == math.inf


# Activations of a layer whose units mostly rest -----------------------------------------------------------------------

OF_LAYER = (200, 512)  # units, columns


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small weights are read by oneDNN too, whose product has the same bits for some rows as for all."""
    monkeypatch.setattr(_products, "ONEDNN_ELEMENTS", 1)
    monkeypatch.setattr(_products, "ROW_MULTIPLE", 16)
    _products.rows_have_same_bits.cache_clear()
    yield
    _products.rows_have_same_bits.cache_clear()


def resting(live: int, seed: int = 0) -> tuple[UnitWeight, Tensor, Tensor]:
    """A weight of which all units rest but the first `live`; inputs, and a bias with which those are live."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(OF_LAYER, generator=generator) / OF_LAYER[1] ** 0.5
    moments = torch.zeros(OF_LAYER), torch.zeros(OF_LAYER)
    rested = UnitWeight(weight, *moments, LR, BETAS, EPS)
    rested._rest(torch.arange(live, len(weight)))
    bias = torch.full((len(weight),), -5.0)
    bias[:live] = 0.5
    return rested, torch.rand(BATCH, OF_LAYER[1], generator=generator), bias


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), live=st.integers(0, 50), spread=st.sampled_from([0.0, 1.0, 4.0]))
@torch.no_grad()
def test_activations_from_few_rows_are_those_from_all_to_the_last_bit(seed: int, live: int, spread: float) -> None:
    """Also where resting units are live, or nearly so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_products, "ONEDNN_ELEMENTS", 1)
        patch.setattr(_products, "ROW_MULTIPLE", 16)
        _products.rows_have_same_bits.cache_clear()
        rested, x, bias = resting(live, seed)
        bias += spread * torch.randn(len(bias), generator=torch.Generator().manual_seed(seed))
        expected = torch.relu(_products.product(x, rested.weight.t(), bias))
        assert torch.equal(rested.activations(x, bias), expected)
        assert _products.rows_have_same_bits(BATCH, *OF_LAYER, torch.get_num_threads())
        _products.rows_have_same_bits.cache_clear()


@torch.no_grad()
@pytest.mark.usefixtures("onednn")
def test_only_rows_that_may_be_live_are_read_and_a_quarter_of_all_for_the_copy() -> None:
    units, columns = OF_LAYER
    rested, x, bias = resting(20)
    rested.activations(x, bias)
    assert rested.read_parameters == 20 * columns + units * columns / 4
    rested.activations(x, bias, whole=True)
    assert rested.read_parameters == units * columns
    rested.activations(x, bias)
    rested.wake()
    rested.activations(x, bias)
    assert rested.read_parameters == units * columns


@torch.no_grad()
@pytest.mark.usefixtures("onednn")
def test_all_rows_are_read_where_most_may_be_live() -> None:
    rested, x, bias = resting(20)
    bias += 10
    assert torch.equal(rested.activations(x, bias), torch.relu(_products.product(x, rested.weight.t(), bias)))
    assert rested.read_parameters == rested.weight.numel()


@torch.no_grad()
@pytest.mark.usefixtures("onednn")
def test_no_row_is_read_where_no_unit_may_be_live() -> None:
    rested, x, bias = resting(0)
    activations = rested.activations(x, bias)
    assert activations.shape == (BATCH, OF_LAYER[0])
    assert not activations.any()
    assert rested.read_parameters == rested.weight.numel() / 4


@torch.no_grad()
@pytest.mark.usefixtures("onednn")
def test_all_rows_are_read_where_a_library_adds_up_in_another_order_for_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    product = _products.product

    def of_another_order(x: Tensor, weight: Tensor, bias: Tensor | None = None, onednn: bool | None = None) -> Tensor:
        if weight.shape[1] == 48:  # one of the numbers of rows there can be
            x, weight = x.flip(1), weight.flip(0)
        return product(x, weight, bias, onednn)

    monkeypatch.setattr(_products, "product", of_another_order)
    assert not _products.rows_have_same_bits(BATCH, *OF_LAYER, torch.get_num_threads())
    rested, x, bias = resting(20)
    assert torch.equal(rested.activations(x, bias), torch.relu(product(x, rested.weight.t(), bias)))
    assert rested.read_parameters == rested.weight.numel()


@torch.no_grad()
@pytest.mark.usefixtures("onednn")
def test_a_unit_that_rests_again_is_copied_again() -> None:
    """Its weights moved in between: the old copy would call it idle though it is live."""
    rested, x, bias = resting(20)
    assert not rested.activations(x, bias)[:, 100].any()
    rested.update(gradient_of(rested, 100), torch.tensor([LR, 1.0]), 1000, UnitFunctions())
    assert not rested.resting[100]
    rested.weight[100] = 1.0
    rested._rest(torch.tensor([100]))
    assert rested.activations(x, bias)[:, 100].all()


def gradient_of(weight: UnitWeight, unit: int) -> UnitGradient:
    units = torch.zeros(BATCH, len(weight.weight))
    units[:, unit] = 1.0
    return UnitGradient(torch.tensor([unit]), units, torch.ones(BATCH, weight.weight.shape[1]))
