"""Epoch times and the speed of a step, on hand-made results: values, intervals over processes, paired ratios, marks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_bench.analysis.series import Group, groups
from resnet_bench.analysis.speed import mode_checks, over_training
from resnet_bench.render import speed_tables
from resnet_bench.render.table import Table
from resnet_bench.results import reading
from tests.handmade import accuracy, calibration, epoch_time, in_processes, machine, save, together

Entry = dict[str, Any]
FIVE = ("baseline", "fc1", "fc3", "blocks2", "conv5x5")
SPREAD = (480.0, 490.0, 500.0, 510.0, 520.0)
"""Seconds of an epoch in five processes. Their mean is 500 and its interval 500 × exp(±2.776 × 7.071 / 500)."""

FAST = {"engine": "fast", "pipeline": "vectorized", "workers": 0}


@pytest.fixture
def grouped(tmp_path: Path) -> Callable[..., Group]:
    """The only group of the entries in each of several files."""

    def make(*files: list[Entry], described: Entry | None = None) -> Group:
        read = [reading.read(save(tmp_path / f"{i}.json", entries, described)) for i, entries in enumerate(files)]
        (group,) = groups(together(read))
        return group

    return make


@pytest.fixture
def steps(grouped: Callable[..., Group]) -> Callable[..., Table]:
    def make(*files: list[Entry], **options: Any) -> Table:
        table = speed_tables.steps(grouped(*files, **options))
        assert table
        return table

    return make


@pytest.fixture
def times(grouped: Callable[..., Group]) -> Callable[..., Table]:
    def make(*files: list[Entry]) -> Table:
        table = speed_tables.epoch_times(grouped(*files))
        assert table
        return table

    return make


def row(table: Table, network: str, number: int = 0) -> dict[str, str]:
    """The cells of a network by column head."""
    rows = [dict(zip(table.columns, cells, strict=True)) for cells in table.rows]
    return [cells for cells in rows if cells["Network"] == network][number]


def exact(architecture: str, seconds: float | tuple[float, ...] = SPREAD, **options: Any) -> Entry:
    """Blocks without noise; an epoch of 12,500 steps takes `seconds`, of which 0.1 are its start."""
    return in_processes(architecture, [s + 0.1 for s in seconds] if isinstance(seconds, tuple) else seconds + 0.1,
                        noise=0, **options)  # fmt: skip


def both(architecture: str, plain: tuple[float, ...] = SPREAD, ratio: float = 4, **options: Any) -> list[Entry]:
    """The plain script, and `fast`, which takes `ratio` times less in each process."""
    fast = tuple(s / ratio for s in plain)
    return [exact(architecture, plain, **options), exact(architecture, fast, **FAST, **options)]


# ---------------------------------------------------------------------------------------------------------------------
# The speed of a step


def test_times_have_their_interval_over_processes_and_ratios_are_paired(steps: Any) -> None:
    """Processes differ by 8 %, and the ratio is 4 in each of them: its interval has no width."""
    table = steps(both("baseline"))
    plain, fast = row(table, "baseline"), row(table, "baseline", 1)
    assert plain["Setting"] == "reference engine"
    assert plain["Step (ms)"] == "40.0 [38.5, 41.6]"
    assert plain["Times as fast as plain"] == "–"
    assert fast["Setting"] == "fast engine"
    assert fast["Step (ms)"] == "10.0 [9.6, 10.4]"
    assert fast["Times as fast as plain"] == "4.00 [4.00, 4.00]"
    assert not any("no interval" in note for note in table.notes)


def test_ratios_that_differ_between_processes_have_students_interval_on_logarithms(steps: Any) -> None:
    """2, 4 and 8: logarithms log 4 ± 4.303 × log 2 / √3, so 4 [0.715, 22.4]."""
    table = steps([exact("fc1", (400.0, 400.0, 400.0)), exact("fc1", (200.0, 100.0, 50.0), **FAST)])
    assert row(table, "fc1", 1)["Times as fast as plain"] == "4.00 [0.71, 22.38]"


def test_networks_are_compared_with_the_baseline_under_the_same_setting(steps: Any) -> None:
    quarter = tuple(s / 4 for s in SPREAD)
    table = steps([*both("baseline"), exact("fc1", quarter), exact("fc1", SPREAD, **FAST)])
    heads = "Step / baseline's"
    assert [row(table, a, i)[heads] for a in ("baseline", "fc1") for i in (0, 1)] == [
        "–",
        "–",
        "0.250 [0.250, 0.250]",
        "4.00 [4.00, 4.00]",
    ]


@pytest.mark.parametrize(("processes", "count"), [((500.0,), "1 process"), ((500.0, 510.0), "2 processes")])
def test_fewer_than_three_processes_have_values_and_no_interval(
    steps: Any, times: Any, processes: tuple[float, ...], count: str
) -> None:
    table = steps(both("fc1", processes))
    assert row(table, "fc1")["Step (ms)"] == ("40.0" if len(processes) == 1 else "40.4")
    assert row(table, "fc1", 1)["Times as fast as plain"] == "4.00"
    assert [note for note in table.notes if "no interval" in note] == [f"{count}: no interval."]
    table = times(both("fc1", processes))
    assert "[" not in "".join(cell for cells in table.rows for cell in cells)
    assert [note for note in table.notes if "no interval" in note] == [f"{count}: no interval."]
    assert [note for note in table.notes if "tell a trend" in note]


@pytest.mark.parametrize(("sessions", "ratio"), [(2, "4.00"), (3, "4.00 [4.00, 4.00]")])
def test_where_there_are_several_sessions_each_counts_once(steps: Any, sessions: int, ratio: str) -> None:
    """However many processes each of them had."""
    table = steps(*(both("fc1", SPREAD, process=f"{i}" * 16) for i in range(sessions)))
    assert row(table, "fc1", 1)["Times as fast as plain"] == ratio
    assert ("2 sessions: no interval." in table.notes) == (sessions == 2)
    assert ("Brackets: 95 % intervals over sessions." in table.caption) == (sessions == 3)


def test_processes_that_measured_one_of_two_do_not_count_for_their_ratio(steps: Any) -> None:
    """`fast` was cut off after three processes; a slow fourth of the plain script has no partner."""
    table = steps([exact("fc1", (400.0, 400.0, 400.0, 900.0)), exact("fc1", (100.0, 100.0, 100.0), **FAST)])
    assert row(table, "fc1", 1)["Times as fast as plain"] == "4.00 [4.00, 4.00]"


def test_a_process_that_was_cut_off_before_the_last_point_counts_nowhere(times: Any, grouped: Any) -> None:
    """Its mean would be of another part of the training."""
    entry = exact("fc1", (400.0, 400.0, 400.0, 900.0))
    entry["blocks"] = [b for b in entry["blocks"] if (b["process"], b["point"]) != (3, 1)]
    table = times([entry])
    assert "in 3 processes, one after the other; 24 blocks" in table.notes[0]
    assert row(table, "fc1")["Early (min)"] == row(table, "fc1")["Mean (min)"] == "6.67 [6.67, 6.67]"
    assert [len(p.seconds.values) for p in over_training(grouped([entry]).series[0])] == [3, 3]


def test_files_of_one_process_are_read_as_one(steps: Any, times: Any) -> None:
    """Version 1: the value and a line, without the ratio's scatter over rounds; no early or late time."""
    entries = [epoch_time("fc1", 500.1, noise=0), epoch_time("fc1", 125.1, noise=0, **FAST)]
    table = steps(entries)
    assert row(table, "fc1", 1)["Times as fast as plain"] == "4.00"
    assert "1 process: no interval." in table.notes
    assert table.caption.endswith(" Mean over all timed steps.")
    table = times(entries)
    assert [row(table, "fc1")[f"{head} (min)"] for head in ("Early", "Late", "Mean")] == ["–", "–", "8.34"]
    assert table.notes[:2] == [
        "Each network was measured in 1 process; 10 blocks of steps among the first 280 of the training.",
        "1 process: no interval.",
    ]


