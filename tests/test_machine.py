"""The machine's description, its calibration, and the bound of a step."""

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
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from resnet_bench import machine
from resnet_bench.architectures import ARCHITECTURES, BASELINE, Architecture, Convolution, parameter_count
from resnet_bench.cli import cli
from resnet_bench.errors import UserError
from resnet_bench.machine import Calibration, Measurement

CPUINFO = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: 13th Gen Intel(R) Core(TM) i5-1340P
flags\t\t: fpu sse4_2 smep smap avx2 fma avx512f amx_tile

processor\t: 1
model name\t: another
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `proc` and `sys` stand for the system's; empty at first. py-cpuinfo knows nothing."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "SYS", tmp_path / "sys")
    monkeypatch.setattr(machine, "_py_cpuinfo", dict)
    return tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def keys(value: object) -> object:
    """The nested keys of a description, without the free ones: environment variables and build settings."""
    if not isinstance(value, dict):
        return None
    return {k: None if k in ("environment", "build") else keys(v) for k, v in value.items()}


def made_up(unit: str = "bytes/s", quantity: str = "update", size: int = 1, median: float = 100.0, spread: float = 1.0):
    return Measurement(
        quantity=quantity, unit=unit, size=size, median=median, low=median - spread, high=median + spread, samples=9
    )


def calibration(threads: int = 2, **measurements: Measurement) -> Calibration:
    return Calibration(threads=threads, seconds=1.0, measurements=measurements)


# --- description


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


def test_description_follows_the_thread_setting() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert machine.describe()["threads"]["intraop"] == 3
    finally:
        torch.set_num_threads(before)


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
    monkeypatch.setattr(machine, "_py_cpuinfo", lambda: told)
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


# --- busy


def test_free_machine_has_no_busy_reason() -> None:
    assert machine.busy_reason(load_before=0.2, cores=2, other_cores=0.1) is None


def test_other_processes_are_a_busy_reason() -> None:
    assert "0.9 of 2 cores" in (machine.busy_reason(load_before=0.0, cores=2, other_cores=0.9) or "")


def test_load_above_half_of_the_cores_is_a_busy_reason() -> None:
    assert machine.busy_reason(load_before=4.0, cores=8, other_cores=0.0) is None
    assert "4.1 on 8 cores" in (machine.busy_reason(load_before=4.1, cores=8, other_cores=0.0) or "")


def test_own_work_is_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(100.0, 7.0), (103.0, 9.5)])  # the machine's busy seconds, this process's

    class Process:
        def cpu_times(self) -> object:
            return type("", (), {"user": now[1], "system": 0.0})

    class Times(tuple):
        idle = 50.0

    def cpu_times() -> object:
        now[:] = next(times)
        return Times((now[0], 50.0))

    now = [0.0, 0.0]
    monkeypatch.setattr(machine.psutil, "Process", Process)
    monkeypatch.setattr(machine.psutil, "cpu_times", cpu_times)
    clock = iter([10.0, 11.0])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: None)
    assert machine.other_processes(1.0) == pytest.approx(0.5)


# --- a system that does not tell


ASKED = ("virtual_memory", "cpu_count", "cpu_times", "getloadavg", "Process")
UNTOLD = ("cpu.physical_cores", "cpu.logical_cores", "cpu.affinity_cores", "memory_bytes", "libc")


@pytest.fixture
def silent(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `proc` nor `sys` nor a library says anything: each question raises."""

    def refuse(*_: object, **__: object) -> None:
        raise TypeError("scputimes.__new__() missing 7 required positional arguments")

    for name in ASKED:
        monkeypatch.setattr(machine.psutil, name, refuse)
    monkeypatch.setattr(machine.os, "sched_getaffinity", refuse, raising=False)
    monkeypatch.setattr(machine.platform, "libc_ver", refuse)


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
        "The load average was 9.0 on 1 cores before the start; times may be longer than alone."
    )
    monkeypatch.undo()
    assert keys(machine.describe()) == keys(described)


def test_the_other_processes_are_unknown_where_the_system_stops_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([psutil.cpu_times()])
    monkeypatch.setattr(machine.psutil, "cpu_times", lambda: next(answers))
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


# --- calibration


@pytest.fixture(scope="module")
def measured() -> Calibration:
    """A real calibration, of few and short samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "ROUNDS", 3)
        patch.setattr(machine, "SAMPLE_SECONDS", 1e-5)
        return machine.calibrate(1)


