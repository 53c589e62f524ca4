"""Duels of arms whose processes are real and report at once what they are told to."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from resnet_bench.analysis.duel import analyse
from resnet_bench.duel import environments, running
from resnet_bench.errors import UserError
from resnet_bench.render import duel_tables
from resnet_bench.results.reading import read
from resnet_bench.schema import EpochTimeResult


def test_every_arm_has_one_process_a_round_in_the_order_drawn(duel, started):
    outcome = duel("a:", "b:")
    assert sorted(started()[:2]) == ["0 a 1", "0 b 1"]  # pilots
    ran = [line.split()[:2] for line in started()[2:]]
    assert [number for number, _ in ran] == ["0", "0", "1", "1", "2", "2", "3", "3"]
    arms = [arm for _, arm in ran]
    assert arms[2:4] == arms[1::-1]
    assert arms[6:8] == arms[5:3:-1]
    assert (outcome.failed, outcome.interrupted) == ({}, False)


def test_processes_of_a_round_take_turns_block_by_block(duel, tmp_path):
    duel("a:", "b:")
    ran = [line.split() for line in (tmp_path / "started-turns").read_text().splitlines()]
    assert len(ran) == 4 * 2 * 4  # rounds, arms, and one block of two networks at two points
    pairs = [ran[i : i + 2] for i in range(0, len(ran), 2)]
    for (round_, arm, block), (its_round, other, its_block) in pairs:
        assert (round_, block) == (its_round, its_block)
        assert {arm, other} == {"a", "b"}
    leaders = [arm for (_, arm, _), _ in pairs]
    assert all(leaders[i] != leaders[i + 1] for first in range(0, 16, 4) for i in range(first, first + 3))


def test_an_arm_that_cannot_take_turns_is_measured_all_the_same(duel, started, tmp_path):
    """As an earlier version of the suite cannot: then processes run one after the other, and the plan says so."""
    outcome = duel("a:", "b:env:OLD=1")
    assert (outcome.failed, len(started())) == ({}, 2 + 8)
    assert not (tmp_path / "started-turns").exists()
    assert any("cannot take turns: processes run one after the other" in line for line in outcome.plan)


def test_the_result_is_a_benchmark_file_of_each_arm_that_tells_how_they_pair(duel):
    outcome = duel("a:", "b:")
    assert list(outcome.files) == ["a", "b"]
    files = {name: read(path) for name, path in outcome.files.items()}
    told = {name: file.machine["duel"] for name, file in files.items()}
    assert told["a"]["id"] == told["b"]["id"]
    assert told["b"] == {
        "id": told["a"]["id"],
        "arms": ["a", "b"],
        "arm": "b",
        "pairs": [[0, 0], [1, 1], [2, 2], [3, 3]],
    }
    for file in files.values():
        results = file.of_kind(EpochTimeResult)
        assert [(r.architecture, len(r.epoch_times), r.complete, r.stopped_by) for r in results] == [
            ("fc1", 4, True, "plan"),
            ("conv5x5", 4, True, "plan"),
        ]


def test_ratios_are_paired_by_round_so_that_drift_drops_out(duel):
    """Later processes take up to four times as long, in both arms."""
    found = analyse(duel("old:", "new:env:FACTOR=0.8").files)
    (opponent,) = found.opponents
    assert opponent.overall.verdict == "faster"
    assert opponent.overall.interval.estimate == pytest.approx(0.8, rel=0.01)
    assert [n.epoch_seconds.ratio.verdict for n in opponent.networks] == ["faster", "faster"]
    assert opponent.comparison.in_turn
    assert [r.time for r in opponent.comparison.rows] == [n.epoch_seconds.ratio for n in opponent.networks]
    assert opponent.comparison.geometric_mean == opponent.overall
    assert duel_tables.headline(found, opponent).startswith("new: 1.25× faster [1.2")
    assert duel_tables.headline(found, opponent).endswith(" than old over 2 networks, in 4 rounds")


def test_with_fewer_than_three_rounds_there_is_no_verdict(duel):
    found = analyse(duel("old:", "new:env:FACTOR=0.5", processes=2).files)
    text = duel_tables.render(found, "text")
    assert found.opponents[0].overall.verdict == "cannot tell"
    assert "measured in 2 processes" in text
    assert "faster" not in text.replace("(below 1 is faster)", "")


def test_three_arms_are_compared_with_the_first(duel):
    found = analyse(duel("a:", "b:env:FACTOR=2", "c:env:FACTOR=0.5").files)
    assert [(o.arm, o.overall.verdict) for o in found.opponents] == [("b", "slower"), ("c", "faster")]


def test_an_arm_that_crashes_in_the_middle_of_three_is_named_and_the_others_go_on(duel):
    outcome = duel("a:", "b:env:LATER=crash", "c:")
    assert list(outcome.failed) == ["b"]
    assert "no memory left" in outcome.failed["b"]
    rounds = {name: len(read(path).of_kind(EpochTimeResult)[0].epoch_times) for name, path in outcome.files.items()}
    assert rounds == {"a": 4, "b": 2, "c": 4}
    assert read(outcome.files["a"]).machine["duel"]["pairs"] == [[0, 0, 0], [1, 1, 1], [2, None, 2], [3, None, 3]]
    b, c = analyse(outcome.files).opponents
    assert (b.rounds, c.rounds) == (2, 4)
    assert c.comparison.geometric_mean == c.overall  # from all four rounds, though b has none in two of them


def test_the_others_are_not_compared_with_a_first_arm_that_crashed(duel):
    outcome = duel("a:env:LATER=crash", "b:", "c:")
    assert list(outcome.files) == ["b", "a", "c"]
    assert [(o.arm, o.rounds) for o in analyse(outcome.files).opponents] == [("a", 2), ("c", 4)]


def test_a_busy_machine_is_told_and_written_down(duel, monkeypatch):
    monkeypatch.setattr(running.machine, "busy_reason", lambda: "Others are at work.")
    outcome = duel("a:", "b:")
    assert "warning: Others are at work." in duel.said
    assert read(outcome.files["b"]).of_kind(EpochTimeResult)[0].warnings == ("Others are at work.",)


def test_threads_that_wait_are_told_once(duel):
    outcome = duel("a:env:WAITS=1", "b:")
    assert duel.said.count("warning: a: a thread waits.") == 1
    assert not outcome.failed


def test_with_one_arm_left_the_duel_ends_and_complete_rounds_are_kept(duel, started):
    outcome = duel("a:", "b:env:LATER=crash")
    assert "no memory left" in outcome.failed["b"]
    assert [len(read(p).of_kind(EpochTimeResult)[0].epoch_times) for p in outcome.files.values()] == [2, 2]
    assert not any(line.startswith("3 ") for line in started())


def test_the_same_command_tries_again_what_ended_a_duel(duel, started, monkeypatch):
    monkeypatch.setenv("LATER", "crash")
    assert set(duel("a:", "b:").failed) & {"a", "b"}
    before = len(started())
    monkeypatch.delenv("LATER")
    outcome = duel("a:", "b:")
    assert outcome.failed == {}
    assert [line.split()[0] for line in started()[before:]] == ["2", "2", "3", "3"]
    assert [len(read(p).of_kind(EpochTimeResult)[0].epoch_times) for p in outcome.files.values()] == [4, 4]


def test_an_arm_that_runs_other_code_than_it_says_is_left_out(duel):
    outcome = duel("a:", "b:env:LATER=other code", "c:")
    assert outcome.failed == {"b": "its processes ran other code of resnet_bench than they were to run"}


def test_a_round_that_was_cut_off_is_measured_anew_as_a_whole(duel, started):
    duel("a:", "b:")
    before = len(started())
    (duel.folder / "processes" / "003-b.json").unlink()
    duel("a:", "b:")
    assert sorted(line.split()[1] for line in started()[before:]) == ["a", "b"]
    assert len(list((duel.folder / "processes" / "unpaired").glob("003-a-*.json"))) == 1


def test_a_finished_duel_is_not_measured_again(duel, started):
    first = duel("a:", "b:")
    before = started()
    assert duel("a:", "b:").files == first.files
    assert started() == before
    assert any(line.endswith("is over; to measure again, give another --output.") for line in duel.said)


@pytest.mark.parametrize(
    ("arms", "changed", "message"),
    [
        (("a:", "b:threads=1"), {}, "holds a duel with arm b "),
        (("a:", "c:"), {}, "holds a duel with --arm a, b, not a, c;"),
        (("a:", "b:"), {"processes": 5}, "holds a duel with --processes 4, not 5;"),
        (("a:", "b:"), {"batch_size": 2}, "holds a duel with --batch-size 4, not 2;"),
        (("a:", "b:"), {"architectures": ("fc1",)}, "holds a duel with --architectures fc1,conv5x5, not fc1;"),
    ],
)
def test_a_changed_command_is_refused_by_name(duel, started, arms, changed, message):
    duel("a:", "b:")
    before = started()
    with pytest.raises(UserError) as error:
        duel(*arms, **changed)
    assert message in str(error.value)
    assert "another --output" in str(error.value)
    assert started() == before


def test_another_machine_is_refused(duel):
    duel("a:", "b:")
    head = json.loads((duel.folder / "duel.json").read_text())
    head["machine"]["cpu_stepping"] = 99
    (duel.folder / "duel.json").write_text(json.dumps(head))
    with pytest.raises(UserError, match=r"was begun on another machine \(cpu_stepping 99, not "):
        duel("a:", "b:")


def test_two_duels_do_not_share_a_folder(duel):
    from filelock import FileLock

    duel.folder.mkdir()
    with FileLock(duel.folder / ".lock"), pytest.raises(UserError, match="Another duel is being measured in"):
        duel("a:", "b:")


def test_the_plan_comes_before_the_first_round(duel):
    duel("a:", "b:threads=1")
    said = "\n".join(duel.said)
    assert said.index("estimated: ") < said.index("round 1 of 4")
    assert "accuracy is not measured; --accuracy-epochs N" in said
    assert "b against a: cannot tell: measured in 1 process (ratio " in said
    assert duel.said[-1].endswith("all are measured")


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (("a:", "b:engine=slow"), "--arm b: There is no engine 'slow'"),
        (("a:", "b:threads=0"), "--arm b: --threads is 0"),
        (("a:", "b:batch-size=0"), "--arm b: --batch-size is 0"),
        (("a:", "b:git=no-such-revision"), "--arm b: git knows no revision 'no-such-revision'"),
    ],
)
def test_mistakes_are_found_before_anything_runs(duel, tmp_path, arms, message):
    with pytest.raises(UserError) as error:
        duel(*arms)
    assert message in str(error.value)
    assert not (tmp_path / "started").exists()
    assert not duel.folder.exists()


def test_a_training_that_fails_names_the_arm(duel):
    outcome = duel("a:", "b:", accuracy_epochs=1)
    (reason,) = outcome.failed.values()
    assert reason == "the training of fc1 with seed 0 failed: no training here"
    assert len(outcome.files) == 2


def test_without_uv_an_arm_with_requirements_says_how_to_install_it(duel, monkeypatch):
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(UserError, match=r'run: pip install "resnet-bench\[duel\]"\.$'):
        duel("a:", "b:torch==2.12")


COMMAND = """
import sys
from tests.duel.conftest import beginning_and_end
from resnet_bench.duel import orders
orders.Orders._prepared = beginning_and_end
from resnet_bench.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def command(interpreter, image_folder, tmp_path):
    """The command in a process of its own; times itself by `started`."""
    arms = [f"--arm={name}:python={interpreter},env:NAME={name},env:SLEEP=0.2" for name in ("a", "b")]
    options = [f"--dataset=folder:{image_folder()}", "--engine=reference", "--workers=0", "--epochs=1"]
    options += ["--train-images=8", "--test-images=6", "--architectures=fc1", f"--output={tmp_path / 'out'}"]
    return lambda *more: [sys.executable, "-c", COMMAND, "duel", *arms, *options, *more]


