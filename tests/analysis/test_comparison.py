"""Comparison of result files: known answers from hand-made JSON, and every kind of bad input."""

from __future__ import annotations

import copy
import html.parser
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_bench.analysis import comparison, gate
from resnet_bench.analysis.comparison import Comparison, Ratio
from resnet_bench.analysis.differences import differences
from resnet_bench.analysis.ratios import independent_ratio, paired_ratio
from resnet_bench.cli import main
from resnet_bench.errors import UserError
from resnet_bench.identity import same_machine
from resnet_bench.recipe import Recipe
from resnet_bench.render import comparison_tables, gate_table
from resnet_bench.render.comparison_tables import difference_texts
from resnet_bench.render.verdicts import accuracy_text, explanation_text, missing_text, ratio_text, remarks
from resnet_bench.results import reading
from resnet_bench.schema import SCHEMA_VERSION
from tests.handmade import (
    accuracy,
    calibration,
    dataset,
    digest,
    document,
    epoch_time,
    in_processes,
    machine,
    parameters,
    plans,
    save,
    together,
    told,
)

SECONDS = {"baseline": 60.0, "fc1": 15.0, "fc3": 120.0, "blocks2": 118.0, "conv5x5": 13.0}
XEON = {"model": "Xeon", "physical_cores": 4, "logical_cores": 8, "isa": ["avx2", "avx512f"]}
STEADY = {"start": calibration(), "end": calibration()}
Files = Callable[..., reading.ResultFile]


