"""Writing files for the user without destroying anything.

A regular file is replaced only when its successor is complete. A link stays, and the file that it leads to is replaced.
Anything else, such as `/dev/null`, `/dev/stdout` or a pipe, is opened and written.
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

_MAX_LINKS = 40  # Linux follows no more than this in one path


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that replaces `path` when it is complete and on disk; until then `path` stays as it was.

    A path that leads to no regular file is opened itself.

    Raises:
        UserError: where `path` cannot be written: no folder, no permission, no space.
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


def is_replaced(path: str | Path) -> bool:
    """Whether writing `path` replaces a regular file, or makes one; a pipe and the like are written to instead."""
    try:
        return _replaced(Path(path)) is not None
    except OSError:
        return True  # so that writing it says what is wrong


def require_writable(path: str | Path, option: str) -> None:
    """Find out before hours of measuring whether `atomic_write` can write `path`, the value of `option`.

    Raises:
        UserError: where it cannot.
    """
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
    """Make `folder`, the value of `option`, and its parents, unless they are there.

    Raises:
        UserError: where it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason, found = error.strerror, Path(error.filename or folder)
        if os.path.islink(found) and not found.exists():  # for which the system's message is «File exists»
            reason = f"{found} is a link to {os.readlink(found)}, which is not there"
        raise UserError(f"Cannot make the folder {folder}: {reason}; give another {option}.") from None


def _described(path: Path) -> str:
    """The path and, for a link, what it leads to, because the fault may be there."""
    return f"{path} (a link to {os.readlink(path)})" if os.path.islink(path) else str(path)


def _replaced(path: Path) -> Path | None:
    """The regular file that `path` leads to, even if it does not exist yet; None for what can only be opened.

    Raises:
        OSError: for an existing file that may not be written.
    """
    if _own_descriptor(path) is not None:
        return None
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        if not os.access(path, os.W_OK):  # its folder would allow replacing it, but it is write-protected
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return Path(os.path.realpath(path))


def _own_descriptor(path: Path) -> int | None:
    """The file descriptor of this process that `path` stands for, as `/dev/stdout` does; None for other paths.

    Such a file must not be opened again: that would delete what was written to it before.
    """
    folders = {os.path.realpath("/dev/fd"), os.path.realpath("/proc/self/fd")}
    for _ in range(_MAX_LINKS):
        if path.name.isdigit() and os.path.realpath(path.parent) in folders:
            return int(path.name)
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return None


def _require_opens(path: Path) -> None:
    """Check that `path`, which leads to no regular file, can be written; raise `OSError` otherwise."""
    descriptor = _own_descriptor(path)
    if descriptor is not None:
        os.write(descriptor, b"")
    elif path.is_fifo():  # opening a pipe would wait for its reader, and closing it would tell the reader that it ended
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
            stream.flush()  # so that what was printed before comes first
    return os.fdopen(os.dup(descriptor), mode, encoding=encoding)


@contextlib.contextmanager
def _replacing(target: Path, mode: str) -> Iterator[IO[Any]]:
    temporary: str | None = None
    try:
        # Only the beginning of the name: file systems allow 255 bytes, and `mkstemp` adds some.
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
            # A file that is mounted into a container, or belongs to another user, can be written but not replaced.
            shutil.copyfile(temporary, target)
        else:
            temporary = None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _permissions(target: Path) -> int:
    """The permissions of the file that is replaced, or those that a new file gets."""
    with contextlib.suppress(FileNotFoundError):
        return target.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def write_json(path: str | Path, data: Any) -> None:
    """Write `data` as JSON with `atomic_write`; NaN and infinity, which JSON lacks, are a `ValueError`."""
    text = json.dumps(data, indent=1, allow_nan=False)
    with atomic_write(path) as file:
        file.write(text + "\n")