def test_calibration_measures_every_size(measured: Calibration) -> None:
    assert [m.size for m in measured.of("read")] == list(machine.WORKING_SETS)
    assert [m.size for m in measured.of("update")] == list(machine.WORKING_SETS)
    assert len(measured.of("convolution")) == len(machine.CONVOLUTIONS)
    assert len(measured.of("gemm")) == len(measured.of("first touch")) == 1
    assert all(m.low <= m.median <= m.high and m.samples == 3 for m in measured.measurements.values())


def test_calibration_survives_json(measured: Calibration) -> None:
    assert Calibration.model_validate_json(measured.model_dump_json()) == measured
    assert Calibration.model_validate(json.loads(json.dumps(measured.model_dump(mode="json")))) == measured


def test_calibration_is_immutable(measured: Calibration) -> None:
    with pytest.raises(ValidationError):
        measured.threads = 5  # type: ignore[misc]


def test_calibration_uses_the_threads_asked_for_and_puts_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        machine, "_probes", lambda: iter([machine._Probe("x", "gemm", 1, 1, lambda calls: 1e-3 * calls)])
    )
    before = torch.get_num_threads()
    assert machine.calibrate(before + 1).threads == before + 1
    assert torch.get_num_threads() == before


def test_rate_is_work_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(calls: int) -> float:
        return calls * 0.25

    monkeypatch.setattr(machine, "_probes", lambda: iter([machine._Probe("x", "read", 10, 1000, seconds)]))
    assert machine.calibrate().measurements["x"] == Measurement(
        quantity="read", unit="bytes/s", size=10, median=4000, low=4000, high=4000, samples=machine.ROUNDS
    )


def test_slow_machine_gets_fewer_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TIME_LIMIT", 0.0)
    monkeypatch.setattr(machine, "_probes", lambda: iter([machine._Probe("x", "gemm", 1, 1, lambda calls: 1.0)]))
    assert machine.calibrate().measurements["x"].samples == machine.MIN_ROUNDS


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_below_one_are_refused(threads: int) -> None:
    with pytest.raises(UserError, match="--threads"):
        machine.calibrate(threads)


def test_convolutions_too_small_to_measure_are_left_out() -> None:
    small = Convolution(64, 128, 1, 2, 4)  # a shortcut of conv5x5
    assert small not in machine.CONVOLUTIONS
    assert Convolution(64, 64, 3, 1, 16) in machine.CONVOLUTIONS


# --- drift


def test_same_calibration_has_not_drifted(measured: Calibration) -> None:
    assert machine.drift(measured, measured) == {}


def test_drift_names_what_changed_and_by_how_much() -> None:
    start = calibration(a=made_up(median=100), b=made_up(median=100), c=made_up(median=100))
    end = calibration(a=made_up(median=80), b=made_up(median=125), c=made_up(median=95))
    assert machine.drift(start, end) == {"a": pytest.approx(-0.2), "b": pytest.approx(0.25)}


def test_change_within_the_spread_is_no_drift() -> None:
    start, end = calibration(a=made_up(median=100, spread=15)), calibration(a=made_up(median=80, spread=15))
    assert machine.drift(start, end) == {}


def test_measurements_of_one_side_only_are_passed_over() -> None:
    assert machine.drift(calibration(a=made_up()), calibration(b=made_up())) == {}


