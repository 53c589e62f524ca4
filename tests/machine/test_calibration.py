"""The calibration, and the drift between two."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from resnet_bench import machine
from resnet_bench.architectures import Convolution
from resnet_bench.errors import UserError
from resnet_bench.machine import Calibration, Measurement, rates
from resnet_bench.machine import calibration as module
from tests.machine.rates import calibration, made_up


def test_calibration_measures_every_size(measured: Calibration) -> None:
    assert [m.size for m in measured.by_size("read")] == list(module.WORKING_SETS)
    assert [m.size for m in measured.by_size("update")] == list(module.WORKING_SETS)
    assert len(measured.by_size("convolution")) == len(module.CONVOLUTIONS)
    assert len(measured.by_size("gemm")) == len(measured.by_size("first touch")) == 1
    assert all(m.low <= m.median <= m.high and m.samples == 3 for m in measured.measurements.values())


def test_calibration_survives_json(measured: Calibration) -> None:
    assert Calibration.model_validate_json(measured.model_dump_json()) == measured
    assert Calibration.model_validate(json.loads(json.dumps(measured.model_dump(mode="json")))) == measured


def test_calibration_is_immutable(measured: Calibration) -> None:
    with pytest.raises(ValidationError):
        measured.threads = 5


def test_calibration_uses_the_threads_asked_for_and_puts_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_probes", lambda: iter([module._Probe("x", "gemm", 1, 1, lambda calls: 1e-3 * calls)]))
    before = torch.get_num_threads()
    assert machine.calibrate(before + 1).threads == before + 1
    assert torch.get_num_threads() == before


def test_rate_is_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(calls: int) -> float:
        return calls * 0.25

    monkeypatch.setattr(module, "_probes", lambda: iter([module._Probe("x", "read", 10, 1000, seconds)]))
    assert machine.calibrate().measurements["x"] == Measurement(
        quantity="read", unit="bytes/s", size=10, median=4000, low=4000, high=4000, samples=module.ROUNDS
    )


def test_slow_machine_gets_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIME_LIMIT", 0.0)
    monkeypatch.setattr(module, "_probes", lambda: iter([module._Probe("x", "gemm", 1, 1, lambda calls: 1.0)]))
    assert machine.calibrate().measurements["x"].samples == module.MIN_ROUNDS


def test_samples_between_other_work_take_a_twentieth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample takes a second, and other work a second at a time: after each sample, some twenty rounds go by."""
    now = [0.0]

    def seconds(calls: int) -> float:
        now[0] += 1.0
        return 1.0

    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "_probes", lambda: iter([module._Probe("x", "gemm", 1, 1, seconds)]))
    sampler = machine.Sampler()
    before = sampler.seconds
    for _ in range(200):
        now[0] += 1.0
        sampler.sample_if_due()
    taken = sampler.seconds - before
    assert taken == pytest.approx(module.SHARE * 200, abs=1)
    assert sampler.calibration().measurements["x"].samples == taken


def test_too_few_samples_are_made_up_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_probes", lambda: iter([module._Probe("x", "gemm", 1, 8, lambda calls: 2.0 * calls)]))
    found = machine.Sampler().calibration().measurements["x"]
    assert (found.samples, found.median) == (module.MIN_ROUNDS, 4.0)


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_refused(threads: int) -> None:
    with pytest.raises(UserError, match="--threads"):
        machine.calibrate(threads)


def test_convolutions_too_small_to_measure_are_left_out() -> None:
    small = Convolution(64, 128, 1, 2, 4)  # a shortcut of conv5x5
    assert small not in module.CONVOLUTIONS
    assert Convolution(64, 64, 3, 1, 16) in module.CONVOLUTIONS


# --- drift


def test_same_calibration_has_not_drifted(measured: Calibration) -> None:
    assert machine.drift(measured, measured) == {}


def test_drift_names_what_changed_and_by_how_much() -> None:
    start = calibration(a=made_up(median=100), b=made_up(median=100), c=made_up(median=100))
    end = calibration(a=made_up(median=80), b=made_up(median=125), c=made_up(median=95))
    assert machine.drift(start, end) == {"a": pytest.approx(-0.2), "b": pytest.approx(0.25)}


def test_change_within_the_spread_is_no_drift() -> None:
    start, end = calibration(a=made_up(median=100, spread=15)), calibration(a=made_up(median=80, spread=15))
    assert machine.drift(start, end) == {}


def test_measurements_of_one_side_only_are_passed_over() -> None:
    assert machine.drift(calibration(a=made_up()), calibration(b=made_up())) == {}


def test_drift_between_thread_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="threads"):
        machine.drift(calibration(1), calibration(2))


@given(before=st.floats(1e6, 1e12), factor=st.floats(0.2, 5))
def test_drift_is_found_beyond_the_limit_only(before: float, factor: float) -> None:
    start = calibration(a=made_up(median=before, spread=0))
    end = calibration(a=made_up(median=before * factor, spread=0))
    change = end.measurements["a"].median / before - 1
    assert ("a" in machine.drift(start, end)) == (abs(change) > rates.DRIFT_LIMIT)
