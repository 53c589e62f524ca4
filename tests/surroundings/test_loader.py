"""The loader and the children of `explain` where memory is short, cores are few, or someone presses Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.conftest import without_progress

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "resnet_bench.cli"]
TRAIN = [*CLI, "train", "conv5x5", "--pipeline", "loader", "--epochs", "1"]
BENCHMARKS = [sys.executable, "-m", "pytest", "benchmarks", "-p", "no:cacheprovider", "--engine", "reference"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def with_shared_memory(options: str, command: Sequence[str]) -> list[str]:
    """The command where only it sees a small /dev/shm."""
    mounted = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    return ["unshare", "-m", "sh", "-c", mounted, "sh", *command]


def may_mount() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(with_shared_memory("size=64k", ["true"]), capture_output=True).returncode
    )


needs_mount = pytest.mark.skipif(not may_mount(), reason="this process may not mount a small /dev/shm of its own")


def run(command: Sequence[str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, **options)


@needs_mount
def test_large_batches_in_a_small_shared_memory_are_refused(image_folder) -> None:
    """66 images of 12,296 bytes in 3 batches, where 96 kB are free."""
    folder = f"folder:{image_folder(train=22)}"
    done = run(with_shared_memory("size=96k", [*TRAIN, "--dataset", folder, "--batch-size", "30"]))
    assert done.returncode == 2
    assert re.fullmatch(
        r"resnet-bench: error: /dev/shm has 0\.09\d+ MB free, but batches of 2 loader workers take 0\.812 MB there; "
        r"make it larger \(docker: --shm-size\) or give --workers 0, which trains on the same batches\.\n",
        done.stderr,
    )


@needs_mount
def test_shared_memory_that_fills_up_later_is_one_sentence(image_folder, tmp_path) -> None:
    """After two epochs; they are written, and the rest goes on from the checkpoint."""
    folder = f"folder:{image_folder(train=40)}"
    program = tmp_path / "fill.py"
    program.write_text(
        "from resnet_bench import cli\n"
        "from resnet_bench.training import training\n"
        "finish = training.Training._finish_epoch\n"
        "def fill(self):\n"
        "    result = finish(self)\n"
        "    if len(self.results) == 2:\n"
        "        open('/dev/shm/full', 'wb').write(bytes(980 << 10))\n"
        "    return result\n"
        "training.Training._finish_epoch = fill\n"
        "cli.main()\n"
    )
    options = [*TRAIN[3:-1], "4", "--dataset", folder, "--batch-size", "8", "--checkpoint", tmp_path / "kept"]
    done = run(with_shared_memory("size=1m", [sys.executable, program, *options]))
    assert done.returncode == 2, done.stderr
    assert done.stdout.count("epoch ") == 2
    (sentence,) = without_progress(done.stderr)
    assert "A worker process of the loader failed (" in sentence
    assert "No space left on device" in sentence
    assert sentence.endswith(f"What is trained is kept in {tmp_path / 'kept'}.")
    done = run([sys.executable, "-m", "resnet_bench.cli", *options])
    assert "going on from the checkpoint at epoch 3, step " in done.stdout
    assert done.returncode == 0


@needs_mount
def test_shared_memory_that_cannot_be_written_is_one_sentence(image_folder) -> None:
    done = run(with_shared_memory("size=64m,ro", [*TRAIN, "--dataset", f"folder:{image_folder()}"]))
    assert done.returncode == 2
    assert done.stderr == (
        "resnet-bench: error: The loader's workers cannot share a lock with the training ([Errno 30] Read-only file "
        "system); make /dev/shm writable or give --workers 0, which trains on the same batches.\n"
    )


@pytest.mark.skipif(not shutil.which("taskset"), reason="no taskset")
def test_on_one_core_one_line_says_so(image_folder) -> None:
    """Nothing of torch's beside it."""
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, *TRAIN, "--dataset", f"folder:{image_folder()}"]
    assert run(command).stderr == (
        "resnet-bench: 0 loader workers instead of the paper's 2, because there is one usable core: the same batches "
        "in less time; --workers 2 has the paper's.\n"
    )
    done = run([*command, "--workers", "2"])
    assert done.returncode == 0
    assert done.stderr == (
        "resnet-bench: warning: 2 loader workers and the training share 1 usable core: an epoch takes longer than with "
        "--workers 0, which gives the same batches.\n"
    )


