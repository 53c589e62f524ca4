"""The workflow in the README, command by command, and what a linter of workflows says of it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from resnet_bench.analysis.gate import Threshold
from resnet_bench.cli import cli
from resnet_bench.duel import arms

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
(WORKFLOW,) = (
    block for block in re.findall(r"^```yaml\n(.*?)^```$", README, re.DOTALL | re.MULTILINE) if "jobs:" in block
)
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW)["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]
COMMANDS = [shlex.split(line) for step in STEPS if "run" in step for line in step["run"].splitlines()]


def commands_of(program: str) -> list[list[str]]:
    """The arguments of each command line of a program, without the place that its output goes to."""
    found = [command[1:] for command in COMMANDS if command[0] == program]
    return [command[: command.index(">>")] if ">>" in command else command for command in found]


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """A command of `resnet-bench` and its options; an error where it would refuse one."""
    name, command, rest = cli.resolve_command(click.Context(cli), arguments)
    assert name is not None
    assert command is not None
    return name, command.make_context(name, rest).params


def test_every_command_is_known() -> None:
    assert {command[0] for command in COMMANDS} == {"pip", "pytest", "resnet-bench"}


def test_every_command_line_of_resnet_bench_parses() -> None:
    found = [parsed(command) for command in commands_of("resnet-bench")]
    assert [name for name, _ in found] == ["duel", "report", "export"]
    duel = found[0][1]
    base, new = arms.parse_all(duel["texts"])
    assert (base.revision, new.revision) == ("origin/$GITHUB_BASE_REF", "HEAD")
    assert [str(Threshold.parse(limit)) for limit in duel["limits"]] == ["epoch_seconds:5%"]


def test_an_option_that_is_not_there_is_found() -> None:
    """The test above can fail."""
    with pytest.raises(click.NoSuchOption):
        parsed(["duel", "--arm", "a:", "--unheard-of"])


def test_pytest_takes_its_options(tmp_path: Path) -> None:
    """And selects the benchmarks; nothing is measured."""
    (command,) = commands_of("pytest")
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q"]
    asked = [str(ROOT / "benchmarks"), *command[1:], f"--benchmark-storage={tmp_path}", "--engine", "reference"]
    done = subprocess.run([*pytest_, *asked], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_epoch_time[conv5x5-reference" in done.stdout


def test_files_are_those_that_an_earlier_step_writes() -> None:
    texts = {name: [str(step.get("run", step.get("with", ""))) for step in job["steps"]] for name, job in JOBS.items()}
    for job, file in (("gate", "duel"), ("history", "results.json"), ("history", "history.json")):
        places = [i for i, text in enumerate(texts[job]) if re.search(rf"(?<![\w-]){re.escape(file)}\b", text)]
        assert len(places) > 1
        assert re.search(rf"--(output|benchmark-json) {re.escape(file)}\b", texts[job][places[0]])


def test_the_status_of_the_gate_is_that_of_the_step() -> None:
    """A pipe would end with the status of its last command."""
    for step in STEPS:
        assert not re.search(r"\||;|&", step.get("run", ""))


def linted(linter: list[str], path: Path) -> int:
    return subprocess.run([*linter, str(path)], capture_output=True, timeout=60).returncode


@pytest.mark.parametrize(
    ("linter", "mistake"),
    [
        (
            [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"],
            ("runs-on", "run-on"),
        ),
        (["actionlint"], ("github.event_name", "github.evnt_name")),
    ],
    ids=["schema", "actionlint"],
)
def test_linters_of_workflows_find_nothing(linter: list[str], mistake: tuple[str, str], tmp_path: Path) -> None:
    """GitHub's schema, which comes with check-jsonschema; and actionlint, which is no Python package, where it is."""
    if shutil.which(linter[0]) is None:
        pytest.skip(f"needs {linter[0]}")
    path = tmp_path / "benchmarks.yml"
    path.write_text(WORKFLOW)
    assert linted(linter, path) == 0
    path.write_text(WORKFLOW.replace(*mistake))
    assert linted(linter, path) == 1