def wait_for(done, process):
    deadline = time.monotonic() + 60
    while not done() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def settled(count):
    """The count when it has been the same for two seconds."""
    found, since = count(), time.monotonic()
    while time.monotonic() - since < 2:
        time.sleep(0.1)
        if (now := count()) != found:
            found, since = now, time.monotonic()
    return found


@pytest.mark.parametrize(("signal_", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_stopped_duel_goes_on_where_it_was(command, tmp_path, started, signal_, status):
    out = tmp_path / "out"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command("--format", "json"), **pipes) as process:
        wait_for(lambda: len(list((out / "processes").glob("*.json"))) >= 4, process)
        os.kill(process.pid, signal_)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == status, stderr
    if signal_ == signal.SIGINT:
        assert stderr.splitlines()[-1].startswith("resnet-bench: interrupted; 2 of 8 rounds are kept in ")
        assert "Traceback" not in stderr
    before = settled(lambda: len(started()))  # a process that outlives its parent may still say that it has started
    done = subprocess.run(command("--format", "json"), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    again = [line.split()[0] for line in started()[before:]]
    assert again == [str(i) for i in range(2, 8) for _ in range(2)]
    result = json.loads(done.stdout)  # and nothing else on standard output
    assert result["arms"][0]["rounds"] == 8
    assert result["arms"][0]["networks"][0]["architecture"] == "fc1"


def test_the_gate_fails_only_where_an_arm_is_slower_beyond_the_limit(command):
    def status(limit):
        arguments = command("--fail-if", limit, "--processes=3")
        arguments[arguments.index("duel") + 2] += ",env:FACTOR=1.2"
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout

    code, printed = status("epoch_seconds:5%")
    assert code == 1
    assert "b: 1.20× slower" in printed
    assert "FAILS" in printed
    assert status("epoch_seconds:30%")[0] == 0
