"""The folder of a study: what lies in it, and in which state its cells are.

- `study.json` and its copy `study.copy.json`: the manifest (`results/manifest.py`), with the checksum of each result;
- `results/`: one file a finished cell, as `resnet-bench train --output` writes it;
- `checkpoints/CELL/`: of a cell that is not finished, its checkpoint and its result so far;
- `logs/CELL.log`: what the training printed; evidence of nothing, and not checked;
- `local.json`: where the images are on this machine, and how the study was run here last;
- `lock`, `holder.json`: see `locks`.

Only the first two are worth keeping in a repository; `.gitignore` says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from resnet_bench import locks
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write, make_folder, write_json
from resnet_bench.locks import FolderLock
from resnet_bench.results import manifest as manifests
from resnet_bench.results import reading
from resnet_bench.results.manifest import Finished, Manifest, read_checked, write_checked
from resnet_bench.schema import AccuracyResult, Model, Result
from resnet_bench.study.cells import Cell, Plan, parsed
from resnet_bench.study.training_process import RESULT
from resnet_bench.training.checkpoint import CHECKPOINT_FILE, damaged

LOCAL = "local.json"
IGNORED = "checkpoints/\nlogs/\nlocal.json\nlock\nholder.json\n"

Jobs = int | Literal["auto"]
"""Trainings side by side; `auto` measures how many are best."""

State = Literal["finished", "running", "interrupted", "damaged", "not started"]


class LocalSettings(Model):
    """How a study is run on this machine.

    Attributes:
        dataset: as `--dataset` names it here.
        jobs, cluster: as `--jobs` and `--cluster` said it last.
    """

    dataset: str
    jobs: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    cluster: str | None = None


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
    def writing(cls, path: Path, say: Callable[[str], None] = lambda line: None) -> Iterator[StudyFolder | None]:
        """The study in a folder, for the one process that may write to it; None where it is still to be made.

        `say` is told where the file system has no locks.

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
        if not lock.works:
            say(f"The file system of {path} has no locks; see to it that no other process works on this study.")
        try:
            yield cls.open(path) if manifests.is_study(path) else None
        finally:
            lock.release()

    @staticmethod
    def require_no_other_files(path: Path) -> None:
        """Raise `UserError` for a folder in which no study can begin."""
        own = (locks.LOCK_FILE, locks.HOLDER_FILE, manifests.MANIFEST, manifests.COPY)
        begun = tuple(f".{name}." for name in own)  # what a process that died while it wrote has left
        if any(p.name not in own and not p.name.startswith(begun) for p in path.iterdir()):
            raise UserError(f"{path} holds other files and no study; give another --output.")

    @classmethod
    def create(cls, path: Path, plan: Plan) -> StudyFolder:
        """Begin a study in a folder that this process has locked."""
        study = cls(path, Manifest(plan=plan.model_dump(mode="json")), [])
        study.write()  # first: a folder with a manifest is a study, whatever else it lacks
        return study

    def write(self, plan: Plan | None = None) -> None:
        """Write the manifest, where `plan` may be another one than before."""
        self.plan = plan or self.plan
        self._manifest = self._manifest.write(self.path, plan=self.plan.model_dump(mode="json"))
        self.damages = []

    # This machine -------------------------------------------------------------------------------------------------

    @property
    def local(self) -> LocalSettings | None:
        """How the study is run on this machine; None where nobody has said, or the file is damaged."""
        with contextlib.suppress(OSError, ValueError, RecursionError):
            return LocalSettings.model_validate(read_checked(self.path / LOCAL))
        return None

    def keep_local(self, local: LocalSettings) -> None:
        """Write down how the study is run on this machine, and which files are this machine's alone."""
        if not (self.path / ".gitignore").exists():
            with atomic_write(self.path / ".gitignore") as file:
                file.write(IGNORED)
        write_checked(self.path / LOCAL, local.model_dump(mode="json"))

    @property
    def dataset(self) -> str:
        """Which data set to train on, as `--dataset` names it on this machine.

        Raises:
            UserError: where that is a folder and nobody has said which.
        """
        if self.local:
            return self.local.dataset
        name = self.plan.dataset.name
        if name.startswith("folder:"):
            path = self.path / LOCAL
            why = f"{path}, which told where it is, is damaged" if path.exists() else "nobody has said yet where it is"
            raise UserError(f"The study trains on a folder named {name[7:]}; {why}; give --dataset folder:PATH.")
        return name

    @property
    def command(self) -> str:
        """What goes on with the study, where it was run last."""
        words = ["resnet-bench", "study", "--output", str(self.path)]
        if self.local and self.local.cluster:
            words += ["--cluster", self.local.cluster]
        return shlex.join(words)

    # Cells --------------------------------------------------------------------------------------------------------

    def checkpoint(self, cell: Cell) -> Path:
        folder = self.path / "checkpoints" / cell.name
        for name in (CHECKPOINT_FILE, RESULT):
            self._require_inside(folder / name)
        return folder

    def begin(self, cell: Cell) -> Path:
        """The folder for the checkpoint of a cell that starts, without the result of what has to be trained again."""
        folder = self.checkpoint(cell)
        make_folder(folder, "--output")
        if not (folder / CHECKPOINT_FILE).exists():
            (folder / RESULT).unlink(missing_ok=True)
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

    def came_to(self, cell: Cell) -> object | None:
        """Something that is another one when the checkpoint of a cell was written anew; None where there is none."""
        with contextlib.suppress(OSError):
            found = (self.checkpoint(cell) / CHECKPOINT_FILE).stat()
            return found.st_mtime_ns, found.st_ino
        return None

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

    def keep(self, cell: Cell, notes: tuple[str, ...] = (), jobs: int = 1) -> AccuracyResult:
        """Take the result that a finished training has left, and remove its checkpoint.

        Args:
            cell: that is finished.
            notes: what was particular to its run.
            jobs: how many trainings ran side by side on its machine at most, where that is more than it knew when it
                began.

        Raises:
            UserError: where it is not the result of this cell.
        """
        source = self.checkpoint(cell) / RESULT
        result = _beside(source, jobs)
        if not isinstance(result, AccuracyResult) or not result.complete:
            raise UserError(f"{source} is not the result of a finished training; give the same command again.")
        if wrong := cell.differs(result, self.plan):
            raise UserError(
                f"{source} is of another training: {wrong}; remove {source.parent} and begin the cell anew."
            )
        self.result(cell).parent.mkdir(exist_ok=True)
        data = source.read_bytes()
        with atomic_write(self.result(cell), "wb") as written:
            written.write(data)
        digest = hashlib.sha256(data).hexdigest()
        finished = {**self._manifest.finished, cell.name: Finished(sha256=digest, notes=notes)}
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


def _beside(path: Path, jobs: int) -> Result:
    """The result in a file, which is written anew where more trainings ran beside its last stretch than it says."""
    result = reading.read(path).results[0]
    if isinstance(result, AccuracyResult) and result.stretches and result.stretches[-1].jobs < jobs:
        content = json.loads(path.read_bytes())
        content["stretches"][-1]["jobs"] = jobs
        write_json(path, content)
        return reading.read(path).results[0]
    return result


def _read(path: Path) -> AccuracyResult | None:
    """The result in a file; None where there is none."""
    with contextlib.suppress(UserError):
        result = reading.read(path).results[0]
        return result if isinstance(result, AccuracyResult) else None
    return None
