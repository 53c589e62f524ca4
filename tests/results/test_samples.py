"""The table of samples: what counts once, what is pooled, and that nothing depends on the order of the files."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import resnet_bench
from resnet_bench.analysis import claims
from resnet_bench.analysis.series import groups
from resnet_bench.cli import cli
from resnet_bench.render import captions, claims_table, speed_tables
from resnet_bench.render.captions import group_machine_text
from resnet_bench.render.figures import figures
from resnet_bench.render.paper_tables import tables
from resnet_bench.results import frame, reading
from resnet_bench.results.samples import Samples
from tests.handmade import accuracy, calibration, dataset, epoch_time, machine, parameters, save, together, told

REPORTS = Path(__file__).parent.parent.parent / "reports"
MINUTE_STEPS = 12_500


def read(*paths: Path) -> Samples:
    return together([reading.read(path) for path in paths])


def shorter(entry: dict[str, Any], count: int) -> dict[str, Any]:
    """An early copy of a result: its first blocks or epochs."""
    key = "epochs" if entry["kind"] == "accuracy" else "blocks"
    return {**entry, key: entry[key][:count], "complete": False}


def all_said(samples: Samples) -> list[str]:
    """Everything that a report says: tables, claims and the figures' texts."""
    said = [t.render("text") for t in tables(samples)]
    said.append(claims_table.render(claims.judge(samples), "text"))
    return [*said, *(f.alt for f in figures(samples)[0])]


# ---------------------------------------------------------------------------------------------------------------------
# The two rules, whatever the files' order


ENTRIES = [
    epoch_time("baseline", 60, blocks=4),
    epoch_time("fc1", 15, blocks=4),
    accuracy("baseline", [0.1, 0.2, 0.3]),
    accuracy("fc1", [0.2, 0.3, 0.4]),
    accuracy("fc1", [0.2, 0.3, 0.5], seed=1),
    parameters("fc1"),
]
MACHINES = [machine(), machine(cpu={"model": "Another"}), machine(session="c" * 16, code={"sha256": "d" * 64})]


