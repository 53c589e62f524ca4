"""Dead units that are carried many idle steps on have the bits that as many real steps give."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resnet_bench.architectures import Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.engines import _adam
from resnet_bench.engines._units import adam_correction, resting_limits
from resnet_bench.measure import aging
from resnet_bench.networks import build
from resnet_bench.recipe import Recipe
from resnet_bench.schedules import LearningRates
from resnet_bench.training.training import Training
from tests.conftest import image_set, needs_compiler

RECIPE = Recipe()
RATES = RECIPE.learning_rates()
TINY = torch.finfo(torch.float32).tiny
DEEP = Architecture("deep", "", "", widths=(16,), strides=(2,), hidden=(32, 12))
DEAD = ([0, 3, 4, 9, 31], [1, 2, 11])


def bits(x: Tensor) -> list[int]:
    return x.view(torch.int32).tolist()


def repeatedly(x: Tensor, factor: float, times: int) -> Tensor:
    for _ in range(times):
        x = x * factor
    return x


def spread(count: int, seed: int = 0) -> Tensor:
    """Numbers of either sign and of all magnitudes from 1e-45 to 1, and 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator) * 10 ** (-46 * torch.rand(count, generator=generator))
    x[:3] = torch.tensor([0.0, -0.0, TINY])
    return x


# Multiplications ------------------------------------------------------------------------------------------------------


@settings(max_examples=4)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=20, max_size=60),
    st.sampled_from([0.999, 0.9, 0.99, 0.51, 0.9375]),
    st.integers(0, 300),
)
def test_any_number_is_multiplied_as_often_as_asked(values: list[float], factor: float, times: int) -> None:
    x = torch.tensor(values)
    expected = repeatedly(x, factor, times)
    assert bits(aging.multiplied(x, factor, torch.full((len(x),), times, dtype=torch.int32))) == bits(expected)


@pytest.mark.parametrize(("factor", "times"), [(0.9, 1000), (0.999, 90_000)])
def test_numbers_become_denormal_and_stay_where_rounding_holds_them(factor: float, times: int) -> None:
    x = spread(400)
    expected = repeatedly(x, factor, times)
    assert bits(aging.multiplied(x, factor, torch.full((400,), times, dtype=torch.int32))) == bits(expected)
    stuck = expected[(expected != 0) & (expected * factor == expected)]
    assert len(stuck)
    assert bool((stuck.abs() < TINY).all())


def test_each_number_is_multiplied_as_often_as_its_own_count_says() -> None:
    x, times = spread(300), torch.arange(300, dtype=torch.int32) * 50
    expected, left = x.clone(), times.clone()
    while left.any():
        expected = torch.where(left > 0, expected * 0.999, expected)
        left = (left - 1).clamp(min=0)
    assert bits(aging.multiplied(x, 0.999, times)) == bits(expected)


def test_nothing_is_multiplied_where_there_is_nothing() -> None:
    assert aging.multiplied(torch.zeros(0), 0.999, torch.zeros(0, dtype=torch.int32)).tolist() == []
    x = spread(50)
    assert bits(aging.multiplied(x, 0.999, torch.zeros(50, dtype=torch.int32))) == bits(x)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_a_factor_that_the_tables_do_not_cover_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="the factor is"):
        aging.multiplied(torch.ones(1), factor, torch.ones(1, dtype=torch.int32))


# Idle steps -----------------------------------------------------------------------------------------------------------


