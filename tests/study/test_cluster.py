"""A study on a Dask scheduler and workers that are real processes on this machine."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from resnet_bench import cli
from resnet_bench.errors import UNFIT, UserError
from resnet_bench.results import reading
from resnet_bench.study import cells, cluster, worker
from resnet_bench.study.cluster import Cluster
from resnet_bench.study.folder import StudyFolder
from tests.conftest import without_progress, write_images
from tests.study.conftest import digests

ROOT = Path(__file__).parents[2]


class DaskCluster:
    """A scheduler and workers, each a process group of its own. `close` ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-show",
            DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s",  # shorter than a cell, which is not to be taken for dead
        )  # fmt: skip
        try:
            wait_for(lambda: self.file.exists() and self.file.stat().st_size, "the scheduler's file")
            time.sleep(0.2)
            self.address = json.loads(self.file.read_text())["address"]
        except BaseException:
            self.close()
            raise

    def worker(self, name: str, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        own = self.folder / name
        own.mkdir()
        options = ("--name", name, "--nthreads", "1", "--local-directory", str(own), *options)
        return self._start("dask_worker", *options, "--host", "127.0.0.1", **variables)

    def _start(self, module: str, *options: str, **variables: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *options, "--no-dashboard"]
        command += ["--scheduler-file", str(self.file)]
        with open(self.folder / "dask.log", "ab") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, cwd=ROOT, env={**os.environ, **variables}
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self.processes):
            kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started by SIGKILL, but for the trainings, which have sessions of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.05)


