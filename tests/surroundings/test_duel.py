"""Duels with real measuring processes: against itself, against slower code of a revision, in an environment of uv."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resnet_bench
from resnet_bench.duel import environments
from resnet_bench.errors import UserError

CHECKOUT = Path(resnet_bench.__file__).parent.parent
TINY = [
    *("--dataset", "synthetic", "--train-images", "64", "--test-images", "20", "--epochs", "1", "--engine"),
    *("reference", "--pipeline", "vectorized", "--architectures", "conv5x5", "--time-limit", "30"),
]
EXTRA_WORK = """        begun = time.perf_counter()
        loss = float(self.engine.step(*batch, self.clock))
        until = time.perf_counter() + (time.perf_counter() - begun)
        while time.perf_counter() < until:
            pass
"""
STEP = "        loss = float(self.engine.step(*batch, self.clock))\n"


@pytest.fixture
def duel(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `resnet-bench duel` of the code in a folder, by default the code under test."""

    def run(*arguments: str, code: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "resnet_bench.cli", "duel", *TINY, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1500, check=False
        )

    return run


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_two_arms_of_this_environment(duel, tmp_path: Path) -> None:
    found = result(duel("--arm", "a:", "--arm", "b:", "--processes", "3", "--accuracy-epochs", "1", "--format", "json"))
    (arm,) = found["arms"]
    assert arm["rounds"] == 3
    accuracy = arm["networks"][0]["accuracy"]
    assert (accuracy["verdict"], accuracy["difference"], accuracy["seeds"]) == ("equivalent", 0, 3)  # the same bits
    for path in found["files"].values():
        told = json.loads((tmp_path / path).read_text())["machine_info"]["resnet_bench"]
        assert told["session"] == told["duel"]["id"]
    compared = subprocess.run(
        [sys.executable, "-m", "resnet_bench.cli", "compare", *found["files"].values()],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "measured in turn; intervals over pairs of processes" in " ".join(compared.stdout.split())


def test_a_revision_with_more_work_in_every_step_is_slower(duel, tmp_path: Path) -> None:
    """As on a runner of a continuous integration: the base branch against the commit that is checked out."""
    clone, package = tmp_path / "clone", CHECKOUT / "resnet_bench"
    shutil.copytree(package, clone / "resnet_bench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", clone)

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "-C", str(clone), *identity, *arguments], check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "base")
    training = clone / "resnet_bench" / "training" / "training.py"
    text = training.read_text()
    assert STEP in text
    training.write_text(text.replace(STEP, EXTRA_WORK))
    git("commit", "-qam", "slower")
    arms = ["--arm", "base:git=main~1", "--arm", "new:git=HEAD", "--processes", "4", "--fail-if", "epoch_seconds:5%"]
    done = duel(*arms, code=clone)
    assert done.returncode == 1, done.stderr
    assert "× slower [" in done.stdout
    assert "FAILS" in done.stdout
    assert "code.commit" in done.stdout


def test_an_environment_made_by_uv(duel) -> None:
    try:
        environments.uv()
    except UserError:
        pytest.skip("uv is not installed")
    arms = ["--arm", "here:", "--arm", "other:tabulate==0.9.0", "--processes", "3", "--format", "json"]
    (arm,) = result(duel(*arms))["arms"]
    assert arm["rounds"] == 3
    environment = next((environments.kept_in(Path()) / "environments").glob("*/lib/*/site-packages/tabulate-0.9.0*"))
    assert environment.is_dir()
