"""The paper's tables and the summary: measured values as they are, published ones in their own columns only."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from resnet_bench import cli, paper
from resnet_bench.recipe import Recipe
from resnet_bench.render.paper_tables import tables
from resnet_bench.render.table import FORMATS, Table, significant
from resnet_bench.results.reading import read
from tests.handmade import accuracy, dataset, epoch_time, in_processes, machine, parameters, plans, save, together

NETWORKS = ("baseline", "fc1", "fc3", "blocks2", "conv5x5")


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Tables made from one saved file of the given results."""

    def make(*entries: dict[str, Any], **kwargs: Any) -> list[Table]:
        made = tables(together([read(save(tmp_path / "results.json", entries, **kwargs))]))
        return [t for t in made if t.title == "Summary" or t.title.startswith("Table")]  # others have their own tests

    return make


def row(table: Table, network: str, number: int = 0) -> dict[str, str]:
    """The cells of a network by column head."""
    rows = [dict(zip(table.columns, cells, strict=True)) for cells in table.rows]
    return [cells for cells in rows if cells["Network"] == network][number]


def test_tables_1_and_2_are_the_papers(made: Any) -> None:
    """Same rows, names, columns and format as printed in the paper, with counts from the results."""
    first, second, _ = made(*(parameters(a) for a in NETWORKS))
    assert (first.title, second.title) == ("Table 1", "Table 2")
    assert tuple(first.columns) == tuple(second.columns) == ("Network", "# of Trainable Hyperparameters")
    assert first.rows == [
        ["Original(Baseline Residual Network)", "8.9M"],
        ["#1 Variation(ResNet with 1 FC)", "1.5M"],
        ["#2 Variation(ResNet with 3 FC)", "18.3M"],
    ]
    assert second.rows == [
        ["Original(Baseline Residual Network)", "8.9M"],
        ["#4 Variation(ResNet_with_5x5ConvolutionLayer_in_BasickBlock)", "1.7M"],
    ]


def test_counts_are_the_measured_ones(made: Any) -> None:
    """A count that differs from the published one is shown as it was measured."""
    first, *_ = made(parameters("baseline", parameters=7_654_321))
    assert first.rows[0][1] == "7.7M"


def test_nothing_published_fills_a_gap(made: Any) -> None:
    """With results of the baseline alone, all measured cells of the others say that there is nothing."""
    first, second, summary = made(accuracy("baseline", [0.2, 0.3]), epoch_time("baseline"))
    assert [cells[1] for cells in first.rows] == ["8.9M", "not measured", "not measured"]
    assert [cells[1] for cells in second.rows] == ["8.9M", "not measured"]
    for network in NETWORKS[1:]:
        cells = row(summary, network)
        measured = [v for k, v in cells.items() if "published" not in k and k not in ("Network", "Marks")]
        assert measured == ["–"] * 5
        assert cells["Marks"] == "not measured"
        assert cells["Peak accuracy (%), published"] == f"{paper.PUBLISHED[network].peak_accuracy:.0%}"[:-1]


def test_golden_summary(made: Any) -> None:
    """Every cell of a row, computed by hand."""
    # Three processes say 3576, 3600 and 3624 s: 3600 times or divided by exp(4.303 × 24/√3 / 3600) = 1.0167.
    time = in_processes("baseline", (3576, 3600, 3624), noise=0)
    _, _, summary = made(time, accuracy("baseline", [0.1] * 13 + [0.36, 0.34]))
    assert row(summary, "baseline") == {
        "Network": "baseline",
        "Parameters": "8,942,524",
        "Parameters, published": "8.9M",
        "Epoch time (min)": "60.0 [59.0, 61.0]",
        "Epoch time (min), published": "57",
        "Step (ms)": "288",  # 3599.9 s, the start left out, over 12,500 steps
        "Step (ms), from published": "274",  # 57 min over 12,500 steps
        "Peak accuracy (%)": "36.0 [35.1, 36.9]",  # Wilson, 3,600 of 10,000
        "Peak accuracy (%), published": "36",
        "Final accuracy (%)": "34.0 [33.1, 34.9]",
        "Final accuracy (%), published": "34",
        "Marks": "sampled",
    }


def test_short_epochs_are_in_seconds(made: Any) -> None:
    _, _, summary = made(in_processes("fc1", 4.2, noise=0), in_processes("baseline", 100))
    assert row(summary, "fc1")["Epoch time (s)"] == "4.20 [4.20, 4.20]"


