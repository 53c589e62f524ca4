"""Compiled functions, kept on disk from one process to the next.

`torch.compile` keeps the C++ code that it has compiled, but it traces each function anew in every process, which takes
seconds a network: more than all that a short measurement then does. Here the traced function is kept too, by torch's
own ahead-of-time compilation, and a later process loads it in milliseconds. It is the same code, with the same bits.

The functions run without the guards that would notice that something differs from what was compiled. So whatever
may decide about the code is in the name of its file: the package's sources, torch and its settings, the CPU, the C++
compiler, the shapes and strides of all tensors, and everything else that the function is called with. What cannot be
described so is not kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resnet_bench import compiler, identity, machine
from resnet_bench.files import atomic_write

FOLDER = "functions"
"""Within the folder for compiled code."""

KEPT_SECONDS = 30 * 24 * 3600.0
"""What was made by other software or other code is deleted when nothing has loaded it for so long."""

SOURCES = (
    "architectures.py", "attention/", "compiled_functions.py", "compiler.py", "engines/", "networks.py",
)  # fmt: skip
"""The files and folders of this package that decide what is compiled."""

SETTINGS = ("CXX", "CXXFLAGS", "CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH")
"""Environment variables that the C++ compiler reads, beside those that begin with `TORCH` or `ATEN`."""

_CONSTANTS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.memory_format)


class _Indescribable(Exception):
    """Something may decide about the code and has no description that is the same in every process."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, as `compiler.compiled` compiles it, or as an earlier process has kept it.

    Args:
        function: a plain function of tensors, called with positional arguments.

    Raises:
        Exception: any of torch's, in the first call, where the function cannot be compiled. Where it cannot be kept,
            nothing is raised.
    """
    ready: Callable[..., Any] | None = None

    def call(*arguments: Any) -> Any:
        nonlocal ready
        if ready is None:
            ready = _ready(function, arguments)
        return ready(*arguments)

    return call


def _ready(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Callable[..., Any]:
    """The function, compiled for such arguments: loaded, or compiled and kept."""
    lazily = compiler.compiled(function)
    path = None if compiler.switched_off() else _path(function, arguments)
    if path is None or not hasattr(lazily, "aot_compile"):
        return lazily
    if loaded := _loaded(path):
        return loaded
    ahead = lazily.aot_compile((arguments, {}))
    with contextlib.suppress(Exception):  # the disk may be full, or torch cannot write the function down
        content = type(ahead).serialize(ahead).serialized_data
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        _delete_old(path.parent)
    return ahead.fn  # type: ignore[no-any-return]


def _loaded(path: Path) -> Callable[..., Any] | None:
    """The function that a file holds; None where there is no file or something is wrong with it."""
    from torch._dynamo.aot_compile import AOTCompiledFunction

    with contextlib.suppress(Exception):
        content = path.read_bytes()
        digest, content = content[:32], content[32:]
        if hashlib.sha256(content).digest() == digest:
            function = AOTCompiledFunction.deserialize(content).fn
            os.utime(path.parent)
            return function
    return None


def _delete_old(used: Path) -> None:
    for folder in used.parent.iterdir():
        if folder != used and time.time() - folder.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------------------
# Names of files


def _path(function: Callable[..., Any], arguments: Sequence[Any]) -> Path | None:
    """Where a function, compiled for such arguments, is kept; None where it cannot be."""
    try:
        _require_own(function)
        described = "\n".join(
            [*_state(), function.__qualname__, repr(function.__defaults__), *_Description().of(arguments)]
        )
    except _Indescribable:
        return None
    folder = os.environ.get(compiler.CACHE_VARIABLE)  # `compiler.require` has chosen it
    return Path(folder) / FOLDER / _surroundings() / f"{function.__name__}-{_digest(described)}" if folder else None


@functools.cache
def _surroundings() -> str:
    """A digest of what stays the same for as long as a process runs: code, torch, CPU and Python."""
    parts = [
        identity.sources_sha256(identity.PACKAGE, SOURCES),
        *(torch.__version__, str(torch.version.git_version), torch.__config__.show(), sys.version),
        this_cpu(),
    ]
    return _digest("\n".join(parts))


@functools.cache
def this_cpu() -> str:
    """What tells this CPU, and the instructions that torch uses of it, from others, in one line."""
    cpu = machine.describe()["cpu"]
    told = (f"{name} {cpu[name]}" for name in ("vendor", "family", "model_number", "stepping", "isa"))
    return " ".join([*told, torch.backends.cpu.get_cpu_capability()])


def _state() -> Iterator[str]:
    """What of torch's settings and of the C++ compiler may decide about the code."""
    from torch._dynamo import config as dynamo
    from torch._functorch import config as functorch
    from torch._inductor import config as inductor

    for settings in (dynamo, functorch, inductor):
        for name, value in sorted(settings.save_config_portable().items()):  # type: ignore[attr-defined]
            if isinstance(value, _CONSTANTS) and not (isinstance(value, str) and os.sep in value):  # a folder
                yield f"{name}={value!r}"
    yield f"{compiler.cxx_version()} {torch.get_num_threads()} {torch.get_default_dtype()} {torch.is_grad_enabled()}"
    yield f"{torch.are_deterministic_algorithms_enabled()} {torch.get_float32_matmul_precision()}"
    yield f"{torch.backends.mkldnn.enabled} {torch.is_autocast_enabled('cpu')}"  # type: ignore[attr-defined]
    for name, value in sorted(os.environ.items()):
        if name in SETTINGS or name.startswith(("TORCH", "ATEN")):
            yield f"{name}={value}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _require_own(thing: Any) -> None:
    """Raise `_Indescribable` for a function or class that is neither in `SOURCES` nor torch's: no digest covers it."""
    module = f"{thing.__module__.replace('.', '/')}.py"
    ours = module.removeprefix("resnet_bench/").startswith(SOURCES) and module.startswith("resnet_bench/")
    if not (ours or module.startswith("torch/")) or getattr(thing, "__closure__", None):
        raise _Indescribable


class _Description:
    """Describes arguments; tensors in the same memory are told apart from those in memory of their own."""

    def __init__(self) -> None:
        self._memory: dict[int, int] = {}

    def of(self, value: Any) -> Iterator[str]:
        """Lines that are the same in every process."""
        if isinstance(value, Tensor):
            yield self._tensor(value)
        elif isinstance(value, nn.Module):
            yield from self._module(value)
        elif isinstance(value, _CONSTANTS):
            yield repr(value)
        elif isinstance(value, (list, tuple)):
            yield f"{type(value).__name__} {len(value)}"
            for element in value:
                yield from self.of(element)
        elif isinstance(value, dict):
            yield f"dict {len(value)}"
            for key, element in value.items():
                yield repr(key)
                yield from self.of(element)
        elif is_dataclass(value) and not isinstance(value, type):
            yield type(value).__qualname__
            yield from self.of(vars(value))
        else:
            raise _Indescribable

    def _tensor(self, t: Tensor) -> str:
        memory = self._memory.setdefault(t.data_ptr(), len(self._memory))
        return f"{type(t).__name__} {t.dtype} {t.shape} {t.stride()} {t.requires_grad} {memory} {t.storage_offset()}"

    def _module(self, module: nn.Module) -> Iterator[str]:
        _require_own(type(module))
        yield type(module).__qualname__
        tensors = ("_parameters", "_buffers", "_modules")
        for name, value in vars(module).items():
            if name in tensors or not name.startswith("_"):
                yield name
                yield from self.of(value)
