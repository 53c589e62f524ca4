"""Checkpoints: everything that a training needs to go on as if it had never stopped, in one file.

The file is one of `torch.save`, a ZIP archive, whose comment holds the SHA-256 of everything before it. torch itself
checks no sums when it reads. One process at a time writes to the folder of a checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_bench.architectures import Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write, make_folder, require_writable
from resnet_bench.locks import FolderLock, holder
from resnet_bench.recipe import Recipe, compact, of_each_step
from resnet_bench.schema import EpochResult, Stretch, completed_epoch

CHECKPOINT_FORMAT = 2
CHECKPOINT_FILE = "checkpoint.pt"

_OPTION = "--checkpoint"
_END_OF_ARCHIVE = b"PK\x05\x06"  # the last record, 22 bytes, of which the last two are the length of the comment
_LABEL = b"sha256:"


class DamagedCheckpoint(UserError):
    """The file is no checkpoint of this release, or not as it was written."""


@dataclass(frozen=True)
class TrainingState:
    """A training between two steps.

    Attributes:
        network: the network's state dict.
        optimizer: what `Engine.optimizer_state` returns; any engine can load it.
        epoch: the epoch in progress, from 1.
        step: how many steps of it are done.
        loss_sum: sum of the losses of its images so far.
        images: how many images that is.
        seconds: training time of it so far.
        phases: seconds of its steps by phase.
        epoch_stretches: indices of the stretches in which it was trained.
        results: one for each finished epoch.
        stretches: what each process contributed, in order.
    """

    network: dict[str, Tensor]
    optimizer: dict[str, Any]
    epoch: int
    step: int
    loss_sum: float
    images: int
    seconds: float
    phases: dict[str, float]
    epoch_stretches: set[int]
    results: list[EpochResult]
    stretches: list[Stretch]


class Checkpoint:
    """The checkpoint of one training.

    A checkpoint must agree with the training in architecture, data set, seed and recipe, except the number of epochs
    where the learning rate does not depend on it. Engine, pipeline, workers and threads may change: the stretches
    record them.

    Attributes:
        folder: where it is kept.
        path: the file.
    """

    def __init__(
        self, folder: Path, architecture: Architecture, dataset: Dataset, recipe: Recipe, seed: int,
        file: str = CHECKPOINT_FILE,
    ) -> None:  # fmt: skip
        """Make the folder unless it is there.

        Raises:
            UserError: where it cannot be made.
        """
        make_folder(folder, _OPTION)
        self.folder = folder
        self._lock = FolderLock(folder)
        self.path = folder / file
        self._epochs = recipe.epochs
        self._identity = {
            "architecture": architecture.id,
            "recipe": compact(of_each_step(recipe.as_dict())),  # so that earlier releases load it too
            "data set": f"{dataset.name} {dataset.sha256}",
            "seed": seed,
        }

    def claim(self) -> None:
        """Find out before the training whether `save` can write the file, and keep other processes from writing it.

        Raises:
            UserError: where it cannot, or another process trains with this folder.
        """
        require_writable(self.path, _OPTION)
        if not self._lock.acquire():
            raise UserError(
                f"Another training writes to {self.folder} ({holder(self.folder) or 'of an unknown process'}); wait "
                f"until it has ended or give another {_OPTION} folder."
            )

    def save(self, state: TrainingState) -> None:
        """Replace the file. It stays as it was until its successor is complete.

        Raises:
            UserError: where it cannot be written.
        """
        buffer = io.BytesIO()  # a full disk becomes an OSError of the write, not an error inside torch.save
        torch.save(
            {
                "format": CHECKPOINT_FORMAT,
                "identity": self._identity,
                "stretches": json.dumps([s.model_dump(mode="json") for s in state.stretches]),  # text loads anywhere
                "epoch_stretches": sorted(state.epoch_stretches),
                "network": {name: tensor.contiguous() for name, tensor in state.network.items()},
                "optimizer": state.optimizer,
                "epoch": state.epoch,
                "step": state.step,
                "loss_sum": state.loss_sum,
                "images": state.images,
                "seconds": state.seconds,
                "phases": state.phases,
                "results": [r.model_dump() for r in state.results],
            },
            buffer,
        )
        with atomic_write(self.path, "wb") as file:
            for part in _labelled(buffer.getbuffer()):
                file.write(part)

    def load(self) -> TrainingState | None:
        """The state that was saved last; None where there is no file.

        Raises:
            UserError: for a file that cannot be read, is damaged or belongs to another training.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(
                f"Cannot read {self.path}: {error.strerror}; make it readable or give another {_OPTION} folder."
            ) from None
        identity, state = self._parsed(content)
        for key, value in self._identity.items():
            if identity.get(key) != value:
                raise UserError(
                    f"The checkpoint in {self.folder} is of another {key} ({identity.get(key)}, not {value}); "
                    f"give the same options as before or another {_OPTION} folder."
                )
        if len(state.results) > self._epochs:
            raise UserError(
                f"The checkpoint in {self.folder} is {len(state.results)} epochs old, but --epochs is "
                f"{self._epochs}; give as many epochs or more, or another {_OPTION} folder."
            )
        return state

    def _parsed(self, data: bytes) -> tuple[dict[str, Any], TrainingState]:
        if damage := damaged(data):
            raise DamagedCheckpoint(f"{self.path} {damage}; move it away or give another {_OPTION} folder.")
        try:
            content = torch.load(io.BytesIO(data), weights_only=True)
            if content["format"] != CHECKPOINT_FORMAT:
                raise ValueError(f"format {content['format']}")
            identity = {**content["identity"], "recipe": compact(content["identity"]["recipe"])}
            return identity, TrainingState(
                network=content["network"],
                optimizer=content["optimizer"],
                epoch=content["epoch"],
                step=content["step"],
                loss_sum=content["loss_sum"],
                images=content["images"],
                seconds=content["seconds"],
                phases=content["phases"],
                epoch_stretches=set(content["epoch_stretches"]),
                results=[EpochResult(**completed_epoch(r, identity["recipe"]["lr"])) for r in content["results"]],
                stretches=[Stretch(**s) for s in json.loads(content["stretches"])],
            )
        except Exception as error:  # torch.load raises almost anything on a damaged file
            raise DamagedCheckpoint(
                f"{self.path} is no checkpoint of this release or was cut off ({type(error).__name__}); "
                f"move it away or give another {_OPTION} folder."
            ) from None


def _labelled(archive: memoryview) -> tuple[memoryview, bytes]:
    """A ZIP archive without its last two bytes, and those two with a comment that holds the sum of what is before."""
    body = archive[:-2]
    comment = _LABEL + hashlib.sha256(body).hexdigest().encode()
    return body, len(comment).to_bytes(2, "little") + comment


def damaged(data: bytes) -> str | None:
    """What is wrong with the bytes of a checkpoint, as the end of a sentence; None where they are as they were written.

    Nothing in them is unpickled. A file of an earlier release, which has no comment, is not checked.
    """
    if data[-22:].startswith(_END_OF_ARCHIVE) and data.endswith(b"\0\0"):
        return None
    length = len(_LABEL) + 64
    body, label, digest = data[: -length - 2], data[-length - 2 : -64], data[-64:]
    if label != length.to_bytes(2, "little") + _LABEL or not body[-20:].startswith(_END_OF_ARCHIVE):
        return "is no checkpoint of this release or was cut off"
    return None if digest == hashlib.sha256(body).hexdigest().encode() else "is damaged: its checksum is another one"
