"""Files that are written for the user: whatever a path names, it is written, not destroyed.

A regular file is replaced once its successor is complete. A link is followed, its target replaced. What exists and is
no regular file, such as `/dev/null`, `/dev/stdout` or a pipe, is opened and written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from resnet_bench.errors import UserError

_LINKS = 40  # as many as Linux follows before it takes them for a loop


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that replaces `path` only once it is complete and on disk; otherwise `path` stays as it was.

    What cannot be replaced, because it is no regular file, is opened itself. Raises `UserError` where it cannot be
    written (folder missing, no permission, disk full).
    """
    path = Path(path)
    try:
        target = _replaced(path)
        with _opened(path, mode) if target is None else _replacing(target, mode) as file:
            yield file
    except OSError as error:
        raise UserError(
            f"Cannot write {_described(path)}: {error.strerror or error}; free space or give another place."
        ) from None


def require_writable(path: str | Path, option: str) -> None:
    """Find out before hours of measuring whether `atomic_write` can write `path`, which was given as `option`."""
    path = Path(path)
    try:
        target = _replaced(path)
        if target is None:
            _require_opens(path)
            return
    except OSError as error:
        raise UserError(f"Cannot write {_described(path)}: {error.strerror}; give another {option}.") from None
    if not target.parent.is_dir():
        raise UserError(
            f"There is no folder {target.parent} to write {target.name} to; make it or give another {option}."
        )
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise UserError(
            f"Cannot write to the folder {target.parent}: {error.strerror}; give another {option}."
        ) from None


def make_folder(folder: str | Path, option: str) -> None:
    """Make the folder that was given as `option`, with its parents, unless it is there."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason, found = error.strerror, Path(error.filename or folder)
        if os.path.islink(found) and not found.exists():  # the system says «File exists»
            reason = f"{found} is a link to {os.readlink(found)}, which is not there"
        raise UserError(f"Cannot make the folder {folder}: {reason}; give another {option}.") from None


def _described(path: Path) -> str:
    """The path and, of a link, what it leads to: what is wrong may be there."""
    return f"{path} (a link to {os.readlink(path)})" if os.path.islink(path) else str(path)


def _replaced(path: Path) -> Path | None:
    """The regular file, there or not, that `path` leads to; None for what can only be opened."""
    if _own_descriptor(path) is not None:
        return None
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        if not os.access(path, os.W_OK):  # that its folder can be written is no leave to replace it
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return Path(os.path.realpath(path))


def _own_descriptor(path: Path) -> int | None:
    """N where `path` leads to this process's open file N, as `/dev/stdout` does: opened anew, it would be cut off."""
    folders = {os.path.realpath("/dev/fd"), os.path.realpath("/proc/self/fd")}
    for _ in range(_LINKS):
        if path.name.isdigit() and os.path.realpath(path.parent) in folders:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return None


def _require_opens(path: Path) -> None:
    """`OSError` unless what is no regular file can be opened and written."""
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        os.write(descriptor, b"")
    elif path.is_fifo():  # to open it would wait for its reader, to close it would send that one away
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    else:
        os.close(os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)))


def _opened(path: Path, mode: str) -> IO[Any]:
    encoding = None if "b" in mode else "utf-8"
    descriptor = _own_descriptor(path)
    if descriptor is None:
        return open(path, mode, encoding=encoding)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # what was printed before comes first
    return os.fdopen(os.dup(descriptor), mode, encoding=encoding)


@contextlib.contextmanager
def _replacing(target: Path, mode: str) -> Iterator[IO[Any]]:
    temporary: str | None = None
    try:
        # Not the whole name, to which a file system that takes 255 bytes may have no room to add anything.
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.")
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _permissions(target))  # mkstemp's files are private to the user
        try:
            os.replace(temporary, target)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EPERM, errno.EACCES):
                raise
            # A file that is mounted into a container, or another user's in a shared folder, can only be written.
            shutil.copyfile(temporary, target)
        else:
            temporary = None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _permissions(target: Path) -> int:
    """Those of the file that is replaced, or of a new one."""
    with contextlib.suppress(FileNotFoundError):
        return target.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def write_json(path: str | Path, data: Any) -> None:
    """Write `data` as JSON, atomically."""
    text = json.dumps(data, indent=1, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")
