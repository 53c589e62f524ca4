"""Effects, live units and learning rates as tables, on hand-made results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnet_bench.analysis.series import Group, groups
from resnet_bench.recipe import Recipe
from resnet_bench.render import training_tables
from resnet_bench.results import reading
from tests.handmade import accuracy, save, together


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


def test_effects_have_points_interval_verdict_and_the_seeds_that_would_tell(tmp_path: Path) -> None:
    entries = [run("baseline", 0.30, s) for s in range(3)]
    entries += [run("fc1", 0.40 + s / 100, s) for s in range(3)]
    table = training_tables.accuracy_effects(grouped(tmp_path / "a.json", entries))
    assert table is not None
    ((*cells, seeds),) = table.rows
    assert cells == ["fc1", "baseline", "3", "41.0 [40.0, 42.0]", "+11.00 [+8.52, +13.48]", "higher"]
    assert int(seeds) > 30


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
