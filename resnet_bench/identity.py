"""On which machine, with which software and with which code a result was measured.

A description (`describe`) is saved with every result. Together they answer five questions:

- which machine: vendor, family, model, stepping, instruction sets, caches, usable cores, memory (`machine_of`);
- which software: torch and its libraries, compiler, allocator, operating system, thread settings (`software_of`);
- which code: version, commit and a digest of the package's sources (`code_of`);
- which session and which process: random ids;
- when: the time at which the measurement began.

The answers decide which results may be pooled or compared. The name of the CPU model alone does not identify a machine:
clouds call several generations of CPUs `AMD EPYC`. What a file does not tell is None. It is never guessed, and None
equals nothing but None.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from resnet_bench import __version__

PACKAGE = Path(__file__).resolve().parent
SESSION_VARIABLE = "RESNET_BENCH_SESSION"
"""Environment variable in which a session passes its id on to the processes that it starts."""

JOBS_VARIABLE = "RESNET_BENCH_JOBS"
"""Environment variable that tells a training how many, with itself, run side by side on the machine."""

PROCESS = secrets.token_hex(8)
"""This process's random id."""

SETS_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables that set only the number of threads. Each result holds the number that it was measured with."""

ALWAYS_COUNTS = ("cpu_model", "physical_cores", "logical_cores", "cpu_quota")
"""Keys that tell two machines apart even where one of the two descriptions lacks them."""

NO_OTHER_MACHINE = ("usable_cores", "memory_gib", "memory_limit_gib")
"""Keys in which machines of one kind may differ, though times compare: see `same_machine`."""

SPEED_ONLY = ("allocator_settings", "transparent_hugepages", "governor", "turbo")
"""Software settings that change how long a training takes, but no bit of its weights."""


@functools.cache
def session() -> str:
    """The random id of this session, 16 hexadecimal digits: what the starting process passed on, else a new one."""
    given = os.environ.get(SESSION_VARIABLE, "")
    return given if re.fullmatch(r"[0-9a-f]{16}", given) else secrets.token_hex(8)


def jobs() -> int:
    """How many trainings run side by side, this one included, as far as the process that started it says."""
    given = os.environ.get(JOBS_VARIABLE, "")
    return int(given) if re.fullmatch(r"[1-9]\d{0,5}", given) else 1


def now() -> str:
    """The present time, UTC, ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def origin(started_at: str, process: str = PROCESS) -> dict[str, Any]:
    """The keys of a result that say which process measured it, and when it began (as `now` writes it)."""
    return {"process": process, "started_at": started_at}


def describe() -> dict[str, Any]:
    """`resnet_bench.machine.describe`, with `code` and `session` added; ready for JSON."""
    from resnet_bench import machine  # imports torch, which is not needed to read files

    return {**machine.describe(), "code": code(), "session": session()}


# ---------------------------------------------------------------------------------------------------------------------
# Code


@functools.cache
def code() -> dict[str, Any]:
    """Which code runs.

    `version` is the package's and `sha256` the digest of its sources. `commit`, and `dirty` (whether tracked files
    differ from it), are None outside a checkout.
    """
    commit = _git("rev-parse", "HEAD") if _in_checkout() else None
    changed = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "version": __version__,
        "commit": commit,
        "dirty": None if changed is None else bool(changed),
        "sha256": sources_sha256(PACKAGE),
    }


def sources_sha256(package: Path, within: tuple[str, ...] = ("",)) -> str:
    """SHA-256 over the names and texts of a package's Python, C++ and template files, in hexadecimal.

    Only files count whose name within the package begins with one of `within`: a file or, with a `/`, a folder.

    The benchmarks do not count: a wheel has them inside the package and a checkout beside it, and both get the same
    digest.
    """
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*"), key=lambda p: p.relative_to(package).as_posix()):
        name = path.relative_to(package).as_posix()
        if path.suffix in (".cpp", ".jinja", ".py") and name.startswith(within) and not name.startswith("benchmarks/"):
            text = path.read_bytes().replace(b"\r\n", b"\n")  # git may check files out with either line end
            digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


def _in_checkout() -> bool:
    """Whether git tracks this package. It does not track a package that is installed below another checkout."""
    return _git("ls-files", "--error-unmatch", str(PACKAGE / "__init__.py")) is not None


def _git(*arguments: str) -> str | None:
    """What git prints, stripped; None where it is missing or fails."""
    printed = git(*arguments)
    return None if printed is None else printed.decode(errors="replace").strip()  # a message may be in any encoding


def git(*arguments: str) -> bytes | None:
    """What git prints in the folder of this package's checkout; None where it is missing or fails."""
    # Within a git hook, these variables point to the hook's repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    command = ["git", "-C", str(PACKAGE.parent), "-c", f"safe.directory={PACKAGE.parent}", *arguments]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=True, env=environment).stdout
    except (OSError, subprocess.SubprocessError):
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Which results may be pooled or compared, as their descriptions decide


