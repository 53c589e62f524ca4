"""What a denormal number costs here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from resnet_bench import machine
from resnet_bench.machine import DenormalCosts
from resnet_bench.machine import denormals as module
from resnet_bench.machine.denormals import STUCK_FIRST, STUCK_SECOND, _Task
from resnet_bench.schema import Model

LAYER = (64, 100)
TINY = torch.finfo(torch.float32).tiny


@pytest.fixture(scope="module")
def costs() -> DenormalCosts:
    """Really measured, in both child processes, on a small layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROUNDS", 3)
        return machine.measure_denormals(1, LAYER)


def test_every_work_is_measured_with_each_of_its_numbers_denormal(costs: DenormalCosts) -> None:
    kept = [(c.work, c.denormal) for c in costs.costs if not c.flushed]
    assert kept == [(work, "operand") for work in module.OPERATIONS] + [
        (work, which) for work in module.STEPS for which in ("first moments", "second moments", "both moments")
    ]
    assert (costs.threads, costs.parameters) == (1, 6400)


def test_flushing_is_measured_where_this_cpu_can(costs: DenormalCosts) -> None:
    flushed = [(c.work, c.denormal) for c in costs.costs if c.flushed]
    expected = [(work, "operand") for work in module.OPERATIONS] + [(work, "both moments") for work in module.STEPS]
    assert flushed in (expected, [])


def test_a_cost_is_a_median_of_ratios_with_its_quartiles(costs: DenormalCosts) -> None:
    for cost in costs.costs:
        assert cost.low <= cost.median <= cost.high
        assert cost.samples == 3
        assert cost.seconds > 0
        assert cost.ordinary_seconds > 0
    found = module._cost(_Task("division", "operand"), "operand", False, [2.0, 6.0, 3.0], [1.0, 2.0, 1.0])
    assert (found.low, found.median, found.high) == (2.5, 3.0, 3.0)  # 2, 3 and 3
    assert (found.seconds, found.ordinary_seconds) == (3.0, 1.0)


def test_costs_survive_json(costs: DenormalCosts) -> None:
    assert DenormalCosts.model_validate_json(costs.model_dump_json()) == costs


def test_a_cost_that_was_not_measured_is_none(costs: DenormalCosts) -> None:
    assert costs.cost("default Adam", "operand", False) is None
    found = costs.cost("fused Adam", "both moments", False)
    assert found
    assert found.work == "fused Adam"


def test_a_slow_machine_gets_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 0.0)
    found = machine.measure_denormals(1, LAYER)
    assert {c.samples for c in found.costs} == {module.MIN_ROUNDS}


@pytest.mark.parametrize("task", [t for t in module._KEPT if t.work in module.STEPS], ids=str)
def test_a_step_has_the_moments_that_its_task_names(task: _Task) -> None:
    """And a step leaves denormal ones where they are: rounding keeps them, in each of torch's implementations."""
    threads = torch.get_num_threads()
    try:
        worker = module._Worker(threads, math.prod(LAYER))
        worker(task)
    finally:
        torch.set_num_threads(threads)
    for numbers, name, stuck in ((worker.first, "first", STUCK_FIRST), (worker.second, "second", STUCK_SECOND)):
        if task.denormal in (f"{name} moments", "both moments"):
            assert set(numbers.view(torch.int32).tolist()) == {stuck}
        else:
            assert numbers.min() > TINY


def test_a_moment_without_gradient_falls_to_where_it_is_stuck() -> None:
    """From ordinary numbers, by torch's own Adam; the second moment starts where it is soon denormal."""
    weight = torch.nn.Parameter(torch.full((3,), 0.01))
    weight.grad = torch.zeros(3)
    first, second = torch.full((3,), 1e-10), torch.full((3,), 1e-40)
    optimizer = module._adam(weight, first, second, foreach=False, fused=False)
    for _ in range(6000):
        optimizer.step()
    assert first.view(torch.int32).tolist() == [STUCK_FIRST] * 3
    assert second.view(torch.int32).tolist() == [STUCK_SECOND] * 3


@pytest.mark.parametrize("model", [DenormalCosts, module.DenormalCost], ids=lambda m: m.__name__)
def test_every_key_is_documented(model: type[Model]) -> None:
    document = (Path(__file__).parent.parent.parent / "docs" / "schema.md").read_text()
    assert [key for key in model.model_fields if f"`{key}`" not in document] == []
