"""Data sets: CIFAR-100, CIFAR-10, a folder of images, the synthetic one; subsets of them; the in-memory `ImageSet`."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import math
import os
import pickle
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.data import image_files, synthetic
from resnet_bench.data.image_files import ImageFileError
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write
from resnet_bench.folders import cache_folder, expanded
from resnet_bench.schema import DatasetInfo

if TYPE_CHECKING:  # it takes seconds to import; `_cifar` does where one of its data sets is asked for
    from torchvision.datasets import CIFAR10

    Source: TypeAlias = type[CIFAR10]

Array: TypeAlias = NDArray[Any]

SPLITS = ("train", "test")
CHOICES = "auto, cifar100, cifar10, synthetic, folder:PATH"
DATA_VARIABLE = "RESNET_BENCH_DATA"  # the environment variable that names the folder for downloads and caches

AUTO_TIMEOUT_SECONDS = 5  # `auto` waits this long for the server of CIFAR-100 to answer
AUTO_DOWNLOAD_SECONDS = 60  # and this long for the whole file
STALL_SECONDS = 30  # any download fails when nothing arrives for this long
CACHE_FROM_IMAGES = 5_000  # smaller folders are decoded faster than a cache entry is worth
NAMED_AT_MOST = 20  # an error names so many files and counts the rest

_CIFAR = {"cifar100": "CIFAR100", "cifar10": "CIFAR10"}  # torchvision's classes
_SHAPE = (3, IMAGE_SIZE, IMAGE_SIZE)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split, in memory.

    Attributes:
        images: uint8 [n, 3, 32, 32], contiguous, RGB.
        labels: int64 [n], each below the data set's `num_classes`.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """The images in use.

    Attributes:
        name: `cifar100`, `cifar10`, `synthetic` or `folder:` and the last component of its path.
        train: what is trained on.
        test: what accuracy is measured on.
        classes: the class names; a label is an index into them.
        synthetic: drawn, not photographed: accuracies on it cannot be compared with published ones.
        subset: fewer images than the data set has.
    """

    name: str
    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    synthetic: bool
    subset: bool

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean of each channel of the training images in use, of values in [0, 1]."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation of each channel, likewise; 1 for a channel that never varies, so it can be divided by."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        counts = torch.zeros(3, 256, dtype=torch.int64)  # how often each value occurs: exact, whatever the image count
        for chunk in self.train.images.split(1000):
            for channel in range(3):
                counts[channel] += torch.bincount(chunk[:, channel].flatten(), minlength=256)
        mean, std = [], []
        for row in counts.tolist():
            n = sum(row)
            total, squares = sum(v * c for v, c in enumerate(row)), sum(v * v * c for v, c in enumerate(row))
            mean.append(total / n / 255)
            std.append(math.sqrt((n * squares - total**2) / n**2) / 255 or 1.0)
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])

    @cached_property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal over class count, image counts, pixels and labels, training set first."""
        digest = hashlib.sha256(json.dumps([self.num_classes, len(self.train), len(self.test)]).encode())
        for split in (self.train, self.test):
            digest.update(split.images.numpy().data)
            digest.update(split.labels.numpy().astype("<i8").data)
        return digest.hexdigest()

    def info(self) -> DatasetInfo:
        """What every result says about the images it was measured on."""
        return DatasetInfo(
            name=self.name,
            synthetic=self.synthetic,
            subset=self.subset,
            train_images=len(self.train),
            test_images=len(self.test),
            classes=self.num_classes,
            sha256=self.sha256,
            mean=self.mean,
            std=self.std,
        )


@dataclass(frozen=True)
class _Split:
    """A split before any subset is taken: its labels, and its images by ascending indices."""

    labels: Array  # int64 [n]
    images: Callable[[Array], Array]  # indices [m] → uint8 [m, 3, 32, 32]

    @classmethod
    def of_arrays(cls, images: Array, labels: Array) -> _Split:
        return cls(labels, lambda indices: images if len(indices) == len(images) else images[indices])


@dataclass(frozen=True)
class _Whole:
    name: str
    classes: tuple[str, ...]
    splits: dict[str, _Split]
    synthetic: bool = False