def compare(base: reading.ResultFile, other: reading.ResultFile, **options: Any) -> Comparison:
    return comparison.compare(together([base]), together([other]), **options)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Save results as a file and read it: `files(entries, machine=machine(calibration=STEADY))`."""
    number = iter(range(10**6))

    steady = machine(calibration=STEADY)

    def make(entries: list[dict[str, Any]], machine: dict[str, Any] = steady) -> reading.ResultFile:
        return reading.read(save(tmp_path / f"{next(number)}.json", entries, machine))

    return make


def five(scale: float = 1.0, seed: int = 0, noise: float = 0.03, **more: Any) -> list[dict[str, Any]]:
    """Epoch times of the five networks in ten processes, which scatter with `noise`."""
    options = {"processes": 10, "process_noise": noise, "noise": 0, "blocks": 1, **more}
    return [in_processes(n, s * scale, seed=seed, **options) for n, s in SECONDS.items()]


def run(*args: object) -> int:
    """The command line in this process; its exit status."""
    with pytest.raises(SystemExit) as exit_:
        main(["compare", *map(str, args)])
    return int(exit_.value.code or 0)


def verdicts(comparison: Comparison) -> list[str | None]:
    return [row.judged.verdict if row.judged else None for row in comparison.rows]


def in_words(ratio: Ratio | None) -> str:
    assert ratio
    return ratio_text(ratio)


# Times ---------------------------------------------------------------------------------------------------------------


def test_two_files_of_one_distribution_show_no_significant_difference(files: Files) -> None:
    """For all five networks at once, in at least 93 of 100 trials."""
    quiet = 0
    for trial in range(100):
        comparison = compare(files(five(seed=2 * trial)), files(five(seed=2 * trial + 1)))
        quiet += set(verdicts(comparison)) == {"no significant difference"}
    assert quiet >= 93


def test_one_network_of_one_distribution_shows_no_significant_difference(files: Files) -> None:
    quiet = 0
    for trial in range(100):
        base, other = (files([in_processes("fc1", process_noise=0.03, seed=2 * trial + i)]) for i in (0, 1))
        quiet += verdicts(compare(base, other)) == ["no significant difference"]
    assert quiet >= 93


def test_a_slowdown_of_10_percent_under_3_percent_noise_is_found(files: Files) -> None:
    """In every network at once, in at least 95 of 100 trials."""
    found = 0
    for trial in range(100):
        comparison = compare(files(five(seed=2 * trial)), files(five(1.1, seed=2 * trial + 1)))
        found += set(verdicts(comparison)) == {"slower"}
    assert found >= 95


def test_ratios_are_said_in_words_with_their_interval(files: Files) -> None:
    base = files(five())
    faster, slower = compare(base, files(five(1 / 1.83, seed=1))), compare(base, files(five(1.5, seed=1)))
    assert re.fullmatch(r"1\.[78]\d× faster \[1\.[678]\d, 1\.[89]\d\]", in_words(faster.rows[0].time))
    assert re.fullmatch(r"1\.[45]\d× slower \[1\.[45]\d, 1\.[56]\d\]", in_words(slower.rows[0].time))
    same = compare(base, files(five(seed=5)))
    assert re.fullmatch(
        r"no significant difference \(ratio \d\.\d\d \[0\.\d\d, 1\.\d\d\]\)", in_words(same.geometric_mean)
    ), same.geometric_mean


def test_geometric_mean_is_that_of_the_networks_ratios(files: Files) -> None:
    exact = [in_processes("baseline", 10, noise=0), in_processes("fc1", 10, noise=0)]
    other = [in_processes("baseline", 20, noise=0), in_processes("fc1", 80, noise=0)]
    mean = compare(files(exact), files(other)).geometric_mean
    assert mean
    assert mean.interval
    assert mean.interval.estimate == pytest.approx(4)


def test_networks_of_one_process_do_not_make_up_for_few_processes(files: Files) -> None:
    """A process that is slow is slow for all its networks, so their mean scatters as each of them does."""
    slow_and_quick = [10.0, 11.0, 12.0]
    names = list(SECONDS)
    base = files([in_processes(n, slow_and_quick, noise=0) for n in names])
    other = files([in_processes(n, [1.05 * s for s in slow_and_quick], noise=0) for n in names])
    found = compare(base, other)
    assert found.geometric_mean
    assert found.geometric_mean.interval
    assert found.geometric_mean.interval == independent_ratio(slow_and_quick, [1.05 * s for s in slow_and_quick])
    assert found.geometric_mean.verdict == "no significant difference"


def test_networks_that_no_process_measured_together_have_no_geometric_mean_with_an_interval(files: Files) -> None:
    def apart(scale: float) -> reading.ResultFile:
        return files([in_processes("fc1", scale, noise=0), in_processes("fc3", scale, noise=0, process="b" * 16)])

    mean = in_words(compare(apart(10), apart(20)).geometric_mean)
    assert mean == "cannot tell: fewer than 3 processes measured all networks (ratio 2.00)"


ONE, TWO, FIVE = (
    epoch_time("fc1", 10, noise=0, blocks=50),
    in_processes("fc1", 20, processes=2, noise=0),
    in_processes("fc1", 20, noise=0),
)
"""One process with many blocks, as a file of version 1 has it; two; five."""


@pytest.mark.parametrize(
    ("base", "other", "said"),
    [
        (ONE, ONE, "measured in 1 process (ratio 1.00)"),
        (TWO, TWO, "measured in 2 processes (ratio 1.00)"),
        (ONE, FIVE, "base measured in 1 process (ratio 2.00)"),
        (FIVE, TWO, "other measured in 2 processes (ratio 1.00)"),
        (ONE, TWO, "base measured in 1 process and other measured in 2 processes (ratio 2.00)"),
        (FIVE, epoch_time("fc1", blocks=0), "other has no usable time"),
    ],
)
def test_fewer_than_three_processes_cannot_tell(
    files: Files, base: dict[str, Any], other: dict[str, Any], said: str
) -> None:
    """However many blocks there are; the values are shown."""
    comparison = compare(files([base]), files([other]))
    assert in_words(comparison.rows[0].time) == f"cannot tell: {said}"
    assert comparison.geometric_mean is None
    assert remarks(comparison)[-1] == "a verdict needs 3 processes of each file: measure with --processes"


@pytest.mark.parametrize(("processes", "doubted"), [(3, True), (4, True), (5, False)])
def test_verdicts_from_fewer_than_five_processes_are_doubted(files: Files, processes: int, doubted: bool) -> None:
    base, other = (files([in_processes("fc1", s, processes, noise=0.001)]) for s in (10, 20))
    comparison = compare(base, other)
    assert verdicts(comparison) == ["slower"]
    assert comparison.rows[0].time
    assert comparison.rows[0].time.processes == (processes, processes)
    found = [r for r in remarks(comparison) if r.startswith("verdicts from fewer than 5 processes may be wrong")]
    assert len(found) == doubted


def test_several_runs_in_a_file_are_as_many_values_as_they_have_processes(files: Files) -> None:
    """A run of version 1 or 2 is of one process."""
    one, three = (
        files([{**told(epoch_time("fc1", 60, seed=i), process * 16)} for i, process in enumerate(processes)])
        for processes in ("aaa", "abc")
    )
    base = files([in_processes("fc1", 50, process_noise=0.001)])
    assert in_words(compare(base, one).rows[0].time) == "cannot tell: other measured in 1 process (ratio 1.20)"
    assert verdicts(compare(base, three)) == ["slower"]


def both_modes(seconds: float, seed: int = 0, full_blocks: int = 2) -> list[dict[str, Any]]:
    """What `--epoch-mode both` leaves of fc1: whole epochs, and blocks sampled in their course."""
    epochs = full([seconds, 1.05 * seconds, 0.95 * seconds, seconds, seconds][:full_blocks])
    return [{**epochs, "seed": seed}, in_processes("fc1", seconds, process_noise=0.01, seed=seed)]


def full(epochs: list[float]) -> dict[str, Any]:
    """Whole epochs of fc1 of these lengths, each in a process of its own."""
    entry = in_processes("fc1", epochs, blocks=1, mode="full")
    entry["points"] = []
    entry["blocks"] = [b for b in entry["blocks"] if b["point"] == 0]
    for block, seconds in zip(entry["blocks"], epochs, strict=True):
        block.update(steps=entry["steps_per_epoch"], seconds=seconds)
    return entry


def test_of_files_with_both_modes_the_sampled_blocks_are_compared_and_the_mode_is_named(tmp_path: Path) -> None:
    """As two runs of the network they would have one degree of freedom, and the gate would let everything pass."""
    base = save(tmp_path / "base.json", both_modes(15))
    other = save(tmp_path / "other.json", both_modes(16.5, seed=1))
    comparison = compare(reading.read(base), reading.read(other))
    assert verdicts(comparison) == ["slower"]
    mark = "fc1: epoch times of mode sampled are compared, those of mode full left out"
    assert remarks(comparison)[1:] == [f"base, {mark}", f"other, {mark}"]
    assert f"† base, {mark}" in comparison_tables.tables(comparison)[0].render("text")
    assert run(base, other, "--fail-if", "epoch_seconds:3%") == 1


@pytest.mark.parametrize("swap", [False, True])
def test_the_mode_that_both_files_have_is_compared(files: Files, swap: bool) -> None:
    pair = [files(both_modes(15, full_blocks=5)), files([full([30, 31, 32, 31, 30])])]
    comparison = compare(*(pair[::-1] if swap else pair))
    assert verdicts(comparison) == ["faster" if swap else "slower"]
    side = "other" if swap else "base"
    assert remarks(comparison) == [
        f"{side}, fc1: epoch times of mode full are compared, those of mode sampled left out"
    ]


def test_several_runs_in_both_modes_are_as_many_runs_in_one(files: Files) -> None:
    base, other = (files([e for i in range(3) for e in both_modes(s + 0.1 * i, seed=i)]) for s in (15, 20))
    interval = compare(base, other).rows[0].time
    assert interval
    assert interval.interval
    assert interval.interval.estimate == pytest.approx(20.1 / 15.1, rel=0.01)
    assert interval.verdict == "slower"


def test_a_result_that_a_file_holds_twice_is_one_run(files: Files) -> None:
    """Two copies would be two runs that agree to the last figure."""
    once, twice = files([in_processes("fc1", seed=1)]), files([in_processes("fc1", seed=1)] * 2)
    base = files([in_processes("fc1")])
    assert compare(base, twice).rows == compare(base, once).rows


def test_files_of_train_show_their_times_but_are_of_one_process(tmp_path: Path) -> None:
    """`train --output` has no blocks; its epochs' times and its accuracy are what it has."""
    paths = []
    for i, factor in enumerate((1.0, 2.0)):
        entry = {**accuracy("fc1", [0.1, 0.2, 0.3]), "machine": machine()}
        for epoch, noise in zip(entry["epochs"], (0.99, 1.0, 1.01), strict=True):
            epoch["train_seconds"] *= factor * noise
        paths.append(tmp_path / f"{i}.json")
        paths[i].write_text(json.dumps(entry))
    row = compare(*map(reading.read, paths)).rows[0]
    assert row.seconds == pytest.approx((60, 120))
    assert in_words(row.time) == "cannot tell: measured in 1 process (ratio 2.00)"