def test_share_of_the_parameters_that_were_updated(steps: Any) -> None:
    """A quarter of all; over the five, by count: a quarter of four of them, and of `conv5x5` all."""
    entries = [e for name in FIVE for e in both(name)]
    for e in entries:
        if e["engine"] == "fast" and e["architecture"] != "conv5x5":
            e["updated_parameters"] = e["parameters"] / 4
    table = steps(entries)
    assert row(table, "fc3")["Updated (%)"] == row(table, "conv5x5", 1)["Updated (%)"] == "100.0"
    assert row(table, "fc3", 1)["Updated (%)"] == "25.0"
    every = {e["architecture"]: e["parameters"] for e in entries}
    share = 0.25 + 0.75 * every["conv5x5"] / sum(every.values())
    assert row(table, "all five, summed", 1)["Updated (%)"] == f"{100 * share:.1f}"


def test_files_from_before_updates_were_counted_are_read(steps: Any) -> None:
    entry = epoch_time("fc1", 500)
    del entry["updated_parameters"], entry["read_parameters"]
    assert row(steps([entry]), "fc1")["Updated (%)"] == "–"


def test_sum_over_the_five(steps: Any) -> None:
    """Sums of times, not means of ratios: (4·500 + 1000) / (4·125 + 1000) = 2."""
    entries = [e for name in FIVE[:4] for e in both(name)] + both("conv5x5", tuple(2 * s for s in SPREAD), 1)
    table = steps(entries)
    assert row(table, "all five, summed")["Step (ms)"] == "240 [231, 250]"
    assert row(table, "all five, summed", 1)["Times as fast as plain"] == "2.00 [2.00, 2.00]"


