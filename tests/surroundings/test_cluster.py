"""README's ways to a cluster, on this machine: under SLURM where one answers, over SSH where sshd can be started."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from resnet_bench.study.folder import StudyFolder
from tests.study.test_readme import blocks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

BIN = Path(sys.executable).parent
TINY = (
    "--dataset synthetic --train-images 8 --test-images 4 --epochs EPOCHS --engine reference "
    "--architectures fc1,conv5x5 --seeds 0 --pipeline vectorized"
)
PATIENCE = 400


@pytest.fixture
def variables() -> dict[str, str]:
    """An environment as that of a user: this one's commands are found."""
    if not all((BIN / name).exists() for name in ("dask", "resnet-bench")):
        pytest.skip("this environment has no dask or resnet-bench command")
    lacking = ("PYTHONPATH", "OMP_NUM_THREADS")
    return {k: v for k, v in os.environ.items() if k not in lacking} | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def readme(start: str, dataset: str, epochs: int) -> str:
    """The block of README that begins so, for a tiny study."""
    (block,) = (block for block in blocks() if block.startswith(start))
    assert f"--dataset {dataset} " in block
    return block.replace(f"--dataset {dataset} ", f"{TINY.replace('EPOCHS', str(epochs))} ")


def wait_for(condition: Callable[[], object], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.2)


def states(folder: Path) -> list[str]:
    return [state.state for state in StudyFolder.open(folder).states()]


def test_under_slurm_a_cancelled_job_saves_and_the_same_job_goes_on(tmp_path: Path, variables: dict[str, str]) -> None:
    nodes = shutil.which("sbatch") and subprocess.run(["sinfo", "-h", "-o", "%T %c"], capture_output=True, text=True)
    state_and_cpus = [line.split() for line in nodes.stdout.splitlines()] if nodes else []
    if not any(state == "idle" and int(cpus.rstrip("+")) >= 4 for state, cpus in state_and_cpus):
        pytest.skip("no SLURM answers that has an idle node of 4 CPUs, two for each of two tasks")
    script = tmp_path / "study.sh"
    script.write_text(readme("#!/bin/bash", "cifar100", epochs=6).replace("--ntasks=8", "--ntasks=2"))
    folder = tmp_path / "runs/study"

    def submit(*options: str) -> subprocess.CompletedProcess[str]:
        command = ["sbatch", "--parsable", "--output", "%j.out", *options, str(script)]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE)

    job = submit().stdout.strip()
    wait_for(lambda: len(list(folder.glob("checkpoints/*/checkpoint.pt"))) == 2, "checkpoints")
    subprocess.run(["scancel", job], check=True)
    out = tmp_path / f"{job}.out"
    wait_for(lambda: "terminated" in out.read_text(), "the end of the study")
    assert "resnet-bench: terminated; 0 of 2 cells are finished" in out.read_text()
    wait_for(lambda: not subprocess.run(["squeue", "-h", "-j", job], capture_output=True).stdout, "the end of the job")
    assert states(folder) == ["interrupted"] * 2
    again = submit("--wait")
    assert again.returncode == 0, again.stderr
    assert states(folder) == ["finished"] * 2
    assert all("going on from the checkpoint" in log.read_text() for log in (folder / "logs").iterdir())


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def ssh_options(tmp_path: Path) -> Iterator[str]:
    """Options of `dask ssh` for a server of SSH on this machine that lets this test in."""
    pytest.importorskip("paramiko")
    server, keygen = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"), shutil.which("ssh-keygen")
    if not server or not keygen:
        pytest.skip("sshd is not installed")
    for key in ("host", "mine"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / key)], check=True)
    port = free_port()
    configuration = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": tmp_path / "host", "PidFile": "none",
        "StrictModes": "no", "AuthorizedKeysFile": tmp_path / "mine.pub", "UsePAM": "no",
    }  # fmt: skip
    (tmp_path / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in configuration.items()))
    process = subprocess.Popen([server, "-D", "-f", str(tmp_path / "sshd_config"), "-E", str(tmp_path / "sshd.log")])
    try:
        for _ in range(50):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        else:
            pytest.skip(f"sshd does not start here: {(tmp_path / 'sshd.log').read_text()}")
        yield f"--ssh-port {port} --ssh-private-key {tmp_path / 'mine'}"
    finally:
        process.terminate()
        process.wait()


def test_over_ssh_a_study_is_finished_and_nothing_stays(
    tmp_path: Path, ssh_options: str, variables: dict[str, str]
) -> None:
    port = free_port()
    script = readme("pip install", "folder:/data/cifar100", epochs=1).split("\n", 1)[1]  # what is installed stays
    script = script.replace("dask ssh ", f"dask ssh {ssh_options} --scheduler-port {port} ")
    script = script.replace("host1 host2 host3", "localhost").replace("host1:8786", f"localhost:{port}")
    command = ["bash", "-m", "-c", script]  # -m, as where somebody types it
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )
    assert "All 2 cells are finished" in done.stdout, done.stdout + done.stderr
    assert states(tmp_path / "runs/study") == ["finished"] * 2

    def left() -> list[psutil.Process]:
        of_cluster = {f"localhost:{port}", str(port)}
        return [p for p in psutil.process_iter(["cmdline"]) if of_cluster & set(p.info["cmdline"] or ())]

    wait_for(lambda: not left(), "the end of the scheduler and the workers")