def load(
    spec: str,
    *,
    train_images: int | None = None,
    test_images: int | None = None,
    seed: int = 0,
    at_most: Collection[str] = (),
) -> Dataset:
    """Load a data set, or a stratified subset of it that `seed` fixes.

    Args:
        spec: `cifar100` or `cifar10` (downloaded once), `folder:PATH` with `{train,test}/<class>/*` in it,
            `synthetic`, or `auto`: CIFAR-100 if it is there or if its server answers within `AUTO_TIMEOUT_SECONDS` and
            delivers it within `AUTO_DOWNLOAD_SECONDS`, else `synthetic`, with a line on stderr.
        train_images: how many training images to use; all by default.
        test_images: how many test images to use; all by default.
        seed: decides which images a subset holds, and nothing else.
        at_most: splits (`train`, `test`) of which fewer images will do where the set has no more.

    Raises:
        UserError: unknown data set, missing or damaged files, more images asked for than there are.
    """
    kind, _, path = spec.partition(":")
    if spec == "auto":
        whole = _auto()
    elif spec in _CIFAR:
        whole = _cifar(spec)
    elif spec == "synthetic":
        whole = _synthetic()
    elif kind == "folder" and path:
        whole = _folder(expanded(path))
    else:
        raise UserError(f"There is no data set {spec!r}; choose one of {CHOICES}.")

    sets, subset = {}, False
    for split, count in zip(SPLITS, (train_images, test_images), strict=True):
        labels = whole.splits[split].labels
        if count is not None and split in at_most:
            count = min(count, len(labels))
        if count is not None and not 1 <= count <= len(labels):
            raise UserError(
                f"--{split}-images is {count}; give a number from 1 to {len(labels)}, as many as {whole.name} has."
            )
        indices = np.arange(len(labels)) if count is None else stratified(labels, count, seed, split)
        subset |= len(indices) < len(labels)
        images = np.ascontiguousarray(whole.splits[split].images(indices))
        sets[split] = ImageSet(torch.from_numpy(images), torch.from_numpy(labels[indices]))
    return Dataset(whole.name, sets["train"], sets["test"], whole.classes, whole.synthetic, subset)


def stratified(labels: Array, count: int, seed: int, split: str) -> Array:
    """Choose `count` images with all classes as equally often as their sizes allow.

    Args:
        labels: int [n].
        count: how many, at most n.
        seed: the same seed gives the same images, and a smaller subset is contained in a larger one.
        split: `train` or `test`; they draw independently.

    Returns:
        Their indices, ascending, int64 [count].
    """
    # Philox's raw stream is the same in every version of numpy; shuffling is sorting by it.
    generator = np.random.Philox(key=np.array([seed % 2**64, SPLITS.index(split)], np.uint64))
    turn = np.argsort(np.argsort(generator.random_raw(int(labels.max()) + 1), kind="stable"))  # which class goes first
    order = np.lexsort((generator.random_raw(len(labels)), labels))  # class by class, shuffled within each
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(first, sizes)  # each image's place in its class
    # Deal the classes' images out in turn: everyone's first, everyone's second, …
    chosen: Array = np.sort(order[np.lexsort((turn[labels[order]], rank))[:count]])
    return chosen


class _NoFolderError(UserError):
    """There is no data folder."""


def data_folder() -> Path:
    """Where downloads and caches are kept: `$RESNET_BENCH_DATA`, or the platform's cache folder."""
    named = os.environ.get(DATA_VARIABLE)
    folder = expanded(named) if named else cache_folder()
    if folder is None:
        raise _NoFolderError(
            f"This user has no home folder to keep CIFAR-10 and CIFAR-100 in; name a folder in {DATA_VARIABLE}, or "
            "take --dataset synthetic or folder:PATH."
        )
    return folder


def _synthetic() -> _Whole:
    def split(name: str) -> _Split:
        return _Split(synthetic.labels(name), lambda indices: synthetic.draw(name, indices))

    return _Whole("synthetic", synthetic.CLASSES, {s: split(s) for s in SPLITS}, synthetic=True)


def _auto() -> _Whole:
    try:
        return _cifar("cifar100", time_limit=AUTO_DOWNLOAD_SECONDS)
    except _UnavailableError as error:
        print(
            f"*** Using the SYNTHETIC data set: CIFAR-100 is not in {data_folder()} and cannot be fetched now "
            f"({error.reason}); --dataset cifar100 insists on it. ***",
            file=sys.stderr,
            flush=True,
        )
        return _synthetic()
    except _NoFolderError as error:
        print(f"*** Using the SYNTHETIC data set. {error} ***", file=sys.stderr, flush=True)
        return _synthetic()


