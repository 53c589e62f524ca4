"""The folder of a study: what lies in it, and in which state its cells are.

- `study.json` and its copy `study.copy.json`: the manifest (`results/manifest.py`), with the checksum of each result;
- `results/`: one file a finished cell, as `resnet-bench train --output` writes it;
- `checkpoints/CELL/`: of a cell that is not finished, its checkpoint and its result so far;
- `logs/CELL.log`: what the training printed; evidence of nothing, and not checked;
- `local.json`: where the images are on this machine;
- `lock`, `holder.json`: see `locks`.

Only the first two are worth keeping in a repository; `.gitignore` says so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnet_bench import locks
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write, make_folder, write_json
from resnet_bench.locks import FolderLock
from resnet_bench.results import manifest as manifests
from resnet_bench.results import reading
from resnet_bench.results.manifest import Finished, Manifest
from resnet_bench.schema import AccuracyResult
from resnet_bench.study.cells import Cell, Plan, parsed
from resnet_bench.study.training_process import RESULT
from resnet_bench.training.checkpoint import CHECKPOINT_FILE, damaged

LOCAL = "local.json"
IGNORED = "checkpoints/\nlogs/\nlocal.json\nlock\nholder.json\n"

State = Literal["finished", "running", "interrupted", "damaged", "not started"]


@dataclass(frozen=True)
class CellState:
    """How far a cell is.

    Attributes:
        result: of the epochs so far; None before the first.
        damage: what is wrong with its files, in a sentence; None where nothing is.
    """

    cell: Cell
    state: State
    result: AccuracyResult | None
    damage: str | None = None

    @property
    def epochs(self) -> int:
        return len(self.result.epochs) if self.result else 0


class StudyFolder:
    """A folder with a study in it.

    Attributes:
        path: of the folder.
        plan: what the study is.
        damages: a sentence for each file of the manifest that is damaged.
    """

    def __init__(self, path: Path, manifest: Manifest, damages: list[str]) -> None:
        self.path, self.damages = path, damages
        self._manifest = manifest
        self.plan = parsed(manifest.plan, path / manifests.MANIFEST)
        self._lock = FolderLock(path)
        for name in (manifests.MANIFEST, manifests.COPY, manifests.RESULTS, "checkpoints", "logs", LOCAL, "lock"):
            self._require_inside(path / name)

    @classmethod
    def open(cls, path: Path) -> StudyFolder:
        """The study in a folder.

        Raises:
            UserError: there is none, or one that cannot be used.
        """
        if not manifests.is_study(path):
            raise UserError(f"There is no study in {path}; begin one with resnet-bench study --output {path}.")
        return cls(path, *manifests.load(path))

    @classmethod
    @contextlib.contextmanager
    def writing(cls, path: Path) -> Iterator[StudyFolder | None]:
        """The study in a folder, for the one process that may write to it; None where it is still to be made.

        Raises:
            UserError: where another process writes to it, or the folder cannot be written.
        """
        make_folder(path, "--output")
        if not manifests.is_study(path):
            cls.require_no_other_files(path)
        lock = FolderLock(path)
        if not lock.acquire():
            who = locks.holder(path)
            raise UserError(
                f"Another process writes to the study in {path} ({who or 'nobody knows which'}); wait for it, or look "
                f"with resnet-bench study status {path}."
            )
        try:
            yield cls.open(path) if manifests.is_study(path) else None
        finally:
            lock.release()

    @staticmethod
    def require_no_other_files(path: Path) -> None:
        """Raise `UserError` for a folder in which no study can begin."""
        if any(p.name not in (locks.LOCK_FILE, locks.HOLDER_FILE) for p in path.iterdir()):
            raise UserError(f"{path} holds other files and no study; give another --output.")

    @classmethod
    def create(cls, path: Path, plan: Plan, dataset: str) -> StudyFolder:
        """Begin a study in a folder that this process has locked."""
        with atomic_write(path / ".gitignore") as file:
            file.write(IGNORED)
        study = cls(path, Manifest(plan=plan.model_dump(mode="json")), [])
        study.keep_dataset(dataset)
        study.write()
        return study

    def write(self, plan: Plan | None = None) -> None:
        """Write the manifest, where `plan` may be another one than before."""
        self.plan = plan or self.plan
        self._manifest = self._manifest.write(self.path, plan=self.plan.model_dump(mode="json"))
        self.damages = []

    # The images ---------------------------------------------------------------------------------------------------

    @property
    def dataset(self) -> str:
        """Which data set to train on, as `--dataset` names it on this machine.

        Raises:
            UserError: where that is a folder and nobody has said which.
        """
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads((self.path / LOCAL).read_text(encoding="utf-8"))["dataset"])
        name = self.plan.dataset.name
        if name.startswith("folder:"):
            raise UserError(f"The study trains on a folder named {name[7:]}; say where it is: --dataset folder:PATH.")
        return name

    def keep_dataset(self, spec: str) -> None:
        """Write down where the images are."""
        write_json(self.path / LOCAL, {"dataset": spec})

    # Cells --------------------------------------------------------------------------------------------------------

    def checkpoint(self, cell: Cell) -> Path:
        folder = self.path / "checkpoints" / cell.name
        for name in (CHECKPOINT_FILE, RESULT):
            self._require_inside(folder / name)
        return folder

    def log(self, cell: Cell) -> Path:
        return self._require_inside(self.path / "logs" / f"{cell.name}.log")

    def result(self, cell: Cell) -> Path:
        return self._require_inside(manifests.result_path(self.path, cell.name))

    def state(self, cell: Cell) -> CellState:
        """How far a cell is, by what lies in the folder."""
        finished = self._manifest.finished.get(cell.name)
        if finished is not None:
            if wrong := manifests.damage(self.path, cell.name, finished):
                return CellState(cell, "damaged", None, f"{self.result(cell)} {wrong}.")
            return CellState(cell, "finished", _read(self.result(cell)))
        folder = self.checkpoint(cell)
        if not folder.is_dir():
            return CellState(cell, "not started", None)
        result = _read(folder / RESULT)
        if locks.held(folder):
            return CellState(cell, "running", result)
        try:
            wrong = damaged((folder / CHECKPOINT_FILE).read_bytes())
        except FileNotFoundError:  # or a worker trains it that does not see this folder, and tells how far it is
            running = result is not None and locks.held(self.path)
            return CellState(cell, "running", result) if running else CellState(cell, "not started", None)
        except OSError as error:
            wrong = f"cannot be read ({error.strerror})"
        if wrong:
            return CellState(cell, "damaged", None, f"{folder / CHECKPOINT_FILE} {wrong}.")
        return CellState(cell, "interrupted", result)

    def progress(self, cell: Cell) -> CellState:
        """How far a cell is that is known to run; unlike `state`, this does not read its checkpoint."""
        return CellState(cell, "running", _read(self.checkpoint(cell) / RESULT))

    def states(self) -> list[CellState]:
        """How far each cell is."""
        return [self.state(cell) for cell in self.plan.cells]

    def discard(self, cell: Cell) -> None:
        """Put what is damaged of a cell aside, under a name that ends in `.damaged`, so that it is computed again."""
        finished = dict(self._manifest.finished)
        wrong = [self.result(cell)] if finished.pop(cell.name, None) else [self.checkpoint(cell) / CHECKPOINT_FILE]
        for path in wrong:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, path.with_name(f"{path.name}.damaged"))
        self._manifest = self._manifest.write(self.path, finished=finished)

    def keep(self, cell: Cell, notes: tuple[str, ...] = ()) -> AccuracyResult:
        """Take the result that a finished training has left, and remove its checkpoint.

        Raises:
            UserError: where it is not the result of this cell.
        """
        source = self.checkpoint(cell) / RESULT
        file = reading.read(source)
        result = file.results[0]
        if not isinstance(result, AccuracyResult) or not result.complete:
            raise UserError(f"{source} is not the result of a finished training; give the same command again.")
        if wrong := cell.differs(result, self.plan):
            raise UserError(f"{source} is of another training: {wrong}; the data or the code changed meanwhile.")
        self.result(cell).parent.mkdir(exist_ok=True)
        data = source.read_bytes()
        with atomic_write(self.result(cell), "wb") as written:
            written.write(data)
        finished = {**self._manifest.finished, cell.name: Finished(sha256=file.sha256, notes=notes)}
        self._manifest = self._manifest.write(self.path, finished=finished)
        shutil.rmtree(self.checkpoint(cell), ignore_errors=True)
        return result

    def notes(self, cell: Cell) -> tuple[str, ...]:
        """What was particular to the run of a finished cell."""
        finished = self._manifest.finished.get(cell.name)
        return finished.notes if finished else ()

    def _require_inside(self, path: Path) -> Path:
        """The path, unless a link in the folder of somebody else would have it written elsewhere."""
        home = os.path.realpath(self.path)
        if os.path.commonpath([home, os.path.realpath(path)]) != home:
            raise UserError(f"{path} is a link that leads out of the study's folder; put the file itself there.")
        return path


def _read(path: Path) -> AccuracyResult | None:
    """The result in a file; None where there is none."""
    with contextlib.suppress(UserError):
        result = reading.read(path).results[0]
        return result if isinstance(result, AccuracyResult) else None
    return None
