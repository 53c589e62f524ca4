"""The manifest of a study's folder: what was planned, and the checksum of every result.

It is kept twice, in two files that are written one after the other, each with a checksum of its own. So a damaged one
is found out, and the other takes its place. Names of files are never taken from it: they are made of the cells' names,
which hold no separator.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resnet_bench.errors import UserError
from resnet_bench.files import write_json
from resnet_bench.schema import Sha256

MANIFEST, COPY = "study.json", "study.copy.json"
RESULTS = "results"

NAME = r"[a-z0-9][a-zA-Z0-9_.,=+-]{0,150}"
"""What the name of a cell looks like."""


class Finished(BaseModel):
    """A cell whose result is in the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256  # of the file's bytes
    notes: tuple[str, ...] = ()  # what was particular to its run


FORMAT: Literal[1] = 1


class Manifest(BaseModel):
    """What a study's folder holds. `plan` is a `resnet_bench.study.cells.Plan`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = FORMAT
    revision: Annotated[int, Field(ge=0)] = 0  # how many were written before it
    plan: dict[str, Any]
    finished: dict[Annotated[str, Field(pattern=f"^{NAME}$")], Finished] = {}

    def write(self, folder: Path, **changes: Any) -> Manifest:
        """Replace both files, one after the other, so that one of them is whole at any moment.

        Returns:
            The manifest with the changes, as it was written.
        """
        changed = self.model_copy(update={**changes, "revision": self.revision + 1})
        content = changed.model_dump(mode="json")
        for name in (COPY, MANIFEST):
            write_checked(folder / name, content)
        return changed


def is_study(folder: Path) -> bool:
    """Whether a folder is a study's."""
    return (folder / MANIFEST).is_file() or (folder / COPY).is_file()


def load(folder: Path) -> tuple[Manifest, list[str]]:
    """The manifest, and a sentence for each of its two files that is damaged or missing.

    Raises:
        UserError: where neither can be used.
    """
    damages, whole = [], []
    for name in (MANIFEST, COPY):
        try:
            whole.append(_read(folder / name))
        except FileNotFoundError:
            damages.append(f"{folder / name} is missing.")
        except OSError as error:
            damages.append(f"Cannot read {folder / name}: {error.strerror}.")
        except (ValueError, RecursionError):
            damages.append(f"{folder / name} is damaged.")
    if not whole:
        raise UserError(
            f"{' '.join(damages)} Without either nobody knows what this study is; give another folder, or bring one "
            "of the two files back."
        )
    return max(whole, key=lambda m: m.revision), damages  # a kill between writing the two leaves one behind


def result_path(folder: Path, cell: str) -> Path:
    """Where the result of a cell lies."""
    assert re.fullmatch(NAME, cell)
    return folder / RESULTS / f"{cell}.json"


def damage(folder: Path, cell: str, finished: Finished) -> str | None:
    """What is wrong with a result, as the end of a sentence; None where it is as it was written."""
    try:
        data = result_path(folder, cell).read_bytes()
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if hashlib.sha256(data).hexdigest() == finished.sha256 else "is damaged: its checksum is another one"


def files_in(folder: Path) -> list[Path]:
    """The results in a folder: those of a study, checked by their sums, or the JSON files that lie in any other.

    Where none lie in it, it may be a storage of pytest-benchmark, which numbers the runs in a folder for each system.

    Raises:
        UserError: for a folder without results, or a result that is damaged.
    """
    if not is_study(folder):
        found = sorted(folder.glob("*.json")) or sorted(folder.glob("*/[0-9][0-9][0-9][0-9]_*.json"))
        if not found:
            raise UserError(f"The folder {folder} holds no JSON of a run; give the files or their folder.")
        return found
    manifest, _ = load(folder)
    for cell, finished in manifest.finished.items():
        if wrong := damage(folder, cell, finished):
            raise UserError(
                f"{result_path(folder, cell)} {wrong}; resnet-bench study --output {folder} computes it again."
            )
    if not manifest.finished:
        raise UserError(
            f"No cell of the study in {folder} is finished yet; resnet-bench study --output {folder} goes on."
        )
    return [result_path(folder, cell) for cell in manifest.finished]


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum of its own."""
    write_json(path, {**content, "sha256": _digest(content)})


def read_checked(path: Path) -> dict[str, Any]:
    """What `write_checked` wrote; `ValueError` where it is damaged, and `OSError` where it cannot be read."""
    content = json.loads(path.read_bytes())
    digest = content.pop("sha256") if isinstance(content, dict) and "sha256" in content else None
    if digest != _digest(content):
        raise ValueError("the checksum is another one")
    return content  # type: ignore[no-any-return]


def _read(path: Path) -> Manifest:
    content = read_checked(path)
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise UserError(f"{path} was written by a later release, in format {content['format']}; go on with that one.")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ValueError(str(error)) from None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
