"""Speed of a step, on hand-made results."""

import pytest

from resnet_bench.analysis.series import groups
from resnet_bench.render import speed_tables
from resnet_bench.results import reading
from tests.handmade import accuracy, epoch_time, save, together

FIVE = ("baseline", "fc1", "fc3", "blocks2", "conv5x5")


def table(path, entries):
    (group,) = groups(together([reading.read(save(path, entries))]))
    return speed_tables.steps(group)


def both(architecture, plain, fast, **options):
    """Epoch times of 12,500 steps, without noise, for the plain script and for `fast`."""
    return [
        epoch_time(architecture, plain, noise=0, **options),
        epoch_time(architecture, fast, noise=0, engine="fast", pipeline="vectorized", workers=0, **options),
    ]


def test_ratio_to_plain_and_share_of_the_bound(tmp_path):
    """500 s and 125 s for 12,500 steps: 40 and 10 ms, 4 times faster, 0.8 of a bound of 8 ms."""
    plain, fast = table(tmp_path / "a.json", both("baseline", 500, 125, step_bound_seconds=0.008)).rows
    assert plain[:3] == ["baseline", "reference", "loader"]
    assert plain[4:] == ["100.0", "8.00", "0.20", "–"]
    assert fast[:3] == ["baseline", "fast", "vectorized"]
    assert fast[4:] == ["100.0", "8.00", "0.80", "4.00 [4.00, 4.00]"]


def test_share_of_the_parameters_that_were_updated(tmp_path):
    """A quarter of all; over the five, by count: a quarter of four of them, and of `conv5x5` all."""
    entries = [e for name in FIVE for e in both(name, 500, 125)]
    for e in entries:
        if e["engine"] == "fast" and e["architecture"] != "conv5x5":
            e["updated_parameters"] = e["parameters"] / 4
    rows = {(row[0], row[1]): row[4] for row in table(tmp_path / "a.json", entries).rows}
    assert rows["fc3", "reference"] == rows["conv5x5", "fast"] == "100.0"
    assert rows["fc3", "fast"] == "25.0"
    every = {e["architecture"]: e["parameters"] for e in entries}
    share = 0.25 + 0.75 * every["conv5x5"] / sum(every.values())
    assert rows["all five, summed", "fast"] == f"{100 * share:.1f}"


def test_files_from_before_updates_were_counted_are_read(tmp_path):
    entries = both("fc1", 500, 125, step_bound_seconds=0.008)
    for e in entries:
        del e["updated_parameters"], e["read_parameters"]
    assert [row[4:7] for row in table(tmp_path / "a.json", entries).rows] == [
        ["–", "8.00", "0.20"],
        ["–", "8.00", "0.80"],
    ]


def test_ratios_are_taken_round_by_round(tmp_path):
    """Where the machine gets twice as slow half-way, times double and the ratio stays."""
    drift = [1, 1, 1, 2, 2, 2]
    plain, fast = table(tmp_path / "a.json", both("fc1", 500, 125, blocks=6, drift=drift)).rows
    assert fast[-1] == "4.00 [4.00, 4.00]"
    low, high = plain[3].split("[")[1].rstrip("]").split(", ")
    assert float(high) == 2 * float(low)


def test_sum_over_the_five(tmp_path):
    """Sums of times, not means of ratios: (4·500 + 1000) / (4·125 + 250) = 4."""
    entries = [e for name in FIVE[:4] for e in both(name, 500, 125)] + both("conv5x5", 1000, 250)
    rows = [row for row in table(tmp_path / "a.json", entries).rows if row[0].startswith("all five")]
    assert [row[1] for row in rows] == ["reference", "fast"]
    assert rows[1][-1] == "4.00 [4.00, 4.00]"


def test_no_sum_where_a_network_is_missing(tmp_path):
    entries = [e for name in FIVE[:4] for e in both(name, 500, 125)]
    assert all(not row[0].startswith("all five") for row in table(tmp_path / "a.json", entries).rows)


def test_nothing_to_compare_with(tmp_path):
    """Without a plain run, or a bound, there is a dash, never a number."""
    (row,) = table(tmp_path / "a.json", both("fc1", 500, 125, step_bound_seconds=None)[1:]).rows
    assert row[4:] == ["100.0", "–", "–", "–"]


def test_other_threads_are_not_the_plain_run(tmp_path):
    """The plain script with one thread is nothing to compare two threads with."""
    plain, fast = both("fc1", 500, 125)
    rows = table(tmp_path / "a.json", [{**plain, "threads": 1}, fast]).rows
    assert [row[-1] for row in rows] == ["–", "–"]


def test_accuracy_runs_alone_have_no_table(tmp_path):
    assert table(tmp_path / "a.json", [accuracy("fc1", [0.1] * 15)]) is None


def test_sampled_against_whole_epochs(tmp_path):
    """One network measured both ways: the ratio of the means; the summary takes the blocks, as a comparison does."""
    sampled = epoch_time("fc1", 110, noise=0)
    full = epoch_time("fc1", 100, noise=0, mode="full", startup_seconds=0)
    blocks = [{**b, "steps": 12_500, "seconds": 100.0} for b in full["blocks"]]
    (group,) = groups(together([reading.read(save(tmp_path / "a.json", [sampled, {**full, "blocks": blocks}]))]))
    (row,) = speed_tables.modes(group).rows
    assert row[:3] == ["fc1", "reference", "100 [100, 100]"]
    assert row[-1] == "1.100"
    assert group.series[0].epoch_time().seconds == pytest.approx(110)
    assert group.series[0].epoch_time().source == "sampled"


def test_one_way_alone_has_no_such_table(tmp_path):
    (group,) = groups(together([reading.read(save(tmp_path / "a.json", [epoch_time("fc1", 110)]))]))
    assert speed_tables.modes(group) is None
