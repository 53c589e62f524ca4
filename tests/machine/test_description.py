"""What the machine is said to be: against torch, the system, and made-up files of the kernel."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from resnet_bench import machine
from resnet_bench.machine import description
from tests.machine.trees import write

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: 13th Gen Intel(R) Core(TM) i5-1340P
flags\t\t: fpu sse4_2 smep smap avx2 fma avx512f amx_tile

processor\t: 1
model name\t: another
"""


@pytest.fixture
def fake(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `root`; py-cpuinfo finds out nothing."""
    monkeypatch.setattr(description, "_py_cpuinfo", dict)
    return root


def keys(value: object) -> object:
    """The nested keys of a description, without the free ones: environment variables and build settings."""
    if not isinstance(value, dict):
        return None
    return {k: None if k in ("environment", "build") else keys(v) for k, v in value.items()}


def test_description_survives_json() -> None:
    described = machine.describe()
    assert json.loads(json.dumps(described, allow_nan=False)) == described


def test_description_agrees_with_torch_and_the_system() -> None:
    described = machine.describe()
    assert described["torch"]["version"] == torch.__version__
    assert described["threads"]["intraop"] == torch.get_num_threads()
    assert described["cpu"]["logical_cores"] == psutil.cpu_count()
    assert described["cpu"]["torch_isa"] == torch.backends.cpu.get_cpu_capability()
    assert described["memory_bytes"] == psutil.virtual_memory().total
    assert described["python"].endswith(platform.python_version())


@pytest.mark.usefixtures("threads")
def test_description_follows_the_thread_setting() -> None:
    torch.set_num_threads(3)
    assert machine.describe()["threads"]["intraop"] == 3


def test_description_names_neither_host_nor_user_nor_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_TOOL_LIBRARIES", "/home/someone/tool.so")
    monkeypatch.setenv("LD_PRELOAD", "/home/someone/libjemalloc.so.2")
    strings: list[str] = []

    def collect(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list):
            for inner in value:
                collect(inner)
        elif isinstance(value, str):
            strings.append(value)

    collect(machine.describe())
    assert not [s for s in strings if "/" in s]
    assert socket.gethostname() not in strings
    assert getpass.getuser() not in strings
    assert "(path)" in strings
    assert "libjemalloc.so.2" in strings


def test_description_without_proc_and_sys_has_the_same_keys_and_no_values(fake: Path) -> None:
    described = machine.describe()
    assert described["cpu"]["model"] is None
    assert described["cpu"]["vendor"] is None
    assert described["cpu"]["caches"] == {"L1d": None, "L2": None, "L3": None}
    assert described["cpu"]["isa"] == []
    assert described["governor"] is None
    assert described["transparent_hugepages"] is None
    assert described["container"] == {"cpu_quota": None, "memory_limit_bytes": None}


def test_description_has_the_same_keys_everywhere(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = keys(machine.describe())
    monkeypatch.undo()
    assert keys(machine.describe()) == bare


def test_every_key_is_documented() -> None:
    documentation = machine.describe.__doc__ or ""
    for key, value in machine.describe().items():
        assert f"`{key}`" in documentation
        for inner in value if isinstance(value, dict) else ():
            assert f"`{inner}`" in documentation, inner


def test_cpu_is_read_from_the_kernels_files(fake: Path) -> None:
    cache = "sys/devices/system/cpu/cpu0/cache"
    levels = {
        0: ("1", "Data", "48K"),
        1: ("1", "Instruction", "32K"),
        2: ("2", "Unified", "1280K"),
        3: ("3", "Unified", "12M"),
    }
    files = {"proc/cpuinfo": CPUINFO, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n"}
    for index, (level, kind, size) in levels.items():
        files |= {f"{cache}/index{index}/{k}": v for k, v in (("level", level), ("type", kind), ("size", size))}
    write(fake, files | {"sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n"})
    described = machine.describe()
    cpu = described["cpu"]
    assert (cpu["vendor"], cpu["model"]) == ("GenuineIntel", "13th Gen Intel(R) Core(TM) i5-1340P")
    assert cpu["isa"] == ["amx_tile", "avx2", "avx512f", "fma", "sse4_2"]
    assert cpu["caches"] == {"L1d": 48 * 2**10, "L2": 1280 * 2**10, "L3": 12 * 2**20}
    assert described["governor"] == "powersave"
    assert described["transparent_hugepages"] == "madvise"


def test_cpu_of_an_arm_machine(fake: Path) -> None:
    write(fake, {"proc/cpuinfo": "CPU implementer\t: 0x41\nFeatures\t: fp asimd crc32 bf16 i8mm sve sme2\n"})
    cpu = machine.describe()["cpu"]
    assert cpu["vendor"] == "0x41"
    assert cpu["isa"] == ["asimd", "bf16", "i8mm", "sme2", "sve"]


def test_py_cpuinfo_is_asked_where_the_kernel_does_not_tell(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"brand_raw": "Apple M3", "flags": ["neon", "crc32"], "l2_cache_size": 4194304, "l3_cache_size": "unknown"}
    monkeypatch.setattr(description, "_py_cpuinfo", lambda: told)
    cpu = machine.describe()["cpu"]
    assert (cpu["model"], cpu["isa"]) == ("Apple M3", ["neon"])
    assert cpu["caches"] == {"L1d": None, "L2": 4194304, "L3": None}


@pytest.mark.parametrize(
    ("files", "quota", "limit"),
    [
        pytest.param(
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                "sys/fs/cgroup/outer/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/outer/memory.max": "max\n",
                "sys/fs/cgroup/outer/inner/cpu.max": "max 100000\n",
                "sys/fs/cgroup/outer/inner/memory.max": "4294967296\n",
            },
            1.5,
            2**32,
            id="version 2: a limit of the group or of one around it",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n",
            },
            0.5,
            None,
            id="version 2: the tighter of two",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/docker/0123\n", "sys/fs/cgroup/memory.max": "1073741824\n"},
            None,
            2**30,
            id="version 2: a container that sees its group as the root",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"},
            1.0,
            None,
            id="version 2: a path outside the namespace",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/job\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "2147483648\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            3.0,
            2**31,
            id="version 1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/\n3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
            None,
            id="version 1 without limits",
        ),
    ],
)
def test_container_limits(fake: Path, files: dict[str, str], quota: float | None, limit: int | None) -> None:
    write(fake, files)
    assert machine.describe()["container"] == {"cpu_quota": quota, "memory_limit_bytes": limit}


@pytest.mark.parametrize(
    ("library", "allocator"),
    [("libjemalloc.so.2", "jemalloc"), ("libtcmalloc_minimal.so.4", "tcmalloc"), ("libmimalloc.so.2.1", "mimalloc")],
)
def test_allocator_is_found_among_the_loaded_libraries(fake: Path, library: str, allocator: str) -> None:
    write(
        fake,
        {"proc/self/maps": f"7f0-7f1 r-xp 00 08:01 5   /usr/lib/libc.so.6\n7f2-7f3 r-xp 00 08:01 6   /opt/{library}\n"},
    )
    assert machine.describe()["allocator"]["name"] == allocator


def test_openmp_runtimes_are_found_among_the_loaded_libraries(fake: Path) -> None:
    lines = [
        f"7f0-7f1 r-xp 00 08:01 5   /x/{name}" for name in ("libgomp-24e2ab19.so.1.0.0", "libiomp5.so", "libompi.so")
    ]
    write(fake, {"proc/self/maps": "\n".join(lines)})
    assert machine.describe()["threads"]["openmp"] == ["gomp", "iomp5"]


def test_environment_that_sets_threads_and_allocator_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMP_AFFINITY", "granularity=fine,compact,1,0")
    monkeypatch.setenv("MALLOC_CONF", "background_thread:true")
    monkeypatch.setenv("SECRET", "x")
    described = machine.describe()
    assert described["threads"]["environment"]["KMP_AFFINITY"] == "granularity=fine,compact,1,0"
    assert described["allocator"]["environment"]["MALLOC_CONF"] == "background_thread:true"
    assert "SECRET" not in json.dumps(described)


@pytest.mark.filterwarnings("ignore:TF32")  # which torch says when oneDNN is switched off
def test_settings_of_torch_and_their_variables_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may change a result is kept; where something lies, who may have it and what it is called is not."""
    for name in [n for n in os.environ if n.startswith(("TORCH", "ATEN_"))]:
        monkeypatch.delenv(name)
    kept = {
        "ATEN_CPU_CAPABILITY": "avx2",
        "TORCHDYNAMO_DISABLE": "1",
        "TORCHINDUCTOR_CPP_MARCH": "",
        "TORCH_LOGS": "(path)",
    }
    dropped = {
        "TORCHINDUCTOR_CACHE_DIR": "/home/someone/cache",
        "TORCHINDUCTOR_REDIS_HOST": "cache.example.org",
        "TORCHELASTIC_RUN_ID": "someone-7",
        "TORCH_COMPILE_STICKY_PGO_KEY": "x",
        "TORCH_HUB_TOKEN": "x",
        "OMPI_COMM_WORLD_RANK": "3",  # of Open MPI, not of OpenMP
    }
    for name, value in {**kept, **dropped, "TORCH_LOGS": "/home/someone/log"}.items():
        monkeypatch.setenv(name, value)
    for name in ("DNNL_MAX_CPU_ISA", "ONEDNN_VERBOSE", "MKL_CBWR", "GOMP_SPINCOUNT", "LRU_CACHE_CAPACITY"):
        monkeypatch.setenv(name, "1")
    described = machine.describe()
    assert described["torch"]["environment"] == kept
    assert described["torch"]["dynamo_disabled"] is True
    assert described["torch"]["mkldnn"] is torch.backends.mkldnn.is_available()
    threads = described["threads"]["environment"]
    assert {"DNNL_MAX_CPU_ISA", "ONEDNN_VERBOSE", "MKL_CBWR", "GOMP_SPINCOUNT", "LRU_CACHE_CAPACITY"} <= set(threads)
    assert not dropped.keys() & {*threads, *described["allocator"]["environment"]}
    with torch.backends.mkldnn.flags(enabled=False), torch.autograd.set_detect_anomaly(True):
        changed = machine.describe()["torch"]
    assert (changed["mkldnn"], changed["anomaly_detection"]) == (False, True)


def test_flushing_of_denormals_is_noticed() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        assert machine.describe()["flush_denormal"] is True
    finally:
        torch.set_flush_denormal(False)
    assert machine.describe()["flush_denormal"] is False


# --- a system that does not tell


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