def test_drift_between_thread_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="threads"):
        machine.drift(calibration(1), calibration(2))


@given(before=st.floats(1e6, 1e12), factor=st.floats(0.2, 5))
def test_drift_is_found_beyond_the_limit_only(before: float, factor: float) -> None:
    start = calibration(a=made_up(median=before, spread=0))
    end = calibration(a=made_up(median=before * factor, spread=0))
    change = end.measurements["a"].median / before - 1
    assert ("a" in machine.drift(start, end)) == (abs(change) > machine.DRIFT_LIMIT)


# --- bound

TINY = Architecture("tiny", "", "", widths=(16,), strides=(1,), hidden=())
"""7×7 stem to 16×16×16, one block of two 3×3 convolutions with an identity shortcut, FC 4096→10."""

RATES = {
    "read": made_up(quantity="read", size=1, median=1e9),
    "update": made_up(quantity="update", size=1, median=2e9),
    "gemm": made_up("FLOP/s", "gemm", median=1e12),
    "conv": made_up("FLOP/s", "convolution", median=1e10),
}


def test_bound_of_a_network_counted_by_hand() -> None:
    parameters = 3 * 16 * 49 + 2 * 16 * 16 * 9 + 3 * (2 * 16) + 4096 * 10 + 10  # convolutions, batch norms, FC
    assert parameter_count(TINY, 10) == parameters
    bound = machine.step_bound(TINY, 4, calibration(**RATES), 10)
    stem, block = 3 * 16 * 49 * 16**2, 16 * 16 * 9 * 16**2  # multiply-accumulates of an image
    assert bound.bytes_moved == 28 * parameters
    assert bound.operations == 4 * 2 * (2 * stem + 3 * block + 3 * block)
    assert bound.fc_operations == 4 * 2 * 3 * 4096 * 10
    assert bound.memory_seconds == pytest.approx(4 * parameters / 1e9 + 24 * parameters / 2e9)
    assert bound.arithmetic_seconds == pytest.approx(bound.operations / 1e10)
    assert bound.seconds == pytest.approx(bound.memory_seconds + bound.arithmetic_seconds)


def test_bound_counts_the_parameters_that_a_step_reads_and_updates() -> None:
    every = parameter_count(TINY, 10)
    bound = machine.step_bound(TINY, 4, calibration(**RATES), 10, every - 300, every - 20_000.5)
    assert bound.bytes_moved == 4 * (every - 300) + 24 * (every - 20_000.5)
    assert bound.memory_seconds == pytest.approx(4 * (every - 300) / 1e9 + 24 * (every - 20_000.5) / 2e9)
    assert bound.fc_operations == 4 * 2 * (3 * 4096 * 10 - 300 - 2 * 20_000.5)
    whole = machine.step_bound(TINY, 4, calibration(**RATES), 10)
    assert bound.arithmetic_seconds == whole.arithmetic_seconds
    assert machine.step_bound(TINY, 4, calibration(**RATES), 10, every, every) == whole


def test_bound_of_a_large_batch_is_arithmetic() -> None:
    """The traffic of the parameters does not grow with the batch, and is hidden by the FC layers' arithmetic."""
    slow = RATES | {"gemm": made_up("FLOP/s", "gemm", median=1e9)}
    bound = machine.step_bound(TINY, 1000, calibration(**slow), 10)
    assert bound.fc_arithmetic_seconds > bound.memory_seconds
    assert bound.seconds == pytest.approx(bound.fc_arithmetic_seconds + bound.arithmetic_seconds)


def test_measured_convolutions_have_their_own_rate_and_others_the_fastest() -> None:
    own = machine._name(Convolution(16, 16, 3, 1, 16))
    rates = RATES | {own: made_up("FLOP/s", "convolution", median=2e9)}
    bound = machine.step_bound(TINY, 4, calibration(**rates), 10)
    stem, block = 3 * 16 * 49 * 16**2, 16 * 16 * 9 * 16**2
    assert bound.arithmetic_seconds == pytest.approx(8 * 2 * stem / 1e10 + 8 * 6 * block / 2e9)


