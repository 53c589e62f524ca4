"""Effects, live units and learning rates as tables, on hand-made results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from resnet_bench.analysis.series import Group, groups
from resnet_bench.recipe import Recipe
from resnet_bench.render import training_tables
from resnet_bench.render.table import Table
from resnet_bench.results import reading
from tests.handmade import accuracy, in_processes, plans, save, together


def grouped(path: Path, entries: list[dict[str, Any]]) -> Group:
    (group,) = groups(together([reading.read(save(path, entries))]))
    return group


def run(
    architecture: str, final: float, seed: int, live: tuple[int, ...] | None = None, **recipe: Any
) -> dict[str, Any]:
    entry = accuracy(architecture, [0.1, 0.1, final], seed)
    entry["recipe"] = {**entry["recipe"], "epochs": 3, **recipe}
    entry["complete"] = True
    rates = Recipe(**{k: v for k, v in entry["recipe"].items() if k in ("schedule", "warmup_steps", "lr")})
    if rates.schedule != "constant":
        for i, epoch in enumerate(entry["epochs"]):
            at = rates.learning_rates(300).at
            epoch |= {"lr_start": at(100 * i), "lr_end": at(100 * i + 99)}
    if live is not None:
        for i, epoch in enumerate(entry["epochs"]):
            epoch["live_units"] = [units + seed - i for units in live]
    return entry


def test_effects_have_points_interval_verdict_cost_and_the_seeds_that_would_tell(tmp_path: Path) -> None:
    entries = [run("baseline", 0.30, s) for s in range(3)]
    entries += [run("fc1", 0.40 + s / 100, s) for s in range(3)]
    table = training_tables.accuracy_effects(grouped(tmp_path / "a.json", entries))
    assert table is not None
    ((*cells, seeds),) = table.rows
    fewer = entries[-1]["parameters"] - entries[0]["parameters"]
    assert cells == [
        "fc1", "baseline", "3", f"{fewer:,}", "1.00", "1.00", "41.0 [40.0, 42.0]", "+11.00 [+8.52, +13.48]", "higher",
    ]  # fmt: skip
    planned = re.fullmatch(r"(\d+) \[(\d+), over 1,000\]", seeds)
    assert planned
    assert int(planned[1]) > 30 > int(planned[2])
    assert "1 process: no interval." in table.notes  # these files do not tell the trainings' processes


Cells = dict[tuple[str, ...], tuple[str, ...]]


def table_of(path: Path, entries: list[dict[str, Any]]) -> tuple[Table, Cells]:
    """The table of effects, and by the network and what it is held against the cells of its cost."""
    table = training_tables.accuracy_effects(grouped(path, entries))
    assert table is not None
    return table, {tuple(row[:2]): tuple(row[3:6]) for row in table.rows}


def test_where_trainings_ran_side_by_side_a_note_says_why_there_is_no_time(tmp_path: Path) -> None:
    table, cells = table_of(tmp_path / "a.json", plans({}, jobs=2))
    assert list(table.columns)[3:6] == ["More parameters", "Epoch (s)", "Times as long"]
    assert len(cells) == 12
    assert cells["baseline-se (cosine schedule)", "baseline (cosine schedule)"] == ("+5,528", "–", "–")
    assert cells["baseline-eca (cosine schedule)", "baseline (cosine schedule)"] == ("+16", "–", "–")
    assert cells["baseline-se (cosine schedule)", "baseline-se (constant schedule)"] == ("0", "–", "–")
    assert table.notes[-1] == (
        "– as the ratio of times: trainings ran side by side, so their times do not compare. `pytest benchmarks -k "
        "epoch_time` times networks together and `resnet-bench duel --arm constant:schedule=constant --arm "
        "cosine:schedule=cosine --arm onecycle:schedule=onecycle` times schedules, here with the same recipe, engine "
        "and threads."
    )


def test_epoch_times_of_another_file_fill_the_rows_of_their_networks(tmp_path: Path) -> None:
    """Those of a schedule, which was not timed, stay empty."""
    networks = {"baseline": 60, "baseline-se": 66, "baseline-eca": 63}
    timed = [in_processes(n, s, noise=0, engine="fast", pipeline="vectorized") for n, s in networks.items()]
    files = [save(tmp_path / "a.json", plans({}, jobs=2)), save(tmp_path / "b.json", timed)]
    (group,) = groups(together(map(reading.read, files)))
    table = training_tables.accuracy_effects(group)
    assert table is not None
    for row in table.rows:
        if row[1].startswith(row[0].split()[0] + " "):  # the same network under another schedule
            assert row[4:6] == ["–", "–"]
        else:
            times = "1.10 [1.10, 1.10]" if row[0].startswith("baseline-se") else "1.05 [1.05, 1.05]"
            assert row[4:6] == [times[:4], times]  # in minutes; the baseline's epoch takes one
    assert "from epoch times that the same processes measured, paired." in table.notes[2]
    assert table.notes[3] == (
        "Timed with a constant rate alone: baseline-se (cosine schedule), baseline-se (onecycle schedule), "
        "baseline-eca (cosine schedule), baseline-eca (onecycle schedule)."
    )
    assert table.notes[4].startswith("– as the ratio of times: trainings ran side by side")
    assert "compare. `resnet-bench duel --arm constant:" in table.notes[4]  # the networks were timed


def warmed_up(schedule: str) -> dict[str, Any]:
    return Recipe(schedule=schedule, warmup_steps=50).as_dict()


def trained(*with_warmup: str) -> list[dict[str, Any]]:
    """`plans` whose trainings under these schedules have a warm-up."""
    entries = plans({}, jobs=2)
    for entry in entries:
        if (schedule := entry["recipe"]["schedule"]) in with_warmup:
            entry["recipe"] = warmed_up(schedule)
    return entries


def timed(seconds: float, process: str, **settings: Any) -> dict[str, Any]:
    return in_processes(
        "baseline", seconds, noise=0, process=process * 16, engine="fast", pipeline="vectorized", **settings
    )


def test_schedules_timed_in_sessions_of_their_own_show_their_times_and_why_they_do_not_compare(tmp_path: Path) -> None:
    sessions = [timed(60, "a"), timed(54, "b", recipe=warmed_up("cosine"))]
    table, cells = table_of(tmp_path / "a.json", trained("cosine") + sessions)
    assert cells["baseline (cosine schedule)", "baseline (constant schedule)"] == ("0", "54.0", "–")
    note = table.notes[-1]
    assert "both were timed, but in sessions of their own, so their times do not compare; or trainings" in note
    assert "--arm cosine50:schedule=cosine,warmup_steps=50 --arm onecycle:" in note


def test_a_schedule_is_timed_against_what_it_is_held_against(tmp_path: Path) -> None:
    """A constant rate after the same warm-up, where that was trained."""
    entries = [*trained("constant", "cosine"), timed(54, "b", recipe=warmed_up("cosine"))]
    table, cells = table_of(tmp_path / "a.json", entries)
    assert ("0", "54.0", "–") in cells.values()
    assert "«Against» was not timed; or trainings" in table.notes[-1]
    duel = "`resnet-bench duel --arm constant50:schedule=constant,warmup_steps=50 --arm cosine50:"
    assert duel in table.notes[-1]


def test_trainings_one_after_the_other_tell_times_too(tmp_path: Path) -> None:
    table, cells = table_of(tmp_path / "a.json", plans({}))
    assert cells["baseline-se (cosine schedule)", "baseline (cosine schedule)"] == (
        "+5,528", "1.00", "1.00 [1.00, 1.00]",
    )  # fmt: skip
    assert "from epochs of trainings one after the other, which nothing pairs." in table.notes[2]
    assert len(table.notes) == 3


def test_the_tables_are_left_out_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    group = grouped(tmp_path / "a.json", [run("baseline", 0.30, 0), run("fc1", 0.30, 0)])
    for make in (training_tables.accuracy_effects, training_tables.live_units, training_tables.learning_rates):
        assert make(group) is None


def test_live_units_have_a_row_for_each_hidden_layer(tmp_path: Path) -> None:
    entries = [run("fc3", 0.3, s, (50, 300)) for s in range(2)] + [run("fc1", 0.3, 0, ())]
    table = training_tables.live_units(grouped(tmp_path / "a.json", entries))
    assert table is not None
    assert [list(row) for row in table.rows] == [
        ["fc3", "1", "2", "2,000", "50 [50, 51]", "50 [49, 50]", "48 [48, 49]"],
        ["", "2", "2", "600", "300 [300, 301]", "300 [299, 300]", "298 [298, 299]"],
    ]


def test_trainings_that_stopped_or_did_not_count_at_first_are_left_out_of_the_epochs_they_lack(tmp_path: Path) -> None:
    """One of three epochs, one that was resumed from a release that did not count, one that stopped after one."""
    entries = [run("baseline", 0.3, s, (50,)) for s in range(3)]
    for epoch in entries[1]["epochs"][:2]:
        epoch["live_units"] = None
    entries[2] |= {"epochs": entries[2]["epochs"][:1], "complete": False, "final_accuracy": None}
    group = grouped(tmp_path / "a.json", entries)
    table = training_tables.live_units(group)
    assert table is not None
    assert [list(row) for row in table.rows] == [["baseline", "1", "2", "1,000", "50", "49", "48 [48, 49]"]]
    only = grouped(tmp_path / "b.json", [entries[2], {**entries[0], "complete": False}])
    table = training_tables.live_units(only)
    assert table is not None
    assert [list(row) for row in table.rows] == [["baseline", "1", "2", "1,000", "51 [50, 52]", "49", "48"]]


def test_each_rate_has_a_column_of_its_own(tmp_path: Path) -> None:
    entries = [run("baseline", 0.3, 0, schedule="cosine", lr=lr) for lr in (4e-4, 1e-3)]
    table = training_tables.learning_rates(grouped(tmp_path / "a.json", entries))
    assert table is not None
    assert list(table.columns) == ["Epoch", "cosine schedule, lr 0.0004", "cosine schedule, lr 0.001"]
    assert [cell.split()[0] for cell in table.rows[0]] == ["1", "0.0004", "0.001"]


def test_a_learning_rate_that_varies_has_a_column_for_each_schedule(tmp_path: Path) -> None:
    entries = [run("baseline", 0.3, 0)]
    entries += [run(n, 0.3, 0, schedule="cosine", warmup_steps=50) for n in ("baseline", "fc1")]
    table = training_tables.learning_rates(grouped(tmp_path / "a.json", entries))
    assert table is not None
    assert list(table.columns) == ["Epoch", "cosine schedule"]
    at = Recipe(schedule="cosine", warmup_steps=50).learning_rates(300).at
    assert [list(row) for row in table.rows] == [
        [str(i + 1), f"{at(100 * i):.3g} to {at(100 * i + 99):.3g}"] for i in range(3)
    ]


def test_series_that_differ_in_their_schedule_are_told_apart_by_it(tmp_path: Path) -> None:
    entries = [run("baseline", 0.3 + s / 50, s, schedule=how) for how in ("constant", "cosine") for s in range(3)]
    table = training_tables.accuracy_effects(grouped(tmp_path / "a.json", entries))
    assert table is not None
    assert [row[:2] for row in table.rows] == [["baseline (cosine schedule)", "baseline (constant schedule)"]]
