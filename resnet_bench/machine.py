"""What the machine is (`describe`), how fast it is at what training needs (`calibrate`), and what that bounds.

A calibration explains times and shows drift within a run; it does not normalise times between machines, because most
of the variance is each benchmark's own. It measures bandwidth and arithmetic rate at the sizes that the networks have,
since one peak figure of each would be reached by none of them: the state of `fc1` fits a large L3 cache and that of
`fc3` does not, and a convolution over a 2×2 map runs at a fraction of the rate of a 1024×1024 matrix product.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import mmap
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import psutil
import torch
from pydantic import Field
from torch.nn import functional
from tqdm import tqdm

from resnet_bench.architectures import (
    ARCHITECTURES,
    CONTROLS,
    Architecture,
    Convolution,
    convolutions,
    parameter_count,
)
from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe
from resnet_bench.results import Model, Seconds

PROC = Path("/proc")
SYS = Path("/sys")

# ---------------------------------------------------------------------------------------------------------------------
# What the machine is


def describe() -> dict[str, Any]:
    """What decides how fast a training runs here, as JSON holds it; takes milliseconds and measures nothing.

    What the system does not tell is None, so the keys are the same everywhere. Neither host nor user name nor any path
    is in it: values of environment variables that hold a path are given as `(path)`.

    - `cpu`: `model`, `vendor`; `physical_cores`, `logical_cores` of the machine, and `affinity_cores`, those that this
      process may use; `caches`: bytes of one `L1d`, `L2` and `L3` as the first core has them; `isa`: the vector
      instruction sets, sorted, in the kernel's spelling; `torch_isa`: the one that torch's own kernels use.
    - `memory_bytes`: physical memory. `transparent_hugepages`: `always`, `madvise` or `never`.
    - `os`: system, release and architecture. `libc`, `python`: name and version.
    - `governor`: of the first core's clock rate.
    - `container`: `cpu_quota` in cores and `memory_limit_bytes`, the tightest of the control groups around us.
    - `torch`: versions of `version` (torch), `torchvision`, `onednn`, `mkl`; `compiler` that built torch; `build`: its
      settings that matter on a CPU; `cxx`: the C++ compiler here, which `torch.compile` uses; `deterministic`: whether
      deterministic algorithms are on; `float32_matmul_precision`.
    - `threads`: `intraop` (within an operation) and `interop`; `openmp`: the OpenMP runtimes loaded; `environment`: the
      variables that set threads and kernels (`OMP_*`, `MKL_*`, `KMP_*`, `GOMP_*`, ...).
    - `allocator`: `name`: jemalloc, tcmalloc or mimalloc where loaded, else the C library's; `preload`: file names in
      `LD_PRELOAD`; `environment`: the variables that tune it (`MALLOC_*`, `GLIBC_TUNABLES`, ...).
    - `flush_denormal`: whether this thread takes denormal numbers for 0.
    """
    libraries = _loaded_libraries()
    return {
        "cpu": _cpu(),
        "memory_bytes": psutil.virtual_memory().total,
        "transparent_hugepages": _bracketed(_read(SYS / "kernel/mm/transparent_hugepage/enabled")),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "governor": _read(SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "container": _container(),
        "torch": _torch(),
        "threads": {
            "intraop": torch.get_num_threads(),
            "interop": torch.get_num_interop_threads(),
            "openmp": sorted({m[1] for name in libraries if (m := re.match(r"lib([gi]?omp\d*)\b", name))}),
            "environment": _environment("OMP_", "MKL_", "KMP_", "GOMP_", "DNNL_", "ONEDNN_", "OPENBLAS_"),
        },
        "allocator": {
            "name": _allocator(libraries),
            "preload": _preloaded(),
            "environment": _environment(
                "MALLOC_", "GLIBC_TUNABLES", "JEMALLOC_", "_RJEM_MALLOC", "TCMALLOC_", "MIMALLOC_"
            ),
        },
        "flush_denormal": _flushes_denormals(),
    }


def _cpu() -> dict[str, Any]:
    fields: dict[str, str] = {}
    for line in (_read(PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())  # the first core speaks for all
    model, flags, caches = fields.get("model name"), fields.get("flags") or fields.get("Features"), _caches()
    # py-cpuinfo asks other sources, but takes a second or more.
    other = {} if model and flags else _py_cpuinfo()
    for name, key in (("L1d", "l1_data_cache_size"), ("L2", "l2_cache_size"), ("L3", "l3_cache_size")):
        if caches[name] is None and isinstance(other.get(key), int):
            caches[name] = other[key]
    return {
        "model": model or other.get("brand_raw"),
        "vendor": fields.get("vendor_id") or fields.get("CPU implementer") or other.get("vendor_id_raw"),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "affinity_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "caches": caches,
        "isa": sorted({f for f in flags.split() if _ISA.fullmatch(f)} if flags else _isa_of(other.get("flags"))),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
    }


_ISA = re.compile(r"sse4_[12]|f16c|fma|avx\w*|amx\w*|neon|asimd\w*|bf16|i8mm|sve\w*|sme(?:2|[fi]\w+)?")  # not SMEP


def _isa_of(flags: object) -> set[str]:
    return {f for f in flags if isinstance(f, str) and _ISA.fullmatch(f)} if isinstance(flags, list) else set()


def _caches() -> dict[str, int | None]:
    sizes: dict[str, int | None] = {"L1d": None, "L2": None, "L3": None}
    for folder in sorted((SYS / "devices/system/cpu/cpu0/cache").glob("index*")):
        name = f"L{_read(folder / 'level')}" + ("d" if _read(folder / "level") == "1" else "")
        size = re.fullmatch(r"(\d+)([KMG]?)", _read(folder / "size") or "")
        if name in sizes and size and _read(folder / "type") != "Instruction":
            sizes[name] = int(size[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[size[2]]
    return sizes


@functools.cache
def _py_cpuinfo() -> dict[str, Any]:
    try:
        import cpuinfo  # py-cpuinfo, which pytest-benchmark brings

        return dict(cpuinfo.get_cpu_info())
    except Exception:  # it raises whatever its many sources raise, and a description is not worth a crash
        return {}


def _container() -> dict[str, Any]:
    """Limits of the control groups, versions 1 and 2: the tightest between this process's own and the outermost."""
    quotas: list[float] = []
    limits: list[int] = []
    for folder in _control_groups():
        quota, period = f"{_read(folder / 'cpu.max') or ''} ".split(" ")[:2]  # version 2: `200000 100000`
        if not quota:  # version 1
            quota = _read(folder / "cpu.cfs_quota_us") or ""
            period = _read(folder / "cpu.cfs_period_us") or ""
        if quota.isdecimal() and period.isdecimal() and int(period):  # neither `max` nor -1
            quotas.append(int(quota) / int(period))
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes") or ""
        if limit.isdecimal() and int(limit) < 2**60:  # version 1 says «unlimited» with a number near 2⁶³
            limits.append(int(limit))
    return {"cpu_quota": min(quotas, default=None), "memory_limit_bytes": min(limits, default=None)}