def test_trainings_in_three_processes_are_compared(files: Files) -> None:
    base, other = (
        files([told(trained(s + 0.1 * i, seed=i), process * 16) for i, process in enumerate("abc")]) for s in (60, 66)
    )
    assert verdicts(compare(base, other)) == ["slower"]


def trained(seconds: float, seed: int) -> dict[str, Any]:
    """A training of three epochs that took so long each."""
    entry = accuracy("fc1", [0.1, 0.2, 0.3], seed=seed)
    entry["epochs"] = [{**e, "train_seconds": seconds} for e in entry["epochs"]]
    return entry


def test_engines_are_compared_like_with_like_where_files_share_one(files: Files) -> None:
    base = files([epoch_time("fc1", 20, engine="reference"), epoch_time("fc1", 10, engine="fast")])
    other = files([epoch_time("fc1", 10, engine="fast", seed=1)])
    comparison = compare(base, other)
    assert [row.engines for row in comparison.rows] == [("fast", "fast")]
    assert [missing_text(m) for m in comparison.missing] == ["fc1 (reference) is not in other"]


def test_two_engines_are_compared_where_each_file_has_one_and_named(files: Files) -> None:
    comparison = compare(files(five()), files(five(0.2, engine="fast")))
    assert set(verdicts(comparison)) == {"faster"}
    assert "fc1 (reference → fast)" in comparison_tables.tables(comparison)[0].render("text")
    assert [(d.key, *difference_texts(d)) for d in comparison.differences] == [("engine", "reference", "fast")]


def test_networks_that_only_one_file_has_are_listed(files: Files) -> None:
    base, other = files(five()), files([epoch_time("baseline"), epoch_time("conv5x5-same")])
    text = comparison_tables.tables(compare(base, other))[0].render("text")
    for line in ("fc1 (reference) is not in other", "conv5x5-same (reference) is not in base"):
        assert line in text


# Drift between two runs of one machine -------------------------------------------------------------------------------


def calibrated(start: float, end: float, **more: Any) -> dict[str, Any]:
    """A machine whose calibrations found these multiples of its usual speed."""
    rates = {when: calibration(40e9 * f, 200e9 * f) for when, f in (("start", start), ("end", end))}
    return machine(calibration=rates, **more)


def test_intervals_widen_at_both_ends_by_what_the_machine_drifted(files: Files) -> None:
    base = files(five(), calibrated(1, 1.05))
    steady, drifted = files(five(1.5, seed=1), calibrated(1, 1)), files(five(1.5, seed=1), calibrated(0.9, 1))
    narrow, wide = (
        compare(files(five(), calibrated(1, 1)), steady).rows[0].time,
        compare(base, drifted).rows[0].time,
    )
    assert narrow
    assert narrow.interval
    assert wide
    assert wide.interval
    assert wide.interval.estimate == narrow.interval.estimate
    factor = 1.05 / 0.9
    assert wide.interval.low == pytest.approx(narrow.interval.low / factor)
    assert wide.interval.high == pytest.approx(narrow.interval.high * factor)
    assert wide.verdict == "slower"
    caption = comparison_tables.tables(compare(base, drifted))[0].caption
    assert "wider at both ends by 17 %, by which the machine's own speed differed" in caption


def test_a_difference_that_the_machines_drift_explains_cannot_be_told(tmp_path: Path) -> None:
    """Also by a gate, which does not fail and says why."""
    base = save(tmp_path / "base.json", five(), calibrated(1.4, 1.3))
    other = save(tmp_path / "other.json", five(1.3, seed=1), calibrated(1.2, 1))
    comparison = compare(reading.read(base), reading.read(other))
    assert verdicts(comparison) == ["cannot tell"] * 5
    text = in_words(comparison.rows[0].time)
    said = "cannot tell: the machine's own speed differed by up to 40 % between and within the runs (ratio 1."
    assert text.startswith(said)
    assert comparison.geometric_mean
    assert comparison.geometric_mean.verdict == "cannot tell"
    remedy = "to tell in spite of the machine's drift, measure both in turn with resnet-bench duel"
    assert remarks(comparison)[-1] == remedy
    checks = gate.check(comparison, [gate.Threshold.parse("epoch_seconds:5%")])
    assert {c.outcome for c in checks} == {"cannot tell"}
    assert "passes: cannot tell" in gate_table.thresholds(checks, allow_missing=False).render("text")
    assert run(base, other, "--fail-if", "epoch_seconds:5%") == 0


def test_no_significant_difference_stays_one_when_the_interval_widens(files: Files) -> None:
    comparison = compare(files(five(), calibrated(1, 1)), files(five(seed=5), calibrated(1, 1.4)))
    assert set(verdicts(comparison)) == {"no significant difference"}


def test_drift_that_cannot_be_seen_is_said_and_does_not_widen(files: Files) -> None:
    base = files(five(), machine(calibration={"start": calibration()}))
    comparison = compare(base, files(five(1.5, seed=1)))
    assert set(verdicts(comparison)) == {"slower"}
    assert remarks(comparison) == [
        "base has no calibration at its end: what the machine drifted cannot be seen, and no interval allows for it"
    ]
    assert as_json(comparison)["speed"] == {"factor": pytest.approx(1), "seen": False}


def test_calibrations_with_other_threads_show_no_drift_between_the_runs(files: Files) -> None:
    one = {when: calibration(20e9, 100e9, threads=1) for when in ("start", "end")}
    comparison = compare(files(five(threads=1), machine(calibration=one)), files(five(0.5, seed=1)))
    assert set(verdicts(comparison)) == {"faster"}
    assert "calibrations do not compare: what the machine drifted from base to other cannot be seen" in remarks(
        comparison
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(comparison_tables.as_dict(comparison), allow_nan=False))
    return found


# Files of one duel ---------------------------------------------------------------------------------------------------


def arm(name: str, pairs: list[list[int]], **more: Any) -> dict[str, Any]:
    return calibrated(1, 1.5, duel={"id": "d" * 16, "arm": name, "arms": ["old", "new"], "pairs": pairs, **more})


