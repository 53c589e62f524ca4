"""CIFAR-10 and CIFAR-100: the official files, found in the data folder or downloaded into it, checked and read."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import pickle
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from filelock import FileLock, Timeout

from resnet_bench import progress
from resnet_bench.data.sources import IMAGE_SHAPE, SPLITS, Source, SourceSplit
from resnet_bench.data.storage import DATA_VARIABLE, data_folder
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write

if TYPE_CHECKING:  # importing torchvision takes seconds, so `read` imports it only when it is called
    from torchvision.datasets import CIFAR10

    CifarClass: TypeAlias = type[CIFAR10]

NAMES = {"cifar100": "CIFAR100", "cifar10": "CIFAR10"}
"""torchvision's class for each data set. It knows the address, the names and the MD5 of the official files."""

ANSWER_SECONDS = 5  # with a time limit, the server has to answer within this time before the download begins
STALL_SECONDS = 30  # any download fails when nothing arrives for this long

_NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)  # urllib's ValueError: a proxy's address is invalid


class UnavailableError(UserError):
    """The official files are not in the data folder and cannot be downloaded into it.

    Attributes:
        reason: why not, as part of a sentence.
    """

    def __init__(self, cifar: CifarClass, reason: str) -> None:
        self.reason = reason
        folder = data_folder()
        super().__init__(
            f"{cifar.__name__} is not in {folder} and cannot be fetched from {cifar.url} ({reason}); put "
            f"{cifar.filename} or the extracted folder {cifar.base_folder}/ into {folder} (or into another folder "
            f"that {DATA_VARIABLE} names), or take --dataset synthetic or folder:PATH, which need no network."
        )


def read(name: str, time_limit: float | None = None) -> Source:
    """Read `cifar10` or `cifar100`, after a download if it is not in the data folder.

    Args:
        name: a key of `NAMES`.
        time_limit: seconds after which the download is given up; none by default.

    Raises:
        UnavailableError: where the files are not there and cannot be downloaded.
        UserError: for files that cannot be read or are not the official ones.
    """
    from torchvision import datasets

    cifar: CifarClass = getattr(datasets, NAMES[name])
    files = _from_folder(cifar) or _from_archive(cifar, time_limit)

    def content(file: str) -> dict[str, Any]:
        unpickled: dict[str, Any] = pickle.loads(files.pop(file), encoding="latin1")
        return unpickled

    splits = {}
    for split, names in zip(SPLITS, (cifar.train_list, cifar.test_list), strict=True):
        batches = [content(file) for file, _ in names]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, *IMAGE_SHAPE)
        labels = [batch["labels"] if "labels" in batch else batch["fine_labels"] for batch in batches]
        splits[split] = SourceSplit.from_arrays(images, np.concatenate(labels).astype(np.int64))
    return Source(name, tuple(content(cifar.meta["filename"])[cifar.meta["key"]]), splits)


# Reading ----------------------------------------------------------------------------------------------------------


def _official_files(cifar: CifarClass) -> list[tuple[str, str]]:
    """(name, MD5) of each file that is unpickled. Pickles run code, so none is loaded before its MD5 is checked."""
    batches = [(name, md5) for name, md5 in cifar.train_list + cifar.test_list]
    return [*batches, (cifar.meta["filename"], cifar.meta["md5"])]


def _from_folder(cifar: CifarClass) -> dict[str, bytes] | None:
    """The official files by name from the extracted folder, if the user has put it into the data folder."""
    folder = data_folder() / cifar.base_folder
    files = {name: _read_official(folder / name, md5) for name, md5 in _official_files(cifar)}
    found = {name: content for name, content in files.items() if content is not None}
    return found if len(found) == len(files) else None