def test_each_setting_has_a_sum_of_its_own(steps: Any) -> None:
    """One thread and two, of one engine."""
    entries = [exact(name, SPREAD, threads=n) for name in FIVE for n in (1, 2)]
    table = steps(entries)
    assert [row(table, "all five, summed", i)["Setting"] for i in (0, 1)] == ["1 thread", "2 threads"]


def test_no_sum_where_a_network_is_missing(steps: Any) -> None:
    entries = [e for name in FIVE[:4] for e in both(name)]
    assert all(not cells[0].startswith("all five") for cells in steps(entries).rows)


def test_nothing_to_compare_with(steps: Any) -> None:
    """Without a plain run, or a calibration, there is a dash, never a number."""
    cells = row(steps([exact("fc1", SPREAD, **FAST)]), "fc1")
    assert list(cells.values())[2:] == ["100.0", "–", "–", "–", "–"]


def test_other_threads_are_not_the_plain_run(steps: Any) -> None:
    """The plain script with one thread is nothing to compare two threads with."""
    plain, fast = both("fc1")
    table = steps([{**plain, "threads": 1}, fast])
    assert [row(table, "fc1", i)["Times as fast as plain"] for i in (0, 1)] == ["–", "–"]


def test_accuracy_runs_alone_have_no_table(grouped: Any) -> None:
    group = grouped([accuracy("fc1", [0.1] * 15)])
    assert speed_tables.steps(group) is None
    assert speed_tables.epoch_times(group) is None
    assert speed_tables.modes(group) is None


# ---------------------------------------------------------------------------------------------------------------------
# The model of the least time

MODEL, SHARE = "Model of the least time (ms)", "Model / step"


def test_model_of_the_least_time_and_its_share_of_the_step(steps: Any) -> None:
    table = steps(both("baseline", step_bound_seconds=0.008))
    assert [row(table, "baseline", i)[MODEL] for i in (0, 1)] == ["8.00", "8.00"]
    assert [row(table, "baseline", i)[SHARE].split(" ")[0] for i in (0, 1)] == ["0.200", "0.801"]


def test_the_share_is_paired_where_each_process_measured_its_own_rates(steps: Any) -> None:
    """A machine that becomes slower slows steps and model alike: the share stays, and drift is no reason against it.

    Steps of 40, 50 and 60 ms; the model says 20, 25 and 30 ms.
    """
    entry = exact("fc1", (500.0, 625.0, 750.0), step_bound_seconds=0.025)
    for process, model in zip(entry["processes"], (0.020, 0.025, 0.030), strict=True):
        process["step_bound_seconds"] = model
    described = machine(calibration={"start": calibration(40e9), "end": calibration(20e9)})
    table = steps([entry], described=described)
    assert (row(table, "fc1")[MODEL], row(table, "fc1")[SHARE]) == ("25.0", "0.500 [0.500, 0.500]")
    assert not any("older files" in note for note in table.notes)


def test_a_model_that_a_step_beat_is_a_dash_with_the_reason(steps: Any) -> None:
    """The quickest of the processes takes 9.6 ms a step, and their mean 10 ms: 9.7 is no least time, 9.5 may be."""
    table = steps([exact("fc1", tuple(s / 4 for s in SPREAD), step_bound_seconds=0.0097)])
    assert (row(table, "fc1")[MODEL], row(table, "fc1")[SHARE]) == ("– (beaten)", "–")
    assert any(note.startswith("– (beaten): a step took less") for note in table.notes)
    table = steps([exact("fc1", tuple(s / 4 for s in SPREAD), step_bound_seconds=0.0095)])
    assert (row(table, "fc1")[MODEL], row(table, "fc1")[SHARE]) == ("9.50", "0.951 [0.914, 0.989]")
    assert not any("beaten" in note for note in table.notes)