@pytest.fixture
def dask(tmp_path: Path) -> Iterator[DaskCluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    cluster = DaskCluster(folder)
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two cells: two seeds of one network, on one thread."""
    images = write_images(tmp_path_factory.mktemp("study") / "images", train=4, test=2)
    return [
        "--dataset", f"folder:{images}", "--architectures", "conv5x5", "--engine", "reference", "--seeds", "0-1",
        "--epochs", "60", "--pipeline", "vectorized", "--threads", "1", "--checkpoint-minutes", "0",
    ]  # fmt: skip


def study(*arguments: str) -> subprocess.Popen[str]:
    """`resnet-bench study` as a process."""
    command = [sys.executable, "-m", "resnet_bench.cli", "study", *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def local(asked: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of the same study on this machine."""
    folder = tmp_path_factory.mktemp("local") / "study"
    status, _, err = finished(study(*asked, "--output", str(folder)))
    assert status == 0, err
    return digests(folder)


def trainings(of: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The trainings that a worker runs."""
    found = []
    for process in psutil.Process(of.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "resnet_bench.cli" in process.cmdline():
                found.append(process)
    return found


def test_a_killed_worker_and_a_killed_scheduler_change_no_bit(
    dask: DaskCluster, asked: list[str], local: dict[str, str], tmp_path: Path
) -> None:
    """A worker is killed in the middle of a cell, which another one goes on with, then the scheduler is killed too.

    The same command finishes the study.
    """
    folder = tmp_path / "study"
    first, second = dask.worker("one"), dask.worker("two")
    running = study(*asked, "--cluster", dask.address, "--output", str(folder))
    began = re.compile(r"epoch +2/")
    logs = [folder / "logs" / f"conv5x5-reference-{seed}.log" for seed in (0, 1)]
    wait_for(lambda: all(log.exists() and began.search(log.read_text()) for log in logs), "the second epochs")
    assert [len(trainings(w)) for w in (first, second)] == [1, 1]  # one cell each
    (orphan,) = trainings(first)
    seed = int(orphan.cmdline()[orphan.cmdline().index("--seed") + 1])
    kill(first)
    psutil.wait_procs([orphan], timeout=60)
    assert not orphan.is_running()  # it has saved its checkpoint, and ended with its worker
    third = dask.worker("third")
    wait_for(lambda: trainings(third), "another worker to take the cell")
    wait_for(lambda: "going on from the checkpoint" in logs[seed].read_text(), "the cell to go on from its checkpoint")
    kill(dask.scheduler)
    status, out, err = finished(running)
    assert status == 2, out + err
    assert "lost its worker" in out
    assert f"The scheduler at {dask.address} is gone; finished cells are kept." in err
    said = without_progress(err)
    assert len(said) == 1
    wait_for(lambda: not trainings(second) + trainings(third), "the trainings to end")
    (tmp_path / "again").mkdir()
    again = DaskCluster(tmp_path / "again")
    try:
        again.worker("three")
        status, out, err = finished(study("--output", str(folder), "--cluster", str(again.file)))
        assert status == 0, out + err
    finally:
        again.close()
    assert digests(folder) == local


def test_a_worker_that_does_not_share_the_folder_sends_the_result(
    dask: DaskCluster, asked: list[str], local: dict[str, str], tmp_path: Path
) -> None:
    """Dask's settings for its workers do not reach the training, and are written down."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os\nfrom pathlib import Path\nread = Path.read_text\n"
        "def elsewhere(self, *a, **k):\n"
        "    if self.name == 'holder.json': raise FileNotFoundError(self)\n"
        "    return read(self, *a, **k)\n"
        "Path.read_text = elsewhere\n"
    )
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    dask.worker("apart", PYTHONPATH=path)
    folder = tmp_path / "study"
    running = study(*asked, "--cluster", dask.address, "--output", str(folder))

    def told() -> bool:
        states = StudyFolder.open(folder).states() if (folder / "study.json").exists() else []
        return any(state.state == "running" and state.epochs > 0 for state in states)

    wait_for(told, "the number of epochs of a cell that a worker trains elsewhere")
    status, out, err = finished(running)
    assert status == 0, out + err
    assert digests(folder) == local
    found = StudyFolder.open(folder)
    (notes, _) = (found.notes(cell) for cell in found.plan.cells)
    assert any("without Dask's MALLOC_TRIM_THRESHOLD_=65536" in note for note in notes)
    assert "epoch  1/60" in (folder / "logs" / "conv5x5-reference-0.log").read_text()
    assert not list((dask.folder / "apart").rglob("checkpoint.pt"))  # nothing stays on the worker
    result = reading.read(folder / "results" / "conv5x5-reference-0.json").results[0]
    assert result.threads == 1


def test_a_training_that_finds_other_images_ends_with_a_status_of_its_own(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--dataset", f"folder:{images}", "--engine", "reference", "--checkpoint", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as exit_:
        cli.main(["train", "conv5x5", *options, "--images-sha256", "0" * 64])
    assert exit_.value.code == UNFIT
    assert "are not the study's (SHA-256" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_without_a_scheduler(
    run: Callable[..., tuple[int, str, str]], options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    status, _, err = run("study", *options, "--cluster", "tcp://127.0.0.1:1")
    assert status == 2
    assert "No scheduler answers at tcp://127.0.0.1:1" in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_a_scheduler_file_that_never_comes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "FILE_SECONDS", 0.1)
    with pytest.raises(UserError, match=r"No scheduler answers at .*dask.json \(No such file or directory\)"):
        cluster.Workers(str(tmp_path / "dask.json"), print)


def test_jobs_are_of_this_machine(run: Callable[..., tuple[int, str, str]], options: list[str]) -> None:
    status, _, err = run("study", *options, "--cluster", "tcp://127.0.0.1:1", "--jobs", "2")
    assert status == 2
    assert "--jobs is for this machine" in err


def test_settings_of_dask_are_removed_and_those_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    variables, removed = worker.environment()
    assert "OMP_NUM_THREADS" not in variables
    assert variables["MKL_NUM_THREADS"] == "7"
    assert "OMP_NUM_THREADS=1" in removed


# Which worker gets which cell, on a client that runs nothing ---------------------------------------------------------


class Future:
    def __init__(self) -> None:
        self.status, self.value, self.cancelled = "pending", {}, False

    def result(self, timeout: float) -> dict[str, Any]:
        return self.value

    def cancel(self) -> None:
        self.cancelled = True

    def end(self, status: int, reason: str = "") -> None:
        self.status = "finished"
        self.value = {"status": status, "reason": reason, "result": None, "log": None, "notes": ()}


class Workers:
    """Stands for `cluster.Workers` and its client."""

    address, running = "tcp://somewhere", True

    def __init__(self, **cells: int) -> None:
        self.known = self.abouts = {
            name: worker.About(host=name.rstrip("0123456789"), threads=8, cells=n, code="c")
            for name, n in cells.items()
        }
        self.client, self.submitted, self.said = self, [], []
        self.present, self.left_out = set(cells), {}
        self.handlers: dict[str, Callable[[tuple[float, Any]], None]] = {}

    def fit(self, codes: object) -> dict[str, worker.About]:
        return {name: about for name, about in self.abouts.items() if name in self.present - set(self.left_out)}

    def submit(self, function: object, order: dict[str, Any], *, workers: list[str], **_: object) -> Future:
        future = Future()
        self.submitted.append((workers[0], order, future))
        return future

    def subscribe_topic(self, topic: str, handler: Callable[[tuple[float, Any]], None]) -> None:
        self.handlers[topic] = handler

    def unsubscribe_topic(self, topic: str) -> None:
        del self.handlers[topic]

    def leave_out(self, name: str, reason: str) -> None:
        self.said.append(f"{name}: {reason}")
        self.left_out[name] = reason.rstrip(".")


@pytest.fixture
def place(run: Callable[..., tuple[int, str, str]], options: list[str], tmp_path: Path) -> Callable[..., Cluster]:
    """Makes a place of workers, for a study of two cells."""
    importlib.import_module("distributed")  # takes seconds at times, longer than a test waits
    run("study", *options, "--epochs", "1")
    study_ = StudyFolder.open(tmp_path / "study")
    assert study_.local
    study_.keep_local(study_.local.model_copy(update={"cluster": "tcp://somewhere"}))

    def make(**cells: int) -> Cluster:
        return Cluster(study_, Workers(**cells), 5.0, lambda line: None, allow_other_code=False)  # type: ignore[arg-type]

    return make


def test_a_worker_trains_one_cell_unless_it_says_otherwise(place: Callable[..., Cluster]) -> None:
    there = place(a1=1, b=2)
    one, two = there.study.plan.cells
    assert (there.jobs, there.free) == (3, 3)
    there.start(one)
    there.start(two)
    assert there.free == 1
    chosen = [name for name, *_ in there.workers.submitted]
    assert chosen[0] == "b"  # it has most room
    assert there.workers.submitted[0][1]["jobs"] == 2


def test_cells_beside_others_on_one_machine_are_told_so(place: Callable[..., Cluster]) -> None:
    """Their times are not comparable then."""
    there = place(a1=1, a2=1)
    there.start(there.study.plan.cells[0])
    assert there.workers.submitted[0][1]["jobs"] == 2


def test_a_cell_whose_worker_is_unfit_is_trained_elsewhere(place: Callable[..., Cluster]) -> None:
    there = place(a=1, b=1)
    cell = there.study.plan.cells[0]
    there.start(cell)
    (name, _, future), other = there.workers.submitted[0], {"a": "b", "b": "a"}
    future.end(UNFIT, "failed: the images are others.")
    assert there.ended(0.5) == []
    assert there.workers.said == [f"{name}: the images are others."]
    assert [w for w, *_ in there.workers.submitted] == [name, other[name]]


def test_a_lost_worker_gives_its_cell_back(place: Callable[..., Cluster]) -> None:
    there = place(a=1)
    cell = there.study.plan.cells[0]
    there.start(cell)
    there.workers.present = set()
    (ended,) = there.ended(0)
    assert (ended.cell, ended.status, ended.by_others) == (cell, None, True)
    assert there.workers.submitted[0][2].cancelled


def test_what_an_earlier_worker_told_counts_no_more_when_the_cell_begins_again(place: Callable[..., Cluster]) -> None:
    there = place(a=1, b=1)
    cell = there.study.plan.cells[0]
    there.start(cell)
    (topic,) = there.workers.handlers
    told = there.study.checkpoint(cell) / "result.json"
    handler = there.workers.handlers[topic]
    handler((0.0, "so far"))
    assert told.read_text() == "so far"
    there.workers.present = {w for w in ("a", "b") if w != there.workers.submitted[0][0]}
    assert len(there.ended(0)) == 1
    assert not there.workers.handlers
    there.start(cell)
    assert not told.exists()
    handler((0.0, "too late"))
    assert not told.exists()


def test_a_lost_scheduler_is_told_with_the_command_that_goes_on(place: Callable[..., Cluster]) -> None:
    there = place(a=1)
    there.start(there.study.plan.cells[0])
    there.workers.running = False
    with pytest.raises(UserError, match=r"The scheduler at tcp://somewhere is gone; .*--cluster tcp://somewhere"):
        there.ended(1)


def test_other_cells_of_an_unfit_worker_go_on(place: Callable[..., Cluster]) -> None:
    """It lacked what one cell needs."""
    there = place(a=2)
    one, two = there.study.plan.cells
    there.start(one)
    there.start(two)
    there.workers.submitted[0][2].end(UNFIT, "failed: no compiler.")
    assert there.ended(0.5) == []
    assert not there.workers.submitted[1][2].cancelled
    there.workers.submitted[1][2].status = "lost"
    there.workers.submitted[1][2].result = raising(OSError("gone"))
    assert [e.cell for e in there.ended(0.5)] == [two]
    with pytest.raises(UserError, match=r"No worker at tcp://somewhere can train the study's cells: no compiler\."):
        assert there.free


def test_an_error_of_the_worker_itself_leaves_it_out_and_the_cell_goes_elsewhere(place: Callable[..., Cluster]) -> None:
    """As where its own disk is full: it is not lost, and would be chosen again and again."""
    there = place(a=1, b=1)
    there.start(there.study.plan.cells[0])
    name, _, future = there.workers.submitted[0]
    future.status, future.result = "error", raising(PermissionError(13, "Permission denied"))  # type: ignore[method-assign]
    assert there.ended(0.5) == []
    assert there.workers.said == [f"{name}: it cannot train (Permission denied)"]
    assert there.workers.submitted[1][0] != name


def test_a_cell_that_was_ended_on_a_worker_prefers_another_one(place: Callable[..., Cluster]) -> None:
    """Though the first has more room."""
    there = place(a=3, b=1)
    cell = there.study.plan.cells[0]
    there.start(cell)
    assert there.workers.submitted[0][0] == "a"
    there.workers.submitted[0][2].end(-4, "was ended by SIGILL")
    assert [e.by_others for e in there.ended(0.5)] == [True]
    there.start(cell)
    assert there.workers.submitted[1][0] == "b"


def test_a_worker_on_which_trainings_end_one_after_the_other_is_left_out(place: Callable[..., Cluster]) -> None:
    there = place(a=1)
    one, two = there.study.plan.cells

    def train(cell: cells.Cell, status: int) -> None:
        there.start(cell)
        there.workers.submitted[-1][2].end(status, "was ended by SIGKILL" if status else "")
        there.ended(0.5)

    for cell, status in ((one, -9), (two, -9), (one, 0), (two, -9), (two, -9)):
        train(cell, status)
    assert there.workers.left_out == {}
    train(two, -9)
    assert there.workers.said == ["a: 3 trainings in a row ended there (was ended by SIGKILL)"]


def test_a_worker_that_joins_a_machine_marks_the_cells_there(place: Callable[..., Cluster]) -> None:
    """A cell that began alone on its machine did not stay alone."""
    there = place(a1=1)
    there.start(there.study.plan.cells[0])
    assert there.workers.submitted[0][1]["jobs"] == 1
    there.workers.abouts["a2"] = there.workers.abouts["a1"]
    there.workers.present.add("a2")
    there.workers.submitted[0][2].end(0)
    assert [e.jobs for e in there.ended(0.5)] == [2]


def test_without_dask_a_sentence_says_what_to_install(
    run: Callable[..., tuple[int, str, str]], options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a study on this machine needs it nowhere."""
    for name in [n for n in sys.modules if n.partition(".")[0] in ("distributed", "dask")] + ["distributed", "dask"]:
        monkeypatch.setitem(sys.modules, name, None)
    status, _, err = run("study", *options, "--cluster", "tcp://127.0.0.1:1")
    assert status == 2
    assert err.strip() == (
        "resnet-bench: error: --cluster needs Dask, which is not installed; install it with pip install "
        '"resnet-bench[cluster]".'
    )
    assert run("study", *options)[0] == 0


def raising(error: Exception) -> Callable[..., Any]:
    def raise_it(timeout: float) -> Any:
        raise error

    return raise_it


class Client:
    """Stands for Dask's."""

    status = "running"

    def __init__(self, **codes: str) -> None:
        self.codes = codes

    def nthreads(self) -> dict[str, int]:
        return dict.fromkeys(self.codes, 2)

    def run(self, function: object, workers: list[str], on_error: str) -> dict[str, Any]:
        made = {w: {"host": "h", "threads": 2, "cells": 1, "code": self.codes[w]} for w in workers}
        missing = ModuleNotFoundError("No module named 'resnet_bench'")
        return {w: missing if a["code"] == "none" else a for w, a in made.items()}


def test_workers_with_other_code_or_none_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they were asked for something else before."""
    monkeypatch.setattr("distributed.Client", lambda *_, **__: Client(a="mine", b="other", c="none"))
    said: list[str] = []
    workers = cluster.Workers("tcp://somewhere", said.append)
    assert set(workers.fit(None)) == {"a", "b"}
    assert set(workers.fit(frozenset(["mine"]))) == {"a"}
    assert set(workers.fit(frozenset(["mine"]))) == {"a"}
    assert [line.split(" (")[0] for line in said] == [
        "Worker c is left out: this version of resnet_bench does not run there",
        "Worker b is left out: it has other code of this suite; install this version, or --allow-other-code.",
    ]
    assert cluster.threads(workers) == 2
