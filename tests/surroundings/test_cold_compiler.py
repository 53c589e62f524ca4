"""The trial of the compiler as it is without any help, from an empty cache: each test takes half a minute or more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and the platform's folders are Linux's")

REQUIRE = r"""
import os, sys
from resnet_bench import engines
from resnet_bench.errors import UserError
try:
    engines.get("fast").require()
except UserError as error:
    sys.exit(str(error))
from torch._inductor import metrics
print(os.environ["TORCHINDUCTOR_CACHE_DIR"], metrics.generated_cpp_vec_kernel_count, sep="\n")
"""

MADE_UP = ("CXX", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR")


@pytest.fixture
def require(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `REQUIRE` with an empty home and temporary folder, behind a command, with variables of its own."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()

    def run(before: Sequence[str] = (), **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if k not in MADE_UP}
        environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")} | variables
        return subprocess.run(
            [*before, sys.executable, "-c", REQUIRE], env=environment, capture_output=True, text=True, timeout=900
        )

    return run


def mounted(target: Path, options: str) -> list[str]:
    """What to put before a command, to run it where a file system in memory is mounted on `target`."""
    target.mkdir(parents=True)
    mount = f"mount -t tmpfs -o {options} none '{target}'"
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine allows no mounts in a namespace")
    return command


def test_after_a_restart_nothing_is_compiled_again(require, tmp_path: Path) -> None:
    """A restart empties the temporary folder, where torch keeps the headers that it compiles wherever the rest is."""
    calls, program = tmp_path / "calls", tmp_path / "g++"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec {shutil.which("g++")} "$@"\n')
    program.chmod(0o755)
    folder = tmp_path / "home/.cache/resnet_bench/inductor"
    for compiles in (True, False):
        done = require(CXX=str(program))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{folder}\n1\n", "")
        made = [call for call in calls.read_text().splitlines() if " -o " in call and " -E " not in call]
        assert bool(made) is compiles  # with -E it only looks whether a header has changed
        shutil.rmtree(tmp_path / "tmp")
        (tmp_path / "tmp").mkdir()
        calls.write_text("")


def test_a_temporary_folder_with_a_space_is_no_hindrance(require, tmp_path: Path) -> None:
    (tmp_path / "a space").mkdir()
    done = require(TMPDIR=str(tmp_path / "a space"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n1\n")


def test_a_container_without_openssl_is_no_hindrance(require, tmp_path: Path) -> None:
    """torch runs it to compile headers beforehand."""
    (tmp_path / "bin").mkdir()
    for name in ("g++", "as", "ld"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    done = require(PATH=str(tmp_path / "bin"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n1\n")


def test_a_home_that_runs_no_programs_is_passed_over_with_a_line(require, tmp_path: Path) -> None:
    done = require(mounted(tmp_path / "home/.cache", "noexec"))
    (torchs,) = (tmp_path / "tmp").glob("torchinductor_*")
    assert (done.returncode, done.stdout) == (0, f"{torchs}\n1\n")
    assert done.stderr == (
        f"resnet_bench: compiled code is kept in {torchs} only, because {tmp_path}/home/.cache/resnet_bench/inductor "
        "is on a file system that is mounted noexec; TORCHINDUCTOR_CACHE_DIR may name another folder\n"
    )


def test_a_full_disk_is_one_sentence(require, tmp_path: Path) -> None:
    done = require(mounted(tmp_path / "full", "size=16k"), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "full"))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "No space left on device" in line
    assert line.endswith("or take --engine reference, which runs without.")
