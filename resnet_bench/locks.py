"""Locks that say who holds them. The system gives a lock back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from resnet_bench.errors import UserError
from resnet_bench.files import write_json

LOCK_FILE = "lock"
HOLDER_FILE = "holder.json"

_PATIENCE = 3.0
"""Seconds for which a lock is asked for: one who only looks whether it is held holds it for a moment."""

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Holder:
    """Which process holds a lock."""

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class FolderLock:
    """The right to write to a folder. One process at a time has it.

    Two files lie in the folder: `lock`, which is locked, and `holder.json`, which says by whom. What the second says
    counts only while the first is locked. A process that holds the lock may take it again.

    Attributes:
        works: whether the file system has locks; where it has none, nobody is kept out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.works = folder, True
        # without locks of the system, filelock would keep a file that a dead process on another machine holds for ever
        self._lock = FileLock(folder / LOCK_FILE, is_singleton=True, fallback_to_soft=False)

    def acquire(self) -> bool:
        """Take the lock.

        Returns:
            False where another process holds it.

        Raises:
            UserError: where the folder cannot be written.
        """
        try:
            self._lock.acquire(timeout=_PATIENCE)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                message = f"Cannot write to the folder {self.folder}: {error.strerror}; give another one."
                raise UserError(message) from None
            self.works = False
        if (told := self.folder / HOLDER_FILE).is_symlink():
            told.unlink()  # a stranger's, which may lead to any file
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        write_json(self.folder / HOLDER_FILE, {"pid": os.getpid(), "host": platform.node(), "since": now})
        return True

    def release(self) -> None:
        """Give the lock back, if this process holds it."""
        if self._lock.is_locked or not self.works:
            (self.folder / HOLDER_FILE).unlink(missing_ok=True)
            self._lock.release()


def held(folder: Path) -> bool:
    """Whether a process holds the lock of a folder."""
    if not (folder / LOCK_FILE).exists():
        return False
    try:
        with FileLock(folder / LOCK_FILE, timeout=0, fallback_to_soft=False):
            return False
    except Timeout:
        return True
    except OSError:
        return _locked_for_readers(folder / LOCK_FILE)


def _locked_for_readers(path: Path) -> bool:
    """Whether a file is locked that this process may not write; False where the system does not tell."""
    if fcntl is None:
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def holder(folder: Path) -> Holder | None:
    """Who holds the lock of a folder, where that is written down."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told: dict[str, Any] = json.loads((folder / HOLDER_FILE).read_text(encoding="utf-8"))
        return Holder(int(told["pid"]), _plain(told["host"]), _plain(told["since"]))
    return None


def _plain(text: object) -> str:
    """A word from a file as it may be printed."""
    return "".join(c for c in str(text)[:64] if c.isprintable())
