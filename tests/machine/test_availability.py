"""Whether the machine is free."""

from __future__ import annotations

import time

import psutil
import pytest

from resnet_bench import machine


def test_free_machine_has_no_busy_reason() -> None:
    assert machine.busy_reason(load_before=0.2, cores=2, other_cores=0.1) is None


def test_other_processes_are_a_busy_reason() -> None:
    assert "0.9 of 2 cores" in (machine.busy_reason(load_before=0.0, cores=2, other_cores=0.9) or "")


def test_load_above_half_of_the_cores_is_a_busy_reason() -> None:
    assert machine.busy_reason(load_before=4.0, cores=8, other_cores=0.0) is None
    assert "4.1 on 8 cores" in (machine.busy_reason(load_before=4.1, cores=8, other_cores=0.0) or "")


def test_own_work_is_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(100.0, 7.0), (103.0, 9.5)])  # the machine's busy seconds, this process's

    class Process:
        def cpu_times(self) -> object:
            return type("", (), {"user": now[1], "system": 0.0})

    class Times(tuple[float, ...]):
        idle = 50.0

    def cpu_times() -> object:
        now[:] = next(times)
        return Times((now[0], 50.0))

    now = [0.0, 0.0]
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    clock = iter([10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert machine.other_processes(1.0) == pytest.approx(0.5)


def test_the_other_processes_are_unknown_where_the_system_stops_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([psutil.cpu_times()])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(answers))
    assert machine.other_processes(0.0) is None
