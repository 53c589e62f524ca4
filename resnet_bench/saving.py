"""pytest-benchmark's saving at the end of a session: an error in it costs neither the tables nor the journal."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import safe_dumps

from resnet_bench.errors import UserError, without_credentials
from resnet_bench.files import atomic_write


def collect_errors(session: Any) -> list[str]:
    """Have `session`, pytest-benchmark's own, put why it could not save into the list that is returned.

    It would raise it, before pytest prints what failed and what other plugins have to say. Its JSON file becomes
    atomic as well: it would cut off an old one before it writes the new.
    """
    errors = ["it was interrupted"]  # until it has succeeded or failed
    handle_saving = session.handle_saving

    def handle_saving_or_tell() -> None:
        before = _saved_files(session.storage)
        try:
            handle_saving()
            errors.clear()
        except Exception as error:
            errors[:] = [_reason(error)]
            for path in _saved_files(session.storage) - before:
                if not _is_json(path):
                    path.unlink()  # the beginning of a file, which would count as a saved run

    def save_json_atomically(output: dict[str, Any]) -> None:
        with atomic_write(session.json) as file:
            file.write(safe_dumps(output, ensure_ascii=True, indent=4))
        session.logger.info(f"Wrote benchmark data in: {session.json}", purple=True)

    if not isinstance(session.storage, FileStorage):
        info = session.logger.info  # names the addresses of the database, with what follows an @ in a password
        session.logger.info = lambda text, **style: info(without_credentials(text), **style)
    session.handle_saving, session.save_json = handle_saving_or_tell, save_json_atomically
    return errors


def _saved_files(storage: Any) -> set[Path]:
    return set(storage.query()) if isinstance(storage, FileStorage) else set()


def _is_json(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        json.loads(path.read_bytes())
        return True
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    # Of others the name only: the message of a database's client may hold parts of a password.
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
