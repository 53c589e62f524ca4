"""Small data sets and helpers that several tests use."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import pickle
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One thread, here and in child processes: the networks in the tests are too small to share, and threads that wait for
# each other are slow where something else runs. Before torch is imported, which reads it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("PYTEST_XDIST_WORKER", None)  # in child processes pytest-benchmark would switch itself off

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from resnet_bench.data.datasets import Dataset, ImageSet

settings.register_profile("suite", deadline=None, max_examples=50)  # how long an example takes is no property
settings.load_profile("suite")


has_compiler = shutil.which("c++") is not None or shutil.which("g++") is not None
needs_compiler = pytest.mark.skipif(not has_compiler, reason="no compiler")


def image_set(count: int, classes: int, seed: int) -> ImageSet:
    """Random images with random labels: enough to test that everything runs, nothing to learn."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
    return ImageSet(images, torch.from_numpy(rng.integers(0, classes, count)))


@contextlib.contextmanager
def locked_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """While another process has the right to write to a folder; one process may take its own lock again."""
    hold = (
        "import sys; from pathlib import Path; from resnet_bench.locks import FolderLock;"
        f"lock = FolderLock(Path({str(folder)!r})); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield other


@pytest.fixture
def threads() -> Iterator[None]:
    """For tests that change the number of torch's threads: afterwards it is what it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _answer_interrupts() -> Iterator[None]:
    """Also where the tests run as a shell's background job, which ignores Ctrl-C, as do the processes it starts."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def permissions_hold() -> Iterator[None]:
    """Also where the tests run as root, which reads and writes in spite of permissions by a right it can give up."""
    if os.geteuid() != 0:
        yield
        return
    libc, header, sets = ctypes.CDLL(None), struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    if not hasattr(libc, "capset") or libc.capget(header, sets) != 0:
        pytest.skip("root cannot give up its rights on this system")
    effective, *others = struct.unpack("6I", sets.raw)
    fewer = struct.pack("6I", effective & ~0b110, *others)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, fewer) == 0
    yield
    assert libc.capset(header, sets.raw) == 0


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """42 training and 20 test images of 5 classes; the last batch of 4 has 2 images."""
    return Dataset("random", image_set(42, 5, 0), image_set(20, 5, 1), tuple("abcde"), synthetic=True, subset=False)


def write_images(folder: Path, *, train: int, test: int, classes: int = 3) -> Path:
    """Make `folder/{train,test}/<class>/*.png` with as many random images for each class, the same every time."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for c in range(classes):
            own = folder / split / f"class{c}"
            own.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(own / f"{i:03}.png")
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes `images` for this test, as `write_images` does."""

    def make(train: int = 8, test: int = 4, classes: int = 3, name: str = "images") -> Path:
        return write_images(tmp_path / name, train=train, test=test, classes=classes)

    return make


@pytest.fixture
def small_cifar100(tmp_path: Path) -> dict[str, Any]:
    """200 training and 100 test images as folder and archive in `official`; what torchvision's class says of them."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "official" / "cifar-100-python"
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    lists = {}
    for name, count in (("train", 200), ("test", 100)):
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        lists[f"{name}_list"] = [[name, write(name, {"data": pixels, "fine_labels": [i % 100 for i in range(count)]})]]
    meta = write("meta", {"fine_label_names": [f"class{i}" for i in range(100)]})
    archive = folder.with_name("cifar-100-python.tar.gz")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return {
        **lists,
        "meta": {"filename": "meta", "key": "fine_label_names", "md5": meta},
        "tgz_md5": hashlib.md5(archive.read_bytes()).hexdigest(),
    }


def without_progress(errors: str) -> list[str]:
    """The lines of standard error without those that say how far something is, for which a busy machine has time."""
    return [line for line in errors.splitlines() if line and not re.match(r"\[\d+:\d\d\] ", line)]