@pytest.mark.parametrize(("memory", "cell"), [(40e9, "8.00"), (31e9, "8.00"), (29e9, "– (drift 28 %)")])
def test_a_model_of_rates_that_drifted_is_a_dash_with_the_reason(steps: Any, memory: float, cell: str) -> None:
    """From 40 GB/s at the start: 22 % less at the end is no reason, 28 % is."""
    described = machine(calibration={"start": calibration(40e9), "end": calibration(memory)})
    table = steps([exact("fc1", SPREAD, step_bound_seconds=0.008)], described=described)
    assert row(table, "fc1")[MODEL] == cell
    assert any("between the calibrations" in note for note in table.notes) == cell.startswith("–")


def test_the_sum_of_models_is_none_where_one_of_them_was_beaten(steps: Any) -> None:
    entries = [exact(name, SPREAD, step_bound_seconds=0.05 if name == "fc1" else 0.01) for name in FIVE]
    assert row(steps(entries), "all five, summed")[MODEL] == "– (beaten)"
    entries = [exact(name, SPREAD, step_bound_seconds=0.01) for name in FIVE]
    assert row(steps(entries), "all five, summed")[MODEL] == "50.0"


@pytest.mark.parametrize("make", [exact, epoch_time], ids=["version 3", "version 1"])
def test_the_rates_that_a_model_comes_from_are_named(steps: Any, make: Any) -> None:
    (note,) = (n for n in steps([make("fc1", 500, step_bound_seconds=0.008)]).notes if n.startswith("Model of"))
    assert "which each process measured between its own steps (in older files: at rates from the start" in note


# ---------------------------------------------------------------------------------------------------------------------
# Epoch times over the training


def test_time_early_late_and_on_average_with_intervals(times: Any) -> None:
    """A late step takes 1.5 times an early one: 0.8 and 1.2 times the mean of both."""
    table = times([exact("fc1", tuple(60 * s for s in SPREAD), late=1.5)])
    cells = row(table, "fc1")
    assert cells["Mean (min)"] == "500 [481, 520]"
    assert cells["Early (min)"] == "400 [385, 416]"
    assert cells["Late (min)"] == "600 [577, 624]"
    assert table.notes[0] == (
        "Each network was measured in 5 processes, one after the other; 40 blocks of steps at 2 points of the training "
        "(after 0 and 100,000 steps)."
    )


def test_networks_that_were_measured_differently_are_told_apart(times: Any) -> None:
    table = times([exact("fc1", SPREAD), exact("fc3", SPREAD[:3])])
    assert [note.rpartition(": ")[2] for note in table.notes[:2]] == ["fc1.", "fc3."]
    assert "3 processes, one after the other; 24 blocks" in table.notes[1]


def test_a_trend_is_marked_and_told(times: Any) -> None:
    """Step times rise by 50 %, with no scatter; those of fc3 change by 3 %, which is not worth telling."""
    table = times([exact("fc1", SPREAD, late=1.5), exact("fc3", SPREAD, late=1.03)])
    assert (row(table, "fc1")["Marks"], row(table, "fc3")["Marks"]) == ("trend", "")
    assert [note for note in table.notes if note.startswith("trend")] == [
        "trend (fc1): step times rise by 50 % [50, 50] from the first point to the one after 100,000 steps. Nothing is "
        "assumed to have settled: the mean is over all points."
    ]


def test_a_trend_of_the_parameters_read_and_updated_is_told_too(times: Any) -> None:
    entry = exact("fc1", SPREAD, **FAST)
    for block in entry["blocks"]:
        if block["point"] == 1:
            block["read_parameters"] /= 2
            block["updated_parameters"] /= 4
    table = times([entry])
    assert row(table, "fc1")["Marks"] == "trend"
    (note,) = (n for n in table.notes if n.startswith("trend"))
    assert "read parameters fall by 50 % [50, 50] from" in note
    assert "updated parameters fall by 75 % [75, 75] from" in note
    assert "step times" not in note


def test_aged_states_are_marked_and_told(times: Any, grouped: Any) -> None:
    aged = [{**p, "state": "aged" if p["step"] else "trained"} for p in exact("fc1")["points"]]
    entries = [exact("fc1", points=aged), exact("fc3", points=aged), exact("conv5x5")]
    table = times(entries)
    assert [row(table, a)["Marks"] for a in ("fc1", "fc3", "conv5x5")] == ["aged", "aged", ""]
    (note,) = (n for n in table.notes if n.startswith("aged"))
    assert note.startswith("aged (fc1, fc3): the states after 100,000 steps were not trained all the way")
    assert [[p.aged for p in over_training(s)] for s in grouped(entries).series] == [[False, True]] * 2 + [[False] * 2]


