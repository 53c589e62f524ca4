"""Whether the machine is free."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

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


def test_neither_own_work_nor_what_the_host_takes_is_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Times(NamedTuple):
        user: float
        system: float
        idle: float
        iowait: float
        steal: float
        guest: float = 0.0  # of user

    before = Times(100, 0, 50, 1, 5, 7), type("", (), {"user": 7.0, "system": 0.0})
    after = Times(102.5, 0.5, 50.2, 1.3, 5.9, 8), type("", (), {"user": 9.0, "system": 0.5})
    answers = iter([before, after])

    def cpu_times() -> Times:
        now[:] = next(answers)
        return now[0]

    now: list[Any] = [None, None]
    monkeypatch.setattr(psutil, "Process", lambda: type("", (), {"cpu_times": lambda self: now[1]})())
    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    clock = iter([10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    assert machine.other_processes(1.0) == pytest.approx(0.5)


def test_the_other_processes_are_unknown_where_the_system_stops_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([psutil.cpu_times()])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(answers))
    assert machine.other_processes(0.0) is None
