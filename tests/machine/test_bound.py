"""The least time of a training step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_bench import machine
from resnet_bench.architectures import ARCHITECTURES, BASELINE, Architecture, Convolution
from resnet_bench.errors import UserError
from resnet_bench.machine import Calibration
from resnet_bench.machine.rates import convolution_name
from resnet_bench.networks import parameter_count
from tests.machine.rates import calibration, made_up

TINY = Architecture("tiny", "", "", widths=(16,), strides=(1,), hidden=())
"""7×7 stem to 16×16×16, one block of two 3×3 convolutions with an identity shortcut, FC 4096→10."""

RATES = {
    "read": made_up(quantity="read", size=1, median=1e9),
    "update": made_up(quantity="update", size=1, median=2e9),
    "gemm": made_up("FLOP/s", "gemm", median=1e12),
    "conv": made_up("FLOP/s", "convolution", median=1e10),
}


def test_bound_of_a_network_counted_by_hand() -> None:
    parameters = 3 * 16 * 49 + 2 * 16 * 16 * 9 + 3 * (2 * 16) + 4096 * 10 + 10  # convolutions, batch norms, FC
    assert parameter_count(TINY, 10) == parameters
    bound = machine.step_bound(TINY, 4, calibration(**RATES), 10)
    stem, block = 3 * 16 * 49 * 16**2, 16 * 16 * 9 * 16**2  # multiply-accumulates of an image
    assert bound.bytes_moved == 28 * parameters
    assert bound.operations == 4 * 2 * (2 * stem + 3 * block + 3 * block)
    assert bound.fc_operations == 4 * 2 * 3 * 4096 * 10
    assert bound.memory_seconds == pytest.approx(4 * parameters / 1e9 + 24 * parameters / 2e9)
    assert bound.arithmetic_seconds == pytest.approx(bound.operations / 1e10)
    assert bound.seconds == pytest.approx(bound.memory_seconds + bound.arithmetic_seconds)


def test_bound_counts_the_parameters_that_a_step_reads_and_updates() -> None:
    every = parameter_count(TINY, 10)
    bound = machine.step_bound(TINY, 4, calibration(**RATES), 10, every - 300, every - 20_000.5)
    assert bound.bytes_moved == 4 * (every - 300) + 24 * (every - 20_000.5)
    assert bound.memory_seconds == pytest.approx(4 * (every - 300) / 1e9 + 24 * (every - 20_000.5) / 2e9)
    assert bound.fc_operations == 4 * 2 * (3 * 4096 * 10 - 300 - 2 * 20_000.5)
    whole = machine.step_bound(TINY, 4, calibration(**RATES), 10)
    assert bound.arithmetic_seconds == whole.arithmetic_seconds
    assert machine.step_bound(TINY, 4, calibration(**RATES), 10, every, every) == whole


def test_bound_of_a_large_batch_is_arithmetic() -> None:
    """The traffic of the parameters does not grow with the batch, and is hidden by the FC layers' arithmetic."""
    slow = RATES | {"gemm": made_up("FLOP/s", "gemm", median=1e9)}
    bound = machine.step_bound(TINY, 1000, calibration(**slow), 10)
    assert bound.fc_arithmetic_seconds > bound.memory_seconds
    assert bound.seconds == pytest.approx(bound.fc_arithmetic_seconds + bound.arithmetic_seconds)


def test_measured_convolutions_have_their_own_rate_and_others_the_fastest() -> None:
    own = convolution_name(Convolution(16, 16, 3, 1, 16))
    rates = RATES | {own: made_up("FLOP/s", "convolution", median=2e9)}
    bound = machine.step_bound(TINY, 4, calibration(**rates), 10)
    stem, block = 3 * 16 * 49 * 16**2, 16 * 16 * 9 * 16**2
    assert bound.arithmetic_seconds == pytest.approx(8 * 2 * stem / 1e10 + 8 * 6 * block / 2e9)


@pytest.mark.parametrize(
    ("size", "rate"), [(1, 400), (999, 400), (1000, 400), (9999, 400), (10_000, 300), (10**9, 300)]
)
def test_bandwidth_is_that_of_the_largest_working_set_not_exceeded(size: int, rate: float) -> None:
    measured = calibration(large=made_up(size=10_000, median=300), small=made_up(size=1000, median=400))
    assert measured.bandwidth("update", size) == rate


@pytest.mark.parametrize("missing", ["read", "update", "gemm", "conv"])
def test_bound_without_a_rate_it_needs_is_an_error_for_the_user(missing: str) -> None:
    rates = {name: rate for name, rate in RATES.items() if name != missing}
    with pytest.raises(UserError, match="calibration"):
        machine.step_bound(TINY, 4, calibration(**rates), 10)


@given(factor=st.floats(0.1, 10))
def test_bound_scales_with_the_machine(factor: float) -> None:
    faster = {k: m.model_copy(update={"median": m.median * factor}) for k, m in RATES.items()}
    slow, fast = (machine.step_bound(TINY, 4, calibration(**rates), 10) for rates in (RATES, faster))
    assert slow.seconds / fast.seconds == pytest.approx(factor)


def test_bound_has_a_figure_for_every_network(measured: Calibration) -> None:
    bounds = {a.id: machine.step_bound(a, 4, measured, 100) for a in ARCHITECTURES.values()}
    assert all(b.seconds > 0 for b in bounds.values())
    assert bounds["fc3"].memory_seconds > bounds["baseline"].memory_seconds > bounds["fc1"].memory_seconds
    assert bounds["fc1"].arithmetic_seconds == bounds["baseline"].arithmetic_seconds
    assert bounds["baseline"].bytes_moved == 28 * parameter_count(BASELINE)
