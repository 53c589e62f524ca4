"""A small study whose cells are trained in this process, which has torch imported already."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_bench import cli
from resnet_bench.study.cells import Cell
from resnet_bench.study.folder import StudyFolder
from resnet_bench.study.running import Ended
from resnet_bench.study.training_process import RESULT


class Here:
    """A place for cells: this process, one after the other. `trained` are the cells, with the epochs that were new."""

    jobs = 1
    trained: list[str]

    def __init__(self, study: StudyFolder, *_: Any) -> None:
        self.study = study
        self._cell: Cell | None = None

    @property
    def free(self) -> int:
        return int(self._cell is None)

    def start(self, cell: Cell) -> None:
        self._cell = cell

    def ended(self, seconds: float) -> list[Ended]:
        cell, self._cell = self._cell, None
        if cell is None:
            return []
        type(self).trained.append(cell.name)
        folder = self.study.begin(cell)
        places = ["--checkpoint", str(folder), "--output", str(folder / RESULT)]
        with pytest.raises(SystemExit) as exit_:
            cli.main(["train", *cell.arguments(self.study.dataset, self.study.plan), *places])
        status = int(exit_.value.code or 0)
        del exit_
        gc.collect()  # the training, with its lock, which the end of a process would give back
        return [Ended(cell, status, "failed by itself.")]

    def stop(self) -> list[Ended]:
        return []


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    """Has `resnet-bench study` train its cells in this process."""
    Here.trained = []
    monkeypatch.setattr("resnet_bench.study.running.Local", Here)
    return Here


@pytest.fixture
def images(image_folder: Callable[..., Path]) -> Path:
    """12 training and 6 test images of 3 classes."""
    return image_folder(train=4, test=2)


@pytest.fixture
def options(images: Path, tmp_path: Path) -> list[str]:
    """Of a study of two seeds of one network, two epochs each."""
    return [
        "--dataset", f"folder:{images}", "--architectures", "conv5x5", "--engine", "reference", "--seeds", "0-1",
        "--epochs", "2", "--pipeline", "vectorized", "--threads", "1", "--output", str(tmp_path / "study"),
    ]  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], here: type[Here]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line; returns status, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            cli.main([str(a) for a in arguments])
        return (int(exit_.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def done(run: Callable[..., tuple[int, str, str]], options: list[str], tmp_path: Path, here: type[Here]) -> Path:
    """The folder of the finished study."""
    assert run("study", *options)[0] == 0
    here.trained = []
    return tmp_path / "study"


def digests(folder: Path) -> dict[str, str]:
    """{cell: SHA-256 of its weights} of the finished cells."""
    return {
        s.cell.name: s.result.weights_sha256
        for s in StudyFolder.open(folder).states()
        if s.result and s.state == "finished"
    }


@contextlib.contextmanager
def flipped(path: Path, place: int) -> Any:
    """Inside, one bit of the file is another one."""
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.write_bytes(data)
    yield