@st.composite
def stored(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Files: each a list of (which entry, how much of it)."""
    kept = st.tuples(st.integers(0, len(ENTRIES) - 1), st.integers(1, 4))
    return draw(st.lists(st.lists(kept, min_size=1, max_size=4, unique_by=lambda k: k[0]), min_size=1, max_size=4))


@given(files=stored(), seed=st.integers(0, 2**16), version=st.sampled_from([1, 2]), whose=st.integers(0, 2))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_and_any_copies_of_the_files_give_the_same_table(
    tmp_path: Path, files: list[list[tuple[int, int]]], seed: int, version: int, whose: int
) -> None:
    """Shuffled, with each file there once or several times, the data frame is equal to the last cell."""
    paths = []
    for number, kept in enumerate(files):
        entries = [ENTRIES[i] if ENTRIES[i]["kind"] == "parameters" else shorter(ENTRIES[i], n) for i, n in kept]
        if version == 2:
            entries = [told(e) for e in entries]
        paths.append(save(tmp_path / f"{number}.json", entries, MACHINES[whose]))
    rng = random.Random(seed)
    again = [path for path in paths for _ in range(rng.randint(1, 3))]
    rng.shuffle(again)
    pd.testing.assert_frame_equal(resnet_bench.load(again), resnet_bench.load(paths))


@given(cut=st.integers(1, 9), version=st.sampled_from([1, 2]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_earlier_copy_gives_way_to_the_longer_one(tmp_path: Path, cut: int, version: int) -> None:
    entry = epoch_time("fc1", 60, blocks=10)
    whole, part = (told(e) if version == 2 else e for e in (entry, shorter(entry, cut)))
    paths = [save(tmp_path / "part.json", [part]), save(tmp_path / "whole.json", [whole])]
    assert len(resnet_bench.load(paths)) == 10
    assert resnet_bench.load(paths).equals(resnet_bench.load(paths[1]))


def test_the_same_training_in_three_files_is_said_once_and_alike(tmp_path: Path) -> None:
    """A copy, a shorter copy and a resumed training: tables, claims and figures say what the longest alone says."""
    curve = [0.05 * i for i in range(1, 16)]
    long = {a: accuracy(a, curve) for a in ("baseline", "fc1")}
    whole = save(tmp_path / "whole.json", list(long.values()))
    copies = [
        save(tmp_path / "copy.json", list(long.values())),
        save(tmp_path / "short.json", [shorter(e, 7) for e in long.values()]),
    ]
    resumed = {**shorter(long["fc1"], 9), "engine": "fast", "mixed": True}  # went on elsewhere, then was copied
    copies.append(save(tmp_path / "resumed.json", [resumed]))
    alone = all_said(read(whole))
    for order in itertools.permutations([whole, *copies]):
        assert all_said(read(*order)) == alone


def test_the_same_benchmark_of_another_process_is_another_measurement(tmp_path: Path) -> None:
    entries = [told(epoch_time("fc1", 60, blocks=3), process=letter * 16) for letter in "ab"]
    paths = [save(tmp_path / f"{i}.json", [e]) for i, e in enumerate(entries)]
    assert len(resnet_bench.load(paths)) == 6


def test_two_engines_that_one_process_trained_are_two_trainings(tmp_path: Path) -> None:
    entries = [told(accuracy("fc1", [0.1, 0.2], engine=engine)) for engine in ("reference", "fast")]
    assert len(resnet_bench.load(save(tmp_path / "a.json", entries))) == 4


# ---------------------------------------------------------------------------------------------------------------------
# What is pooled


DIFFERENT = {
    "CPU model": {"cpu": {**machine()["cpu"], "model": "Another"}},
    "stepping": {"cpu": {**machine()["cpu"], "stepping": 3}},
    "instruction sets": {"cpu": {**machine()["cpu"], "isa": ["avx2", "avx512f"]}},
    "caches": {"cpu": {**machine()["cpu"], "caches": {"L1d": 1, "L2": 2, "L3": 3}}},
    "usable cores": {"cpu": {**machine()["cpu"], "affinity_cores": 2}},
    "memory": {"memory_bytes": 32 * 2**30},
    "torch": {"torch": {"version": "2.9.0"}},
    "oneDNN": {"torch": {"version": "2.15.0", "onednn": "3.1"}},
    "kernel variables": {"threads": {"environment": {"ONEDNN_MAX_CPU_ISA": "AVX2"}}},
    "operating system": {"os": "Linux 6.9"},
    "allocator": {"allocator": {"name": "jemalloc"}},
    "code": {"code": {"sha256": "e" * 64}},
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_in_identity_is_not_pooled(tmp_path: Path, change: dict[str, Any]) -> None:
    here = save(tmp_path / "a.json", [accuracy("fc1", [0.1], seed=0)], machine())
    there = save(tmp_path / "b.json", [accuracy("fc1", [0.2], seed=1)], machine(**change))
    found = groups(read(here, there))
    assert [len(g.series[0].accuracies) for g in found] == [1, 1]
    assert len({group_machine_text(g) for g in found}) == 2  # and their captions tell them apart


ALIKE = {
    "memory that the kernel keeps": {"memory_bytes": 16 * 2**30 - 12_288},
    "build of the kernel": {"os": "Linux 6.8-45-generic"},
    "threads, which results tell": {"threads": {"intraop": 2, "interop": 1, "environment": {"OMP_NUM_THREADS": "2"}}},
    "session": {"session": "f" * 16},
    "the commit of the same sources": {"code": {"commit": "1" * 40, "dirty": True}},
    "tuning of the allocator": {"allocator": {"name": "glibc", "environment": {"MALLOC_TOP_PAD_": "1"}}},
}  # fmt: skip


@pytest.mark.parametrize("change", ALIKE.values(), ids=ALIKE)
def test_accuracies_of_one_identity_are_pooled(tmp_path: Path, change: dict[str, Any]) -> None:
    here = save(tmp_path / "a.json", [accuracy("fc1", [0.1], seed=0)], machine())
    there = save(tmp_path / "b.json", [accuracy("fc1", [0.2], seed=1)], machine(**change))
    (group,) = groups(read(here, there))
    assert [r.seed for r in group.series[0].accuracies] == [0, 1]


def test_times_under_other_settings_of_the_allocator_are_not_pooled(tmp_path: Path) -> None:
    tuned = machine(allocator={"name": "glibc", "environment": {"MALLOC_TOP_PAD_": "1"}})
    trained = [accuracy("fc1", [0.1], seed=i) for i in range(2)]
    both = read(save(tmp_path / "a.json", trained[:1], machine()), save(tmp_path / "b.json", trained[1:], tuned))
    assert groups(both)[0].series[0].epoch_time() is None
    timed = [save(tmp_path / "c.json", [epoch_time("fc1", 60)], machine())]
    timed += [save(tmp_path / "d.json", [epoch_time("fc1", 90, seed=1)], tuned)]
    (group,) = groups(read(*timed))
    assert [round(s.epoch_time().seconds / 10) for s in group.series] == [6, 9]  # type: ignore[union-attr]
    assert captions.label(group, group.series[1]) == "allocator settings MALLOC_TOP_PAD_=1"


def test_processes_of_different_sessions_are_never_paired(tmp_path: Path) -> None:
    """Of two files, the first with `reference`, the second with both engines: ratios are taken within the second."""
    fast = {"engine": "fast", "pipeline": "vectorized", "workers": 0}
    first = save(tmp_path / "a.json", [epoch_time("fc1", 600, noise=0)])
    second = save(tmp_path / "b.json", [epoch_time("fc1", 60, noise=0, seed=1), epoch_time("fc1", 20, noise=0, **fast)])
    for order in ((first, second), (second, first)):
        (group,) = groups(read(*order))
        table = speed_tables.steps(group)
        assert table
        (fast_row,) = (dict(zip(table.columns, row, strict=True)) for row in table.rows if row[1] == "fast engine")
        assert fast_row["Times as fast as plain"] == "3.01"  # (60 - 0.1) / (20 - 0.1)


def test_report_and_compare_take_the_same_time_of_a_file_with_both_modes(tmp_path: Path, capsys: Any) -> None:
    full = epoch_time("fc1", 100, noise=0, mode="full", startup_seconds=0.0, blocks=3)
    full["blocks"] = [{**b, "steps": MINUTE_STEPS, "seconds": 100.0 + i} for i, b in enumerate(full["blocks"])]
    path = save(tmp_path / "both.json", [full, epoch_time("fc1", 110, noise=0)])
    time = groups(read(path))[0].series[0].epoch_time()
    cli.main(["compare", str(path), str(path), "--format", "json"], standalone_mode=False)
    (network,) = json.loads(capsys.readouterr().out)["comparisons"][0]["networks"]
    assert network["epoch_seconds"] == pytest.approx([110, 110])
    assert time is not None
    assert time.seconds == pytest.approx(110)


# ---------------------------------------------------------------------------------------------------------------------
# Real files


def test_trainings_on_two_cpu_models_are_two_groups_with_captions_that_tell_them_apart() -> None:
    """Both CPUs call themselves AMD EPYC; they were pooled once."""
    found = groups(read(*sorted((REPORTS / "accuracy-cifar10").glob("*.json"))))
    assert len(found) == 2
    zen5, zen4 = sorted(found, key=lambda g: g.machine["cpu"]["caches"]["L1d"], reverse=True)
    assert {s.architecture for s in zen5.series} == {"baseline", "fc3"}
    assert {s.architecture for s in zen4.series} == {"fc1", "blocks2", "conv5x5"}
    assert "with avx512_vp2intersect avx_vnni; L1d cache 48 KiB" in group_machine_text(zen5)
    assert "without avx512_vp2intersect avx_vnni; L1d cache 32 KiB" in group_machine_text(zen4)
    assert all(len(s.accuracies) == 3 for g in found for s in g.series)


def test_times_of_two_cpu_models_never_stand_in_one_table() -> None:
    samples = read(REPORTS / "epoch-time-cifar10.json", REPORTS / "modes-cifar10.json")
    found = groups(samples)
    assert [g.machine["cpu"]["caches"]["L1d"] for g in found] == [49152, 32768]
    summaries = [t for t in tables(samples) if t.title == "Summary"]
    assert ["L1d cache 48 KiB" in t.caption for t in summaries] == [True, False]


# ---------------------------------------------------------------------------------------------------------------------
# The data frame


def test_every_column_has_its_documented_type_whatever_the_files_hold(tmp_path: Path) -> None:
    expected = {name: pd.array([], dtype=dtype).dtype for name, dtype in frame.COLUMNS.items()}  # type: ignore[call-overload]
    for entries in ([parameters("fc1")], ENTRIES):
        table = resnet_bench.load(save(tmp_path / "a.json", entries))
        assert dict(table.dtypes) == expected


def test_one_row_a_raw_measurement(tmp_path: Path) -> None:
    data = machine(
        calibration={"start": calibration()}, session="c" * 16, code={"version": "0.1.0", "sha256": "d" * 64}
    )
    table = resnet_bench.load(save(tmp_path / "a.json", [told(e) for e in ENTRIES], data))
    assert table["kind"].value_counts().to_dict() == {"accuracy": 9, "epoch_time": 8, "parameters": 1}
    assert set(table["session"]) == {"c" * 16}
    assert set(table["code"]) == {"d" * 64}
    (row,) = table[(table["kind"] == "accuracy") & (table["seed"] == 1) & (table["epoch"] == 3)].to_dict("records")
    assert row["test_accuracy"] == 0.5
    assert (row["dataset"], row["batch_size"], row["lr"], row["torch"]) == ("cifar100", 4, 4e-4, "2.15.0")
    block = table[(table["kind"] == "epoch_time") & (table["architecture"] == "fc1")].iloc[0]
    assert block["epoch_seconds"] == pytest.approx(0.1 + MINUTE_STEPS * block["seconds"] / block["steps"])


def test_what_version_1_does_not_tell_is_unknown(tmp_path: Path) -> None:
    table = resnet_bench.load(save(tmp_path / "a.json", [epoch_time("fc1"), accuracy("fc1")]))
    unknown = ["process", "started_at", "session", "code", "code_version", "code_commit", "code_dirty", "same_bits"]
    assert table[unknown].isna().all(axis=None)


def test_times_of_a_resumed_training_are_in_no_column_of_epochs(tmp_path: Path) -> None:
    table = resnet_bench.load(save(tmp_path / "a.json", [accuracy("fc1", mixed=True)]))
    assert not table["comparable_times"].any()
    assert table["epoch_seconds"].isna().all()


@pytest.mark.parametrize("format_", ["csv", "json", "parquet"])
def test_export_writes_what_load_gives(tmp_path: Path, format_: str) -> None:
    path, out = save(tmp_path / "a.json", ENTRIES), tmp_path / "out"
    cli.main(["export", str(path), "--format", format_, "--output", str(out)], standalone_mode=False)
    reader = {"csv": pd.read_csv, "json": lambda p: pd.DataFrame(json.loads(p.read_text())), "parquet": pd.read_parquet}
    read_back = reader[format_](out)
    expected = resnet_bench.load(path)
    pd.testing.assert_frame_equal(read_back.astype(expected.dtypes), expected)


def test_subsets_of_several_seeds_are_one_data_set_in_any_order(tmp_path: Path) -> None:
    subsets = [dataset(subset=True, train_images=2000) | {"sha256": f"{i}" * 64} for i in range(3)]
    paths = [save(tmp_path / f"{i}.json", [accuracy("fc1", [0.3], seed=i % 2, dataset=subsets[i])]) for i in range(3)]
    assert len(groups(read(*paths[:2]))) == 1
    for order in itertools.permutations(paths):
        assert len(groups(read(*order))) == 3
