"""Checkpoints of a session's trainings: after a kill, the same command goes on where the trainings were."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from resnet_bench import identity, locks
from resnet_bench.errors import UserError
from resnet_bench.session.items import Case
from resnet_bench.training.checkpoint import CHECKPOINT_FILE
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

    def __init__(self, folder: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """
        Args:
            folder: made where need be.
            settings: data, recipe and options that decide the bits, ready for JSON.
            say: called with a sentence where a training goes on, or cannot.
        """
        content = json.dumps([identity.key(identity.describe()), settings], sort_keys=True)
        self.folder, self._say = folder, say
        self._key = hashlib.sha256(content.encode()).hexdigest()[:12]
        self._used: list[Path] = []

    def training(self, case: Case, build: Build) -> Training:
        """The training of a case, from its checkpoint if it has one.

        Raises:
            UserError: as `Training` does.
        """
        folder = self.folder / f"{case.architecture}-{case.engine}-{self._key}"
        if locks.held(folder):  # by another session of the same kind
            return build(case, None)
        try:
            training = build(case, folder)
        except UserError as error:
            if not (folder / CHECKPOINT_FILE).exists():
                raise
            self._say(f"resnet_bench: {case.architecture} ({case.engine}) begins anew: {error}")
            shutil.rmtree(folder)
            training = build(case, folder)
        self._used.append(folder)
        if training.resumed:
            where = f"epoch {training.epoch}, step {training.step}" if training.step else f"epoch {training.epoch}"
            done = len(training.results) == training.recipe.epochs
            self._say(
                f"{case.architecture} ({case.engine}) "
                + ("was trained by an earlier session" if done else f"goes on from the checkpoint at {where}")
            )
        return training

    def remove(self) -> None:
        """Remove those of this session, whose results are saved."""
        for folder in self._used:
            shutil.rmtree(folder, ignore_errors=True)
        remove_if_empty(self.folder)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder in which nothing is."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def left_behind(folder: Path) -> tuple[int, int]:
    """How many checkpoints of sessions that did not finish are in a folder, and their bytes."""
    found = [path for path in folder.glob(f"*/{CHECKPOINT_FILE}") if not locks.held(path.parent)]
    return len(found), sum(path.stat().st_size for path in found)
