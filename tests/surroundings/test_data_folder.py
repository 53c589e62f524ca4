"""The data folder on a file system that is read-only, full or not there: real mounts, the real command line."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
ARCHIVE = "cifar-100-python.tar.gz"

SMALL = """
import json, sys
import torchvision
for name, value in json.loads(sys.argv[1]).items():
    setattr(torchvision.datasets.CIFAR100, name, value)
from resnet_bench.cli import main
main(["train", "fc1", "--epochs", "1", "--batch-size", "50", "--pipeline", "vectorized", *sys.argv[2:]])
"""  # the command line with another CIFAR-100

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def run(data: Path, tmp_path: Path, small_cifar100: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Trains on a data set after a command that mounts something; the mounts are gone afterwards."""
    namespace = ["unshare", "--mount", "sh", "-c"]
    try:
        subprocess.run([*namespace, f"mount -t tmpfs x '{data}'"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine allows no mounts")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "official")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = {**small_cifar100, "url": f"http://127.0.0.1:{server.server_port}/{ARCHIVE}"}
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("RESNET_BENCH_DATA", str(data))

    def call(mounting: str, dataset: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        train = [sys.executable, "-c", SMALL, json.dumps(constants), "--dataset", dataset, *arguments]
        command = [*namespace, f'set -e; {mounting}; exec "$@"', "sh", *train]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    return call


def read_only(data: Path) -> str:
    return f"mount --bind '{data}' '{data}'; mount -o remount,ro,bind '{data}'"


def refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("dataset", ["auto", "cifar100"])
def test_the_archive_on_a_read_only_file_system_is_trained_on(
    run: Run, data: Path, tmp_path: Path, dataset: str
) -> None:
    shutil.copy(tmp_path / "official" / ARCHIVE, data)
    done = run(read_only(data), dataset)
    assert done.returncode == 0, done.stderr
    assert "cifar100, 200 training and 100 test images, 100 classes" in done.stdout
    assert [path.name for path in data.iterdir()] == [ARCHIVE]


def test_without_the_archive_a_read_only_file_system_is_the_reason(run: Run, data: Path) -> None:
    refused(run(read_only(data), "cifar100"), "(the folder cannot be written: Read-only file system); put ")
    done = run(read_only(data), "auto", "--train-images", "100", "--test-images", "100")
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stderr
    assert "(the folder cannot be written: Read-only file system)" in done.stderr
    assert "synthetic, 100 training and 100 test images" in done.stdout


def test_a_full_disk_is_the_reason(run: Run, data: Path) -> None:
    full = f"mount -t tmpfs -o size=64k x '{data}'"
    refused(run(full, "cifar100"), f"(Cannot write {data / ARCHIVE}: No space left on device); put ")
    done = run(full, "auto", "--train-images", "100", "--test-images", "100")
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" in done.stderr
    assert "No space left on device" in done.stderr
    assert "synthetic, 100 training and 100 test images" in done.stdout


def test_a_class_on_a_share_that_is_not_mounted_is_not_left_out(
    run: Run, tmp_path: Path, image_folder: Callable[..., Path]
) -> None:
    """With the share the set has three classes; without it there is no set of two."""
    images, share = image_folder(), tmp_path / "share"
    share.mkdir()
    for split in ("train", "test"):
        shutil.move(images / split / "class1", tmp_path / "kept" / split / "class1")
        (images / split / "class1").symlink_to(share / split / "class1")
    arguments = (f"folder:{images}", "--batch-size", "4")
    done = run(f"mount --bind '{tmp_path / 'kept'}' '{share}'", *arguments)
    assert "24 training and 12 test images, 3 classes" in done.stdout
    refused(run("true", *arguments), "class1 (a link that leads nowhere)")
