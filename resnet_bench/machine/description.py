"""What the machine is: hardware, operating system, torch and the settings that decide how fast a training runs."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import psutil
import torch

from resnet_bench import compiler
from resnet_bench.machine import advice, availability, system
from resnet_bench.machine.system import answer, text_in


def describe() -> dict[str, Any]:
    """What decides how fast a training runs here, ready for JSON. It takes milliseconds and measures nothing.

    The keys are the same on every machine. A value is None where the system does not tell it. The description holds no
    host name, no user name and no path: where an environment variable holds a path, its value is given as `(path)`.

    - `cpu`: `model` and `vendor`; the numbers `family`, `model_number` and `stepping`, which tell apart generations
      that share a name (on Arm: architecture, part and revision); `physical_cores` and `logical_cores` of the machine;
      `affinity_cores`, those that the user lets this process use; `caches`: the bytes of one `L1d`, `L2` and `L3` of
      the first core; `isa`: the vector instruction sets, sorted, as the kernel spells them; `torch_isa`: the
      instruction set that torch's own kernels use.
    - `memory_bytes`: physical memory. `transparent_hugepages`: `always`, `madvise` or `never`.
    - `os`: system, release and architecture. `libc`, `python`: name and version.
    - `governor`: the policy for the first core's clock rate. `turbo`, `smt`: whether the CPU runs above its nominal
      clock rate, and several logical cores on a physical one: `on` or `off`. `aslr`: `full`, `partial`, `off` or `off
      for this process`. `virtual_machine`: whether it is one.
    - `container`: the tightest limits of the control groups around this process: `cpu_quota` in cores and
      `memory_limit_bytes`.
    - `doubts`: what each of these settings does to times on its own: `none`, `scatter` or `bias` (`machine.advice`).
    - `torch`: the versions of torch (`version`), `torchvision`, `onednn` and `mkl`; `compiler`: the one that built
      torch; `build`: the build settings that matter on a CPU; `cxx`: the C++ compiler here, which `torch.compile` uses;
      `deterministic`: whether deterministic algorithms are on; `float32_matmul_precision`; `mkldnn`: whether torch may
      use oneDNN; `anomaly_detection`: whether autograd checks what it computes; `dynamo_disabled`: whether a setting
      keeps `torch.compile` from compiling; `environment`: the variables that set any of this (`TORCH*`, `ATEN_*`).
    - `threads`: `intraop`, the threads within an operation, and `interop`, those that run operations side by side;
      `openmp`: the OpenMP runtimes loaded; `environment`: the variables that set threads and kernels (`OMP_*`, `MKL_*`,
      `KMP_*`, `GOMP_*`, `ONEDNN_*`, `DNNL_*`, ...).
    - `allocator`: `name`: jemalloc, tcmalloc or mimalloc where one is loaded, else the C library's; `preload`: the file
      names in `LD_PRELOAD`; `environment`: the variables that tune it (`MALLOC_*`, `GLIBC_TUNABLES`, ...).
    - `flush_denormal`: whether this thread replaces denormal numbers by 0.
    """
    libraries, settings = _loaded_libraries(), advice.settings()
    found = {f.name: f.found for f in settings}
    return {
        "cpu": _cpu(),
        "memory_bytes": answer(lambda: psutil.virtual_memory().total),
        "transparent_hugepages": found["transparent_hugepages"],
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": answer(lambda: " ".join(platform.libc_ver()).strip()) or None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "governor": text_in(system.SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        **{name: found[name] for name in ("turbo", "smt", "aslr")},
        "virtual_machine": advice.virtual(),
        "container": asdict(system.container_limits()),
        "doubts": advice.effects(settings),
        "torch": _torch(),
        "threads": {
            "intraop": torch.get_num_threads(),
            "interop": torch.get_num_interop_threads(),
            "openmp": sorted({m[1] for name in libraries if (m := re.match(r"lib([gi]?omp\d*)\b", name))}),
            "environment": _environment(
                "OMP_", "MKL_", "MKLDNN_", "KMP_", "GOMP_", "DNNL_", "ONEDNN_", "OPENBLAS_", "LRU_CACHE_CAPACITY"
            ),
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


# ---------------------------------------------------------------------------------------------------------------------
# CPU

_ISA = re.compile(r"sse4_[12]|f16c|fma|avx\w*|amx\w*|neon|asimd\w*|bf16|i8mm|sve\w*|sme(?:2|[fi]\w+)?")  # not SMEP


def _cpu() -> dict[str, Any]:
    fields: dict[str, str] = {}
    for line in (text_in(system.PROC / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())  # of the first core
    model, flags, caches = fields.get("model name"), fields.get("flags") or fields.get("Features"), _caches()
    # py-cpuinfo asks other sources, but takes a second or more.
    other = {} if model and flags else _py_cpuinfo()
    for name, key in (("L1d", "l1_data_cache_size"), ("L2", "l2_cache_size"), ("L3", "l3_cache_size")):
        if caches[name] is None and isinstance(other.get(key), int):
            caches[name] = other[key]
    return {
        "model": model or other.get("brand_raw"),
        "vendor": fields.get("vendor_id") or fields.get("CPU implementer") or other.get("vendor_id_raw"),
        "family": _number(fields.get("cpu family") or fields.get("CPU architecture")),
        "model_number": _number(fields.get("model") or fields.get("CPU part")),
        "stepping": _number(fields.get("stepping") or fields.get("CPU revision")),
        "physical_cores": answer(lambda: psutil.cpu_count(logical=False)),
        "logical_cores": answer(psutil.cpu_count),
        "affinity_cores": answer(availability.allowed_cores),
        "caches": caches,
        "isa": sorted(_vector_instructions(flags.split() if flags else other.get("flags"))),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
    }


def _number(text: str | None) -> int | None:
    """The number in `17`, or in `0xd40` as Arm's kernels write it."""
    try:
        return int(text or "", 0)
    except ValueError:
        return None


