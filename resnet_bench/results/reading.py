"""Result files, read and checked against the schema. What an older version of the schema lacks is marked unknown."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from resnet_bench.errors import UserError
from resnet_bench.recipe import completed
from resnet_bench.schema import COUNTED_APART, KINDS, READABLE_VERSIONS, Result, completed_epoch
from resnet_bench.wording import listed, short

_RESULT: TypeAdapter[Result] = TypeAdapter(Result)

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters but tab and the ends of lines, and halves of surrogate pairs."""


class NoResults(UserError):
    """A file is JSON and holds no result of this suite, e.g. a run of another project in the same storage."""


@dataclass(frozen=True)
class ResultFile:
    """What one JSON file holds.

    Attributes:
        path: where it was read from.
        machine: `resnet_bench.identity.describe()` of the machine that ran it, with `calibration` where there is one.
        datetime: when the file was saved, ISO 8601; empty for `train --output`.
        results: in the order of the file. Several of one architecture are several runs of it, e.g. with other seeds.
        sha256: of the file's bytes; empty for results that are not in a file.
    """

    path: Path
    machine: dict[str, Any]
    datetime: str
    results: tuple[Result, ...]
    sha256: str = ""

    def of_kind(self, kind: type[Any]) -> list[Any]:
        """The results of one class, e.g. `file.of_kind(EpochTimeResult)`."""
        return [r for r in self.results if isinstance(r, kind)]


def read(path: str | Path) -> ResultFile:
    """Read and check a file of either kind. Benchmarks of other projects in the same file are ignored.

    Raises:
        NoResults: the file has no result of this suite.
        UserError: the file cannot be read, is damaged, or has a result of a later schema version. Both messages name
            the file and say what is wrong with it.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
        data = json.loads(text)  # in UTF-8, -16 or -32, with a byte order mark or without
    except FileNotFoundError:
        raise UserError(f"There is no file {path}; give the JSON of a run.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON or was cut off ({error}); give the JSON of a complete run.") from None
    if not isinstance(data, dict):
        raise NoResults(f"{path} holds no results of resnet_bench; give a file that this suite saved.")
    if isinstance(data.get("benchmarks"), list):
        machine = data.get("machine_info")
        machine = machine.get("resnet_bench") if isinstance(machine, dict) else None
        entries = [b.get("extra_info") if isinstance(b, dict) else b for b in data["benchmarks"]]
    else:
        machine, entries = data.get("machine"), [data]
    if isinstance(machine, dict):  # this suite saved it: a damaged entry is an error, not another suite's benchmark
        entries = [e for e in entries if not isinstance(e, dict) or _is_ours(e) or "schema_version" in e]
    else:
        entries = [e for e in entries if _is_ours(e)]
    if not entries:
        raise NoResults(f"{path} holds no results of resnet_bench; give a file that this suite saved.")
    if not isinstance(machine, dict):
        raise UserError(f"{path} does not say which machine it was measured on; give a file that this suite saved.")
    machine, *entries = (_plain(path, part) for part in (machine, *entries))
    created = data.get("datetime", "")
    results = tuple(_checked(path, entry) for entry in entries)
    digest = hashlib.sha256(text).hexdigest()
    return ResultFile(path, machine, created if isinstance(created, str) else "", results, digest)


def _plain(path: Path, value: Any) -> Any:
    """The same without characters that a terminal would obey or a page cannot hold; they become U+FFFD.

    Raises:
        UserError: for a number that no measurement gives: infinite, not a number, or of more than 64 bits.
    """
    if isinstance(value, dict):
        return {_plain(path, key): _plain(path, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(path, inner) for inner in value]
    if isinstance(value, str):
        return _UNPRINTABLE.sub(chr(0xFFFD), value)
    if isinstance(value, int | float) and not abs(value) < 2.0**64:  # nor NaN
        raise UserError(f"{path} holds the number {short(value, 12)}, which nobody measured; give an undamaged file.")
    return value


def _is_ours(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("kind") in KINDS


def _checked(path: Path, entry: Any) -> Result:
    version = entry.get("schema_version") if isinstance(entry, dict) else None
    if version is not None and (isinstance(version, bool) or version not in READABLE_VERSIONS):
        raise UserError(
            f"{path} has schema version {version!r}, this release reads versions "
            f"{listed(READABLE_VERSIONS)}; read it with the release that wrote it."
        )
    if version == 1:
        entry = _with_unknowns(entry)
    if version in (1, 2) and entry.get("kind") == "explain":
        entry = _with_states(entry)
    if version in (1, 2, 3):
        entry = _before_schedules(entry)
    try:
        return _RESULT.validate_json(json.dumps(entry), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "result"
        raise UserError(f"{path} does not follow the schema at {where}: {first['msg'].lower()}.") from None


def _with_unknowns(entry: dict[str, Any]) -> dict[str, Any]:
    """A result of version 1, with None for every key that only later versions have."""
    unknown: dict[str, Any] = {"process": None, "started_at": None}
    if entry.get("kind") == "accuracy":
        unknown |= {"stretches": None, "same_bits": None}
        if isinstance(entry.get("epochs"), list):
            epochs = [e | {"stretches": None} if isinstance(e, dict) else e for e in entry["epochs"]]
            entry = {**entry, "epochs": epochs}
    return {**unknown, **entry}


def _before_schedules(entry: dict[str, Any]) -> dict[str, Any]:
    """A result from before version 4, when every learning rate was constant and no one counted live units."""
    if not isinstance(recipe := entry.get("recipe"), dict):
        return entry  # which the schema refuses where there has to be one
    entry = {**entry, "recipe": completed(recipe)}
    if entry.get("kind") == "accuracy" and isinstance(entry.get("epochs"), list):
        lr = recipe.get("lr")
        entry["epochs"] = [completed_epoch(e, lr) if isinstance(e, dict) else e for e in entry["epochs"]]
    return entry


def _with_states(entry: dict[str, Any]) -> dict[str, Any]:
    """An `explain` of version 1 or 2, its one state with denormals under the keys of version 3."""
    old = ("dead_share", "denormal_share", "denormals")
    if not isinstance(entry.get("denormals"), list) or len(entry["denormals"]) != 2 or not set(old) <= set(entry):
        return entry  # which the schema refuses
    kept, flushed = entry["denormals"]
    state = {"name": "early", **dict.fromkeys(COUNTED_APART), "kept": kept, "flushed": flushed}
    state |= {key: entry[key] for key in ("dead_share", "denormal_share")}
    return {**{key: value for key, value in entry.items() if key not in old}, "states": [state]}
