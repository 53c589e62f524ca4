"""Which cores trainings get, which packings are measured, and how long a study takes."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_bench.errors import UserError
from resnet_bench.machine import availability, system
from resnet_bench.options import RUN_OPTIONS
from resnet_bench.study import packing
from resnet_bench.study.cells import Plan
from resnet_bench.study.planning import Asked, new_plan


@pytest.fixture
def two_cells() -> Plan:
    """The plan of one network with two seeds."""
    asked = Asked(
        {
            "architectures": ("fc1",), "engines": ("reference",), "seeds": (0, 1), "varied": {},
            **{o.name: o.default for o in RUN_OPTIONS}, "dataset": "synthetic", "train_images": 20, "test_images": 10,
        },
        frozenset(), 1,
    )  # fmt: skip
    return new_plan(asked)[0]


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
    assert packing.candidates(16, 1, cells=5) == [(1, 1), (5, 1)]
    assert max(jobs for jobs, _ in packing.candidates(64, cells=3)) == 3


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


def test_what_was_measured_long_ago_is_measured_again(tmp_path: Path, monkeypatch, two_cells):
    monkeypatch.setattr(packing, "cache_folder", lambda: tmp_path)
    today = datetime.date.today()
    for days, known in ((0, True), (packing.REMEMBERED_DAYS, True), (packing.REMEMBERED_DAYS + 1, False)):
        old = packing.Packing(jobs=1, threads=1, measured_on=str(today - datetime.timedelta(days)), rates=())
        packing._remember(packing._key(two_cells, 1, 1), old)
        assert (packing._known(two_cells, 1, 1) == old) == known
    packing._remember(packing._key(two_cells, 1, 1), packing.Packing(jobs=1, threads=1, rates=()))
    assert packing._known(two_cells, 1, 1) is None


def test_packings_are_measured_there_and_back_and_one_that_fails_is_left_out(tmp_path: Path, monkeypatch, two_cells):
    """A machine that becomes faster favours none: on the way back the first one is measured last."""
    monkeypatch.setattr(packing, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(packing, "candidates", lambda *_: [(1, 1), (2, 1), (1, 2)])
    asked, said = [], []

    def rates(order, dataset, jobs, threads):
        asked.append((jobs, threads))
        if threads == 2:
            raise UserError("The short measurement failed: no memory")
        speed = len(asked)  # faster each time
        return tuple(
            packing.Rate(architecture=a, engine=e, options=o, step_seconds=jobs / speed, test_seconds=0)
            for a, e, o in order["networks"]
        )

    monkeypatch.setattr(packing, "_rates", rates)
    best, measured = packing.choose(two_cells, "synthetic", None, said.append)
    assert asked == [(1, 1), (2, 1), (1, 2), (2, 1), (1, 1)]
    assert [(p.jobs, p.threads) for p in measured] == [(1, 1), (2, 1)]
    means = [(1 / 1 + 1 / 5) / 2, (2 / 2 + 2 / 4) / 2]
    assert [p.rates[0].step_seconds for p in measured] == pytest.approx(means)
    assert best.jobs == 2
    assert said[-2:] != []
    assert "1 side by side, threads of each: 2, is left out. The short measurement failed: no memory" in said
    asked.clear()
    assert packing.choose(two_cells, "synthetic", None) == (best, measured)
    assert asked == [(1, 2)]  # the others are remembered
    monkeypatch.setattr(packing, "candidates", lambda *_: [(1, 2)])
    with pytest.raises(UserError, match="no memory"):
        packing.choose(two_cells, "synthetic", None)


def test_each_batch_size_is_measured_and_counted_for_itself(two_cells):
    """A training with batches of 64 has fewer steps, which take longer."""
    plan = two_cells.model_copy(update={"varied": {"batch_size": (4, 64)}})
    networks = packing._order(plan, 1)["networks"]
    assert [n[2]["batch_size"] for n in networks] == [4, 64]
    rates = tuple(
        packing.Rate(architecture=a, engine=e, options=o, step_seconds=o["batch_size"] / 4, test_seconds=0)
        for a, e, o in networks
    )
    measured = packing.Packing(jobs=1, threads=1, rates=rates)
    steps = [c.recipe.epochs * c.recipe.steps_per_epoch(plan.dataset.train_images) for c in plan.cells]
    assert [measured.seconds(c, plan) for c in plan.cells] == [
        n * c.options["batch_size"] / 4 for n, c in zip(steps, plan.cells, strict=True)
    ]


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
