"""A system that does not tell: what cannot be read is unknown, and stops nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from resnet_bench import machine
from tests.machine.test_description import keys, write

ASKED = ("virtual_memory", "cpu_count", "cpu_times", "getloadavg", "Process")
UNTOLD = ("cpu.physical_cores", "cpu.logical_cores", "cpu.affinity_cores", "memory_bytes", "libc")


@pytest.fixture
def silent(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `proc` nor `sys` nor a library says anything: each question raises."""

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("scputimes.__new__() missing 7 required positional arguments")

    for name in ASKED:
        monkeypatch.setattr(psutil, name, refuse)
    monkeypatch.setattr(os, "sched_getaffinity", refuse, raising=False)
    monkeypatch.setattr(platform, "libc_ver", refuse)


@pytest.mark.usefixtures("silent")
def test_what_cannot_be_read_is_unknown_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    described = machine.describe()
    for key in UNTOLD:
        value = described
        for part in key.split("."):
            value = value[part]
        assert value is None, key
    assert machine.load_average() is None
    assert machine.other_processes(0.0) is None
    assert machine.busy_reason(machine.load_average()) is None
    assert machine.busy_reason(load_before=9.0) == (
        "The load average was 9.0 on 1 cores before the start; times may be longer than on a free machine."
    )
    monkeypatch.undo()
    assert keys(machine.describe()) == keys(described)


def test_the_other_processes_are_unknown_where_the_system_stops_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([psutil.cpu_times()])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(answers))
    assert machine.other_processes(0.0) is None


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "nonsense\n\n0::\n"},
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "\n", "sys/fs/cgroup/a/memory.max": "much\n"},
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "100000 0\n", "sys/fs/cgroup/a/memory.max/x": ""},
        {"proc/self/cgroup/x": "", "proc/cpuinfo": "\n:\nmodel name", "proc/self/maps": "\n/\n"},
        {"sys/devices/system/cpu/cpu0/cache/index0/size": "K", "sys/devices/system/cpu/cpu0/cache/index1": ""},
    ],
)
def test_files_of_another_form_are_as_good_as_none(fake: Path, files: dict[str, str]) -> None:
    write(fake, files)
    described = machine.describe()
    assert described["container"] == {"cpu_quota": None, "memory_limit_bytes": None}
    assert described["cpu"]["model"] is None
    assert described["cpu"]["caches"] == {"L1d": None, "L2": None, "L3": None}


HARDENED = """
import resnet_bench.machine as machine
described = machine.describe()
print(machine.other_processes(0.0), machine.busy_reason(), described["memory_bytes"])
"""


def test_a_machine_whose_kernel_empties_its_files_is_described(tmp_path: Path) -> None:
    """In a mount namespace of its own, where /proc/stat and others are empty files."""
    empty = tmp_path / "empty"
    empty.touch()
    files = ["/proc/stat", "/proc/meminfo", "/proc/cpuinfo"]
    mounts = " && ".join(f"mount --bind '{empty}' {file}" for file in files)
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    try:
        subprocess.run([*inside, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine allows no mounts in a namespace")
    done = subprocess.run([*inside, sys.executable, "-c", HARDENED], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None None None\n", "")
