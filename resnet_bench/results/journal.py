"""The journal of a benchmark session: what is measured so far, on disk at once.

pytest-benchmark writes its JSON once, when the session ends, so a session that is killed would lose everything. The
journal is a file of the same shape, replaced atomically whenever a benchmark finishes and after every interleaved
round. It is removed when the session ends well; after a kill it can be read like any saved file.

While its session runs, a lock beside it is held, which the system lets go with the process, however that ends. A
process number would be 1 in every container; a lock says the same to all of them that share the folder.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pytest_benchmark.stats import Stats

from resnet_bench.errors import UserError
from resnet_bench.files import write_json
from resnet_bench.schema import Result


class Journal:
    """Entries by benchmark name, in `folder`, in a file of this session."""

    def __init__(self, folder: Path, machine_info: dict[str, Any]) -> None:
        started = datetime.now(timezone.utc)
        self.path = folder / f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.json"
        self._lock = FileLock(_lock_of(self.path))
        self._head = {"machine_info": machine_info, "commit_info": {}, "datetime": started.isoformat(), "version": ""}
        self._results: dict[str, Result] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
                return  # a file system without locks: only that nobody can tell whether the session still runs
            raise UserError(
                f"Cannot use the folder {folder} for the journal: {error.strerror}; give another --benchmark-storage."
            ) from None

    def add(self, name: str, group: str, result: Result, seconds: Sequence[float]) -> None:
        """Write down a result, finished or not, with its raw values; the latest of a name stands."""
        stats = Stats()
        for value in seconds:
            stats.update(value)
        self._results[name] = result
        self._entries[name] = {
            "group": group,
            "name": name.rsplit("::", 1)[-1],
            "fullname": name,
            "params": None,
            "param": name.partition("[")[2].rstrip("]") or None,
            "extra_info": result.model_dump(mode="json"),
            "options": {},
            "stats": {**(stats.as_dict() if seconds else {}), "data": stats.data, "iterations": 1},
        }
        write_json(self.path, {**self._head, "benchmarks": list(self._entries.values())})

    @property
    def names(self) -> set[str]:
        """Of the benchmarks that were written down so far."""
        return set(self._results)

    @property
    def results(self) -> list[Result]:
        """What was written down so far."""
        return list(self._results.values())

    def close(self) -> None:
        """Keep the file, and give its lock back: the session is over."""
        self._lock.release()
        _lock_of(self.path).unlink(missing_ok=True)

    def remove(self) -> None:
        """The session's results are in a safe place, or were not asked for."""
        self.path.unlink(missing_ok=True)
        self.close()
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # only where it is empty


def _lock_of(journal: Path) -> Path:
    return journal.with_suffix(".lock")


def left_behind(folder: Path) -> Iterator[Path]:
    """Journals of sessions that ended without saving what they measured: those whose lock nobody holds."""
    for path in sorted(folder.glob("*.json")):
        lock = _lock_of(path)
        if lock.exists():
            try:
                with FileLock(lock, timeout=0):
                    pass
                lock.unlink(missing_ok=True)  # nobody will hold it again
            except (Timeout, OSError):  # held, or another user's: then it cannot be told, and is not ours to report
                continue
        yield path