def test_processes_that_ran_in_turn_are_paired(files: Files) -> None:
    """The machine becomes three times slower in the course of the duel, and the new arm is 10 % slower all along."""
    old, new = [10.0, 15.0, 20.0, 30.0], [33.0, 22.0, 16.5, 11.0]
    pairs = [[0, 3], [1, 2], [2, 1], [3, 0]]
    base = files([in_processes(n, old, noise=0) for n in ("fc1", "fc3")], arm("old", pairs))
    other = files([in_processes(n, new, noise=0) for n in ("fc1", "fc3")], arm("new", pairs))
    comparison = compare(base, other)
    assert comparison.in_turn
    assert [in_words(row.time) for row in comparison.rows] == ["1.10× slower [1.10, 1.10]"] * 2
    assert in_words(comparison.geometric_mean) == "1.10× slower [1.10, 1.10]"
    assert in_words(compare(other, base).rows[0].time) == "1.10× faster [1.10, 1.10]"
    assert "measured in turn; intervals over pairs of processes" in comparison_tables.tables(comparison)[0].caption
    assert (as_json(comparison)["in_turn"], as_json(comparison)["speed"]) == (True, None)


def test_pairs_have_the_interval_of_their_ratios(files: Files) -> None:
    old, new, pairs = [10.0, 15.0, 20.0], [11.0, 16.0, 23.0], [[i, i] for i in range(3)]
    base = files([in_processes("fc1", old, noise=0)], arm("old", pairs))
    other = files([in_processes("fc1", new, noise=0)], arm("new", pairs))
    found, expected = compare(base, other).rows[0].time, paired_ratio(old, new)
    assert found
    assert found.interval
    assert expected
    for end in ("low", "estimate", "high"):
        assert getattr(found.interval, end) == pytest.approx(getattr(expected, end))


def test_a_turn_in_which_one_arm_failed_is_left_out(files: Files) -> None:
    pairs = [[0, 0], [1, 1], [2]]
    base = files([in_processes("fc1", [10, 10, 10], noise=0)], arm("old", pairs))
    other = files([in_processes("fc1", [12, 12], noise=0)], arm("new", pairs))
    assert in_words(compare(base, other).rows[0].time) == "cannot tell: measured in 2 pairs of processes (ratio 1.20)"


@pytest.mark.parametrize(
    "other",
    [
        arm("new", [[0, 0], [1, 1], [2, 2]], id="e" * 16),
        arm("newest", [[0, 0], [1, 1], [2, 2]]),
        arm("new", [[0, 0], [1, 1]]),
        machine(calibration=STEADY, duel="d" * 16),
        machine(calibration=STEADY),
    ],
)
def test_files_that_are_not_of_one_duel_are_not_paired(files: Files, other: dict[str, Any]) -> None:
    base = files(five(), arm("old", [[0, 0], [1, 1], [2, 2]]))
    assert not compare(base, files(five(), other)).in_turn


# Accuracy and parameters ---------------------------------------------------------------------------------------------


def test_accuracy_is_judged_by_the_interval_of_the_difference(files: Files) -> None:
    base = files([accuracy("fc1", [0.3] * 15), accuracy("fc3", [0.3] * 15)])
    other = files([accuracy("fc1", [0.36] * 15), accuracy("fc3", [0.305] * 15)])
    rows = {row.architecture: row.accuracy for row in compare(base, other).rows}
    assert rows["fc1"]
    assert rows["fc1"].verdict == "higher"
    assert accuracy_text(rows["fc1"]) == "+6.0 points [+4.7, +7.3], higher"
    assert rows["fc3"]
    assert rows["fc3"].verdict == "no significant difference"


def test_seeds_are_pooled_and_their_scatter_widens_the_interval(files: Files) -> None:
    def three(center: float, spread: float) -> reading.ResultFile:
        return files([accuracy("fc1", [center + d] * 15, seed=i) for i, d in enumerate((-spread, 0, spread))])

    steady = compare(three(0.30, 0.001), three(0.32, 0.001)).rows[0].accuracy
    scattered = compare(three(0.30, 0.04), three(0.32, 0.04)).rows[0].accuracy
    assert steady
    assert scattered
    assert steady.seeds == (3, 3)
    assert steady.verdict == "higher"
    assert scattered.verdict == "no significant difference"


def test_a_seed_that_a_file_holds_twice_counts_once(files: Files) -> None:
    base = files([accuracy("fc1", [0.30] * 15)])
    again = accuracy("fc1", [0.32] * 15)
    again["epochs"] = [{**e, "train_seconds": 70.0} for e in again["epochs"]]  # the same training, run anew
    once, twice = files([accuracy("fc1", [0.32] * 15)]), files([accuracy("fc1", [0.32] * 15), again])
    found = compare(base, twice).rows[0].accuracy
    assert found
    assert found.seeds == (1, 1)
    assert found == compare(base, once).rows[0].accuracy


def test_of_a_seed_that_stopped_early_twice_the_longer_run_counts(files: Files) -> None:
    other = files([accuracy("fc1", [0.1]), accuracy("fc1", [0.1, 0.2])])
    found = compare(files([accuracy("fc1", [0.1, 0.2, 0.3], seed=1)]), other).rows[0].accuracy
    assert found
    assert found.epoch == 2


@pytest.mark.parametrize("swap", [False, True])
def test_a_training_that_both_files_hold_counts_once(files: Files, swap: bool) -> None:
    old = [accuracy("fc1", [a] * 15, seed=s) for s, a in enumerate((0.300, 0.301))]
    new = [accuracy("fc1", [a] * 15, seed=s) for s, a in enumerate((0.330, 0.331), 2)]
    pair = [files(old), files([*old, *new])]
    comparison = compare(*(pair[::-1] if swap else pair))
    found = comparison.rows[0].accuracy
    assert found
    assert found.seeds == (2, 2)
    assert found.interval.estimate == pytest.approx(-0.03 if swap else 0.03)
    side = "base" if swap else "other"
    assert remarks(comparison)[0] == f"{side}, fc1: trainings that both files hold are left out here"


def test_a_file_against_itself_has_the_same_accuracy(files: Files) -> None:
    file = files([accuracy("fc1", [0.3] * 15, seed=s) for s in range(3)])
    found = compare(file, file).rows[0].accuracy
    assert found
    assert found.seeds == (3, 3)
    assert found.verdict == "no significant difference"


def test_runs_that_stopped_early_are_compared_at_the_last_epoch_both_reached(files: Files) -> None:
    found = compare(files([accuracy("fc1", [0.1, 0.2, 0.3])]), files([accuracy("fc1", [0.1, 0.2])]))
    assert found.rows[0].accuracy
    assert found.rows[0].accuracy.epoch == 2
    assert any("stopped early" in note for note in remarks(found))


def test_files_with_parameters_alone_are_compared_by_them(files: Files) -> None:
    found = compare(files([parameters("fc1")]), files([parameters("fc1", 10)]))
    assert found.rows[0].parameters == (1_468_724, 731_354)
    assert "1,468,724 → 731,354" in comparison_tables.tables(found)[0].render("text")