def machine_of(description: dict[str, Any]) -> dict[str, Any]:
    """The machine: what stays the same until someone changes its hardware or its limits. Flat; None for unknown.

    Memory is in whole GiB, because each kernel keeps a different small part of it for itself.
    """
    cpu, caches, container = part(description, "cpu"), part(part(description, "cpu"), "caches"), _container(description)
    return {
        "cpu_vendor": cpu.get("vendor"),
        "cpu_family": cpu.get("family"),
        "cpu_model_number": cpu.get("model_number"),
        "cpu_stepping": cpu.get("stepping"),
        "cpu_model": cpu.get("model"),
        "isa": _joined(cpu.get("isa") or None),  # every CPU that torch runs on has some
        "l1d_bytes": caches.get("L1d"),
        "l2_bytes": caches.get("L2"),
        "l3_bytes": caches.get("L3"),
        "physical_cores": cpu.get("physical_cores"),
        "logical_cores": cpu.get("logical_cores"),
        "usable_cores": cpu.get("affinity_cores"),
        "cpu_quota": container.get("cpu_quota"),
        "memory_gib": _gib(description.get("memory_bytes")),
        "memory_limit_gib": _gib(container.get("memory_limit_bytes")),
    }


def software_of(description: dict[str, Any]) -> dict[str, Any]:
    """The software: versions and settings that change results or times. Flat; None for unknown.

    The number of threads is not among them: each result has it among its own settings.
    """
    torch, threads, allocator = (part(description, key) for key in ("torch", "threads", "allocator"))
    tuning = part(allocator, "environment")
    environment = {**part(threads, "environment"), **part(description, "environment")}
    chosen = {k: v for k, v in environment.items() if k not in SETS_THREADS and k not in tuning}
    return {
        "torch": torch.get("version"),
        "torchvision": torch.get("torchvision"),
        "onednn": torch.get("onednn"),
        "mkl": torch.get("mkl"),
        "torch_build": _text(torch.get("build")),
        "torch_compiler": torch.get("compiler"),
        "torch_isa": part(description, "cpu").get("torch_isa"),
        "cxx": torch.get("cxx"),
        "openmp": _joined(threads.get("openmp")),
        "interop_threads": threads.get("interop"),
        "allocator": allocator.get("name"),
        "preload": _joined(allocator.get("preload")),
        "allocator_settings": _settings(tuning) if "environment" in allocator else None,
        "environment": _settings(chosen) if "environment" in threads else None,
        "torch_settings": _text(torch.get("settings")),
        "flush_denormal": description.get("flush_denormal"),
        "python": description.get("python"),
        "libc": description.get("libc"),
        "os": _os(description.get("os")),
        "transparent_hugepages": description.get("transparent_hugepages"),
        "governor": description.get("governor"),
        "turbo": description.get("turbo"),
    }


def code_of(description: dict[str, Any]) -> dict[str, Any]:
    """The code. Flat; None for unknown. Results with one digest came from the same sources, whatever the commit."""
    code = part(description, "code")
    return {f"code_{key}": code.get(key) for key in ("version", "commit", "dirty", "sha256")}


def flat(description: dict[str, Any]) -> dict[str, Any]:
    """Machine, software and code in one flat dict."""
    return {**machine_of(description), **software_of(description), **code_of(description)}


def key(description: dict[str, Any]) -> str:
    """A digest that is equal for descriptions of one kind of machine with the same software and the same code.

    The `SPEED_ONLY` settings may differ, since they change nothing but times; `speed_key` holds them.
    """
    software = {k: v for k, v in software_of(description).items() if k not in SPEED_ONLY}
    return digest({**machine_of(description), **software, "code": part(description, "code").get("sha256")})


def speed_key(description: dict[str, Any]) -> str:
    """A digest of the `SPEED_ONLY` settings: times compare only where it is equal too."""
    software = software_of(description)
    return digest({k: software[k] for k in SPEED_ONLY})


def digest(values: dict[str, Any]) -> str:
    """A short digest of a flat dict: 12 hexadecimal digits, equal for equal values in any order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:12]


def part(description: dict[str, Any], key: str) -> dict[str, Any]:
    """The dict under a key; an empty one where the file has nothing there, or no dict."""
    found = description.get(key)
    return found if isinstance(found, dict) else {}


def _container(description: dict[str, Any]) -> dict[str, Any]:
    return part(description, "container")


def _settings(environment: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in sorted(environment.items())) or "none"


def _gib(count: object) -> int | None:
    return round(count / 2**30) if isinstance(count, int) and 0 <= count < 2**80 else None


def _joined(names: object) -> str | None:
    return (" ".join(map(str, names)) or "none") if isinstance(names, list) else None


def _text(value: object) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True, default=str)


def _os(text: object) -> str | None:
    """`Linux 6.8.0 x86_64`: the release without the distributor's build number, such as `-45-generic`."""
    return None if text is None else re.sub(r"(\d+\.\d+(?:\.\d+)?)\S*", r"\1", str(text), count=1)


def same_machine(base: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two descriptions are of one kind of machine, so that their times compare.

    Machines of unknown model are never of one kind. Memory does not count, since more of it makes no step faster. Nor
    does it count how many of its cores a machine gave to the process. Keys that older files lack (all but
    `ALWAYS_COUNTS`) count only where both descriptions have them.
    """
    mine, theirs = machine_of(base), machine_of(other)
    model = mine["cpu_model"]
    if not isinstance(model, str) or model.strip().lower() in ("", "unknown"):
        return False
    told = [k for k in mine if k not in NO_OTHER_MACHINE and (k in ALWAYS_COUNTS or (mine[k] and theirs[k]))]
    return all(mine[k] == theirs[k] for k in told)
