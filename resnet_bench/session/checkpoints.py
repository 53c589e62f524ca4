"""Checkpoints of a session's trainings: after a kill, the same command goes on where the trainings were."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnet_bench import identity, locks
from resnet_bench.errors import UserError
from resnet_bench.session.items import Case
from resnet_bench.training.checkpoint import CHECKPOINT_FILE, DamagedCheckpoint
from resnet_bench.training.training import Training

Build = Callable[[Case, Path | None], Training]
"""Makes the training of a case, with checkpoints in a folder or with none."""


class Checkpoints:
    """The checkpoints below a folder.

    A checkpoint belongs to whatever decides the bits of a training: machine, software, code, data and settings. Any
    other session begins anew.

    Attributes:
        folder: where they are.
    """

    def __init__(
        self, folder: Path, machine: dict[str, Any], settings: dict[str, Any], say: Callable[[str], None]
    ) -> None:
        """Take a folder, which is made where need be.

        Args:
            folder: where they are kept.
            machine: as `identity.describe` returned it.
            settings: data, recipe and options that decide the bits, ready for JSON.
            say: called with a sentence where a training goes on, or cannot.
        """
        self.folder, self._say = folder, say
        self._key = identity.digest({"machine": identity.key(machine), "settings": settings})
        self._used: list[Path] = []

    def training(self, case: Case, build: Build) -> Training:
        """The training of a case, from its checkpoint if it has one.

        Raises:
            UserError: as `Training` does.
        """
        name = f"{case.architecture} ({case.engine})"
        folder = self.folder / f"{case.architecture}-{case.engine}-{self._key}"
        if locks.held(folder):  # by another session of the same kind
            return build(case, None)
        try:
            training = build(case, folder)
        except DamagedCheckpoint:
            damaged = folder / f"{CHECKPOINT_FILE}.damaged"
            os.replace(folder / CHECKPOINT_FILE, damaged)
            self._say(f"{name} begins anew, because its checkpoint was damaged; {damaged} is what it was")
            training = build(case, folder)
        except UserError as error:
            training = build(case, None)  # raises the same error where the settings are to blame
            self._say(f"{name} is trained without checkpoints: {error}")
            return training
        self._used.append(folder)
        if training.resumed:
            where = f"epoch {training.epoch}, step {training.step}" if training.step else f"epoch {training.epoch}"
            done = len(training.results) == training.recipe.epochs
            self._say(f"{name} " + ("was trained by an earlier session" if done else f"goes on from {where}"))
        return training

    def remove(self) -> None:
        """Remove those of this session, whose results are saved."""
        for folder in self._used:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # fails, as it should, where other sessions' are in it


def left_behind(folder: Path) -> tuple[int, int]:
    """How many checkpoints of sessions that did not finish are in a folder, and their bytes."""
    found = [path for path in folder.glob(f"*/{CHECKPOINT_FILE}") if not locks.held(path.parent)]
    return len(found), sum(path.stat().st_size for path in found)
