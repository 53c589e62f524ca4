"""Learning rates: closed forms against torch's schedulers over whole trainings, and what must hold for any of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler

from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe, compact, completed, of_each_step
from resnet_bench.schedules import SCHEDULES, LearningRates

LR = 4e-4
TORCHS: dict[str, Callable[[Optimizer, int], LRScheduler]] = {
    "constant": lambda optimizer, steps: lr_scheduler.ConstantLR(optimizer, factor=1.0),
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps),
    "onecycle": lambda optimizer, steps: lr_scheduler.OneCycleLR(
        optimizer, max_lr=LR, total_steps=steps, cycle_momentum=False
    ),
    "step": lambda optimizer, steps: lr_scheduler.MultiStepLR(optimizer, [steps // 2, 3 * steps // 4], gamma=0.1),
}


def of_torch(name: str, steps: int) -> list[float]:
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=LR)
    scheduler = TORCHS[name](optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def test_every_schedule_with_a_counterpart_in_torch_is_registered() -> None:
    """There may be others, as docs/extending.md adds one."""
    assert TORCHS.keys() <= SCHEDULES.keys()


@pytest.mark.parametrize("steps", [2, 3, 4, 10, 137, 1000, 4185])
@pytest.mark.parametrize("name", TORCHS)
def test_rates_are_torchs_over_a_whole_training(name: str, steps: int) -> None:
    rates = LearningRates(LR, name, steps=steps)
    assert [rates.at(step) for step in range(steps)] == pytest.approx(of_torch(name, steps), rel=1e-9, abs=1e-16)


@pytest.mark.parametrize("warmup", [1, 10, 99])
@pytest.mark.parametrize("name", TORCHS)
def test_a_warm_up_is_torchs_linear_one_before_the_schedule(name: str, warmup: int) -> None:
    steps = 137
    first = SCHEDULES[name](0, steps - warmup) * LR
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=first)
    scheduler = lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    rising = []
    for _ in range(warmup):
        rising.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    rates = LearningRates(LR, name, warmup, steps)
    expected = [*rising, *of_torch(name, steps - warmup)]
    assert [rates.at(step) for step in range(steps)] == pytest.approx(expected, rel=1e-9, abs=1e-16)


@given(
    name=st.sampled_from(list(SCHEDULES)), steps=st.integers(1, 400), share=st.floats(0, 0.99), extra=st.integers(0, 9)
)
def test_no_rate_is_above_lr_and_the_highest_to_come_is_the_highest(
    name: str, steps: int, share: float, extra: int
) -> None:
    rates = LearningRates(LR, name, int(share * steps), steps)
    values = [rates.at(step) for step in range(steps)]
    assert all(0 < value <= LR * (1 + 1e-12) for value in values)
    assert [rates.highest_from(step) for step in range(steps)] == [max(values[step:]) for step in range(steps)]
    assert rates.at(steps + extra) == values[-1] == rates.highest_from(steps + extra)
    assert rates.highest_step() == values.index(max(values))


def test_a_constant_rate_needs_no_number_of_steps_and_others_do() -> None:
    rates = LearningRates(LR, warmup_steps=3)
    assert [rates.at(step) for step in range(5)] == pytest.approx([LR / 4, LR / 2, 3 * LR / 4, LR, LR])
    assert rates.highest_from(0) == LR
    assert rates.highest_step() == 3
    with pytest.raises(ValueError, match="how many steps"):
        LearningRates(LR, "cosine")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": "sawtooth"}, f"There is no schedule 'sawtooth'; choose one of {', '.join(SCHEDULES)}."),
        ({"warmup_steps": -1}, "--warmup-steps is -1; give 0 or more."),
        ({"lr": -1.0}, "--lr is -1.0; give a finite number above 0."),
    ],
)
def test_what_is_no_recipe_is_said_in_one_sentence(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe(**values)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize("steps", [1, 10])
def test_a_warm_up_as_long_as_the_training_is_refused(steps: int) -> None:
    with pytest.raises(UserError, match=rf"--warmup-steps is 10, but the whole training has {steps} steps; give fewer"):
        Recipe(warmup_steps=10).learning_rates(steps)


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_schedule_with_a_factor_beyond_0_to_1_is_found_before_a_step(
    factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCHEDULES, "wrong", lambda step, steps: factor if step == 3 else 1.0)
    with pytest.raises(ValueError, match="the schedule wrong gives step 3 the factor"):
        LearningRates(LR, "wrong", steps=5).highest_from(0)


def test_epochs_decide_the_steps_of_a_training_only_where_the_rate_changes() -> None:
    short, long = Recipe(epochs=1).as_dict(), Recipe(epochs=2).as_dict()
    assert of_each_step(short) == of_each_step(long)
    assert of_each_step(short | {"schedule": "cosine"}) != of_each_step(long | {"schedule": "cosine"})


def test_a_recipe_that_says_no_more_than_earlier_ones_is_written_as_they_were() -> None:
    older = {k: v for k, v in Recipe().as_dict().items() if k not in ("schedule", "warmup_steps")}
    assert compact(Recipe().as_dict()) == older
    changed = Recipe(schedule="cosine", warmup_steps=3).as_dict()
    assert compact(changed) == changed


def test_a_recipe_from_before_schedules_is_a_constant_one() -> None:
    older = {k: v for k, v in Recipe().as_dict().items() if k not in ("schedule", "warmup_steps")}
    assert Recipe.from_dict(older) == Recipe.from_dict(completed(older)) == Recipe()