def test_fewer_than_three_processes_have_no_interval_and_a_line_says_so(made: Any) -> None:
    _, _, summary = made(in_processes("fc1", 60, processes=2, noise=0), epoch_time("fc3", 120, noise=0))
    assert [row(summary, a)["Epoch time (min)"] for a in ("fc1", "fc3")] == ["1.00", "2.00"]
    assert all("no interval" in row(summary, a)["Marks"] for a in ("fc1", "fc3"))
    assert [n for n in summary.notes if "no interval" in n] == ["2 processes: no interval.", "1 process: no interval."]


def test_a_time_that_is_aged_or_trends_or_scatters_is_marked(made: Any) -> None:
    aged = [{**p, "state": "aged"} for p in in_processes("fc1")["points"]]
    _, _, summary = made(
        in_processes("fc1", points=aged, late=1.5), in_processes("fc3", noise=0.2), epoch_time("conv5x5")
    )
    assert row(summary, "fc1")["Marks"] == "sampled, aged, trend"
    assert row(summary, "fc3")["Marks"] in ("sampled, spread", "sampled, wide spread")
    assert any(note.startswith("aged, trend, spread: explained") for note in summary.notes)


def test_seeds_give_a_mean_with_its_interval(made: Any) -> None:
    """Student-t over 0.30, 0.32, 0.34: mean 0.32, half width 4.303 × 0.02/√3 = 0.0497; a seed counts once."""
    runs = [accuracy("fc1", [0.1] * 14 + [a], seed=i) for i, a in enumerate([0.30, 0.32, 0.34])]
    _, _, summary = made(*runs, runs[0])
    assert row(summary, "fc1")["Final accuracy (%)"] == "32.0 [27.0, 37.0]"
    assert "3 seeds" in summary.caption


def test_equal_seeds_have_an_interval_of_no_width(made: Any) -> None:
    _, _, summary = made(*(accuracy("fc1", [0.3] * 15, seed=i) for i in range(2)))
    assert row(summary, "fc1")["Final accuracy (%)"] == "30.0 [30.0, 30.0]"


def test_time_of_accuracy_runs_is_used_where_nothing_else_is_and_marked(made: Any) -> None:
    _, _, summary = made(accuracy("fc1", [0.3] * 15))
    cells = row(summary, "fc1")
    assert (cells["Epoch time (min)"], cells["Step (ms)"]) == ("1.00", "4.80")
    assert cells["Marks"] == "time from training, no interval"


def test_several_sessions_give_the_mean_over_them(tmp_path: Path) -> None:
    times = [in_processes("fc1", s, noise=0, process=f"{i}" * 16) for i, s in enumerate([100, 110, 120])]
    files = [read(save(tmp_path / f"{i}.json", [time])) for i, time in enumerate(times)]
    *_, summary = (t for t in tables(together(files)) if t.title == "Summary")
    # 110 s, times or divided by exp(4.303 × 10/√3 / 110) = 1.253
    assert row(summary, "fc1")["Epoch time (min)"] == "1.83 [1.46, 2.30]"


SHORT = {**Recipe().as_dict(), "epochs": 3}


@pytest.mark.parametrize(
    ("entry", "mark"),
    [
        (accuracy("fc1", [0.1, 0.2]), "stopped early: epoch 2 of 15"),
        (accuracy("fc1", [0.1, 0.2, 0.3], recipe=SHORT), "3 epochs"),
        (accuracy("fc1", [0.1] * 15, dataset=dataset(name="synthetic", synthetic=True)), "synthetic"),
        (accuracy("fc1", [0.1] * 15, dataset=dataset(subset=True, train_images=2000)), "subset"),
        (epoch_time("fc1", dataset=dataset(name="cifar10", classes=10)), "10 classes"),
        (epoch_time("fc1"), "sampled"),
        (epoch_time("fc1", mode="full", stopped_by="rounds"), "full"),
        (epoch_time("fc1"), "no interval"),
        (epoch_time("fc1", complete=False, stopped_by=None), "time cut off"),
        (epoch_time("fc1", warnings=["The machine was busy."]), "doubtful time"),
    ],
)
def test_whatever_differs_from_the_papers_run_is_marked_in_the_row(made: Any, entry: Any, mark: str) -> None:
    _, _, summary = made(entry)
    assert mark in row(summary, "fc1")["Marks"].split(", ")


