"""A data set of image files in class folders: `{train,test}/<class>/*`, checked, decoded and cached."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL

from resnet_bench import progress
from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.data import image_files
from resnet_bench.data.image_files import ImageFileError
from resnet_bench.data.sources import IMAGE_SHAPE, SPLITS, Array, Source, SourceSplit
from resnet_bench.data.storage import NoDataFolderError, data_folder
from resnet_bench.errors import UserError
from resnet_bench.files import atomic_write

CACHE_FROM_IMAGES = 5_000  # smaller data sets are decoded so fast that they need no cache
NAMED_AT_MOST = 20  # an error names this many files and counts the rest

_CHUNK = 100  # files that a thread decodes between two updates of the progress bar


def read(root: Path) -> Source:
    """Read the data set in the folder `root`: classes and files sorted by name, every image decoded.

    Raises:
        UserError: where classes differ between `train` and `test`, where they share a folder by a link, and for any
            file that is no opaque image of 32×32 pixels.
    """
    files = {split: _list_split(root, split) for split in SPLITS}
    only = {s: sorted(files[s].keys() - files[o].keys()) for s, o in (SPLITS, SPLITS[::-1])}
    if any(only.values()):
        found = " and ".join(f"only in {split}: {_listed(names)}" for split, names in only.items() if names)
        raise UserError(f"{root} has classes {found}; give every class images in both train and test.")
    classes = tuple(files["train"])
    if len(classes) < 2:
        raise UserError(f"{root} has only the class {classes[0]}; give at least two classes.")
    _refuse_shared(root, [f"{split}/{name}" for split in SPLITS for name in classes])

    entries = {split: [e for class_files in files[split].values() for e in class_files] for split in SPLITS}
    everything = [e for split in SPLITS for e in entries[split]]
    images = _decode_or_take_from_cache(root, everything)
    train = len(entries["train"])
    splits = {}
    for split, part in zip(SPLITS, (images[:train], images[train:]), strict=True):
        labels = np.repeat(np.arange(len(classes)), [len(files[split][c]) for c in classes])
        splits[split] = SourceSplit.from_arrays(part, labels)
    name = os.fsencode(root.resolve().name).decode("utf-8", "backslashreplace")  # a name in Latin-1 cannot be printed
    return Source(f"folder:{name}", classes, splits)


# Classes and files ------------------------------------------------------------------------------------------------


def _list_split(root: Path, split: str) -> dict[str, list[os.DirEntry[str]]]:
    """The files of each class, both sorted by name.

    Hidden files are ignored. Files beside the class folders are ignored too, and a line on stderr names them. Anything
    that is neither a file nor a folder is an error: where a share is not mounted, a class folder is a broken link.
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

    entries(root)  # so that the error for a wrong path names the path itself, not its missing `train`
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
    """Refuse links that make two class folders one: training images would be test images, or have two labels."""
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
    except OSError:  # for example a link to itself; `image_files.fault` says what is wrong
        return False


# Decoding ---------------------------------------------------------------------------------------------------------


def _decode_or_take_from_cache(root: Path, entries: list[os.DirEntry[str]]) -> Array:
    """All images, uint8 [n, 3, 32, 32]. The cache serves as long as no file is changed, replaced or renamed."""
    paths = [e.path for e in entries]
    if len(entries) < CACHE_FROM_IMAGES:
        return _decode(paths)
    try:
        # Unpacking and copying can give another file the same size and modification time, but not the same ctime.
        stats = [(e.path, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for e in entries if (s := e.stat())]
        folder = data_folder()
    except (OSError, NoDataFolderError):  # for example a broken link, which `_decode` reports
        return _decode(paths)

    versions = [image_files.VERSION, PIL.__version__]  # another version may decode the same file to other pixels
    key = hashlib.sha256(json.dumps([versions, stats]).encode()).hexdigest()
    name = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    path = folder / "folders" / f"{name}.npz"  # one entry a data set; it is replaced when the data set changes
    images: Array
    try:
        with open(path, "rb") as entry, np.load(entry, allow_pickle=False) as cached:
            if str(cached["key"]) == key:
                images = cached["images"]  # reading checks the zip's CRC-32
                if images.shape == (len(entries), *IMAGE_SHAPE) and images.dtype == np.uint8:
                    return images
    except Exception:  # there is no entry, or it is damaged in any way: it is written anew
        pass
    images = _decode(paths)
    with contextlib.suppress(OSError, UserError):  # a cache that cannot be written is no reason to fail
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            np.savez(file, key=np.array(key), images=images)
    return images


def _decode(paths: list[str]) -> Array:
    """Decode image files to RGB, uint8 [n, 3, 32, 32].

    Raises:
        UserError: one for all files that cannot be used; it names them by what is wrong with them.
    """
    images = np.empty((len(paths), *IMAGE_SHAPE), np.uint8)
    errors: dict[int, ImageFileError] = {}

    def decode_chunk(start: int) -> int:
        rows = range(start, min(start + _CHUNK, len(paths)))
        for row in rows:
            try:
                images[row] = image_files.read(paths[row]).transpose(2, 0, 1)
            except ImageFileError as error:
                errors[row] = error
        return len(rows)

    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        progress.task("reading images", len(paths), "images") as reading,
    ):
        for done in pool.map(decode_chunk, range(0, len(paths), _CHUNK)):
            reading.advance(done)

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