# What may not be compared --------------------------------------------------------------------------------------------

POINT = in_processes("fc1", 1)["points"][0]
SMALL = dataset(subset=True, train_images=2000)
REFUSED = {
    "SHA-256": {"dataset": dataset(sha256=digest("others"))},
    "data set cifar100 against synthetic": {"dataset": dataset(name="synthetic", synthetic=True)},
    "subset size: 50000 against 2000 training images": {"dataset": SMALL},
    "recipe: lr 0.0004 against 0.01": {"recipe": Recipe(lr=0.01).as_dict()},
    "recipe: schedule constant against cosine": {"recipe": Recipe(schedule="cosine").as_dict()},
    "recipe: warmup_steps 0 against 9": {"recipe": Recipe(warmup_steps=9).as_dict()},
    "epoch time measured sampled against full": {"mode": "full"},
    "epoch time measured after 0, 100000 steps against 0, 200 steps": {
        "points": [{**POINT, "step": step} for step in (0, 200)]
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_unlike_runs_are_refused_with_the_reason_and_force_prints_it_in_the_table(files: Files, reason: str) -> None:
    base, other = files(five()), files(five(seed=1, **REFUSED[reason]))
    with pytest.raises(UserError, match=re.escape(reason)):
        compare(base, other)
    forced = comparison_tables.tables(compare(base, other, force=True))[0].render("text")
    assert forced.count(reason) == 5


def test_times_do_not_care_how_many_epochs_a_training_has_but_accuracy_does(files: Files) -> None:
    short = Recipe(epochs=3).as_dict()
    compare(files([epoch_time("fc1")]), files([epoch_time("fc1", recipe=short)]))
    with pytest.raises(UserError, match="epochs 15 against 3"):
        compare(files([accuracy("fc1")]), files([accuracy("fc1", recipe=short)]))


def test_a_file_that_mixes_thread_counts_is_refused(files: Files) -> None:
    mixed = files([epoch_time("fc1", threads=1), epoch_time("fc1", threads=2, seed=1)])
    with pytest.raises(UserError, match="other mixes runs with threads 1 and 2"):
        compare(files([epoch_time("fc1")]), mixed)


def test_a_file_that_mixes_recipes_is_refused_with_what_differs_and_what_to_do(files: Files) -> None:
    """As a study with `--vary schedule=…,…` does, on either side; the other side's schedule is no reason of its own."""
    study, cosine = files(plans({})), files([e for e in plans({}) if e["recipe"]["schedule"] == "cosine"])
    for pair, role in (((study, cosine), "base"), ((cosine, study), "other")):
        with pytest.raises(UserError) as error:
            compare(*pair)
        _, _, text = str(error.value).partition(": ")
        assert text == (
            f"{role} mixes runs with schedule constant, cosine and onecycle; give runs on the same data with the same "
            "settings, on each side those of one recipe (of a study, a folder with copies of its "
            "results/*schedule=constant*; resnet-bench report tells of the whole study what a schedule does to the "
            "accuracy), or take resnet-bench compare --force."
        )


def test_files_without_a_common_network_are_refused(files: Files) -> None:
    with pytest.raises(UserError, match="no network in common"):
        compare(files([epoch_time("fc1")]), files([epoch_time("fc3")]))


# Across machines -----------------------------------------------------------------------------------------------------


def other_machine(memory: float, arithmetic: float, **more: Any) -> dict[str, Any]:
    return machine(cpu=XEON, calibration={"start": calibration(memory, arithmetic)}, **more)


def test_a_machine_scaled_by_two_is_fully_explained(files: Files) -> None:
    """Bandwidth, arithmetic rate and time: 2× expected and 1× unexplained for every network."""
    base = files(five(noise=0), machine(calibration={"start": calibration(40e9, 200e9)}))
    other = files(five(0.5, noise=0), other_machine(80e9, 400e9))
    for row in compare(base, other).rows:
        assert row.explanation
        assert row.explanation.expected == pytest.approx(0.5)
        assert row.explanation.unexplained.interval
        assert row.explanation.unexplained.interval.estimate == pytest.approx(1, rel=0.01)


def test_memory_scaled_by_two_is_named_where_memory_is_the_limit(files: Files) -> None:
    """With arithmetic for nothing a step is all memory traffic."""
    base = files(five(noise=0.01), machine(calibration={"start": calibration(4e9, 1e15)}))
    other = files(five(0.5, noise=0.01, seed=1), other_machine(8e9, 1e15))
    for row in compare(base, other).rows:
        assert row.explanation
        assert row.explanation.resource == "memory bandwidth"
        assert row.explanation.expected == pytest.approx(0.5, rel=0.01)
        assert row.explanation.unexplained.verdict == "no significant difference"
        assert row.time
        assert row.time.interval
        text = explanation_text(row.explanation, row.time)
        assert re.fullmatch(
            r"\d\.\d\d× faster; 2\.00× expected from memory bandwidth; 1\.0\d×( slower)? unexplained \(within noise\)",
            text,
        )


def test_an_explanation_begins_with_the_verdict_where_no_difference_is_significant(files: Files) -> None:
    """No bare «1.01× faster»; without a direction of the whole every factor says its own."""
    base = files(five(), machine(calibration={"start": calibration(4e9, 1e15)}))
    other = files(five(seed=1), other_machine(8e9, 1e15))
    comparison = compare(base, other)
    for row in comparison.rows:
        assert row.explanation
        assert row.time
        assert row.time.verdict == "no significant difference"
        text = explanation_text(row.explanation, row.time)
        assert text.startswith(f"{ratio_text(row.time)}; 2.00× faster expected from memory bandwidth; ")
        assert re.search(r"; (1\.9|2\.0)\d× slower unexplained$", text)
        assert text in comparison_tables.tables(comparison)[1].render("text")


def test_what_the_calibration_does_not_predict_is_unexplained(files: Files) -> None:
    same = calibration(4e9, 1e15)
    base = files(five(noise=0.01), machine(calibration={"start": same}))
    other = files(five(0.5, noise=0.01, seed=1), machine(cpu=XEON, calibration={"start": same}))
    explanation = compare(base, other).rows[0].explanation
    assert explanation
    assert explanation.expected == pytest.approx(1)
    assert explanation.unexplained.verdict == "faster"


def test_verdicts_across_machines_rest_on_ratios_within_each_machine(files: Files) -> None:
    """All networks twice as fast and fc1 four times: only fc1 got faster, whatever the calibrations say."""
    base = files(five(), machine(calibration={"start": calibration()}))
    entries = [in_processes(n, s / (4 if n == "fc1" else 2), 10, noise=0.03, seed=1) for n, s in SECONDS.items()]
    for rates in ((80e9, 400e9), (1e9, 1e9)):
        comparison = compare(base, files(entries, other_machine(*rates)))
        assert not comparison.same_machine
        found = dict(zip((row.architecture for row in comparison.rows), verdicts(comparison), strict=True))
        assert found == {
            "baseline": "cannot tell",
            "fc1": "faster",
            "fc3": "no significant difference",
            "blocks2": "no significant difference",
            "conv5x5": "no significant difference",
        }


def test_drift_that_hits_all_networks_alike_leaves_verdicts_across_machines_alone(files: Files) -> None:
    """The machine slows down by half from process to process; each process keeps its ratios."""
    drift = [1 + 0.05 * i for i in range(10)]
    drifted = [in_processes(n, [s * d for d in drift], noise=0.01, seed=1) for n, s in SECONDS.items()]
    comparison = compare(files(five(noise=0.01)), files(drifted, machine(cpu=XEON)))
    for row in comparison.rows[1:]:
        assert row.relative
        assert row.relative.interval
        assert row.relative.verdict == "no significant difference"
        assert row.relative.interval.relative < 0.05


def test_without_a_baseline_nothing_is_said_across_machines(files: Files) -> None:
    comparison = compare(files([epoch_time("fc1")]), files([epoch_time("fc1", 10)], machine(cpu=XEON)))
    assert verdicts(comparison) == ["cannot tell"]


def test_a_run_that_drifted_is_marked(files: Files) -> None:
    drifted = machine(calibration={"start": calibration(40e9), "end": calibration(30e9)})
    steady = machine(calibration={"start": calibration(40e9), "end": calibration(39e9)})
    comparison = compare(files(five(), steady), files(five(), drifted))
    assert [note.split(":")[0] for note in remarks(comparison)] == ["other drifted"]
    assert comparison_tables.tables(comparison)[0].title.endswith("†")


def test_warnings_of_a_busy_machine_are_passed_on_once(files: Files) -> None:
    comparison = compare(files(five(warnings=["the machine was busy"])), files(five()))
    assert remarks(comparison) == ["base, baseline, fc1, fc3, blocks2, conv5x5: the machine was busy"]


def test_differences_come_most_suspicious_first_and_without_noise() -> None:
    base = machine(
        cpu={**machine()["cpu"], "torch_isa": "AVX512"},
        torch={"version": "2.15.0", "mkl": "2025"},
        hostname="a",
        clock={"mhz": 2100},
        container={"cpu_quota": None, "memory_limit_bytes": 2**32},
        load_average=0.1,
    )
    other = machine(
        cpu={**machine()["cpu"], "torch_isa": "AVX2"},
        governor="powersave",
        allocator={"name": "jemalloc"},
        torch={"version": "2.13.0", "mkl": "2024"},
        threads={"intraop": 8, "interop": 1, "environment": {}},
        hostname="b",
        clock={"mhz": 3300},
        container={"cpu_quota": None, "memory_limit_bytes": 2**33},
        load_average=3.0,
    )
    assert [d.key for d in differences(base, other)] == [
        "threads.intraop",
        "torch.version",
        "cpu.torch_isa",
        "governor",
        "allocator.name",
        "container.memory_limit_bytes",
        "torch.mkl",
    ]
    assert same_machine(base, other)
    assert not same_machine(base, machine(cpu=XEON))


def test_environment_variables_and_build_settings_that_one_file_has_are_differences() -> None:
    """One that is not set changes what runs as much as another value does, whatever words its name has."""
    base = machine(
        torch={"version": "2.15.0", "environment": {}, "build": {"USE_MKL": "ON"}},
        threads={"intraop": 2, "interop": 1, "environment": {"KMP_BLOCKTIME": "0", "OMP_TIME": "1"}},
    )
    other = machine(
        torch={"version": "2.15.0", "environment": {"TORCHDYNAMO_DISABLE": "1", "TORCH_A.B": "x"}, "build": {}},
        threads={"intraop": 2, "interop": 1, "environment": {"KMP_BLOCKTIME": "200"}},
    )
    assert [(d.key, *difference_texts(d)) for d in differences(base, other)] == [
        ("threads.environment.KMP_BLOCKTIME", "0", "200"),
        ("threads.environment.OMP_TIME", "1", "not set"),
        ("torch.environment.TORCHDYNAMO_DISABLE", "not set", "1"),
        ("torch.environment.TORCH_A.B", "not set", "x"),
        ("torch.build.USE_MKL", "ON", "not set"),
    ]


def test_what_a_file_from_before_it_was_recorded_does_not_tell_is_no_difference() -> None:
    new = {"version": "2.15.0", "mkldnn": True, "environment": {"ATEN_CPU_CAPABILITY": "avx2"}}
    assert differences(machine(), machine(torch=new)) == differences(machine(torch=new), machine()) == []


EPYC = {
    "model": "AMD EPYC",  # all that a cloud says of it
    "vendor": "AuthenticAMD",
    "physical_cores": 2,
    "logical_cores": 2,
    "caches": {"L1d": 32768, "L2": 524288, "L3": 33554432},
    "isa": ["avx", "avx2"],
}


@pytest.mark.parametrize(
    "other",
    [
        {"isa": ["avx", "avx2", "avx512f"]},
        {"caches": {"L1d": 32768, "L2": 1048576, "L3": 33554432}},
        {"caches": {"L1d": 49152, "L2": 524288, "L3": None}},
        {"vendor": "HygonGenuine"},
        {"model": None},
    ],
)
def test_generations_of_one_model_name_are_different_hardware(other: dict[str, Any]) -> None:
    assert same_machine(machine(cpu=EPYC), machine(cpu=dict(EPYC)))
    assert not same_machine(machine(cpu=EPYC), machine(cpu={**EPYC, **other}))


@pytest.mark.parametrize("model", [None, "", "unknown", 7])
def test_two_machines_of_unknown_model_are_different_hardware(model: object) -> None:
    unknown = machine(cpu={**EPYC, "model": model})
    assert not same_machine(unknown, copy.deepcopy(unknown))


def test_older_files_that_do_not_tell_the_generation_are_compared_by_what_they_tell(files: Files) -> None:
    old = {k: v for k, v in EPYC.items() if k not in ("vendor", "caches", "isa")}
    silent = {**EPYC, "caches": dict.fromkeys(("L1d", "L2", "L3")), "isa": []}  # a system that does not tell either
    for cpu in (old, silent):
        assert same_machine(machine(cpu=EPYC), machine(cpu=cpu))
        assert same_machine(machine(cpu=cpu), machine(cpu=EPYC))
    comparison = compare(files(five(), machine(cpu=old)), files(five(1.2, seed=1), machine(cpu=EPYC)))
    assert set(verdicts(comparison)) == {"slower"}


def test_another_number_of_threads_is_listed_and_explained_by_calibrations_taken_with_it(files: Files) -> None:
    base = files(five(threads=1), machine(calibration={"start": calibration(4e9, 1e15, threads=1)}))
    other = files(five(0.5, threads=2, seed=1), machine(calibration={"start": calibration(8e9, 1e15)}))
    comparison = compare(base, other)
    assert comparison.same_machine
    assert [(d.key, d.base, d.other) for d in comparison.differences] == [("threads", [1], [2])]
    assert set(verdicts(comparison)) == {"faster"}
    assert all(row.explanation and row.explanation.expected == pytest.approx(0.5, rel=0.01) for row in comparison.rows)


# The gate ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def slower(tmp_path: Path) -> tuple[Path, Path]:
    """BASE, and OTHER with all networks 10 % slower and 2 points less accurate."""

    def entries(scale: float, final: float, seed: int) -> list[dict[str, Any]]:
        runs = [accuracy(n, [final] * 15, seed=s) for n in SECONDS for s in range(3)]
        return [*five(scale, seed), *runs]

    return save(tmp_path / "base.json", entries(1, 0.34, 0)), save(tmp_path / "other.json", entries(1.1, 0.32, 1))


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        ([], 0),
        (["epoch_seconds:3%"], 1),
        (["epoch_seconds:3"], 1),
        (["epoch_seconds:10%"], 0),  # the interval reaches below 10 %
        (["epoch_seconds:30%"], 0),
        (["conv5x5.epoch_seconds:3%"], 1),
        (["epoch_seconds:30%", "conv5x5.epoch_seconds:3%"], 1),
        (["epoch_seconds:30%", "accuracy:1"], 1),
        (["accuracy:5"], 0),
        (["fc1.accuracy:0.5"], 1),
    ],
)
def test_fail_if_exits_1_only_for_a_significant_regression_beyond_the_limit(
    slower: tuple[Path, Path], limits: list[str], status: int
) -> None:
    assert run(*slower, *(arg for limit in limits for arg in ("--fail-if", limit))) == status


