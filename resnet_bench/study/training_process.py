"""The process of a cell, `resnet-bench train --checkpoint`: how it is started, and why it ended.

This imports no torch, because a worker of a cluster starts such processes and trains nothing itself.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from resnet_bench import identity
from resnet_bench.files import make_folder
from resnet_bench.signals import INTERRUPTED, TERMINATED

RESULT = "result.json"
"""The result so far, beside the checkpoint."""

PATIENCE = 60.0
"""Seconds in which a training has to end after it was asked to: it completes a step or an evaluation, and saves."""


class TrainingProcess:
    """A training, whose standard input ends when this process ends, however it ends; then it saves and ends too.

    Attributes:
        popen: the process.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, log: Path, checkpoint_minutes: float, variables: Mapping[str, str]
    ) -> None:
        """Start it.

        Args:
            arguments: of `resnet-bench train`: what to train.
            folder: where its checkpoint and its result are kept; made where need be.
            log: what it prints is appended to this file, whose folder is made where need be.
            checkpoint_minutes: as `resnet-bench train` takes it.
            variables: the environment.
        """
        command = [sys.executable, "-m", "resnet_bench.cli", "train", *arguments]
        command += ["--checkpoint", str(folder.resolve()), "--output", str((folder / RESULT).resolve())]
        command += ["--checkpoint-minutes", str(checkpoint_minutes), "--end-with-input"]
        for needed in (folder, log.parent):
            make_folder(needed, "--output")
        self._log = log
        with open(log, "ab") as file:
            self._offset = file.tell()
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=identity.PACKAGE.parent,  # so that it imports this package
                env=dict(variables),
                start_new_session=True,  # Ctrl-C in the terminal reaches the study, which asks its trainings to end
            )

    def reason(self) -> str:
        """Why it ended, as the end of a sentence."""
        return reason(self.popen.returncode, self._log, self._offset)


def reason(status: int, log: Path, offset: int = 0) -> str:
    """Why a training ended with a status, as the end of a sentence: what it said itself, or how it was ended."""
    if status < 0:
        name = signal.Signals(-status).name
        return f"was ended by {name}" + (", as happens where memory runs out" if name == "SIGKILL" else "")
    if status in (INTERRUPTED, TERMINATED):
        return "was interrupted"
    with contextlib.suppress(OSError):
        with open(log, "rb") as file:
            file.seek(offset)
            lines = file.read().decode(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("resnet-bench: error: ")]
        if said:
            return f"failed: {said[-1].removeprefix('resnet-bench: error: ')}"
    return f"failed with status {status}; {log} has what it printed"