def _control_groups() -> Iterator[Path]:
    root = SYS / "fs/cgroup"
    for line in (_read(PROC / "self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)  # `4:memory:/a/b`, `0::/a/b` in version 2
        base = root / controllers if controllers else root
        inner = PurePosixPath(path.strip("/"))
        # A container sees its own group as the root, while the path may still be the one seen from outside.
        for folder in {base / p for p in (inner, *inner.parents) if ".." not in p.parts} | {base}:
            if folder.is_dir():
                yield folder


def _torch() -> dict[str, Any]:
    config = torch.__config__.show()
    settings = dict(re.findall(r"(\w+)=([^,]*)", config))
    flags = [f for f in settings.get("CXX_FLAGS", "").split() if re.match(r"-(O|m|ffast|fno-(math|trapping))", f)]
    keys = ("BUILD_TYPE", "BLAS_INFO", "LAPACK_INFO", "USE_MKL", "USE_MKLDNN", "USE_OPENMP", "PERF_WITH_AVX512")
    return {
        "version": torch.__version__,
        "torchvision": _version("torchvision"),
        "onednn": _found(r"MKL-DNN v([\d.]+)", config),
        "mkl": _found(r"Math Kernel Library Version (\S+)", config),
        "compiler": _found(r"^\s*-\s*((?:GCC|clang|MSVC)\s+\S+)", config),
        "build": {k: settings[k].strip() for k in keys if k in settings} | {"CXX_FLAGS": " ".join(flags)},
        "cxx": _cxx(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


@functools.cache
def _cxx() -> str | None:
    """First line that the C++ compiler prints for `--version`."""
    command = os.environ.get("CXX") or ("clang++" if platform.system() == "Darwin" else "g++")
    if (program := shutil.which(command)) is None:
        return None
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    line = (done.stdout.decode(errors="replace").splitlines() or [""])[0].replace(program, "").strip()
    return line or None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _environment(*prefixes: str) -> dict[str, str]:
    return {
        name: "(path)" if "/" in value or "\\" in value else value
        for name, value in sorted(os.environ.items())
        if name.startswith(prefixes)
    }


def _preloaded() -> list[str]:
    paths = os.environ.get("LD_PRELOAD", "") + ":" + os.environ.get("DYLD_INSERT_LIBRARIES", "")
    return [PurePosixPath(p).name for p in re.split(r"[:\s]+", paths) if p]


def _loaded_libraries() -> set[str]:
    """File names of the shared libraries in this process, as far as the system tells."""
    maps = _read(PROC / "self/maps") or ""
    return {line.rsplit("/", 1)[1] for line in maps.splitlines() if "/" in line} | set(_preloaded())


def _allocator(libraries: Iterable[str]) -> str | None:
    for name in sorted(libraries):
        if found := re.match(r"lib(jemalloc|tcmalloc|mimalloc)", name):
            return found[1]
    return platform.libc_ver()[0] or None


def _flushes_denormals() -> bool:
    smallest = torch.ones(1, dtype=torch.int32).view(torch.float32)  # 2⁻¹⁴⁹
    return smallest.mul(1.0).view(torch.int32).item() == 0  # compared as bits: a comparison of floats flushes as well


def _read(path: Path) -> str | None:
    """The stripped text of a small file; None where it is missing, unreadable or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None


def _bracketed(text: str | None) -> str | None:
    """`always [madvise] never` → `madvise`."""
    return _found(r"\[(\w+)\]", text or "")


# ---------------------------------------------------------------------------------------------------------------------
# Whether it is free

BUSY_SHARE = 0.1
"""Other processes that use more than this share of the cores make a measurement doubtful."""

BUSY_LOAD = 0.5
"""So does a load average of more than this for each core before the start."""


def other_processes(seconds: float = 0.5) -> float:
    """Cores that other processes (children of this one included) kept busy during the next `seconds`."""
    process = psutil.Process()

    def used() -> tuple[float, float]:
        times, own = psutil.cpu_times(), process.cpu_times()
        waiting = times.idle + getattr(times, "iowait", 0.0)
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # counted in user and nice too
        return sum(times) - guests - waiting, own.user + own.system

    start, (busy_before, own_before) = time.perf_counter(), used()
    time.sleep(seconds)
    elapsed, (busy_after, own_after) = time.perf_counter() - start, used()
    return max(0.0, (busy_after - busy_before) - (own_after - own_before)) / elapsed


def load_average() -> float:
    """Processes that ran or waited to run, on average over the last minute (psutil emulates it on Windows)."""
    return psutil.getloadavg()[0]


def busy_reason(
    load_before: float | None = None, cores: int | None = None, other_cores: float | None = None
) -> str | None:
    """Why a measurement that starts now should be doubted, in one sentence; None on a free machine.

    Args:
        load_before: load average of the last minute, taken before this process did any work; left out if None.
        cores: logical cores of the machine; asked if None.
        other_cores: what `other_processes` said; measured for half a second if None.
    """
    cores = cores or psutil.cpu_count() or 1
    other_cores = other_processes() if other_cores is None else other_cores
    if other_cores > BUSY_SHARE * cores:
        return (
            f"Other processes kept {other_cores:.1f} of {cores} cores busy at the start; times are longer than alone."
        )
    if load_before is not None and load_before > BUSY_LOAD * cores:
        return (
            f"The load average was {load_before:.1f} on {cores} cores before the start; times may be longer than alone."
        )
    return None


# ---------------------------------------------------------------------------------------------------------------------
# How fast it is

STATE_BYTES = 12
"""Of one parameter under Adam: its value and two moments, float32."""

WORKING_SETS = (4_000_000, 16_000_000, 8192 * 1000 * STATE_BYTES, 16384 * 1000 * STATE_BYTES)
"""Bytes of parameters and moments. In order: the L2 caches of a few cores hold it; somewhat less than all of `fc1`
(18 MB) or `conv5x5` (21 MB), which a large L3 cache holds; the first FC layer of `baseline`; that of `blocks2`, about
as much as all of `fc3`. The last two exceed the caches of most machines."""

FRESH_BYTES = 8192 * 1000 * 4
"""One temporary of the size of `baseline`'s first FC layer, as the default Adam allocates several of in each step."""

GEMM_SIZE = 1024
"""Side of square matrices: large enough for the peak of a matrix product, and 12 MB, so it need not wait for memory."""

BATCH_SIZE = Recipe().batch_size  # of the convolutions

MIN_OPERATIONS = 1_000_000
"""Convolutions with fewer FLOP (the 1×1 ones over the smallest maps) are left out: calling them takes longer than the
arithmetic, so their times say nothing of its rate."""

CONVOLUTIONS = tuple(
    dict.fromkeys(
        c
        for architecture in (*ARCHITECTURES.values(), *CONTROLS.values())
        for c in convolutions(architecture)
        if 2 * BATCH_SIZE * c.multiply_accumulates >= MIN_OPERATIONS
    )
)
"""Every distinct convolution of the networks: at batch 4 their rates differ tenfold."""

ROUNDS = 15  # samples of each measurement, taken in turn so that a disturbance hits few samples of each
MIN_ROUNDS = 5
TIME_LIMIT = 5.0  # seconds after which no further round starts, on a slow machine
SAMPLE_SECONDS = 0.003  # least length of a sample: a thousand times the clock's resolution

DRIFT_LIMIT = 0.10
"""Relative change of a median between start and end of a run beyond which the machine has drifted. Medians of two
calibrations in a row mostly agree within 5 % on a machine that is free."""

Quantity = Literal["read", "update", "first touch", "gemm", "convolution"]
Positive = Annotated[float, Field(gt=0)]


class Measurement(Model):
    """One rate. `median` of `samples` samples, between the quartiles `low` and `high`.

    `size` is the working set in bytes for memory, and the operations (a multiply-accumulate is two) of one call for
    arithmetic.
    """

    quantity: Quantity
    unit: Literal["bytes/s", "FLOP/s"]
    size: Annotated[int, Field(ge=1)]
    median: Positive
    low: Positive
    high: Positive
    samples: Annotated[int, Field(ge=1)]


class Calibration(Model):
    """Measured rates of this machine by name, e.g. `update 98 MB`.

    - `read`: the sum of a tensor; bytes read.
    - `update`: three tensors (parameters and moments) scaled in place; bytes read plus bytes written, half and half.
    - `first touch`: filling memory fresh from the operating system, which has to find and clear each page.
    - `gemm`: a square float32 matrix product.
    - `convolution`: a float32 forward pass at batch 4, in the faster of torch's two memory layouts.
    """

    schema_version: Literal[1] = 1
    threads: Annotated[int, Field(ge=1)]
    seconds: Seconds  # that measuring took
    measurements: dict[str, Measurement]

    def of(self, quantity: Quantity) -> list[Measurement]:
        """All of one quantity by rising size; `UserError` where there is none, as in a file made by hand."""
        found = sorted((m for m in self.measurements.values() if m.quantity == quantity), key=lambda m: m.size)
        if not found:
            raise UserError(f"The calibration has no measurement of {quantity!r}; measure the machine again.")
        return found

    def bandwidth(self, quantity: Literal["read", "update"], working_set: float) -> float:
        """Bytes/s at the largest measured working set that does not exceed `working_set`, or at the smallest.

        Bandwidth falls where a cache overflows, so this errs towards a faster machine.
        """
        measured = self.of(quantity)
        return next((m for m in reversed(measured) if m.size <= working_set), measured[0]).median

    def convolution_rate(self, convolution: Convolution) -> float:
        """FLOP/s of the convolution; of the fastest one where it was not measured."""
        measured = self.measurements.get(_name(convolution))
        return measured.median if measured else max(m.median for m in self.of("convolution"))


@dataclass(frozen=True)
class _Probe:
    """What measures one rate: `seconds(calls)` are those of `calls` calls, each of which does `work` bytes or FLOP."""

    name: str
    quantity: Quantity
    size: int
    work: int
    seconds: Callable[[int], float]


def calibrate(threads: int | None = None) -> Calibration:
    """Measure the machine with `threads` threads (torch's present number if None), in about three seconds.

    All operations write to memory that was touched before, except where touching is what is measured. Needs 0.2 GB. A
    progress bar appears on a terminal after two seconds.
    """
    if threads is not None and threads < 1:
        raise UserError(f"--threads is {threads}; give at least 1.")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads or threads_before)
    try:
        with torch.inference_mode():
            return _calibrate()
    finally:
        torch.set_num_threads(threads_before)


def _calibrate() -> Calibration:
    start = time.perf_counter()
    probes = list(_probes())
    calls = {p.name: min(1000, math.ceil(SAMPLE_SECONDS / min(p.seconds(1), p.seconds(1)))) for p in probes}
    for p in probes:  # the first round would still warm up: clock rate, pages, kernels compiled on first use
        p.seconds(calls[p.name])
    rates: dict[str, list[float]] = {p.name: [] for p in probes}
    for done in tqdm(range(ROUNDS), "measuring the machine", unit="round", leave=False, disable=None, delay=2):
        if done >= MIN_ROUNDS and time.perf_counter() - start > TIME_LIMIT:
            break
        for p in probes:
            rates[p.name].append(p.work * calls[p.name] / p.seconds(calls[p.name]))
    measurements = {}
    for p in probes:
        low, median, high = statistics.quantiles(rates[p.name], n=4, method="inclusive")
        measurements[p.name] = Measurement(
            quantity=p.quantity,
            unit="FLOP/s" if p.quantity in ("gemm", "convolution") else "bytes/s",
            size=p.size,
            median=median,
            low=low,
            high=high,
            samples=len(rates[p.name]),
        )
    return Calibration(threads=torch.get_num_threads(), seconds=time.perf_counter() - start, measurements=measurements)


def _probes() -> Iterator[_Probe]:
    state = torch.ones(3, max(WORKING_SETS) // STATE_BYTES)
    total = torch.empty(())
    for size in WORKING_SETS:
        part = [tensor[: size // STATE_BYTES] for tensor in state]
        work = 4 * sum(tensor.numel() for tensor in part)

        def read(part: list[torch.Tensor] = part) -> None:
            for tensor in part:
                torch.sum(tensor, 0, out=total)

        def update(part: list[torch.Tensor] = part) -> None:
            for tensor in part:
                tensor.mul_(1.0)

        yield _Probe(f"read {_megabytes(size)}", "read", size, work, _repeated(read))
        yield _Probe(f"update {_megabytes(size)}", "update", size, 2 * work, _repeated(update))
    yield _Probe(f"first touch {_megabytes(FRESH_BYTES)}", "first touch", FRESH_BYTES, FRESH_BYTES, _first_touch)

    a, b, product = torch.ones(3, GEMM_SIZE, GEMM_SIZE)
    work = 2 * GEMM_SIZE**3
    yield _Probe(f"gemm {GEMM_SIZE}", "gemm", work, work, _repeated(lambda: torch.mm(a, b, out=product)))
    for convolution in CONVOLUTIONS:
        work = 2 * BATCH_SIZE * convolution.multiply_accumulates
        yield _Probe(_name(convolution), "convolution", work, work, _convolution(convolution))


def _repeated(call: Callable[[], object]) -> Callable[[int], float]:
    def seconds(calls: int) -> float:
        call()  # brings back into the caches what the probes before have pushed out
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - start

    return seconds


def _first_touch(calls: int) -> float:
    # Memory straight from the operating system: an allocator may hand out pages that were touched before.
    options = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
    seconds = 0.0
    for _ in range(calls):
        fresh = torch.frombuffer(mmap.mmap(-1, FRESH_BYTES, **options), dtype=torch.float32)
        start = time.perf_counter()
        fresh.fill_(1.0)
        seconds += time.perf_counter() - start
    return seconds


def _convolution(convolution: Convolution) -> Callable[[int], float]:
    """The convolution in the faster layout; its small output comes from the allocator's recycled memory."""
    c = convolution
    images = torch.ones(BATCH_SIZE, c.in_channels, c.input_size, c.input_size)
    kernels = torch.ones(c.out_channels, c.in_channels, c.kernel_size, c.kernel_size)

    def in_layout(layout: torch.memory_format) -> Callable[[int], float]:
        x, w = images.to(memory_format=layout), kernels.to(memory_format=layout)
        return _repeated(lambda: functional.conv2d(x, w, None, c.stride, c.kernel_size // 2))

    layouts = [in_layout(layout) for layout in (torch.contiguous_format, torch.channels_last)]
    return min(layouts, key=lambda seconds: min(seconds(3) for _ in range(3)))


def _name(c: Convolution) -> str:
    return (
        f"conv {c.in_channels}-{c.out_channels} {c.kernel_size}x{c.kernel_size} stride {c.stride}"
        f" on {c.input_size}x{c.input_size}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def drift(start: Calibration, end: Calibration) -> dict[str, float]:
    """Measurements that changed during a run, and by how much: `{"gemm 1024": -0.2}` is 20 % slower at the end.

    A measurement has drifted where its median changed by more than `DRIFT_LIMIT` and the quartiles of both lie apart;
    the second condition keeps noise out, which with some thirty measurements would often be beyond the limit somewhere.
    """
    if start.threads != end.threads:
        raise ValueError(f"Calibrations with {start.threads} and {end.threads} threads measure different things.")
    drifted = {}
    for name, before in start.measurements.items():
        after = end.measurements.get(name)
        if after is None:
            continue
        change = after.median / before.median - 1
        apart = after.high < before.low or before.high < after.low
        if abs(change) > DRIFT_LIMIT and apart:
            drifted[name] = change
    return drifted


# ---------------------------------------------------------------------------------------------------------------------
# How fast a step can be

READ_BYTES = 4
"""Of one parameter in the forward pass: its value, read."""

UPDATE_BYTES = 2 * STATE_BYTES
"""Of one parameter in the update: its value and two moments, read and written."""


@dataclass(frozen=True)
class Bound:
    """The least time of one training step, and what it is made of.

    Attributes:
        bytes_moved: of parameters and moments.
        operations: of the convolutions, FLOP.
        fc_operations: of the FC layers, FLOP.
        memory_seconds: for `bytes_moved`.
        arithmetic_seconds: for `operations`.
        fc_arithmetic_seconds: for `fc_operations`.
    """

    bytes_moved: float
    operations: int
    fc_operations: float
    memory_seconds: float
    arithmetic_seconds: float
    fc_arithmetic_seconds: float

    @property
    def seconds(self) -> float:
        """`arithmetic_seconds + max(memory_seconds, fc_arithmetic_seconds)`.

        The convolutions do not overlap with the traffic of the FC layers: forward they come before them and backward
        after them, with every core at work. Within the FC layers arithmetic overlaps with the traffic, and at small
        batches is hidden by it.
        """
        return self.arithmetic_seconds + max(self.memory_seconds, self.fc_arithmetic_seconds)


def step_bound(
    architecture: Architecture,
    batch_size: int,
    calibration: Calibration,
    num_classes: int,
    read_parameters: float | None = None,
    updated_parameters: float | None = None,
) -> Bound:
    """The least time that a training step with Adam in float32 can take on the calibrated machine, with any engine.

    A step need not read parameters that meet only zeros, nor update those that the update would leave as they are; how
    many it reads in the forward pass, and updates, is told by the one that was measured. None stands for all.

    Counted are, with the rates measured at the networks' own sizes,

    - memory: parameters are read in the forward pass (4 bytes), and values and two moments are read and written in the
      update (24 bytes). This assumes the best known organisation: the gradient of a weight is formed inside the
      update and never stored, and the gradient of the layer's input is computed in the same pass over the weight. A
      step with a stored gradient moves at least 8 bytes more for each parameter. Activations are not counted: at small
      batches they stay in the caches.
    - arithmetic: forward, input gradient and weight gradient of each convolution (the stem needs no input gradient),
      all three at the rate of the forward pass, which is the fastest of them; and the same three matrix products in
      the FC layers, at the rate of the square matrix product. Batch norm, ReLU, loss and Adam's arithmetic are not
      counted.

    A step can still be faster than this where the caches help more than they did in the calibration: a part of the
    parameters and moments, up to the size of the L3 cache, may stay there from one step to the next, and an engine may
    compute a convolution with fewer operations than its definition has (Winograd) or in another way than torch does.
    Rates of convolutions are those at batch 4, also for another `batch_size`.
    """
    parameters = parameter_count(architecture, num_classes)
    read = parameters if read_parameters is None else read_parameters
    updated = parameters if updated_parameters is None else updated_parameters
    working_set = READ_BYTES * read + (STATE_BYTES - READ_BYTES) * updated
    memory_seconds = READ_BYTES * read / calibration.bandwidth("read", working_set)
    memory_seconds += UPDATE_BYTES * updated / calibration.bandwidth("update", working_set)

    operations, arithmetic_seconds = 0, 0.0
    for position, convolution in enumerate(convolutions(architecture)):
        passes = 3 if position else 2
        work = passes * 2 * batch_size * convolution.multiply_accumulates
        operations += work
        arithmetic_seconds += work / calibration.convolution_rate(convolution)

    fc_parameters = sum(i * o for i, o in architecture.fc_shapes(num_classes))
    # what is neither read nor updated is of the FC layers
    fc_read, fc_updated = (max(0.0, fc_parameters - parameters + p) for p in (read, updated))
    fc_operations = 2 * batch_size * (fc_read + 2 * fc_updated)
    return Bound(
        bytes_moved=READ_BYTES * read + UPDATE_BYTES * updated,
        operations=operations,
        fc_operations=fc_operations,
        memory_seconds=memory_seconds,
        arithmetic_seconds=arithmetic_seconds,
        fc_arithmetic_seconds=fc_operations / calibration.of("gemm")[-1].median,
    )