# --- CIFAR-10 and CIFAR-100 ---


_NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)  # the last is urllib's for a proxy's bad address


class _UnavailableError(UserError):
    """The official files are neither here nor to be fetched."""

    def __init__(self, source: Source, reason: str) -> None:
        self.reason = reason
        folder = data_folder()
        super().__init__(
            f"{source.__name__} is not in {folder} and cannot be fetched from {source.url} ({reason}); put "
            f"{source.filename} or the extracted folder {source.base_folder}/ into {folder} (or into another folder "
            f"that {DATA_VARIABLE} names), or take --dataset synthetic or folder:PATH, which need no network."
        )


def _cifar(name: str, time_limit: float | None = None) -> _Whole:
    from torchvision import datasets

    source: Source = getattr(datasets, _CIFAR[name])
    files = _extracted(source) or _from_archive(source, time_limit)

    def content(file: str) -> dict[str, Any]:
        unpickled: dict[str, Any] = pickle.loads(files.pop(file), encoding="latin1")
        return unpickled

    splits = {}
    for split, names in zip(SPLITS, (source.train_list, source.test_list), strict=True):
        batches = [content(file) for file, _ in names]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, *_SHAPE)
        labels = [batch["labels"] if "labels" in batch else batch["fine_labels"] for batch in batches]
        splits[split] = _Split.of_arrays(images, np.concatenate(labels).astype(np.int64))
    return _Whole(name, tuple(content(source.meta["filename"])[source.meta["key"]]), splits)


def _official(source: Source) -> list[tuple[str, str]]:
    """(name, MD5) of every file that is unpickled."""
    batches = [(name, md5) for name, md5 in source.train_list + source.test_list]
    return [*batches, (source.meta["filename"], source.meta["md5"])]


def _extracted(source: Source) -> dict[str, bytes] | None:
    """The official files by name, if the user has put the extracted folder into the data folder."""
    folder = data_folder() / source.base_folder
    files = {name: _read_official(folder / name, md5) for name, md5 in _official(source)}
    there = {name: content for name, content in files.items() if content is not None}
    return there if len(there) == len(files) else None


def _from_archive(source: Source, time_limit: float | None) -> dict[str, bytes]:
    """The same from the archive, which is downloaded if it is not there.

    Nothing is extracted to the disk: the data folder may be one that cannot be written.
    """
    archive = data_folder() / source.filename
    content = _read_official(archive, source.tgz_md5)
    if content is None:
        with _locked(archive.parent, source, time_limit):
            content = _read_official(archive, source.tgz_md5)  # another process may have brought it
            if content is None:
                _download(source, archive, time_limit)
                content = archive.read_bytes()
    files = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for name, md5 in _official(source):
            with contextlib.suppress(KeyError):  # no such member
                member = tar.extractfile(f"{source.base_folder}/{name}")
                files[name] = member.read() if member else b""
            if name not in files or _md5(files[name]) != md5:
                raise UserError(f"{archive} holds no official {name}; remove it and try again.")
    return files


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _read_official(path: Path, md5: str) -> bytes | None:
    """A file's content, or None where there is no such file; `UserError` for one that is not the official one."""
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


