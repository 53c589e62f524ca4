"""What threads waited, by made-up counters and by the system's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_bench.machine import system, waiting
from resnet_bench.machine.waiting import Waiting
from tests.machine.trees import write

SECOND = 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that `time.perf_counter` tells."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    return now


def counted(root: Path, threads: dict[int, str], ticks: tuple[int, int] = (0, 0)) -> None:
    """Write what each thread's `schedstat` has, and the stolen and idle ticks of each of two cores."""
    stolen, idle = ticks
    cores = "".join(f"cpu{core} 0 0 0 {idle} 0 0 0 {stolen} 0 0\n" for core in (0, 1))
    write(root, {"proc/stat": cores, **{f"proc/self/task/{t}/schedstat": text for t, text in threads.items()}})


def test_the_thread_that_waited_most_counts_over_all_stretches(root: Path, clock: list[float]) -> None:
    measured = Waiting()
    counted(root, {1: f"0 {5 * SECOND} 9", 2: f"0 {SECOND} 9"}, (0, 100))
    measured.begin()
    clock[0], _ = 2.0, counted(root, {1: f"0 {6 * SECOND} 9", 2: f"0 {SECOND} 9"}, (30, 170))
    measured.end()
    clock[0], _ = 100.0, counted(root, {1: f"0 {50 * SECOND} 9", 2: f"0 {90 * SECOND} 9"}, (1000, 1000))  # not timed
    measured.begin()
    clock[0], _ = 102.0, counted(root, {1: f"0 {50 * SECOND} 9", 2: f"0 {93 * SECOND} 9"}, (1000, 1100))
    measured.end()
    assert measured.seconds == pytest.approx(4.0)
    assert measured.share == pytest.approx(3 / 4)
    assert measured.stolen_share == pytest.approx(0.3 * 2 / 4)


def test_a_thread_that_starts_within_counts_from_its_start(root: Path, clock: list[float]) -> None:
    measured = Waiting()
    counted(root, {1: "0 0 9"})
    measured.begin()
    clock[0], _ = 2.0, counted(root, {1: "0 0 9", 2: f"0 {SECOND} 9"})
    measured.end()
    assert measured.share == pytest.approx(0.5)


@pytest.mark.parametrize("text", ["", "0 0 0", "1 2", "a b c"])
def test_counters_of_another_form_are_not_told(root: Path, clock: list[float], text: str) -> None:
    """A kernel that does not count has zeros."""
    measured = Waiting()
    counted(root, {1: text})
    measured.begin()
    clock[0] = 1.0
    measured.end()
    assert measured.share is None


def test_a_system_without_counters_tells_nothing(root: Path, clock: list[float]) -> None:
    measured = Waiting()
    measured.begin()
    clock[0] = 1.0
    measured.end()
    assert (measured.share, measured.stolen_share) == (None, None)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(-(2**63), 2**63)), min_size=1, max_size=5))
def test_a_share_is_a_share_whatever_is_counted(stretches: list[tuple[float, int]]) -> None:
    measured, now, waited = Waiting(), 0.0, 0
    with pytest.MonkeyPatch.context() as patch:
        for seconds, more in stretches:
            both = iter([(now, waited), (now + seconds, waited + more)])

            def counters(both=both):  # type: ignore[no-untyped-def]
                at, nanoseconds = next(both)
                return waiting._Counters(at, {"1": nanoseconds}, None)

            patch.setattr(waiting, "_counters", counters)
            measured.begin()
            measured.end()
            now, waited = now + seconds, waited + more
    assert measured.share is None or 0 <= measured.share <= 1


@pytest.mark.skipif(not (system.PROC / "self/schedstat").exists(), reason="this kernel does not count")
def test_the_systems_own_counters_are_read() -> None:
    measured = Waiting()
    measured.begin()
    sum(range(300_000))
    measured.end()
    assert measured.share is not None
