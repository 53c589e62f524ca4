"""docs/extending.md says what a new schedule, block, network, engine and table take.

The page's schedule, block, network and engine are made from its own text, in a copy of the package. Its three commands
then train there, each with the engine that it names, and the schedule with `fast` too, on a network whose hidden units
may rest. The suite's own tests of schedules and engines pass in that copy. Another network and a table, which the page
describes without their text, are made here. Of figures and claims only the files that it names are looked for.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resnet_bench import architectures, files, identity, networks
from resnet_bench.analysis.series import Group
from resnet_bench.architectures import Architecture
from resnet_bench.cli import cli
from resnet_bench.data.datasets import Dataset
from resnet_bench.engines import fast
from resnet_bench.engines._units import PERIOD
from resnet_bench.recipe import Recipe
from resnet_bench.render import paper_tables
from resnet_bench.render.table import Table
from resnet_bench.results import reading
from resnet_bench.schema import AccuracyResult
from resnet_bench.training.training import Training
from tests.conftest import needs_compiler
from tests.handmade import epoch_time, save

ROOT = Path(__file__).parent.parent


def reported(capsys: Any, *arguments: str | Path) -> str:
    cli.main(["report", *map(str, arguments)], standalone_mode=False)
    return str(capsys.readouterr().out)


def test_a_network_is_one_entry(dataset: Dataset, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """It is trained, counted and reported like the others."""
    tiny = Architecture("tiny", "", "", widths=(16, 16), strides=(2, 2), hidden=(8,))
    monkeypatch.setitem(architectures.CONTROLS, "tiny", tiny)
    training = Training(architectures.get("tiny"), dataset, Recipe(epochs=1), pipeline="vectorized")
    list(training.epochs())
    path = tmp_path / "tiny.json"
    files.write_json(path, training.result(identity.describe()).model_dump(mode="json"))
    rows = [line for line in reported(capsys, path).splitlines() if line.startswith("tiny ")]
    assert any(f"{networks.parameter_count(tiny, dataset.num_classes):,}" in row for row in rows)


def test_a_table_is_a_function_and_its_entry(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def memory(group: Group) -> Table | None:
        rows = [[s.architecture, str(r.peak_memory_bytes)] for s in group.series for r in s.times]
        return Table("Memory", ["Network", "Bytes"], rows) if rows else None

    monkeypatch.setattr(paper_tables, "TABLES", [*paper_tables.TABLES, memory])
    text = reported(capsys, save(tmp_path / "a.json", [epoch_time("fc1")]))
    assert text.rstrip().endswith("fc1        500000000")


DOCUMENT = (ROOT / "docs" / "extending.md").read_text()
FILES = re.findall(r"Write `([^`]+)`:\n\n```python\n(.*?)```", DOCUMENT, re.DOTALL)
CHANGES = re.findall(r"`(resnet_bench/[^`]+)`:\n\n```diff\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = re.findall(r"^resnet-bench (.*)$", DOCUMENT, re.MULTILINE)
TRAIN = "from resnet_bench.cli import main; main()"


def changed(text: str, diff: str) -> str:
    """The text after each piece of a diff, whose old lines have to be there once."""
    for piece in diff.split("@@\n"):
        lines = piece.splitlines(keepends=True)
        old, new = ("".join(line[1:] for line in lines if line[0] in (" ", sign)) for sign in "-+")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with everything in it that the page adds."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(Path(architectures.__file__).parent, folder / "resnet_bench")
    for path, text in FILES:
        assert not (folder / path).exists()
        (folder / path).write_text(text)
    for path, diff in CHANGES:
        (folder / path).write_text(changed((folder / path).read_text(), diff))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", TRAIN, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_page_has_what_it_says() -> None:
    assert [Path(path).parent.name for path, _ in FILES] == ["schedules", "attention", "engines"]
    assert len(CHANGES) == 4
    assert len(COMMANDS) == 3


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split(" --dataset")[0])
def test_what_the_page_adds_trains(extended: Path, tmp_path: Path, command: str) -> None:
    if "--engine fast" in command and shutil.which("c++") is None:
        pytest.skip("no compiler")
    arguments = [*shlex.split(command), "--output", str(tmp_path / "result.json")]
    done = run(extended, *arguments)
    assert done.returncode == 0, done.stderr
    result = reading.read(tmp_path / "result.json").results[0]
    assert isinstance(result, AccuracyResult)
    assert result.complete
    named = re.search(r"--engine (\S+)", command)
    assert result.engine == (named[1] if named else "reference")
    if "linear" in command:
        assert result.epochs[-1].lr_end == pytest.approx(4e-4 / (50 - 5))


@needs_compiler
def test_the_pages_schedule_trains_with_fast_where_hidden_units_may_rest(extended: Path, tmp_path: Path) -> None:
    """For which `fast` has to find the highest rate to come; beyond the first steps after which units are judged."""
    architecture, images = "blocks2", 4 * (PERIOD + 2)
    assert fast.Engine.leaves_idle_units_out(architectures.get(architecture), Recipe())
    done = run(
        extended, "train", architecture, "--engine", "fast", "--schedule", "linear", "--epochs", "1", "--dataset",
        "synthetic", "--train-images", str(images), "--test-images", "10", "--output", str(tmp_path / "result.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = reading.read(tmp_path / "result.json").results[0]
    assert isinstance(result, AccuracyResult)
    assert (result.engine, result.recipe["schedule"], result.complete) == ("fast", "linear", True)
    assert result.epochs[-1].lr_end == pytest.approx(4e-4 / (PERIOD + 2))


def test_the_suites_own_tests_pass_with_what_the_page_adds(extended: Path) -> None:
    """Those of the lists to which it adds: what it says is all there is to do."""
    for file in ("__init__.py", "conftest.py", "test_schedules.py", "engines/__init__.py", "engines/test_registry.py"):
        (extended / "tests" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "tests" / file, extended / "tests" / file)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir", str(extended), "tests"],
        cwd=extended, env={**os.environ, "PYTHONPATH": str(extended)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "[fused] PASSED" in done.stdout  # not those of the package here


def test_what_the_page_adds_is_listed_and_refuses_what_it_cannot_do(extended: Path) -> None:
    assert "fc1-gate" in run(extended, "architectures").stdout
    assert "linear" in run(extended, "train", "--help").stdout
    refused = run(extended, *shlex.split("train fc1 --engine fused --batch-size 65 --dataset synthetic"))
    assert refused.returncode == 2
    assert "give at most 64" in refused.stderr


def test_what_the_page_adds_follows_the_suites_own_rules(extended: Path) -> None:
    """Its files are formatted and typed like the others; where the tools are there."""
    for tool in ("ruff check", "ruff format --check", "mypy"):
        if shutil.which(tool.split()[0]) is None:
            pytest.skip("no linter here")
        settings = ["--config-file" if tool.startswith("mypy") else "--config", str(ROOT / "pyproject.toml")]
        done = subprocess.run(
            [*tool.split(), *settings, *(path for path, _ in FILES)], cwd=extended, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", ["render/paper_tables.py", "render/figures.py", "engines/base.py", "paper.py"])
def test_the_page_names_files_that_exist(path: str) -> None:
    assert path.rpartition("/")[2].removesuffix(".py") in DOCUMENT
    assert (Path(architectures.__file__).parent / path).exists()