def _vector_instructions(flags: object) -> set[str]:
    """The vector instruction sets among a CPU's flags; none where `flags` is not a list."""
    return {f for f in flags if isinstance(f, str) and _ISA.fullmatch(f)} if isinstance(flags, list) else set()


def _caches() -> dict[str, int | None]:
    """Bytes of each data cache of the first core."""
    sizes: dict[str, int | None] = {"L1d": None, "L2": None, "L3": None}
    for folder in sorted((system.SYS / "devices/system/cpu/cpu0/cache").glob("index*")):
        level = text_in(folder / "level")
        name = f"L{level}" + ("d" if level == "1" else "")
        size = re.fullmatch(r"(\d+)([KMG]?)", text_in(folder / "size") or "")
        if name in sizes and size and text_in(folder / "type") != "Instruction":
            sizes[name] = int(size[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[size[2]]
    return sizes


@functools.cache
def _py_cpuinfo() -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        import cpuinfo  # py-cpuinfo, which pytest-benchmark requires

        return dict(cpuinfo.get_cpu_info())

    return answer(ask) or {}


# ---------------------------------------------------------------------------------------------------------------------
# Software and its settings


def _torch() -> dict[str, Any]:
    config = torch.__config__.show()
    settings = dict(re.findall(r"(\w+)=([^,]*)", config))
    flags = [f for f in settings.get("CXX_FLAGS", "").split() if re.match(r"-(O|m|ffast|fno-(math|trapping))", f)]
    keys = ("BUILD_TYPE", "BLAS_INFO", "LAPACK_INFO", "USE_MKL", "USE_MKLDNN", "USE_OPENMP", "PERF_WITH_AVX512")
    mkldnn = torch.backends.mkldnn
    return {
        "version": torch.__version__,
        "torchvision": answer(lambda: importlib.metadata.version("torchvision")),
        "onednn": _first_group(r"MKL-DNN v([\d.]+)", config),
        "mkl": _first_group(r"Math Kernel Library Version (\S+)", config),
        "compiler": _first_group(r"^\s*-\s*((?:GCC|clang|MSVC)\s+\S+)", config),
        "build": {k: settings[k].strip() for k in keys if k in settings} | {"CXX_FLAGS": " ".join(flags)},
        "cxx": compiler.cxx_version(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "float32_matmul_precision": answer(torch.get_float32_matmul_precision),
        "mkldnn": mkldnn.is_available() and mkldnn.enabled,  # type: ignore[no-untyped-call]
        "anomaly_detection": torch.is_anomaly_enabled(),
        "dynamo_disabled": compiler.switched_off(),
        "environment": _environment("TORCH", "ATEN_"),
    }


_IRRELEVANT = re.compile(r"_(DIR|HOME|HOST|PORT|URL|ID)$|KEY|TOKEN|SECRET|PASSWORD")
"""Names of variables that say where something is kept or whose it is. No result depends on them."""


def _environment(*prefixes: str) -> dict[str, str]:
    """The environment variables whose names begin with one of `prefixes`, sorted; `(path)` stands for a path."""
    return {
        name: "(path)" if "/" in value or "\\" in value else value
        for name, value in sorted(os.environ.items())
        if name.startswith(prefixes) and not _IRRELEVANT.search(name)
    }


def _preloaded() -> list[str]:
    paths = os.environ.get("LD_PRELOAD", "") + ":" + os.environ.get("DYLD_INSERT_LIBRARIES", "")
    return [PurePosixPath(p).name for p in re.split(r"[:\s]+", paths) if p]


def _loaded_libraries() -> set[str]:
    """File names of the shared libraries in this process, as far as the system tells."""
    maps = text_in(system.PROC / "self/maps") or ""
    return {line.rsplit("/", 1)[1] for line in maps.splitlines() if "/" in line} | set(_preloaded())


def _allocator(libraries: Iterable[str]) -> str | None:
    for name in sorted(libraries):
        if found := re.match(r"lib(jemalloc|tcmalloc|mimalloc)", name):
            return found[1]
    return answer(lambda: platform.libc_ver()[0]) or None


def _flushes_denormals() -> bool:
    smallest = torch.ones(1, dtype=torch.int32).view(torch.float32)  # 2⁻¹⁴⁹
    return smallest.mul(1.0).view(torch.int32).item() == 0  # compares bits: a comparison of floats would flush as well


def _first_group(pattern: str, text: str) -> str | None:
    """What the first group of `pattern` matches in `text`; None without a match."""
    match = re.search(pattern, text, re.MULTILINE)
    return match[1] if match else None