def moments(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and moments as a training leaves them, some denormal or 0, one at a weight of 0."""
    generator = torch.Generator().manual_seed(1)
    w = torch.randn(count, generator=generator) * 0.01
    m = torch.randn(count, generator=generator) * 10 ** (-30 * torch.rand(count, generator=generator) ** 4 - 3)
    v = torch.randn(count, generator=generator) ** 2 * 10 ** (-36 * torch.rand(count, generator=generator) ** 4 - 6)
    w[0], v[1], m[2], v[3] = 0.0, 1e-42, 1e-43, 0.0
    m[3] = 0.0
    return w, m, v


def plainly(
    state: tuple[Tensor, Tensor, Tensor], steps: range, rates: LearningRates = RATES
) -> tuple[Tensor, Tensor, Tensor]:
    """Every step as `fast` takes it, with a gradient of 0; `tests/engines/test_adam.py` compares it with float64."""
    w, m, v = (tensor.clone() for tensor in state)
    n = len(w)
    for t in steps:
        correction = adam_correction(rates.at(t - 1), RECIPE.betas, t)
        rows = (tensor[None] for tensor in (w, m, v))
        _adam.update_rows(*rows, None, torch.zeros(1, 1), torch.zeros(1, n), correction, RECIPE.betas, RECIPE.eps)
    return w, m, v


def by_torch(state: tuple[Tensor, Tensor, Tensor], steps: range) -> tuple[Tensor, Tensor, Tensor]:
    parameter = nn.Parameter(state[0].clone())
    adam = torch.optim.Adam([parameter], lr=RECIPE.lr, betas=RECIPE.betas, eps=RECIPE.eps)
    begun = {"step": torch.tensor(steps[0] - 1.0), "exp_avg": state[1].clone(), "exp_avg_sq": state[2].clone()}
    adam.load_state_dict({**adam.state_dict(), "state": {0: begun}})
    parameter.grad = torch.zeros_like(parameter)
    for _ in steps:
        adam.step()
    entry = adam.state[parameter]
    return parameter.detach(), entry["exp_avg"], entry["exp_avg_sq"]


@needs_compiler
@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
@pytest.mark.parametrize("steps", [range(1, 2), range(1001, 1101), range(1, 1500), range(1001, 12_001)])
def test_idle_steps_have_the_bits_of_plain_ones(steps: range, schedule: str) -> None:
    """From step 1 on too, where the bias corrections let changes grow for a while, and where the rate rises."""
    state, rates = moments(300), LearningRates(RECIPE.lr, schedule, 100, 12_000)
    expected = plainly(state, steps, rates)
    for result, e in zip(aging.idle_steps(*state, steps, RECIPE, rates), expected, strict=True):
        assert torch.equal(result, e)


@needs_compiler
@settings(max_examples=8)
@given(st.integers(1, 2000), st.integers(0, 700), st.integers(0, 2**31))
def test_idle_steps_of_any_state_have_the_bits_of_plain_ones(first: int, steps: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scales = [10 ** (-44 * torch.rand(64, generator=generator)) for _ in range(3)]
    w, m, v = (torch.randn(64, generator=generator) * scale for scale in scales)
    state = (w, m, v.abs())
    for result, e in zip(
        aging.idle_steps(*state, range(first, first + steps), RECIPE, RATES),
        plainly(state, range(first, first + steps)),
        strict=True,
    ):
        assert torch.equal(result, e)


def test_idle_steps_agree_with_torchs_adam() -> None:
    """Its second moments to the last bit; its first ones too, once they are denormal and rounding holds them."""
    state, steps = moments(300), range(1001, 3001)
    w, m, v = aging.idle_steps(*state, steps, RECIPE, RATES)
    torchs_w, torchs_m, torchs_v = by_torch(state, steps)
    assert bits(v) == bits(torchs_v)
    assert bits(m.abs()) == bits(torchs_m.abs())
    assert (m != 0).any()
    assert bool((m.abs() <= 4 * 2.0**-149).all())
    torch.testing.assert_close(w, torchs_w, rtol=1e-5, atol=1e-8)


@needs_compiler
def test_a_weight_that_never_comes_to_rest_moves_in_every_step() -> None:
    """A weight of 0 moves by any first moment, however small: the multiplications alone would leave it where it is."""
    state = torch.zeros(1), torch.tensor([1e-38]), torch.zeros(1)
    steps = range(1001, 3001)
    (w, m, _), (expected, _, _) = aging.idle_steps(*state, steps, RECIPE, RATES), plainly(state, steps)
    assert torch.equal(w, expected)
    assert w != 0
    assert m != 0


@needs_compiler
def test_without_a_compiler_a_step_agrees_up_to_rounding() -> None:
    step = 1001
    arguments = (
        adam_correction(RECIPE.lr, RECIPE.betas, step), resting_limits(RECIPE.lr, RECIPE.betas, RECIPE.eps, step),
        RECIPE.betas, RECIPE.eps,
    )  # fmt: skip
    for start, moving in ((moments(300), True), ((torch.ones(300), torch.full((300,), 1e-30), torch.ones(300)), False)):
        mine, compiled = deepcopy(start), deepcopy(start)
        assert aging._idle_step(*mine, *arguments) == aging._compiled_idle_step(*compiled, *arguments) == moving
        torch.testing.assert_close(mine, compiled, rtol=1e-6, atol=0)


# Networks -------------------------------------------------------------------------------------------------------------


def with_dead_units(training: Training) -> list[Tensor]:
    """Kill some units of each hidden layer after a few steps, so that their moments are not 0."""
    for _ in range(5):
        training.train_step()
    layers = [m for m in training.engine.network.fc if isinstance(m, nn.Linear)]
    live = []
    with torch.no_grad():
        for layer, dead in zip(layers[:-1], DEAD, strict=False):
            layer.bias[dead] = -1e9
            live.append(torch.ones(layer.out_features, dtype=torch.bool).index_fill_(0, torch.tensor(dead), False))
    training.engine.load_optimizer_state(training.engine.optimizer_state())
    return live


def belongs_to_dead(name: str, shape: torch.Size, live: list[Tensor]) -> Tensor:
    """Which elements of a parameter of `DEEP` have a gradient of 0, written down by hand."""
    idle = torch.zeros(shape, dtype=torch.bool)
    if name == "fc.0.weight":
        idle[~live[0]] = True
    elif name == "fc.2.weight":
        idle[~live[1]] = True
        idle[:, ~live[0]] = True
    elif name == "fc.4.weight":
        idle[:, ~live[1]] = True
    elif name in ("fc.0.bias", "fc.2.bias"):
        idle[~live[0 if name == "fc.0.bias" else 1]] = True
    return idle


@pytest.mark.parametrize("engine", ["reference", pytest.param("fast", marks=needs_compiler)])
def test_an_aged_unit_equals_one_that_was_idle_in_a_real_training(engine: str) -> None:
    """With `fast` to the last bit, in weights and moments; with `reference` up to rounding."""
    images = image_set(40, 5, 0)  # no smaller last batch, which `fast` would not compute by compiled functions
    dataset = Dataset("random", images, images, tuple("abcde"), synthetic=True, subset=False)
    training = Training(DEEP, dataset, replace(RECIPE, epochs=99), engine=engine, pipeline="vectorized", threads=1)
    live = with_dead_units(training)
    before = training.state()
    before = replace(  # a copy
        before,
        network={k: t.clone() for k, t in before.network.items()},
        optimizer={
            **before.optimizer,
            "state": {i: {k: t.clone() for k, t in e.items()} for i, e in before.optimizer["state"].items()},
        },
    )
    for _ in range(400):
        training.train_step()
        if training.step == training.steps_per_epoch:
            training.close_epoch()
    after, old = training.state(), aging.aged(before, training.engine.network, live, 400, RECIPE, RATES)
    assert not torch.equal(old.network["fc.0.weight"], before.network["fc.0.weight"])
    for i, (name, p) in enumerate(training.engine.network.named_parameters()):
        idle = belongs_to_dead(name, p.shape, live)
        moments = [s.optimizer["state"][i] for s in (before, after, old)]
        assert moments[1]["step"] == moments[2]["step"] == 405
        tensors = [(before.network[name], after.network[name], old.network[name])]
        tensors += [tuple(m[key] for m in moments) for key in ("exp_avg", "exp_avg_sq")]
        for start, real, carried in tensors:
            assert torch.equal(carried[~idle], start[~idle])
            if engine == "fast":
                assert torch.equal(carried[idle], real[idle])
            else:
                torch.testing.assert_close(carried[idle], real[idle], rtol=1e-4, atol=1e-8)
    assert all(torch.equal(before.network[k], t) for k, t in old.network.items() if not k.startswith("fc"))


def test_a_network_without_hidden_layer_has_nothing_that_ages(dataset: Dataset) -> None:
    plain = replace(DEEP, hidden=())
    training = Training(plain, dataset, RECIPE, pipeline="vectorized", threads=1)
    training.train_step()
    state = training.state()
    network = training.engine.network
    live = aging.live_units(network, dataset, RECIPE, 0)
    old = aging.aged(state, network, live, 100_000, RECIPE, RATES)
    assert (live, aging.live_share(live)) == ([], None)
    assert all(torch.equal(state.network[name], tensor) for name, tensor in old.network.items())
    for i, entry in old.optimizer["state"].items():
        assert entry["step"] == 100_001
        assert torch.equal(entry["exp_avg_sq"], state.optimizer["state"][i]["exp_avg_sq"])


def test_live_units_are_those_that_answer_an_image_of_a_training(dataset: Dataset) -> None:
    """The network is as it was, also what batch norm has gathered."""
    network = build(DEEP, 5, 0)
    layers = [m for m in network.fc if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for layer, dead, bias in zip(layers, DEAD, (1e3, 1e9), strict=False):
            layer.bias[:] = bias
            layer.bias[dead] = -1e9
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first, second = aging.live_units(network, dataset, RECIPE, 0)
    assert ((~first).nonzero().squeeze(1).tolist(), (~second).nonzero().squeeze(1).tolist()) == DEAD
    assert aging.live_share([first, second]) == 27 / 32
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("limit", "expected"), [(1, 4), (20, 20), (21, 24), (10_000, 42)])
def test_the_sample_is_as_large_as_the_limit_and_the_training_set_allow(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, limit: int, expected: int
) -> None:
    seen: list[int] = []
    network = build(DEEP, 5, 0)
    network.stem.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    monkeypatch.setattr(aging, "SAMPLE_IMAGES", limit)
    aging.live_units(network, dataset, RECIPE, 0)
    assert sum(seen) == expected