def test_an_ordinary_full_run_has_no_marks(made: Any) -> None:
    time = in_processes("fc1")
    whole = [{**b, "steps": 12_500, "seconds": 60.0, "point": 0} for b in time["blocks"] if not b["point"]]
    _, _, summary = made({**time, "mode": "full", "points": [], "blocks": whole}, accuracy("fc1", [0.3] * 15))
    assert row(summary, "fc1")["Marks"] == "full"


def test_warnings_are_told_once_with_all_networks_they_concern(made: Any) -> None:
    _, _, summary = made(*(epoch_time(a, warnings=["The machine was busy."]) for a in ("fc1", "fc3")))
    assert [n for n in summary.notes if "busy" in n] == ["doubtful time (fc1, fc3): The machine was busy."]


def test_counts_with_other_classes_are_marked_in_the_papers_tables(made: Any) -> None:
    """With 10 classes the baseline has 8,852,434 parameters, which is not the paper's network."""
    first, _, summary = made(epoch_time("baseline", dataset=dataset(name="cifar10", classes=10)))
    assert first.rows[0][1] == "8.9M (10 classes)"
    assert row(summary, "baseline")["Parameters"] == "8,852,434"


def test_a_count_for_100_classes_goes_before_others(made: Any) -> None:
    first, *_ = made(parameters("fc1"), epoch_time("fc1", dataset=dataset(classes=10)))
    assert first.rows[1][1] == "1.5M"


def test_smaller_epochs_point_to_the_time_of_a_step(made: Any) -> None:
    _, _, summary = made(epoch_time("fc1", dataset=dataset(subset=True, train_images=2000)))
    assert any("An epoch here has 2,000 images" in note for note in summary.notes)


def test_engines_are_not_mixed(made: Any) -> None:
    """Each engine has its own row, told apart by what differs."""
    _, _, summary = made(
        epoch_time("fc1", 80, noise=0),
        epoch_time("fc1", 70, noise=0, engine="fast", pipeline="vectorized"),
    )
    assert [row(summary, "fc1", i)["Setting"] for i in (0, 1)] == ["reference engine", "fast engine"]
    assert [row(summary, "fc1", i)["Epoch time (min)"][:4] for i in (0, 1)] == ["1.33", "1.17"]


@pytest.mark.parametrize("other", [{"threads": 1}, {"workers": 0}, {"recipe": {**Recipe().as_dict(), "batch_size": 8}}])
def test_settings_are_not_mixed(made: Any, other: dict[str, Any]) -> None:
    _, _, summary = made(epoch_time("fc1"), epoch_time("fc1", **other))
    assert row(summary, "fc1", 0)["Setting"] != row(summary, "fc1", 1)["Setting"]


def test_each_machine_and_each_data_set_has_its_own_summary(tmp_path: Path) -> None:
    files = [
        save(tmp_path / "a.json", [epoch_time("fc1")]),
        save(tmp_path / "b.json", [epoch_time("fc1", dataset=dataset(name="cifar10", classes=10))]),
        save(tmp_path / "c.json", [epoch_time("fc1")], machine(torch={"version": "2.9.0"})),
    ]
    made = [t for t in tables(together([read(f) for f in files])) if t.title == "Summary"]
    assert ["cifar10 " in t.caption for t in made] == [False, True, False]
    assert ["2.9.0" in t.caption for t in made] == [False, False, True]


def test_subsets_drawn_by_different_seeds_are_one_data_set(made: Any) -> None:
    """Their digests differ, as the seed draws the subset. Two digests of one seed are two data sets, and then nothing
    tells which of them the digest of another seed belongs to: each stands for itself."""
    subsets = [dataset(subset=True, train_images=2000) | {"sha256": f"{i}" * 64} for i in range(3)]
    runs = [accuracy("fc1", [0.3] * 15, seed=i, dataset=subsets[i]) for i in range(2)]
    assert len(made(*runs)) == 3
    assert len(made(*runs, accuracy("fc1", [0.3] * 15, seed=0, dataset=subsets[2]))) == 5


def test_controls_come_after_the_five(made: Any) -> None:
    _, _, summary = made(epoch_time("conv5x5-same"), epoch_time("fc1"))
    assert [cells[0] for cells in summary.rows] == [*NETWORKS, "conv5x5-same"]