def _from_archive(cifar: CifarClass, time_limit: float | None) -> dict[str, bytes]:
    """The official files by name from the archive, which is downloaded if it is not there.

    Nothing is extracted to the disk, because the data folder may be read-only.
    """
    archive = data_folder() / cifar.filename
    content = _read_official(archive, cifar.tgz_md5)
    if content is None:
        with _download_lock(archive.parent, cifar, time_limit):
            content = _read_official(archive, cifar.tgz_md5)  # another process may have downloaded it meanwhile
            if content is None:
                _download(cifar, archive, time_limit)
                content = archive.read_bytes()
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for name, md5 in _official_files(cifar):
            with contextlib.suppress(KeyError):  # no such member
                member = tar.extractfile(f"{cifar.base_folder}/{name}")
                files[name] = member.read() if member else b""
            if name not in files or _md5(files[name]) != md5:
                raise UserError(f"{archive} holds no official {name}; remove it and try again.")
    return files


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read_official(path: Path, md5: str) -> bytes | None:
    """The content of a file, or None where there is no such file.

    Raises:
        UserError: for a file that cannot be read or has another MD5. It stays: it may be the user's only copy.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        for place in (path, *path.parents):
            if os.path.islink(place) and not os.path.exists(place):
                raise UserError(f"{place} leads nowhere; mount what this link leads to, or remove it.") from None
        return None
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror}; make it readable, or name another data folder in {DATA_VARIABLE}."
        ) from None
    if (found := _md5(content)) != md5:
        raise UserError(
            f"{path} is damaged or not the official file (its MD5 is {found}, not {md5}); "
            "remove it to have it fetched anew, or replace it by the official one."
        )
    return content


# Downloading ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _download_lock(folder: Path, cifar: CifarClass, time_limit: float | None) -> Iterator[None]:
    """Let only one process at a time download into `folder`, which is made if it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{cifar.base_folder}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"Waiting for another process, which is downloading {cifar.filename}", file=sys.stderr, flush=True)
            lock.acquire(timeout=-1 if time_limit is None else time_limit)
    except Timeout:
        raise UnavailableError(
            cifar, f"another process has been downloading it for more than {time_limit:g} s"
        ) from None
    except FileExistsError:
        raise UnavailableError(cifar, "the folder cannot be written: it is a file") from None
    except NotImplementedError:
        raise UnavailableError(cifar, "the folder's file system has no locks") from None
    except OSError as error:
        raise UnavailableError(cifar, f"the folder cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _download(cifar: CifarClass, archive: Path, time_limit: float | None) -> None:
    """Download the archive. It appears at its place only when it is complete and has the right MD5.

    torchvision's own download has no timeout, draws its progress bar into pipes too and writes to the final place.
    pooch has neither locks nor a limit for the whole time, and replaces a file of the user that has another MD5.
    """
    started = time.monotonic()
    for leftover in archive.parent.glob(f".{archive.name}.*"):  # by a download that was killed
        with contextlib.suppress(OSError):  # it belongs to another user
            leftover.unlink()
    if time_limit is not None:
        _require_answer(cifar)
    print(f"Downloading {cifar.url} to {archive.parent}", file=sys.stderr)
    md5 = hashlib.md5(usedforsecurity=False)
    try:
        with atomic_write(archive, "wb") as file:
            chunks = _chunks(cifar)
            total = next(chunks)
            with progress.task(f"downloading {archive.name}", total and total / 1e6, "MB") as downloading:
                for chunk in chunks:
                    file.write(chunk)
                    md5.update(chunk)
                    downloading.advance(len(chunk) / 1e6)
                    if time_limit is not None and time.monotonic() - started > time_limit:
                        raise UnavailableError(cifar, f"the download takes longer than {time_limit:g} s")
            if md5.hexdigest() != cifar.tgz_md5:
                raise UnavailableError(cifar, "what arrived is incomplete or not the official file")
    except UnavailableError:
        raise
    except UserError as error:  # the archive cannot be written, for example on a full disk; `auto` can do without it
        raise UnavailableError(cifar, str(error).rpartition(";")[0]) from None


def _chunks(cifar: CifarClass) -> Iterator[Any]:
    """First the length in bytes (or None), then the bytes. Kept apart so that only network errors are caught here."""
    try:
        with urllib.request.urlopen(cifar.url, timeout=STALL_SECONDS) as response:
            yield response.length
            while chunk := response.read(1 << 18):
                yield chunk
    except _NETWORK_ERRORS as error:
        raise UnavailableError(cifar, _reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, (ValueError, http.client.InvalidURL)):  # its text shows the address, perhaps with a password
        return "a proxy that the environment names has no valid address"
    return str(error).removeprefix("<urlopen error ").removesuffix(">") or type(error).__name__


def _require_answer(cifar: CifarClass) -> None:
    """Raise `UnavailableError` unless the server answers within `ANSWER_SECONDS`.

    The request runs in a thread, because looking up a host name obeys no timeout.
    """
    failure = [f"no answer within {ANSWER_SECONDS} s"]

    def ask() -> None:
        request = urllib.request.Request(cifar.url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()
            failure.clear()
        except TimeoutError:
            pass  # `failure` says so already
        except _NETWORK_ERRORS as error:
            failure[:] = [_reason(error)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if failure:
        raise UnavailableError(cifar, failure[0])