@pytest.mark.parametrize(
    ("size", "rate"), [(1, 400), (999, 400), (1000, 400), (9999, 400), (10_000, 300), (10**9, 300)]
)
def test_bandwidth_is_that_of_the_largest_working_set_not_exceeded(size: int, rate: float) -> None:
    measured = calibration(large=made_up(size=10_000, median=300), small=made_up(size=1000, median=400))
    assert measured.bandwidth("update", size) == rate


@pytest.mark.parametrize("missing", ["read", "update", "gemm", "conv"])
def test_bound_without_a_rate_it_needs_is_an_error_for_the_user(missing: str) -> None:
    rates = {name: rate for name, rate in RATES.items() if name != missing}
    with pytest.raises(UserError, match="calibration"):
        machine.step_bound(TINY, 4, calibration(**rates), 10)


@given(factor=st.floats(0.1, 10))
def test_bound_scales_with_the_machine(factor: float) -> None:
    faster = {k: m.model_copy(update={"median": m.median * factor}) for k, m in RATES.items()}
    slow, fast = (machine.step_bound(TINY, 4, calibration(**rates), 10) for rates in (RATES, faster))
    assert slow.seconds / fast.seconds == pytest.approx(factor)


def test_bound_has_a_figure_for_every_network(measured: Calibration) -> None:
    bounds = {a.id: machine.step_bound(a, 4, measured, 100) for a in ARCHITECTURES.values()}
    assert all(b.seconds > 0 for b in bounds.values())
    assert bounds["fc3"].memory_seconds > bounds["baseline"].memory_seconds > bounds["fc1"].memory_seconds
    assert bounds["fc1"].arithmetic_seconds == bounds["baseline"].arithmetic_seconds
    assert bounds["baseline"].bytes_moved == 28 * parameter_count(BASELINE)


def test_a_compilers_version_in_another_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of one that speaks the user's language in Latin-1."""
    compiler = tmp_path / "c++"
    compiler.write_bytes(b"#!/bin/sh\nprintf 'g++ (f\\374r alle) 14.2\\n'\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert machine._cxx.__wrapped__() == "g++ (f\ufffdr alle) 14.2"


# --- command


@pytest.fixture
def instant(measured: Calibration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "calibrate", lambda threads=None: measured)
    monkeypatch.setattr(machine, "busy_reason", lambda load_before: "Something else runs.")


@pytest.mark.usefixtures("instant")
def test_command_prints_machine_rates_and_bounds() -> None:
    result = CliRunner().invoke(cli, ["machine"])
    assert result.exit_code == 0, result.output
    for expected in ("cpu logical_cores", "GB/s", "GFLOP/s", "update 98 MB", "gemm 1024", "conv5x5", "quartiles"):
        assert expected in result.output
    assert "warning: Something else runs." in result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 120


@pytest.mark.usefixtures("instant")
def test_command_prints_json(measured: Calibration) -> None:
    result = CliRunner().invoke(cli, ["machine", "--format", "json"])
    data = json.loads(result.stdout)
    assert Calibration.model_validate(data["calibration"]["start"]) == measured
    assert data["cpu"]["logical_cores"] == os.cpu_count()
    assert set(data["step_bound_seconds"]) == set(ARCHITECTURES)


@pytest.mark.usefixtures("instant")
def test_command_sets_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        result = CliRunner().invoke(cli, ["machine", "--threads", "3", "--format", "json"])
        assert json.loads(result.stdout)["threads"]["intraop"] == 3
    finally:
        torch.set_num_threads(before)


def test_command_refuses_zero_threads() -> None:
    result = CliRunner().invoke(cli, ["machine", "--threads", "0"])
    assert result.exit_code == 2
    assert "--threads" in result.output