def test_a_group_has_no_row_for_what_only_another_one_measured(tmp_path: Path) -> None:
    """But one for each network of the paper, and for what was only counted."""
    files = [
        save(tmp_path / "a.json", [epoch_time("fc1"), parameters("conv5x5-se")]),
        save(tmp_path / "b.json", [epoch_time("blocks2-same", dataset=dataset(name="cifar10", classes=10))]),
    ]
    first, second = (t for t in tables(together([read(f) for f in files])) if t.title == "Summary")
    assert [cells[0] for cells in first.rows] == [*NETWORKS, "conv5x5-se"]
    assert [cells[0] for cells in second.rows] == [*NETWORKS, "blocks2-same"]  # of other classes


def test_a_file_without_runs_has_a_summary_of_counts(made: Any) -> None:
    *_, summary = made(parameters("fc1"), parameters("blocks2"))
    assert summary.rows == [["fc1", "1,468,724", "1.5M", "100"], ["blocks2", "16,608,956", "–", "100"]]


@pytest.mark.parametrize("described", [{}, {"cpu": None, "torch": 3}, {"cpu": {"model": None}, "container": []}])
def test_a_machine_that_says_little_is_no_obstacle(made: Any, described: dict[str, Any]) -> None:
    _, _, summary = made(epoch_time("fc1"), machine=described)
    assert "unknown CPU, unknown cores, unknown torch" in summary.caption


def test_caption_names_data_machine_and_settings(made: Any) -> None:
    _, _, summary = made(epoch_time("fc1"), accuracy("fc1", [0.3] * 15))
    for part in ("cifar100", "50,000", "i5-1340P", "12 cores", "torch 2.15.0", "reference engine", "2 threads"):
        assert part in summary.caption
    assert "1 seed after 15 epochs" in summary.caption
    assert "240 steps" in summary.caption


@pytest.mark.parametrize(
    ("value", "text"), [(57.26, "57.3"), (1234.5, "1234"), (0.01234, "0.0123"), (0, "0.00"), (4.2, "4.20")]
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize("format_", FORMATS)
def test_command_prints_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str], format_: str) -> None:
    """Exit status 0, all three tables, nothing but text, nothing on stderr."""
    path = save(tmp_path / "results.json", [parameters("baseline"), epoch_time("baseline")])
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(path), "--format", format_])
    out, err = capsys.readouterr()
    assert not exit_.value.code
    assert not err
    assert "\x1b" not in out
    assert out.count("Original(Baseline Residual Network)") == 2
    assert "8,942,524" in out


def test_csv_has_a_blank_line_between_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "results.json", [epoch_time("baseline")])
    with pytest.raises(SystemExit):
        cli.main(["report", str(path), "--format", "csv"])
    parts = capsys.readouterr().out.split("\n\n")
    first, *_ = zip(*(list(csv.reader(part.splitlines())) for part in parts), strict=False)
    titles = ["Table 1", "Table 2", "Summary", "Epoch time over the training", "Speed of a step, data included"]
    assert [title for title, _ in first] == titles
    assert all("folder:" in caption or "cifar" in caption for _, caption in first[2:])  # which data, on which machine
    bodies = [list(csv.reader(part.splitlines()))[1:] for part in parts]
    assert all(head[0] == "Network" for head, *_ in bodies)
    assert all(len({len(row) for row in body}) == 1 for body in bodies)


def test_command_refuses_bad_input_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(tmp_path / "missing.json")])
    out, err = capsys.readouterr()
    assert (exit_.value.code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("recipe", [{}, {"epochs": "many", "batch_size": 4}, {"epochs": 15}])
def test_an_unusable_recipe_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recipe: dict[str, Any]
) -> None:
    path = save(tmp_path / "results.json", [{**accuracy("fc1", [0.3] * 15), "recipe": recipe}])
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", str(path)])
    assert (exit_.value.code, capsys.readouterr().err.count("\n")) == (2, 1)


def test_only_rows_without_a_time_of_their_own_are_marked_as_trained_side_by_side(tmp_path: Path) -> None:
    timed = in_processes("baseline", 60, noise=0, engine="fast", pipeline="vectorized")
    made = tables(together([read(save(tmp_path / "a.json", [*plans({}, jobs=2), timed]))]))
    (summary,) = [t for t in made if t.title == "Summary"]
    marks = {tuple(row[:2]): row[-1] for row in summary.rows}
    assert "side by side" not in marks["baseline", "constant schedule"]
    assert "trained side by side: times not comparable" in marks["baseline", "cosine schedule"]
