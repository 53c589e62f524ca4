"""A disk that is full while a result, a journal, a saved run or a report is written: one sentence, nothing torn."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import handmade

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "resnet_bench.cli"]


def on_small_disk(folder: Path, size: str, arguments: list[str], before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command where the folder is a disk of so many bytes. The standard output ends with
    the lines of its files, as grep prints them."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this process may not mount anything")
    folder.mkdir()
    mounted = f"mount -t tmpfs -o size={size} tmpfs '{folder}' && {before or 'true'} && "
    script = mounted + f"""\"$@\"; status=$?; echo; cd '{folder}' && grep -r . .; exit $status"""
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_the_result_of_a_training(image_folder, tmp_path) -> None:
    disk = tmp_path / "disk"
    arguments = ["train", "conv5x5", "--dataset", f"folder:{image_folder(train=8, test=4)}", "--epochs", "2"]
    arguments += ["--pipeline", "vectorized", "--output", str(disk / "out.json")]
    done = on_small_disk(disk, "4k", [*CLI, *arguments])
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    assert "out.json" not in done.stdout.replace(done.stderr, "")


def test_the_journal_of_a_session(image_folder, tmp_path) -> None:
    disk = tmp_path / "disk"
    arguments = [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", "--engine", "reference"]
    arguments += ["--architectures", "conv5x5", "--dataset", f"folder:{image_folder(train=8, test=4)}"]
    arguments += ["-k", "parameters or accuracy", "--train-images", "24", "--test-images", "12"]
    done = on_small_disk(disk, "4k", [*arguments, f"--benchmark-storage=file://{disk}"])
    assert done.returncode != 0
    printed = done.stdout + done.stderr
    assert "No space left" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("format_", ["--html", "--figures"])
def test_a_report(tmp_path, format_) -> None:
    """What was there before stays whole."""
    entries = [make(n) for n in ("baseline", "fc1") for make in (handmade.parameters, handmade.epoch_time)]
    disk, source = tmp_path / "disk", handmade.save(tmp_path / "run.json", entries)
    target = disk / ("page.html" if format_ == "--html" else "figures")
    before = f"echo old > {disk}/page.html"
    done = on_small_disk(disk, "8k", [*CLI, "report", str(source), format_, str(target)], before)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr.strip().splitlines()[-1]
    assert "./page.html:old" in done.stdout