def test_a_network_with_a_limit_of_its_own_is_not_held_to_the_general_one(files: Files) -> None:
    comparison = compare(files(five()), files(five(1.2, seed=1)))
    thresholds = [gate.Threshold.parse("epoch_seconds:5%"), gate.Threshold.parse("fc1.epoch_seconds:50%")]
    outcomes = {c.network: c.outcome for c in gate.check(comparison, thresholds)}
    assert outcomes == {n: "pass" if n == "fc1" else "fail" for n in SECONDS}


def test_an_improvement_never_fails(tmp_path: Path) -> None:
    base, other = save(tmp_path / "a.json", five()), save(tmp_path / "b.json", five(0.5))
    assert run(base, other, "--fail-if", "epoch_seconds:0%") == 0


def test_a_slower_machine_fails_nothing(tmp_path: Path) -> None:
    """Everything three times slower on other hardware; only a network slower against its baseline fails."""
    base, other = save(tmp_path / "a.json", five()), save(tmp_path / "b.json", five(3, seed=1), machine(cpu=XEON))
    assert run(base, other, "--fail-if", "epoch_seconds:5%") == 0
    worse = [in_processes(n, 3 * s * (1.5 if n == "fc1" else 1), 10, noise=0.03, seed=1) for n, s in SECONDS.items()]
    assert run(base, save(tmp_path / "c.json", worse, machine(cpu=XEON)), "--fail-if", "epoch_seconds:5%") == 1