@contextlib.contextmanager
def _locked(root: Path, source: Source, time_limit: float | None) -> Iterator[None]:
    """Only one process at a time downloads."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f"{source.base_folder}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            print(f"Waiting for another process, which is downloading {source.filename}", file=sys.stderr, flush=True)
            lock.acquire(timeout=-1 if time_limit is None else time_limit)
    except Timeout:
        raise _UnavailableError(
            source, f"another process has been downloading it for more than {time_limit:g} s"
        ) from None
    except FileExistsError:
        raise _UnavailableError(source, "the folder cannot be written: it is a file") from None
    except NotImplementedError:
        raise _UnavailableError(source, "the folder's file system has no locks") from None
    except OSError as error:
        raise _UnavailableError(source, f"the folder cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _download(source: Source, archive: Path, time_limit: float | None) -> None:
    """Fetch the archive; it appears at its place only when complete and of the right MD5.

    torchvision's own download has no timeout, draws its progress bar into pipes too and writes to the final place.
    """
    started = time.monotonic()
    for leftover in archive.parent.glob(f".{archive.name}.*"):  # of a download that was killed
        with contextlib.suppress(OSError):  # another user's
            leftover.unlink()
    if time_limit is not None:
        _probe(source)
    print(f"Downloading {source.url} to {archive.parent}", file=sys.stderr)
    md5 = hashlib.md5(usedforsecurity=False)
    try:
        with atomic_write(archive, "wb") as file:
            chunks = _chunks(source)
            total = next(chunks)
            with tqdm(total=total, desc=archive.name, unit="B", unit_scale=True, disable=None) as progress:
                for chunk in chunks:
                    file.write(chunk)
                    md5.update(chunk)
                    progress.update(len(chunk))
                    if time_limit is not None and time.monotonic() - started > time_limit:
                        raise _UnavailableError(source, f"the download takes longer than {time_limit:g} s")
            if md5.hexdigest() != source.tgz_md5:
                raise _UnavailableError(source, "what arrived is incomplete or not the official file")
    except _UnavailableError:
        raise
    except UserError as error:  # e.g. no space left, which `auto` can do without
        raise _UnavailableError(source, str(error).rpartition(";")[0]) from None


def _chunks(source: Source) -> Iterator[Any]:
    """First the length in bytes (or None), then the bytes; kept apart so that only network errors are caught here."""
    try:
        with urllib.request.urlopen(source.url, timeout=STALL_SECONDS) as response:
            yield response.length
            while chunk := response.read(1 << 18):
                yield chunk
    except _NETWORK_ERRORS as error:
        raise _UnavailableError(source, _reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, (ValueError, http.client.InvalidURL)):
        return "a proxy that the environment names has no valid address"  # which may hold a password: it is not shown
    return str(error).removeprefix("<urlopen error ").removesuffix(">") or type(error).__name__


def _probe(source: Source) -> None:
    """Raise unless the server answers soon. A thread, because a look-up of a host name obeys no timeout."""
    failure = [f"no answer within {AUTO_TIMEOUT_SECONDS} s"]

    def ask() -> None:
        request = urllib.request.Request(source.url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=AUTO_TIMEOUT_SECONDS).close()
            failure.clear()
        except TimeoutError:
            pass  # is what `failure` says already
        except _NETWORK_ERRORS as error:
            failure[:] = [_reason(error)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(AUTO_TIMEOUT_SECONDS)
    if failure:
        raise _UnavailableError(source, failure[0])


# --- a folder of images ---


def _folder(root: Path) -> _Whole:
    files = {split: _list_split(root, split) for split in SPLITS}
    only = {s: sorted(files[s].keys() - files[o].keys()) for s, o in (SPLITS, SPLITS[::-1])}
    if any(only.values()):
        found = " and ".join(f"only in {split}: {_listed(names)}" for split, names in only.items() if names)
        raise UserError(f"{root} has classes {found}; give every class images in both train and test.")
    classes = tuple(files["train"])
    if len(classes) < 2:
        raise UserError(f"{root} has only the class {classes[0]}; give at least two classes.")
    _refuse_shared(root, [f"{split}/{name}" for split in SPLITS for name in classes])

    entries = {split: [e for names in files[split].values() for e in names] for split in SPLITS}
    images = _decode_cached(root, entries)
    splits = {}
    for split in SPLITS:
        labels = np.repeat(np.arange(len(classes)), [len(files[split][c]) for c in classes])
        splits[split] = _Split.of_arrays(images[split], labels)
    name = os.fsencode(root.resolve().name).decode("utf-8", "backslashreplace")  # a name in Latin-1 cannot be printed
    return _Whole(f"folder:{name}", classes, splits)


def _list_split(root: Path, split: str) -> dict[str, list[os.DirEntry[str]]]:
    """The files of each class, both sorted by name.

    Hidden ones are passed over, and so are files beside the class folders, with a line that says so. What is neither
    file nor folder is an error: a class folder on a share that is not mounted is a link that leads nowhere.
    """

    def entries(folder: str | Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as found:
                return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            raise UserError(
                f"Cannot read the folder {folder}: {error.strerror}; --dataset folder:PATH takes a folder with "
                "train/<class>/* and test/<class>/* in it."
            ) from None

    entries(root)  # so that a wrong path is named itself, not its missing `train`
    found = entries(root / split)
    beside = [e for e in found if not _is_folder(e)]
    faults = [f"{e.name} ({fault})" for e in beside if (fault := image_files.fault(e.path))]
    if faults:
        raise UserError(
            f"{root / split} holds what is neither a class folder nor a file: {_listed(faults)}; mend or remove it."
        )
    classes = {e.name: entries(e.path) for e in found if _is_folder(e)}
    if not classes:
        raise UserError(f"{root / split} holds no class folders; put the images of each class into one of its own.")
    if beside:
        names = _listed([e.name for e in beside])
        print(f"Passed over beside the class folders of {root / split}: {names}", file=sys.stderr)
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise UserError(f"{root / split} has classes without images: {_listed(empty)}; fill or remove these folders.")
    nested = [e.path for files in classes.values() for e in files if _is_folder(e)]
    if nested:
        raise UserError(f"Class folders hold images only; move these folders away: {_listed(nested)}.")
    return classes


def _refuse_shared(root: Path, folders: Sequence[str]) -> None:
    """By links, images that are trained on could be tested on too, or images have two labels."""
    places: dict[str, list[str]] = {}
    for folder in folders:
        places.setdefault(os.path.realpath(root / folder), []).append(folder)
    shared = [" and ".join(names) for names in places.values() if len(names) > 1]
    if shared:
        raise UserError(f"In {root} these are one folder: {_listed(shared)}; give each class its own images in both.")


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. links in a circle; `image_files.fault` says which
        return False


def _decode_cached(root: Path, entries: dict[str, list[os.DirEntry[str]]]) -> dict[str, Array]:
    """Decode all images, or take them from the cache, where no file was changed since, replaced or renamed."""
    everything = [e for split in SPLITS for e in entries[split]]
    if len(everything) < CACHE_FROM_IMAGES:
        return _by_split(_decode([e.path for e in everything]), entries)
    try:
        # Unpacking and copying can give another file the same size and modification time, but not the same ctime.
        stats = [(e.path, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for e in everything if (s := e.stat())]
        folder = data_folder()
    except (OSError, _NoFolderError):  # e.g. a dangling link, which decoding reports
        return _by_split(_decode([e.path for e in everything]), entries)

    versions = [image_files.VERSION, Image.__version__]  # other pixels may come of the same file
    key = hashlib.sha256(json.dumps([versions, stats]).encode()).hexdigest()
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    path = folder / "folders" / f"{name}.npz"  # one entry a folder, replaced when the folder changes
    try:
        with open(path, "rb") as entry, np.load(entry, allow_pickle=False) as cached:
            if str(cached["key"]) == key:
                images = cached["images"]  # the zip's CRC-32 is checked on reading
                if images.shape == (len(everything), *_SHAPE) and images.dtype == np.uint8:
                    return _by_split(images, entries)
    except Exception:  # none there, or damaged in any way: it is written anew
        pass
    images = _decode([e.path for e in everything])
    with contextlib.suppress(OSError, UserError):  # no room for a cache is no reason to fail
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            np.savez(file, key=np.array(key), images=images)
    return _by_split(images, entries)


def _by_split(images: Array, entries: dict[str, list[os.DirEntry[str]]]) -> dict[str, Array]:
    train = len(entries["train"])
    return {"train": images[:train], "test": images[train:]}


def _decode(paths: list[str]) -> Array:
    """Decode image files to RGB, uint8 [n, 3, 32, 32]; the one `UserError` names the files that cannot be used."""
    images = np.empty((len(paths), *_SHAPE), np.uint8)
    errors: dict[int, ImageFileError] = {}

    def decode_chunk(start: int) -> int:
        rows = range(start, min(start + 100, len(paths)))
        for row in rows:
            try:
                images[row] = image_files.read(paths[row]).transpose(2, 0, 1)
            except ImageFileError as error:
                errors[row] = error
        return len(rows)

    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(paths), desc="Reading images", unit=" images", delay=2, disable=None) as progress,
    ):
        for done in pool.map(decode_chunk, range(0, len(paths), 100)):
            progress.update(done)

    problems = []
    for problem in image_files.PROBLEMS:
        found = [(paths[row], errors[row].detail) for row in sorted(errors) if errors[row].problem == problem]
        if found:
            names = [f"{path} ({detail})" if detail else path for path, detail in found]
            problems.append(f"{problem}: {_listed(names)}")
    if problems:
        raise UserError(
            f"These files {'; these '.join(problems)}; repair them, save them as opaque 8-bit RGB of "
            f"{IMAGE_SIZE}×{IMAGE_SIZE} pixels, or remove them."
        )
    return images
