"""The FC layers of `fast`, of which idle and resting units are left out.

The lazy update gives weights and moments with the same bits as an update of all units. So do the activations of the
first hidden layer. The products over hidden units, of which idle ones are left out, agree up to rounding.
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

from resnet_bench.engines import _adam, _dots, _products, _units
from resnet_bench.engines._units import UnitGradient, UnitWeight
from resnet_bench.schedules import SCHEDULES, LearningRates

BATCH, UNITS, COLUMNS = 4, 70, 37  # more units than a chunk has, and columns that leave a rest in vectors
LR, BETAS, EPS = 4e-4, (0.9, 0.999), 1e-8


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("inductor")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        yield folder


def unit_weight(seed: int = 0, betas: tuple[float, float] = BETAS, eps: float = EPS) -> UnitWeight:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(UNITS, COLUMNS, generator=generator) * 0.01
    return UnitWeight(weight, torch.zeros(UNITS, COLUMNS), torch.zeros(UNITS, COLUMNS), betas, eps)


def gradient(step: int, live: Tensor, columns: int = COLUMNS) -> UnitGradient:
    generator = torch.Generator().manual_seed(step)
    units = torch.zeros(BATCH, UNITS)
    units[:, live] = torch.randn(BATCH, len(live), generator=generator)
    return UnitGradient(live, units, torch.randn(BATCH, columns, generator=generator))


@dataclass
class Pair:
    """The same weight twice: units of `lazy` rest, all of `eager` are updated in every step by Adam's plain formula."""

    lazy: UnitWeight
    eager: UnitWeight
    rested: int = 0  # units that rested, summed over the steps

    def step(self, number: int, live: Tensor, lr: float = LR, highest: float = LR) -> None:
        g = gradient(number, live)
        correction = _units.adam_correction(lr, self.lazy.betas, number)
        self.lazy.update(g, correction, highest, number)
        e = self.eager
        _adam.update_rows(e.weight, e.exp_avg, e.exp_avg_sq, None, g.units, g.columns, correction, e.betas, e.eps)
        self.rested += int(self.lazy.resting.sum())

    def assert_identical(self) -> None:
        self.lazy.catch_up()
        for name in ("weight", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(
                getattr(self.lazy, name), getattr(self.eager, name), rtol=0, atol=0, equal_nan=True
            )  # without epsilon, Adam divides 0 by 0


def pair(**options: object) -> Pair:
    return Pair(unit_weight(**options), unit_weight(**options))  # type: ignore[arg-type]


@torch.no_grad()
def test_weights_and_moments_are_those_of_updating_all_units_to_the_last_bit() -> None:
    """Through all that can happen to units: always live, never live, long idle, live again, most live at once."""
    both = pair()
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
    both = pair(seed=seed, betas=betas, eps=eps)
    for step in range(1, 500):
        chance = share if step > stop else 0.9
        both.step(step, (torch.rand(UNITS, generator=generator) < chance).nonzero().squeeze(1))
    both.assert_identical()


RATES = {
    **{name: LearningRates(LR, name, 200, 700).at for name in SCHEDULES},
    "saw": lambda step: LR * (0.01 + step % 90 / 90),
    "off, then on": lambda step: 0.0 if 100 < step < 600 else LR,
    "thousandfold at the end": lambda step: LR * (1000 if step > 650 else 1),
}
"""The rate of each step, counted from 0, by name."""


@pytest.mark.parametrize("schedule", RATES)
@torch.no_grad()
def test_units_rest_under_any_schedule_and_keep_every_bit(schedule: str) -> None:
    rates = [RATES[schedule](step) for step in range(700)]
    both = pair()
    for step in range(1, 701):
        live = torch.arange(UNITS if step < 20 else 5 if step % 50 else 10)
        both.step(step, live, rates[step - 1], max(rates[step - 1 :]))
        assert torch.equal(both.lazy.weight, both.eager.weight), step
    both.assert_identical()
    assert both.rested > 100 * UNITS / 2


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    factors=st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1e-4, 1e-2, 1.0]), min_size=1, max_size=9),
    piece=st.integers(1, 250),
    stop=st.integers(1, 300),
    always=st.integers(0, UNITS // 4),
    chance=st.sampled_from([0.0, 0.001, 0.01]),
    eps=st.sampled_from([1e-8, 1e-3, 0.0]),
    loaded=st.integers(1, 699),
)
@torch.no_grad()
def test_weights_and_moments_are_the_same_under_arbitrary_rates(
    seed: int, factors: list[float], piece: int, stop: int, always: int, chance: float, eps: float, loaded: int
) -> None:
    """Rates that stay for some steps and then jump, up or down; and the state is loaded once in between.

    Most units die at step `stop`, and rest some 200 steps later where a small chance does not make them live again.
    """
    rates = [LR * factors[step // piece % len(factors)] for step in range(700)]
    generator = torch.Generator().manual_seed(seed)
    both = pair(seed=seed, eps=eps)
    for step in range(1, 701):
        live = torch.rand(UNITS, generator=generator) < (chance if step > stop else 0.9)
        live[:always] = True
        both.step(step, live.nonzero().squeeze(1), rates[step - 1], max(rates[step - 1 :]))
        if step == loaded:
            both.lazy.catch_up()
            both.lazy.look(max(rates[step:]), step)
    both.assert_identical()


@pytest.mark.parametrize("low", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize("stop", range(64, 128, 8))
@torch.no_grad()
def test_no_unit_rests_before_its_weights_stand_still_at_the_highest_rate_to_come(stop: int, low: float) -> None:
    """Low rates until units may rest for the fourth time, and the highest one right after.

    Units die at one phase or another of the period in which they may go to rest, so that some are judged just before
    their weights stand still.
    """
    both, rested = pair(), 0
    for step in range(1, 601):
        lr = low * LR if stop < step <= 4 * _units.PERIOD else LR
        both.step(step, torch.arange(UNITS if step <= stop else 5), lr, LR)
        rested = max(rested, int(both.lazy.resting.sum()))
        assert torch.equal(both.lazy.weight, both.eager.weight), step
    both.assert_identical()
    assert rested == UNITS - 5


@torch.no_grad()
def test_all_units_wake_where_the_rate_rises_above_what_they_were_told() -> None:
    """No schedule does that; the weights are right all the same."""
    both = pair()
    for step in range(1, 500):
        both.step(step, torch.arange(UNITS if step < 10 else 2))
    assert both.lazy.resting.any()
    both.step(500, torch.arange(2), 1000 * LR, 1000 * LR)
    assert not both.lazy.resting.any()
    for step in range(501, 700):
        both.step(step, torch.arange(2), 1000 * LR, 1000 * LR)
    both.assert_identical()


@torch.no_grad()
def test_units_that_rest_at_a_low_rate_rest_at_the_highest_to_come() -> None:
    """At a rate of 0 no weight moves, however large its first moment is. It will, once the rate is back."""
    both = pair()
    for step in range(1, 129):
        both.step(step, torch.arange(UNITS if step < 100 else 2), LR if step < 100 else 0.0, LR)
    assert not both.lazy.resting.any()


@torch.no_grad()
def test_it_does_not_matter_when_moments_are_brought_up_to_date_or_units_are_woken() -> None:
    """What a checkpoint in between does, and a resume from it."""
    interrupted, other = pair(), pair()
    for step in range(1, 700):
        live = torch.arange(5 if step > 50 else UNITS)
        interrupted.step(step, live)
        other.step(step, live)
        if step == 333:
            interrupted.lazy.catch_up()
        if step == 500:
            interrupted.lazy.catch_up()
            interrupted.lazy.wake()
            assert other.lazy.resting.any()
    interrupted.assert_identical()
    other.assert_identical()
    assert torch.equal(interrupted.lazy.exp_avg, other.lazy.exp_avg)


@torch.no_grad()
def test_units_rest_again_as_soon_as_a_state_is_loaded() -> None:
    both = pair()
    for step in range(1, 500):
        both.step(step, torch.arange(5 if step > 50 else UNITS))
    resting = both.lazy.resting.clone()
    assert resting.tolist() == [False] * 5 + [True] * (UNITS - 5)
    both.lazy.catch_up()
    both.lazy.look(LR, 499)
    assert torch.equal(both.lazy.resting, resting)
    both.lazy.look(1e30 * LR, 499)
    assert not both.lazy.resting.any()
    both.lazy.look(LR, 0)
    assert not both.lazy.resting.any()


@torch.no_grad()
def test_units_whose_first_moment_outlives_the_second_do_not_rest() -> None:
    """Their weights may move again, since m / √v grows while both decay."""
    both = pair(betas=(0.999, 0.9))
    for step in range(1, 700):
        both.step(step, torch.arange(UNITS if step < 10 else 2))
    assert both.rested == 0
    both.assert_identical()


@torch.no_grad()
def test_units_do_not_rest_while_a_weight_is_moved_by_however_little() -> None:
    """A weight of 0 is, until the first moment is 0 as well: by 10⁻³⁵ in a step."""
    both = pair()
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
    both = pair()
    for step in range(1, 520):
        both.step(step, torch.arange(UNITS if step < 100 else 7))
    assert both.lazy.updated_parameters == 7 * COLUMNS
    both.step(520, torch.arange(9))
    assert both.lazy.updated_parameters == 9 * COLUMNS


@torch.no_grad()
@pytest.mark.parametrize(("idle", "rests"), [(UNITS // 2, False), (UNITS - 17, True)])
def test_units_rest_where_most_of_the_layer_can(idle: int, rests: bool) -> None:
    both = pair()
    for step in range(1, 400):
        both.step(step, torch.arange(UNITS if step < 10 else UNITS - idle))
    assert bool(both.lazy.resting.any()) == rests
    assert both.lazy.updated_parameters == (UNITS - idle if rests else UNITS) * COLUMNS
    both.assert_identical()


@torch.no_grad()
def test_a_layer_without_live_units_is_no_error() -> None:
    both = pair()
    for step in range(1, 200):
        both.step(step, torch.arange(0))
    assert both.lazy.resting.all()
    both.assert_identical()


def test_the_weight_below_which_no_unit_rests_covers_denormal_moments() -> None:
    """Half the distance to its neighbours exceeds a change by a denormal first moment, at which √v is below eps."""
    change = 2 * LR / (1 - BETAS[0]) * torch.finfo(torch.float32).tiny / EPS
    assert _units.resting_limits(LR, BETAS, EPS, 1)[1] * 2.0**-25 >= change * (1 - 1e-6)
    assert _units.resting_limits(LR, BETAS, 0.0, 1)[1] == math.inf


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.3, 3), (0.5, 5), (0.6, None), (1.0, None)])
def test_live_units_are_those_with_a_positive_activation_for_some_image(share: float, expected: int | None) -> None:
    out = torch.zeros(BATCH, 10)
    for unit in range(round(share * 10)):
        out[unit % BATCH, unit] = 1e-30
    live = _products.live_units(out)
    assert (live if expected is None else live.tolist()) == (None if expected is None else list(range(expected)))


@torch.no_grad()
def test_leaving_idle_units_out_changes_products_by_rounding_only() -> None:
    """With most units idle, against computing with all of them; all quantities of the head."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(64, 50), (50, 30), (30, 10)]
    weights = [torch.randn(i, o, generator=generator) / i**0.5 for i, o in sizes]
    biases = [torch.randn(o, generator=generator) for _, o in sizes]
    biases[0][8:] = -100
    biases[1][5:] = -100
    x, labels = torch.rand(BATCH, 64, generator=generator), torch.tensor([1, 2, 3, 4])
    loss, x_gradient, gradients = _units.head(x, labels, weights, biases)
    loss_all, x_gradient_all, gradients_all = _units.head(x, labels, weights, biases, idle_too=True)
    torch.testing.assert_close(loss, loss_all)
    torch.testing.assert_close(x_gradient, x_gradient_all)
    for g, g_all in zip(gradients, gradients_all, strict=True):
        if isinstance(g, UnitGradient):
            assert isinstance(g_all, UnitGradient)
            torch.testing.assert_close(g.units.t() @ g.columns, g_all.units.t() @ g_all.columns)
        else:
            torch.testing.assert_close(g, g_all)
    live = [g.live for g in gradients if isinstance(g, UnitGradient)]
    assert all(part is not None for part in live)


# Activations of a layer whose units mostly rest -----------------------------------------------------------------------

OF_LAYER = (200, 512)  # units, columns


def resting(live: int, seed: int = 0) -> tuple[UnitWeight, Tensor, Tensor]:
    """A weight of which all units rest but the first `live`; inputs, and a bias with which those are live."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(OF_LAYER, generator=generator) / OF_LAYER[1] ** 0.5
    moments = torch.zeros(OF_LAYER), torch.zeros(OF_LAYER)
    rested = UnitWeight(weight, *moments, BETAS, EPS)
    rested._rest(torch.arange(live, len(weight)))
    bias = torch.full((len(weight),), -5.0)
    bias[:live] = 0.5
    return rested, torch.rand(BATCH, OF_LAYER[1], generator=generator), bias


def from_all_rows(rested: UnitWeight, x: Tensor, bias: Tensor) -> Tensor:
    return torch.relu(_dots.products(x, rested.weight) + bias)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), live=st.integers(0, 50), spread=st.sampled_from([0.0, 1.0, 4.0]))
@torch.no_grad()
def test_activations_from_few_rows_are_those_from_all_to_the_last_bit(seed: int, live: int, spread: float) -> None:
    """Also where resting units are live, or nearly so."""
    rested, x, bias = resting(live, seed)
    bias += spread * torch.randn(len(bias), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(rested.activations(x, bias), from_all_rows(rested, x, bias))


@torch.no_grad()
def test_only_rows_that_may_be_live_are_read_and_a_quarter_of_all_for_the_copy() -> None:
    units, columns = OF_LAYER
    rested, x, bias = resting(20)
    rested.activations(x, bias)
    assert rested.read_parameters == 20 * columns + units * columns / 4
    rested.wake()
    rested.activations(x, bias)
    assert rested.read_parameters == units * columns


@torch.no_grad()
def test_all_rows_are_read_where_most_may_be_live() -> None:
    rested, x, bias = resting(20)
    bias += 10
    assert torch.equal(rested.activations(x, bias), from_all_rows(rested, x, bias))
    assert rested.read_parameters == rested.weight.numel()


@torch.no_grad()
def test_no_row_is_read_where_no_unit_may_be_live() -> None:
    rested, x, bias = resting(0)
    activations = rested.activations(x, bias)
    assert activations.shape == (BATCH, OF_LAYER[0])
    assert not activations.any()
    assert rested.read_parameters == rested.weight.numel() / 4


@torch.no_grad()
def test_units_whose_first_moments_decay_no_further_are_settled_as_soon_as_they_rest() -> None:
    """As after a state was loaded in which they have been dead for long."""
    rested, _, _ = resting(len(torch.empty(OF_LAYER)))
    rested.exp_avg[:50] = 1e-45 * torch.arange(3)[torch.arange(OF_LAYER[1]) % 3]  # the smallest denormals
    rested.exp_avg[50:100] = 1e-20
    rested._rest(torch.arange(len(rested.weight)))
    assert rested.settled[:50].all()
    assert not rested.settled[50:100].any()
    assert rested.settled[100:].all()  # they are 0


@torch.no_grad()
def test_a_unit_that_rests_again_is_copied_again() -> None:
    """Its weights moved in between: the old copy would call it idle though it is live."""
    rested, x, bias = resting(20)
    assert not rested.activations(x, bias)[:, 100].any()
    rested.update(gradient_of(rested, 100), torch.tensor([LR, 1.0]), LR, 1000)
    assert not rested.resting[100]
    rested.weight[100] = 1.0
    rested._rest(torch.tensor([100]))
    assert rested.activations(x, bias)[:, 100].all()


def gradient_of(weight: UnitWeight, unit: int) -> UnitGradient:
    units = torch.zeros(BATCH, len(weight.weight))
    units[:, unit] = 1.0
    return UnitGradient(torch.tensor([unit]), units, torch.ones(BATCH, weight.weight.shape[1]))
