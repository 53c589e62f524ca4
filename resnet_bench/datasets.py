"""Data sets: CIFAR-100, CIFAR-10, a folder of images, the synthetic one; subsets of them; the in-memory `ImageSet`."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import math
import os
import sys
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from resnet_bench import synthetic
from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.errors import UserError
from resnet_bench.folders import cache_folder, expanded
from resnet_bench.results import DatasetInfo, atomic_write

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
    root = _ensure_files(source, time_limit)
    splits = {}
    for split in SPLITS:
        data = source(root, train=split == "train")
        images = np.ascontiguousarray(data.data.transpose(0, 3, 1, 2))
        splits[split] = _Split.of_arrays(images, np.array(data.targets, np.int64))
    return _Whole(name, tuple(data.classes), splits)


def _ensure_files(source: Source, time_limit: float | None) -> Path:
    """Bring the official files to the data folder unless they are there; every one of them has been MD5-checked.

    torchvision's own download has no timeout, draws its progress bar into pipes too and writes to the final place.
    """
    root = data_folder()
    if _missing(source, root):
        archive = root / source.filename
        with _locked(root, source):
            if _missing(source, root):  # still, after another process may have brought them
                if archive.exists():
                    _check_md5(archive, source.tgz_md5)
                else:
                    _download(source, archive, time_limit)
                _extract(source, archive)
    return root


def _files(source: Source) -> list[tuple[str, str]]:
    """(name, MD5) of every file that is unpickled."""
    batches = [(name, md5) for name, md5 in source.train_list + source.test_list]
    return [*batches, (source.meta["filename"], source.meta["md5"])]


def _missing(source: Source, root: Path) -> bool:
    """Whether an extracted file is not there; `UserError` for one that is not the official one."""
    paths = [(root / source.base_folder / name, md5) for name, md5 in _files(source)]
    for path, md5 in paths:
        if path.exists():
            _check_md5(path, md5)
    return not all(path.exists() for path, _ in paths)


def _check_md5(path: Path, md5: str) -> None:
    from torchvision.datasets.utils import calculate_md5

    try:
        found = calculate_md5(path)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}; make it a readable file, or remove it.") from None
    if found != md5:
        raise UserError(
            f"{path} is damaged or not the official file (its MD5 is {found}, not {md5}); "
            "remove it to have it fetched anew, or replace it by the official one."
        )


@contextlib.contextmanager
def _locked(root: Path, source: Source) -> Iterator[None]:
    """Only one process at a time downloads and extracts."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / f"{source.base_folder}.lock")
        lock.acquire()
    except OSError as error:
        raise _UnavailableError(source, f"the folder cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def _download(source: Source, archive: Path, time_limit: float | None) -> None:
    """Fetch the archive; it appears at its place only when complete and of the right MD5."""
    started = time.monotonic()
    for leftover in archive.parent.glob(f".{archive.name}.*"):  # of a download that was killed
        leftover.unlink(missing_ok=True)
    if time_limit is not None:
        _probe(source)
    print(f"Downloading {source.url} to {archive.parent}", file=sys.stderr)
    md5 = hashlib.md5(usedforsecurity=False)
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


def _chunks(source: Source) -> Iterator[Any]:
    """First the length in bytes (or None), then the bytes; kept apart so that only network errors are caught here."""
    try:
        with urllib.request.urlopen(source.url, timeout=STALL_SECONDS) as response:
            yield response.length
            while chunk := response.read(1 << 18):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _UnavailableError(source, _reason(error)) from None


def _reason(error: Exception) -> str:
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
        except (OSError, http.client.HTTPException) as error:
            failure[:] = [_reason(error)]

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(AUTO_TIMEOUT_SECONDS)
    if failure:
        raise _UnavailableError(source, failure[0])


def _extract(source: Source, archive: Path) -> None:
    """Take the official files, and nothing else, out of the archive, whose MD5 has been checked."""
    folder = archive.parent / source.base_folder
    try:
        folder.mkdir(exist_ok=True)
        with tarfile.open(archive) as tar:
            for name, md5 in _files(source):
                member = tar.extractfile(f"{source.base_folder}/{name}")
                content = member.read() if member else b""
                if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                    raise UserError(f"{archive} holds no official {name}; remove it and try again.")
                with atomic_write(folder / name, "wb") as file:
                    file.write(content)
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise UserError(f"Cannot extract {archive}: {error}; free space or remove it and try again.") from None


# --- a folder of images ---


def _folder(root: Path) -> _Whole:
    files = {split: _list_split(root, split) for split in SPLITS}
    only = {s: sorted(files[s].keys() - files[o].keys()) for s, o in (SPLITS, SPLITS[::-1])}
    if any(only.values()):
        found = " and ".join(f"only in {split}: {', '.join(names)}" for split, names in only.items() if names)
        raise UserError(f"{root} has classes {found}; give every class images in both train and test.")
    classes = tuple(files["train"])
    if len(classes) < 2:
        raise UserError(f"{root} has only the class {classes[0]}; give at least two classes.")

    entries = {split: [e for names in files[split].values() for e in names] for split in SPLITS}
    images = _decode_cached(root, entries)
    splits = {}
    for split in SPLITS:
        labels = np.repeat(np.arange(len(classes)), [len(files[split][c]) for c in classes])
        splits[split] = _Split.of_arrays(images[split], labels)
    return _Whole(f"folder:{root.resolve().name}", classes, splits)


def _list_split(root: Path, split: str) -> dict[str, list[os.DirEntry[str]]]:
    """The files of each class, both sorted by name; hidden ones are passed over."""

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
    classes = {e.name: entries(e.path) for e in entries(root / split) if e.is_dir()}
    if not classes:
        raise UserError(f"{root / split} holds no class folders; put the images of each class into one of its own.")
    empty = [name for name, files in classes.items() if not files]
    if empty:
        raise UserError(f"{root / split} has classes without images: {', '.join(empty)}; fill or remove these folders.")
    nested = [e.path for files in classes.values() for e in files if e.is_dir()]
    if nested:
        raise UserError(f"Class folders hold images only; move these folders away: {', '.join(nested)}.")
    return classes


def _decode_cached(root: Path, entries: dict[str, list[os.DirEntry[str]]]) -> dict[str, Array]:
    """Decode all images, or take them from the cache, where nothing changed in names, sizes and modification times."""
    everything = [e for split in SPLITS for e in entries[split]]
    if len(everything) < CACHE_FROM_IMAGES:
        return _by_split(_decode([e.path for e in everything]), entries)
    try:
        stats = [(e.path, e.stat().st_size, e.stat().st_mtime_ns) for e in everything]
        folder = data_folder()
    except (OSError, _NoFolderError):  # e.g. a dangling link, which decoding reports
        return _by_split(_decode([e.path for e in everything]), entries)

    key = hashlib.sha256(json.dumps([Image.__version__, stats]).encode()).hexdigest()  # decoders differ by version
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
    """Decode image files to RGB, uint8 [n, 3, 32, 32]; the one `UserError` names every file that cannot be used."""
    images = np.empty((len(paths), *_SHAPE), np.uint8)
    unreadable: dict[int, str] = {}
    sizes: dict[int, str] = {}

    def decode(row: int) -> None:
        try:
            with Image.open(paths[row]) as image:
                if image.size == (IMAGE_SIZE, IMAGE_SIZE):
                    images[row] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
                else:
                    sizes[row] = f"{paths[row]} ({image.width}×{image.height})"
        except Exception:  # PIL's readers raise almost anything on a damaged file
            unreadable[row] = paths[row]

    def decode_chunk(start: int) -> int:
        rows = range(start, min(start + 100, len(paths)))
        for row in rows:
            decode(row)
        return len(rows)

    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        tqdm(total=len(paths), desc="Reading images", unit=" images", delay=2, disable=None) as progress,
    ):
        for done in pool.map(decode_chunk, range(0, len(paths), 100)):
            progress.update(done)

    problems = []
    if unreadable:
        problems.append(f"cannot be read as images: {', '.join(unreadable[r] for r in sorted(unreadable))}")
    if sizes:
        shown = [sizes[r] for r in sorted(sizes)[:20]]
        more = f" and {len(sizes) - 20} more" if len(sizes) > 20 else ""
        problems.append(f"are not {IMAGE_SIZE}×{IMAGE_SIZE} pixels: {', '.join(shown)}{more}")
    if problems:
        raise UserError(f"These files {'; these '.join(problems)}; repair, resize or remove them.")
    return images