def scattered(architecture: str, quarter: float) -> Entry:
    """At each point half of the blocks lie below the median by the share `quarter` of it, and half above."""
    entry = exact(architecture, SPREAD[2:3] * 3)
    for block in entry["blocks"]:
        block["seconds"] *= (1 - quarter, 1 - quarter, 1 + quarter, 1 + quarter)[block["round"]]
    return entry


@pytest.mark.parametrize(
    ("quarter", "spread", "mark"), [(0.04, "8", ""), (0.06, "12", "spread"), (0.15, "30", "wide spread")]
)
def test_spread_is_noted_above_10_and_warned_about_above_25_percent(
    times: Any, quarter: float, spread: str, mark: str
) -> None:
    """The quartiles are twice as far apart as each is from the median."""
    table = times([scattered("fc1", quarter)])
    assert (row(table, "fc1")["Spread (%)"], row(table, "fc1")["Marks"]) == (spread, mark)
    told = [note for note in table.notes if note.startswith(("spread", "wide spread"))]
    assert told == ([f"{mark} (fc1 {spread} %): above {10 if mark == 'spread' else 25} % of the median. "
                     + speed_tables.SPREAD_MARKS[mark]] if mark else [])  # fmt: skip
    assert any("Warning" in note for note in told) == (mark == "wide spread")


# ---------------------------------------------------------------------------------------------------------------------
# Sampled against whole epochs


def whole(entry: Entry, ratio: float | tuple[float, ...]) -> Entry:
    """The same processes timed one whole epoch each, which took the sampled time over `ratio`."""
    ratios = ratio if isinstance(ratio, tuple) else (ratio,) * len(entry["processes"])
    sampled = [sum(b["seconds"] / b["steps"] for b in entry["blocks"] if b["process"] == i) / 8 * 12_500 + 0.1
               for i in range(len(ratios))]  # fmt: skip
    blocks = [
        {**entry["blocks"][0], "process": i, "point": 0, "round": 0, "steps": 12_500, "seconds": s / r}
        for i, (s, r) in enumerate(zip(sampled, ratios, strict=True))
    ]
    return {**entry, "mode": "full", "points": [], "blocks": blocks}


@pytest.mark.parametrize(
    ("ratio", "cell", "verdict"),
    [
        ((1.01, 1.02, 1.03, 1.02, 1.02), "1.02 [1.01, 1.03]", "yes"),
        ((1.10, 1.12, 1.11, 1.11, 1.11), "1.11 [1.10, 1.12]", "no"),
        ((0.85, 0.86, 0.85, 0.86, 0.85), "0.854 [0.847, 0.861]", "no"),
        ((1.00, 1.10, 0.98, 1.06, 1.04), "1.04 [0.98, 1.10]", "cannot tell"),
        ((1.01, 1.02), "1.01", "cannot tell: measured in 2 processes"),
        ((1.01,), "1.01", "cannot tell: measured in 1 process"),
    ],
)
def test_sampled_is_the_same_as_whole_epochs_where_the_interval_lies_within_the_margin(
    grouped: Any, ratio: tuple[float, ...], cell: str, verdict: str
) -> None:
    """Paired: the processes differ by 8 %, their ratios by less."""
    sampled = exact("fc1", SPREAD[: len(ratio)])
    table = speed_tables.modes(grouped([sampled, whole(sampled, ratio)]))
    assert table
    cells = row(table, "fc1")
    assert (cells["Sampled / whole"], cells["Within ±5 %"]) == (cell, verdict)


def test_other_processes_are_no_check_of_the_mode(grouped: Any) -> None:
    sampled = exact("fc1")
    other = {**whole(sampled, 1.0), "processes": exact("fc1", process="b" * 16)["processes"]}
    assert mode_checks(grouped([sampled, other])) == []


def test_one_way_alone_has_no_such_table(grouped: Any) -> None:
    assert speed_tables.modes(grouped([exact("fc1")])) is None


def test_files_of_one_process_are_no_verdict_on_the_mode(grouped: Any) -> None:
    """Version 1, whose epoch times are means over blocks: 110 s against 100 s."""
    sampled = epoch_time("fc1", 110, noise=0)
    full = epoch_time("fc1", 100, noise=0, mode="full", startup_seconds=0)
    blocks = [{**b, "steps": 12_500, "seconds": 100.0} for b in full["blocks"]]
    group = grouped([sampled, {**full, "blocks": blocks}])
    table = speed_tables.modes(group)
    assert table
    assert list(row(table, "fc1").values()) == ["fc1", "100", "110", "1.10", "cannot tell: measured in 1 process"]
    assert "1 process: no interval." in table.notes
    assert group.series[0].epoch_time().source == "sampled"
