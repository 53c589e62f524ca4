"""Locks of folders: on file systems without locks, and for those who may only read."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from resnet_bench import locks
from resnet_bench.locks import HOLDER_FILE, FolderLock
from tests.conftest import locked_by_another_process


@pytest.mark.parametrize("number", locks._NO_LOCKS)
def test_where_there_are_no_locks_nobody_is_kept_out_and_the_holder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Above all not by what a dead process on another machine has left."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.acquire()
    assert not first.works
    assert json.loads((tmp_path / HOLDER_FILE).read_text())["pid"] == os.getpid()
    assert not locks.held(tmp_path)
    assert second.acquire()
    first.release()
    assert not (tmp_path / HOLDER_FILE).exists()


def test_who_may_only_read_a_folder_sees_that_it_is_held(tmp_path: Path) -> None:
    with locked_by_another_process(tmp_path):
        assert locks._locked_for_readers(tmp_path / locks.LOCK_FILE)
    assert not locks._locked_for_readers(tmp_path / locks.LOCK_FILE)
    assert not locks._locked_for_readers(tmp_path / "missing")


def test_a_lock_that_cannot_be_opened_for_writing_is_looked_at_by_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing:
        def __init__(self, *_: object, **__: object) -> None: ...

        def __enter__(self) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        def __exit__(self, *_: object) -> None: ...

    with locked_by_another_process(tmp_path):
        monkeypatch.setattr(locks, "FileLock", Refusing)
        assert locks.held(tmp_path)
    assert not locks.held(tmp_path)
