"""`resnet-bench duel`: what it prints where, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from resnet_bench.cli import main
from resnet_bench.duel import orders
from tests.duel.conftest import beginning_and_end


@pytest.fixture
def run(
    interpreter: Path,
    image_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command with `NAME:ITEM,ITEM` arms in this process: status, standard output, standard error."""
    monkeypatch.setattr(orders.Orders, "_prepared", beginning_and_end)
    monkeypatch.chdir(tmp_path)
    options = ["--dataset", f"folder:{image_folder()}", "--engine", "reference", "--workers", "0"]
    options += ["--architectures", "fc1", "--time-limit", "1", "--processes", "3"]

    def call(arms: list[str], *more: str) -> tuple[int, str, str]:
        texts = [
            f"--arm={a}{',' if a.split(':')[1] else ''}python={interpreter},env:NAME={a.split(':')[0]}" for a in arms
        ]
        with pytest.raises(SystemExit) as exit_:
            main(["duel", *texts, *options, *more])
        return (int(exit_.value.code or 0), *capsys.readouterr())

    return call


def test_standard_output_has_the_result_and_nothing_else(run) -> None:
    status, out, err = run(["old:", "new:env:FACTOR=0.8"])
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("new: 1.25× faster [")
    assert lines[0].endswith("than old over 1 network, in 3 rounds")
    titles = ["new against old", "Phases of a step: new against old"]
    assert [line for line in lines if line in titles] == titles
    assert "round 3 of 3: new against old: 1.25× faster" in err
    assert "\r" not in out + err
    assert "\x1b" not in out + err


def test_json(run) -> None:
    status, out, _ = run(["old:", "new:env:FACTOR=0.8"], "--format", "json", "--fail-if", "epoch_seconds:5%")
    found = json.loads(out)
    (arm,) = found["arms"]
    assert (status, found["first"], found["failed"], arm["rounds"]) == (0, "old", {}, 3)
    assert arm["epoch_time"]["verdict"] == "faster"
    assert set(arm["networks"][0]["phases"]) == {"data", "forward", "backward", "optimizer"}
    assert arm["networks"][0]["peak_memory"]["ratio"] == 1
    assert [check["outcome"] for check in arm["checks"]] == ["pass"]
    assert all(Path(path).exists() for path in found["files"].values())


def test_markdown(run) -> None:
    """As a job summary of GitHub shows it: the headline is a paragraph, and the tables are tables."""
    status, out, _ = run(["old:", "new:env:FACTOR=0.8"], "--format", "markdown", "--fail-if", "epoch_seconds:5%")
    tokens = MarkdownIt("commonmark").enable("table").parse(out)
    assert status == 0
    assert [token.type for token in tokens[:3]] == ["paragraph_open", "inline", "paragraph_close"]
    assert tokens[1].content.startswith("new: 1.25× faster [")
    assert sum(token.type == "table_open" for token in tokens) >= 3


def test_the_default_folder_is_new_unless_the_same_command_is_unfinished(run, started, tmp_path: Path) -> None:
    assert run(["a:", "b:"], "--dry-run")[0] == 0
    (folder,) = (tmp_path / ".benchmarks").iterdir()
    assert folder.name.endswith("-a-b")
    assert run(["a:", "b:"])[0] == 0
    assert list((tmp_path / ".benchmarks").iterdir()) == [folder]
    assert len(started()) == 2 + 6  # the pilots of the dry run count
    head = folder / "duel.json"
    assert json.loads(head.read_text())["over"]
    head.rename(head)
    folder.rename(folder.with_name("duel-20200101T000000Z-a-b"))
    assert run(["a:", "b:"])[0] == 0
    assert len(list((tmp_path / ".benchmarks").iterdir())) == 2
    assert len(started()) == 2 + 6 + 2 + 6


def test_a_dry_run_prints_the_plan_and_measures_nothing(run, started) -> None:
    status, out, _ = run(["a:", "b:threads=1"], "--dry-run")
    assert status == 0
    assert out.splitlines()[2].startswith("3 rounds of one process of each arm, ")
    assert "estimated: " in out
    assert len(started()) == 2


def test_an_arm_that_fails_ends_with_2_after_the_results_of_the_others(run) -> None:
    status, out, err = run(["a:", "b:env:LATER=crash", "c:"])
    assert status == 2
    assert out.splitlines()[0].startswith("b: cannot tell: measured in 2 processes")
    assert out.splitlines()[1].startswith("c: ")
    told = err[err.index("resnet-bench: error: arm b failed: ") :]
    assert told.splitlines()[-1] == "  no memory left."


def test_all_arms_that_fail_at_once(run) -> None:
    status, out, err = run(["a:env:STARTED=/nowhere/x", "b:env:STARTED=/nowhere/x"])
    assert (status, out) == (2, "")
    assert "resnet-bench: error: arm a failed: " in err
    assert "/nowhere/x" in err
    assert "Traceback" not in err.replace("Traceback (most recent call last)", "")


@pytest.mark.parametrize(
    ("arms", "more", "message"),
    [
        (["a:"], [], "A duel has 2 to 4 arms"),
        (["a:", "b:"], ["--engine", "reference,fast"], "--engine takes one engine here"),
        (["a:", "b:"], ["--architectures", "vgg"], "vgg"),
        (["a:", "b:"], ["--processes", "0"], "--processes is 0"),
        (["a:", "b:"], ["--fail-if", "speed:5%"], "--fail-if 'speed:5%' names no metric"),
        (["a:", "b:"], ["--fail-if", "fc9.epoch_seconds:1%"], "--fail-if fc9.epoch_seconds:1% is for a network that"),
        (["a:", "b:"], ["--output", "interpreter"], "interpreter"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(run, started, tmp_path: Path, arms, more, message) -> None:
    status, out, err = run(arms, *more)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "started").exists()


def test_the_help_teaches_with_three_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["duel", "--help"])
    text = capsys.readouterr().out
    assert text.count("  resnet-bench duel --arm ") == 3
    assert "a comma in a value is written \\," in " ".join(text.split())