@needs_mount
def test_a_session_is_refused_before_it_measures_for_an_explanation_that_has_no_room(image_folder, tmp_path) -> None:
    options = ["--dataset", f"folder:{image_folder()}", f"--benchmark-storage=file://{tmp_path / 'storage'}"]
    options += ["--pipeline", "vectorized", "--explain", "conv5x5", "--batch-size", "8"]
    done = run(with_shared_memory("size=96k", [*BENCHMARKS, *options]))
    assert done.returncode == 2
    # 0.0983 MB, less what a lock of another part of the session takes there
    said = r"resnet_bench: error: /dev/shm has 0\.09\d+ MB free, but batches of 2 loader workers take 0\.492 MB"
    assert re.search(said, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((tmp_path / "storage").rglob("*.json"))


def test_a_killed_worker_ends_a_session_with_a_sentence_and_its_journal(image_folder, tmp_path) -> None:
    options = ["--dataset", f"folder:{image_folder(train=100)}", "--architectures", "conv5x5", "--time-limit", "60"]
    options += ["-k", "epoch_time", f"--benchmark-storage=file://{tmp_path / 'storage'}"]
    session = subprocess.Popen([*BENCHMARKS, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("storage/journal/*")):  # after the first round
        assert time.monotonic() < deadline
        assert session.poll() is None
        time.sleep(0.1)
    while session.poll() is None:  # one that is killed as its epoch ends is not missed
        with contextlib.suppress(psutil.NoSuchProcess):
            for measuring in psutil.Process(session.pid).children():
                for worker in measuring.children():
                    worker.kill()
        time.sleep(0.5)
    printed, _ = session.communicate(timeout=120)
    assert session.returncode == 2
    assert "resnet_bench: error: A worker process of the loader was ended by SIGKILL, as happens" in printed
    assert "Traceback" not in printed
    (journal,) = tmp_path.glob("storage/journal/*.json")
    assert f"resnet_bench: what was measured is kept in {journal}" in printed


DENORMALS = """
import sys
import time
sys.path[:0] = [{tests!r}]
import click
from resnet_bench import cli
from resnet_bench.measure import ablation as explain
from resnet_bench.architectures import Architecture
from resnet_bench.recipe import Recipe

@cli.cli.command("denormals")
@click.argument("rounds", type=int)
def denormals(rounds):
    from tests.conftest import image_set
    from resnet_bench.data.datasets import Dataset
    images = Dataset("random", image_set(400, 5, 0), image_set(20, 5, 1), tuple("abcde"), synthetic=True, subset=False)
    small = Architecture("small", "", "", widths=(16,), strides=(2,), hidden=(32,))
    print("begun", flush=True)
    states = explain._denormal_states(small, images, Recipe(), 0, 1, rounds, 1e9)
    print([len(v.block_seconds) for state in states for v in state.steps])

if __name__ == "__main__":
    cli.main()
"""


@pytest.fixture
def denormals(tmp_path) -> list[str]:
    """The last part of `explain`, with its child processes, as a command of its own."""
    program = tmp_path / "denormals.py"
    program.write_text(DENORMALS.format(tests=str(ROOT)))
    return [sys.executable, str(program), "denormals"]


@needs_mount
def test_images_of_an_explanation_need_no_shared_memory(denormals) -> None:
    """400 kB of batches, where 64 kB are free."""
    done = run(with_shared_memory("size=64k", [*denormals, "2"]))
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n[2, 2, 2, 2, 2, 2]\n", "")


@pytest.mark.parametrize("seconds", [0.1, 2, 5, 10, 20], ids="after {} s".format)
def test_an_interrupted_explanation_says_so_and_nothing_else(denormals, seconds) -> None:
    """Ctrl-C in a terminal, which reaches the children too: as they start, import, build or measure."""
    command = [*denormals, "100000"]
    session = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert session.stdout is not None
    assert session.stdout.readline() == "begun\n"
    time.sleep(seconds)
    os.killpg(session.pid, signal.SIGINT)
    printed, errors = session.communicate(timeout=60)
    assert session.returncode == 130
    assert (printed.strip(), without_progress(errors)) == ("", ["resnet-bench: interrupted"])


def test_a_killed_child_of_an_explanation_is_one_sentence(denormals) -> None:
    session = subprocess.Popen(
        [*denormals, "100000"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert session.stdout is not None
    assert session.stdout.readline() == "begun\n"
    deadline = time.monotonic() + 60
    children: list[psutil.Process] = []
    while not children:
        assert time.monotonic() < deadline
        children = [c for c in psutil.Process(session.pid).children() if "spawn_main" in " ".join(c.cmdline())]
    children[0].kill()
    _, errors = session.communicate(timeout=60)
    assert session.returncode == 2
    assert errors == (
        "resnet-bench: error: The process that measures denormal numbers was ended by SIGKILL, as happens where memory "
        "runs out; explain a smaller network or free memory.\n"
    )
