"""Which cores trainings get, which packings are measured, and how long a study takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_bench.machine import availability, system
from resnet_bench.study import packing


@pytest.mark.parametrize(
    ("groups", "jobs", "threads", "places"),
    [
        ([[0, 1]], 2, 1, [(0,), (1,)]),
        ([[0, 1]], 1, 2, None),  # alone: its times are those of any other training
        ([[0, 1]], 3, 1, None),  # more threads than cores
        ([[0, 1, 2, 3], [4, 5, 6, 7]], 2, 2, [(0, 1), (4, 5)]),  # each with a cache of its own
        ([[0, 1, 2], [3, 4, 5]], 2, 2, [(0, 1), (3, 4)]),
        ([[0, 1, 2], [3, 4, 5]], 3, 2, [(0, 1), (3, 4), (2, 5)]),  # the last one has no cache of two free cores
    ],
)
def test_trainings_get_cores_of_one_cache_where_they_can(groups, jobs, threads, places):
    assert packing.pinned(groups, jobs, threads) == places


def test_cores_are_grouped_by_cache_with_one_of_each_physical_core_first(tmp_path: Path, monkeypatch):
    for core, (shared, siblings) in enumerate([("0-1,4-5", "0,4"), ("0-1,4-5", "1,5"), ("2-3", "2-3"), ("2-3", "2-3")]):
        folder = tmp_path / f"devices/system/cpu/cpu{core}"
        for name, text in (("cache/index3/shared_cpu_list", shared), ("topology/thread_siblings_list", siblings)):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text(text)
    for core in (4, 5):
        folder = tmp_path / f"devices/system/cpu/cpu{core}"
        for name, text in (
            ("cache/index3/shared_cpu_list", "0-1,4-5"),
            ("topology/thread_siblings_list", f"{core - 4},{core}"),
        ):
            (folder / name).parent.mkdir(parents=True)
            (folder / name).write_text(text)
    monkeypatch.setattr(system, "SYS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5}, raising=False)
    assert packing.cache_groups() == [[0, 1, 4, 5], [2, 3]]


def test_packings_fill_the_cores_half_of_them_or_run_alone():
    assert packing.candidates(2) == [(1, 1), (2, 1), (1, 2)]
    assert packing.candidates(16, 2) == [(1, 2), (4, 2), (8, 2)]
    assert (16, 1) in packing.candidates(16)
    assert all(jobs * threads <= 64 for jobs, threads in packing.candidates(64))


def test_a_study_takes_as_long_as_its_fullest_place():
    assert packing.makespan([3, 1, 1, 1], 2) == 3
    assert packing.makespan([3, 1, 1, 1], 1) == 6
    assert packing.makespan([], 2) == 0


def test_speed_counts_a_step_of_each_network():
    rates = tuple(
        packing.Rate(architecture=a, engine="fast", step_seconds=s, test_seconds=0) for a, s in (("a", 0.1), ("b", 0.3))
    )
    assert packing.Packing(jobs=2, threads=1, rates=rates).steps_per_second == pytest.approx(10)


def test_what_is_remembered_and_damaged_is_measured_again(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(packing, "cache_folder", lambda: tmp_path)
    chosen = packing.Packing(jobs=2, threads=1, rates=())
    packing._remember("key", chosen)
    assert packing._remembered() == {"key": chosen}
    (tmp_path / "packing.json").write_text('{"key": {"jobs": 0}}')
    assert packing._remembered() == {}


def test_a_pinned_process_describes_the_cores_that_the_user_gave(monkeypatch):
    """A training on one core by the suite's choice is of the same kind of machine as any other there."""
    monkeypatch.setenv(availability.CORES_VARIABLE, "64")
    assert availability.allowed_cores() == 64
    monkeypatch.setenv(availability.CORES_VARIABLE, "")
    assert availability.allowed_cores() == len(os.sched_getaffinity(0))


def test_a_pinned_process_is_the_same_machine_and_software_as_one_that_is_not():
    """Otherwise a cell that goes on with another number of jobs would be a mixed training."""
    code = (
        "from resnet_bench import identity; from resnet_bench.machine import availability;"
        "availability.take_interop_threads(); print(identity.key(identity.describe()))"
    )
    environment = packing.environment(2)
    keys = set()
    for cores in (None, sorted(os.sched_getaffinity(0))[:1]):
        with packing.on_cores(cores):
            told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=120)
        keys.add(told.stdout)
    assert len(keys) == 1
    assert keys != {b""}
