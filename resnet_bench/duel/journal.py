"""The folder of a duel: what each process measured, on disk as soon as it ends, so that a killed duel goes on.

- `duel.json`: the command, the machine, what the pilots told, which arms failed and why, whether the duel is over;
- `processes/ROUND-ARM.json`: the report of a process;
- `processes/unpaired/`: reports from rounds that were cut off; they have no partner and count nowhere;
- `trainings/SEED-ARM-NETWORK.json`: trainings, where accuracy is compared;
- `ARM.json`: an ordinary benchmark file of each arm, written after every round.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from resnet_bench import identity
from resnet_bench.errors import UserError
from resnet_bench.files import make_folder, write_json
from resnet_bench.measure.process import Order, Report
from resnet_bench.schema import Model

HEAD = "duel.json"


class Measured(Model):
    """What one process was told, and what it reported."""

    order: Order
    report: Report


class Journal:
    """A duel's folder, new or of an earlier run of the same command.

    Attributes:
        folder: where it is.
        id: of the duel, 16 hexadecimal digits; it also decides the order of the rounds.
        resumed: whether an earlier run began the duel.
    """

    def __init__(self, folder: Path, command: Mapping[str, str]) -> None:
        """Make or open the folder, and keep others from using it.

        Args:
            folder: made if need be.
            command: everything that decides what is measured, each with the name that the user knows it by.

        Raises:
            UserError: the folder cannot be used, is in use, or holds a duel of another command or machine.
        """
        make_folder(folder / "processes", "--output")
        self.folder = folder
        self._lock = FileLock(folder / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"Another duel is being measured in {folder}; wait, or give another --output.") from None
        except OSError:
            pass  # a file system without locks
        known = head(folder)
        self.resumed = known is not None
        self._head: dict[str, Any] = known or {
            "version": 1,
            "id": secrets.token_hex(8),
            "begun_at": identity.now(),
            "command": dict(command),
            "machine": identity.machine_of(identity.describe()),
            "warnings": [],
            "block_rounds": None,
            "pilots": {},
            "failed": {},
            "over": False,
        }
        if known is None:
            self._save()
            return
        for what, was, now in _differing(known["command"], command):
            raise UserError(
                f"{folder} holds a duel with {what} {was}, not {now}; give the same command to go on with it, or "
                "another --output."
            )
        for what, was, now in _differing(known["machine"], identity.machine_of(identity.describe())):
            raise UserError(
                f"The duel in {folder} was begun on another machine ({what} {was}, not {now}); give another --output."
            )

    @property
    def id(self) -> str:
        return str(self._head["id"])

    def __getitem__(self, key: str) -> Any:
        return self._head[key]

    def __setitem__(self, key: str, value: Any) -> None:
        """Change an entry of `duel.json`, on disk at once."""
        self._head[key] = value
        self._save()

    def _save(self) -> None:
        write_json(self.folder / HEAD, self._head)

    def close(self) -> None:
        """Let others use the folder."""
        self._lock.release()

    def _path(self, round_: int, arm: str) -> Path:
        return self.folder / "processes" / f"{round_:03}-{arm}.json"

    def has(self, round_: int, arm: str) -> bool:
        """Whether the process of an arm in a round has reported."""
        return self._path(round_, arm).exists()

    def keep(self, round_: int, arm: str, measured: Measured) -> None:
        """Write down what a process reported."""
        write_json(self._path(round_, arm), measured.model_dump(mode="json"))

    def set_aside(self, round_: int, arm: str) -> None:
        """Take what a process reported out of the result: the round was cut off, and its partner did not follow."""
        if self.has(round_, arm):
            unpaired = self.folder / "processes" / "unpaired"
            make_folder(unpaired, "--output")
            self._path(round_, arm).replace(unpaired / f"{round_:03}-{arm}-{secrets.token_hex(2)}.json")

    def measured(self, arm: str, rounds: Sequence[int]) -> list[Measured]:
        """What the processes of an arm reported in these rounds."""
        return [self._read(self._path(i, arm)) for i in rounds]

    def _read(self, path: Path) -> Measured:
        try:
            return Measured.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            reason = type(error).__name__
            raise UserError(f"{path} cannot be read ({reason}); delete it, and its round is repeated.") from None

    def training(self, seed: int, arm: str, architecture: str) -> Path:
        """The file of a training."""
        return self.folder / "trainings" / f"{seed:03}-{arm}-{architecture}.json"


def head(folder: Path) -> dict[str, Any] | None:
    """What `duel.json` in a folder holds; None where there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / HEAD
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("version") != 1:
        raise UserError(f"{path} is no duel that this release can read; give another --output.")
    return found


def unfinished(storage: Path, command: Mapping[str, str]) -> Path | None:
    """The latest folder in `storage` with a duel of this command that is not over."""
    for path in sorted(storage.glob(f"duel-*/{HEAD}"), reverse=True):
        with contextlib.suppress(UserError):
            found = head(path.parent)
            if found and not found["over"] and found["command"] == command:
                return path.parent
    return None


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*was, *now]):
        if was.get(key) != now.get(key):
            before, after = ("nothing" if side.get(key) is None else side[key] for side in (was, now))
            yield key, before, after
