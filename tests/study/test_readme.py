"""What README says to type for a study on several machines: bash reads it, and the command line takes it."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from resnet_bench.cli import cli

ROOT = Path(__file__).parents[2]


def blocks() -> list[str]:
    """The shell blocks of README's section on several machines."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n### On several machines\n")[1].split("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[list[str]]:
    """The words of each `resnet-bench` command line, without those before it, such as `exec`."""
    lines = (shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines())
    return [words[words.index("resnet-bench") :] for words in lines if "resnet-bench" in words]


def parse(words: list[str]) -> click.Context:
    """What the command line's own parser makes of a command; nothing is run."""
    command, arguments = cli, words[1:]
    context = cli.make_context("resnet-bench", [arguments[0]])
    command = cli.get_command(context, arguments[0])
    assert command is not None
    return command.make_context(arguments[0], arguments[1:], parent=context)


def test_bash_reads_every_block() -> None:
    assert len(blocks()) == 2
    for block in blocks():
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_command_line_takes_every_command() -> None:
    found = [words for block in blocks() for words in commands(block)]
    assert [words[1] for words in found] == ["study", "study"]
    for words in found:
        assert parse(words).params["cluster"]


def test_a_command_with_an_option_that_does_not_exist_is_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["resnet-bench", "study", "--clusters", "tcp://host1:8786"])


def test_the_slurm_job_has_the_study_get_the_signal() -> None:
    """Its last command takes the place of the shell, which SLURM signals, and no other job has its scheduler's file."""
    (script,) = (block for block in blocks() if block.startswith("#!"))
    assert "--signal=B:TERM@" in script.splitlines()[1]
    assert script.splitlines()[-1].startswith("exec resnet-bench study ")
    assert "dask=runs/dask-$SLURM_JOB_ID" in script
    (words,) = commands(script)
    assert parse(words).params["cluster"] == "$dask.json"