@pytest.mark.parametrize("swap", [False, True])
def test_a_network_missing_from_either_file_fails_unless_allowed(
    tmp_path: Path, swap: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [save(tmp_path / "a.json", five()), save(tmp_path / "b.json", five(seed=1)[:-1])]
    paths = paths[::-1] if swap else paths
    assert run(*paths, "--fail-if", "epoch_seconds:5%") == 1
    assert "FAILS: missing" in capsys.readouterr().out
    assert run(*paths, "--fail-if", "epoch_seconds:5%", "--allow-missing") == 0
    assert run(*paths) == 0


def test_a_metric_that_one_file_lacks_is_missing(tmp_path: Path) -> None:
    with_accuracy = save(tmp_path / "a.json", [*five(), accuracy("fc1")])
    without = save(tmp_path / "b.json", five(seed=1))
    assert run(with_accuracy, without, "--fail-if", "accuracy:1") == 1
    assert run(without, without, "--fail-if", "accuracy:1") == 1  # a gate that checks nothing must not pass
    assert run(with_accuracy, without, "--fail-if", "accuracy:1", "--allow-missing") == 0


@pytest.mark.parametrize("swap", [False, True])
def test_a_training_that_was_cut_off_is_missing_beside_a_complete_one(
    tmp_path: Path, swap: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the last epoch that both reached they do not differ, which says nothing of the end."""
    curve = [0.02 * i for i in range(1, 16)]
    paths = [save(tmp_path / f"{n}.json", [accuracy("fc1", curve[:n])]) for n in (15, 3)]
    paths = paths[::-1] if swap else paths
    assert run(*paths, "--fail-if", "accuracy:1") == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "FAILS: missing" in printed
    assert f"training in {'base' if swap else 'other'} stopped early" in printed
    assert run(*paths, "--fail-if", "accuracy:1", "--allow-missing") == 0
    assert run(*paths) == 0


def test_trainings_that_both_stopped_early_are_held_to_the_limit(tmp_path: Path) -> None:
    base, other = (save(tmp_path / f"{a}.json", [accuracy("fc1", [a] * 3)]) for a in (0.3, 0.2))
    assert run(base, base, "--fail-if", "accuracy:1") == 0
    assert run(base, other, "--fail-if", "accuracy:1") == 1


@pytest.mark.parametrize(
    "limit",
    [
        "",
        ":5",
        "epoch_seconds",
        "epoch_seconds:",
        "epoch_seconds:-5%",
        "epoch_seconds:nan",
        "epoch_seconds:5%%",
        "a.b.epoch_seconds:1%",
        "nonesuch.epoch_seconds:5%",
        "speed:5%",
        "accuracy:1%",
    ],
)
def test_a_malformed_limit_exits_2_with_one_sentence(
    slower: tuple[Path, Path], limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*slower, "--fail-if", limit) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_several_others_are_each_compared_with_base_and_one_failure_fails_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, same, bad = (save(tmp_path / f"{n}.json", five(f)) for n, f in (("base", 1), ("same", 1), ("bad", 2)))
    assert run(base, same, bad, "--fail-if", "epoch_seconds:5%") == 1
    out = capsys.readouterr().out
    assert "same.json against base.json" in out
    assert "bad.json against base.json" in out
    assert run(base, same, "--fail-if", "epoch_seconds:5%") == 0


# Output --------------------------------------------------------------------------------------------------------------


def test_json_holds_what_the_tables_say(slower: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*slower, "--format", "json", "--fail-if", "accuracy:1") == 1
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert [n["architecture"] for n in comparison["networks"]] == list(SECONDS)
    network = comparison["networks"][0]
    assert network["verdict"] == network["time"]["verdict"] == "slower"
    assert network["time"]["low"] < network["time"]["ratio"] < network["time"]["high"]
    assert network["accuracy"]["difference"] == pytest.approx(-0.02)
    assert [c["outcome"] for c in comparison["checks"]] == ["fail"] * 5


def test_html_escapes_what_files_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tags = []

    class Tags(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            tags.append(tag)

    evil = machine(cpu={"model": "<script>alert(1)</script>"}, os="<img src=x>")
    assert run(save(tmp_path / "a.json", five()), save(tmp_path / "b.json", five(), evil), "--format", "html") == 0
    page = capsys.readouterr().out
    Tags().feed(page)
    assert page.startswith("<!DOCTYPE html>")
    assert "table" in tags
    assert not {"script", "img"} & set(tags)


def test_markdown_is_one_table_after_another(slower: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*slower, "--format", "markdown") == 0
    assert "| baseline" in capsys.readouterr().out


def test_the_same_files_give_the_same_text(slower: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run(*slower)
    first = capsys.readouterr().out
    run(*slower)
    assert capsys.readouterr().out == first


# Bad input -----------------------------------------------------------------------------------------------------------

JUNK: list[Any] = [None, "", "x", "<script>", "\ud800", -1, 0, 1, 10**400, 1e308, -1e308, float("nan"), True, [], {}]
JUNK += [[1, [2]], {"a": {"b": []}}, 1e-320]


def _mutated(data: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """A copy with one to three values replaced by junk, deleted or doubled."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, 3)):
        # Half of the time in the machine: of it nothing is checked on reading.
        node: Any = data["machine_info"] if rng.random() < 0.5 else data["benchmarks"]
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.9:
                node = node[key]
                continue
            how = rng.random()
            if how < 0.15:
                del node[key]
            elif how < 0.25 and isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            else:
                node[key] = copy.deepcopy(rng.choice(JUNK))
            break
    return data


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """A file with everything in it, on a machine with two calibrations."""
    entries = [
        epoch_time("baseline", blocks=3),
        epoch_time("fc1", blocks=3),
        accuracy("fc1", [0.1, 0.2]),
        accuracy("fc3"),
    ]
    calibrations = {"start": calibration(), "end": calibration(20e9)}
    return document([*entries, parameters("fc1")], machine(cpu=XEON, calibration=calibrations))


def test_mutated_files_give_one_sentence_or_a_comparison_but_no_traceback(
    tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    other = copy.deepcopy(whole)
    other["machine_info"]["resnet_bench"]["cpu"] = machine()["cpu"]  # so that calibrations are looked at
    good.write_text(json.dumps(other))
    statuses = []
    for seed in range(100):
        bad.write_text(json.dumps(_mutated(whole, random.Random(seed))))
        for paths in ((good, bad), (bad, good)):
            options = ("--force",) if seed % 2 else ()
            status = run(*paths, "--format", ("text", "json", "html")[seed % 3], *options)
            captured = capsys.readouterr()
            assert status in (0, 2), (seed, captured)
            if status == 2:
                assert captured.out == ""
                assert len(captured.err.strip().splitlines()) == 1, captured.err
            elif seed % 3 == 1:
                json.loads(captured.out, parse_constant=pytest.fail)
            statuses.append(status)
    assert set(statuses) == {0, 2}  # some mutations are harmless, most are not


def test_the_largest_numbers_that_a_file_may_have_are_no_crash(tmp_path: Path) -> None:
    huge = machine(container={"cpu_quota": 10**19}, memory_bytes=10**19, threads={"intraop": 10**19})
    good = save(tmp_path / "good.json", five())
    data = document(five(), huge)
    for benchmark in data["benchmarks"]:
        benchmark["extra_info"]["steps_per_epoch"] = 10**15
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(data))
    for format_ in ("text", "json", "html"):
        assert run(good, bad, "--format", format_) == 0


def test_truncated_files_exit_2_with_one_sentence(
    tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    text = json.dumps(whole)
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(text)
    rng = random.Random(0)
    for _ in range(100):
        bad.write_text(text[: rng.randrange(len(text))])
        assert run(good, bad) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.strip().splitlines()) == 1


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", None])
def test_another_schema_version_is_refused_by_name(
    tmp_path: Path, version: object, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save(tmp_path / "good.json", five())
    bad = save(tmp_path / "bad.json", [{**entry, "schema_version": version} for entry in five()])
    assert run(good, bad) == 2
    assert "schema" in capsys.readouterr().err


def test_a_missing_file_or_a_missing_argument_exits_2(tmp_path: Path) -> None:
    good = save(tmp_path / "good.json", five())
    assert run(good, tmp_path / "none.json") == 2
    assert run(good) == 2
    assert run(good, good, "--format", "pdf") == 2


def test_results_of_other_projects_in_the_file_are_passed_over(tmp_path: Path) -> None:
    """pytest-benchmark stores whatever a session ran, in whatever folder."""
    data = document(five())
    data["benchmarks"].insert(0, {"name": "test_other", "extra_info": {"color": "red"}, "stats": {"mean": 1.0}})
    folder = tmp_path / "Linux-CPython-3.12-64bit"
    folder.mkdir()
    autosaved = folder / "0001_abc_20260102_030405_uncommited-changes.json"
    autosaved.write_text(json.dumps(data))
    assert run(autosaved, save(tmp_path / "b.json", five(seed=1))) == 0
