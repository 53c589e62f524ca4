"""A study whose processes are killed, whose disk is full, whose clock runs backwards: real processes, for minutes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from resnet_bench import locks
from resnet_bench.results.manifest import MANIFEST
from resnet_bench.study.folder import StudyFolder
from tests.conftest import without_progress

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "resnet_bench.cli"]
KILLS = int(os.environ.get("STUDY_KILLS", "20"))


def command(images: Path, folder: Path, seeds: str = "0-1", epochs: int = 8) -> list[str]:
    return [
        *CLI, "study", "--dataset", f"folder:{images}", "--architectures", "conv5x5", "--engine", "reference,fast",
        "--seeds", seeds, "--epochs", str(epochs), "--pipeline", "vectorized", "--threads", "1", "--jobs", "2",
        "--checkpoint-minutes", "0.01", "--output", str(folder),
    ]  # fmt: skip


def run(arguments: list[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600, **options)


def weights(folder: Path) -> dict[str, str]:
    """{cell: SHA-256 of its weights} of the finished cells."""
    states = StudyFolder.open(folder).states()
    return {s.cell.name: s.result.weights_sha256 for s in states if s.state == "finished" and s.result}


def finished(folder: Path) -> dict[str, str]:
    """{cell: SHA-256 of its result file}."""
    with_manifest = (folder / MANIFEST).exists()
    found = json.loads((folder / MANIFEST).read_text())["finished"] if with_manifest else {}
    return {name: entry["sha256"] for name, entry in found.items()}


def trainings(of: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return [child for child in psutil.Process(of.pid).children() if "train" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def test_killed_twenty_times_it_ends_with_the_weights_of_an_undisturbed_study(
    image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """By SIGKILL, SIGTERM and Ctrl-C, the study or one of its trainings, at random moments."""
    images, rng = image_folder(train=100, test=10), random.Random(0)
    folder, seen, kills, seeds = tmp_path / "study", {}, 0, 2
    while kills < KILLS:
        if len(finished(folder)) == 2 * seeds:  # so that there is always something to kill
            assert run([*CLI, "study", "add", str(folder), "--seeds", str(seeds)]).returncode == 0
            seeds += 1
        study = subprocess.Popen(
            command(images, folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until = time.monotonic() + 120
        while study.poll() is None and not trainings(study) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 12))
        number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        children = trainings(study)
        if children and rng.random() < 0.4:
            rng.choice(children).send_signal(number)  # the study starts it again by itself
            kills += 1
            time.sleep(rng.uniform(0, 3))
        if study.poll() is None:
            study.send_signal(number)
            kills += 1
        _, err = study.communicate(timeout=300)
        if study.returncode in (130, 143):
            told = f"go on with: resnet-bench study --output {folder}" in err
            assert told or (not children and "run the same command again to go on" in err)
        else:
            assert study.returncode in (0, -signal.SIGKILL), err
        assert finished(folder).items() >= seen.items()  # what was finished has not been computed again
        seen = finished(folder)
    last = run([*CLI, "study", "--output", str(folder)])
    assert last.returncode == 0, last.stderr
    assert finished(folder).items() >= seen.items()
    undisturbed = run(command(images, tmp_path / "undisturbed", seeds=f"0-{seeds - 1}"))
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert weights(folder) == weights(tmp_path / "undisturbed")
    assert all(s.result and s.result.same_bits for s in StudyFolder.open(folder).states())


def test_trainings_of_a_killed_study_end_by_themselves_and_save(image_folder, tmp_path) -> None:
    """And nothing holds the study any more."""
    folder = tmp_path / "study"
    study = subprocess.Popen(
        command(image_folder(train=200, test=10), folder, epochs=200), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    while len(list(folder.glob("checkpoints/*/checkpoint.pt"))) < 2:
        time.sleep(0.1)
    children = trainings(study)
    study.kill()
    study.wait()
    assert len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert not locks.held(folder)
    assert [s.state for s in StudyFolder.open(folder).states()][:2] == ["interrupted", "interrupted"]


def test_sigterm_saves_a_checkpoint_and_ends_a_training_with_143(image_folder, tmp_path) -> None:
    arguments = ["train", "conv5x5", "--dataset", f"folder:{image_folder(train=200)}", "--pipeline", "vectorized"]
    arguments += ["--epochs", "500", "--checkpoint", str(tmp_path / "kept"), "--output", str(tmp_path / "out.json")]
    training = subprocess.Popen([*CLI, *arguments], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not (tmp_path / "out.json").exists():
        time.sleep(0.1)
    before = (tmp_path / "kept/checkpoint.pt").read_bytes()
    time.sleep(0.3)
    training.terminate()
    _, err = training.communicate(timeout=60)
    assert (training.returncode, err.decode()) == (143, "\nresnet-bench: terminated\n")
    assert (tmp_path / "kept/checkpoint.pt").read_bytes() != before


def test_on_a_full_disk_the_study_ends_with_a_sentence_and_goes_on_later(image_folder, tmp_path) -> None:
    """24 MB hold one checkpoint of conv5x5, 20 MB, and not the second one beside it."""
    images, folder = image_folder(train=20, test=4), tmp_path / "small"
    folder.mkdir()
    inner = f"mount -t tmpfs -o size=24m tmpfs {folder} && " + '"$@"; status=$?; cp -a "$KEPT"/. "$OUT"; exit $status'
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this process may not mount anything")
    out = tmp_path / "copied"
    out.mkdir()
    arguments = ["unshare", "-m", "sh", "-c", inner, "sh", *command(images, folder / "study", seeds="0", epochs=2)]
    done = run(arguments, env={**os.environ, "KEPT": str(folder / "study"), "OUT": str(out)})
    assert done.returncode == 2, done.stderr
    (sentence,) = without_progress(done.stderr)
    assert f"The disk with {folder / 'study'} is full" in sentence
    assert f"go on with: resnet-bench study --output {folder / 'study'}" in sentence
    assert run([*CLI, "study", "--output", str(out)]).returncode == 0  # where there is space


def test_a_clock_that_runs_backwards_changes_nothing(image_folder, tmp_path) -> None:
    """In all processes of the study, and the second of two runs is years before the first."""
    images = image_folder(train=20, test=4)
    assert run(command(images, tmp_path / "right", epochs=2)).returncode == 0
    (tmp_path / "sitecustomize.py").write_text(
        "import datetime, os, time\n"
        "begun, real, years = time.monotonic(), time.time(), int(os.environ['YEARS_BACK']) * 3e7\n"
        "time.time = lambda: real - years - 1000 * (time.monotonic() - begun)\n"
        "class Backwards(datetime.datetime):\n"
        "    @classmethod\n"
        "    def now(cls, tz=None):\n"
        "        return cls.fromtimestamp(time.time(), tz)\n"
        "datetime.datetime = Backwards\n"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for years, seeds in (("0", "0"), ("9", "0-1")):
        environment = {**os.environ, "PYTHONPATH": paths, "YEARS_BACK": years}
        if years == "9":
            more = run([*CLI, "study", "add", str(tmp_path / "wrong"), "--seeds", "1"], env=environment)
            assert more.returncode == 0, more.stderr
        done = run(command(images, tmp_path / "wrong", seeds=seeds, epochs=2), env=environment)
        assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "wrong") == weights(tmp_path / "right")
    by_seed: dict[int, set[str]] = {0: set(), 1: set()}
    for state in StudyFolder.open(tmp_path / "wrong").states():
        by_seed[state.cell.seed] |= {stretch.started_at[:4] for stretch in state.result.stretches}
    assert min(by_seed[0]) > max(by_seed[1]), "the clock of the suite did not run backwards"
