"""The journal of a benchmark session: what it has measured so far, on disk at once.

pytest-benchmark writes its JSON only when the session ends, so a session that is killed would lose everything. The
journal is a file of the same form. It is replaced atomically whenever a benchmark finishes and after every interleaved
round. It is removed when the session ends well; after a kill it can be read like any saved file.

A session holds a lock on a file beside its journal. The system releases the lock when the process ends, however it
ends. So any process that shares the folder can tell whether the session still runs, also from another container, where
process ids would mean nothing.
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
    """A file of this session in `folder`, with an entry for each benchmark.

    Args:
        folder: made if need be.
        machine_info: of the session, as pytest-benchmark's JSON has it.

    Raises:
        UserError: the folder cannot be used.
    """

    def __init__(self, folder: Path, machine_info: dict[str, Any]) -> None:
        started = datetime.now(timezone.utc)
        self.path = folder / f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.json"
        self._lock = FileLock(_lock_path(self.path))
        self._head = {"machine_info": machine_info, "commit_info": {}, "datetime": started.isoformat(), "version": ""}
        self._results: dict[str, Result] = {}
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
                return  # a file system without locks; then nobody can tell whether the session still runs
            raise UserError(
                f"Cannot use the folder {folder} for the journal: {error.strerror}; give another --benchmark-storage."
            ) from None

    def add(self, name: str, group: str, result: Result, seconds: Sequence[float]) -> None:
        """Write down a result, finished or not, with its raw values; it replaces an earlier one of the same name.

        Args:
            name: full name of the benchmark, e.g. `benchmarks/test_accuracy.py::test_accuracy[fc1]`.
            group: pytest-benchmark's group.
            seconds: raw values, as in `stats.data` of pytest-benchmark's JSON.
        """
        self._results[name] = result
        self._entries[name] = entry(name, group, result, seconds)
        write_json(self.path, {**self._head, "benchmarks": list(self._entries.values())})

    @property
    def names(self) -> set[str]:
        """Names of the benchmarks that were written down so far."""
        return set(self._results)

    @property
    def results(self) -> list[Result]:
        """The results that were written down so far."""
        return list(self._results.values())

    def close(self) -> None:
        """Keep the file, and give its lock back: the session is over."""
        self._lock.release()
        _lock_path(self.path).unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the journal and its lock; for when the results are saved elsewhere or nobody asked for them."""
        self.path.unlink(missing_ok=True)
        self.close()
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()  # fails, as it should, where other journals are in it


def entry(name: str, group: str, result: Result, seconds: Sequence[float]) -> dict[str, Any]:
    """A benchmark as pytest-benchmark's JSON has it; the arguments are those of `Journal.add`."""
    stats: Any = Stats()  # type: ignore[no-untyped-call]
    for value in seconds:
        stats.update(value)
    return {
        "group": group,
        "name": name.rsplit("::", 1)[-1],
        "fullname": name,
        "params": None,
        "param": name.partition("[")[2].rstrip("]") or None,
        "extra_info": result.model_dump(mode="json"),
        "options": {},
        "stats": {**(stats.as_dict() if seconds else {}), "data": stats.data, "iterations": 1},
    }


def _lock_path(journal: Path) -> Path:
    return journal.with_suffix(".lock")


def left_behind(folder: Path) -> Iterator[Path]:
    """Journals of sessions that ended without saving what they measured: journals whose lock nobody holds."""
    for path in sorted(folder.glob("*.json")):
        lock = _lock_path(path)
        if lock.exists():
            try:
                with FileLock(lock, timeout=0):
                    pass
                lock.unlink(missing_ok=True)  # no session will hold it again
            except (Timeout, OSError):  # held; or another user's, and then nobody can tell
                continue
        yield path
