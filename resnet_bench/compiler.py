"""`torch.compile` and the C++ compiler that it calls: whether they work here, and where compiled code is kept.

The modules with which torch compiles take seconds to import. They are imported only where something is to be compiled.
"""

from __future__ import annotations

import functools
import getpass
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from resnet_bench.errors import UserError
from resnet_bench.folders import cache_folder

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""The environment variable that names the folder of compiled code."""

SWITCHES = (
    "TORCHDYNAMO_DISABLE",
    "TORCH_COMPILE_DISABLE",
    "TORCH_COMPILE_OVERRIDE_BACKENDS",
    "TORCHINDUCTOR_LITE_MODE",
)
"""Environment variables that keep torch from compiling anything, or most of it."""

WAY_OUT = "or take --engine reference, which runs without"
"""The end of every message: what a user can do who has no compiler."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, compiled as a whole in its first call for the shapes of the arguments.

    A copy of the function is compiled, because Dynamo stores compiled code by code object and keeps only a limited
    number for each. The copy runs without the guards that would check shapes and dtypes in every call, so the caller
    must pass tensors of one shape only.

    Args:
        function: a plain function of tensors.

    Raises:
        Exception: any of torch's, in the first call, where the function cannot be compiled. It never runs uncompiled.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    unguarded: dict[str, Any] = {"guard_filter_fn": lambda guards: [False] * len(guards)}
    return torch.compile(copy, fullgraph=True, dynamic=False, options=unguarded)


# ---------------------------------------------------------------------------------------------------------------------
# Whether they work


def require() -> None:
    """Compile and run a tiny function, once in a process, to find out whether compiling works here.

    Nothing less would tell: a compiler that prints its version may still lack its headers, and a setting may have torch
    run the function without compiling it. The trial costs little, because every later compilation needs what torch
    prepares for it.

    Raises:
        UserError: where it does not work.
    """
    if reason := _trial():
        raise UserError(reason)


@functools.cache
def _trial() -> str | None:
    """Why nothing can be compiled here, in one sentence; None where it can."""
    try:
        _name_user()
        _keep()
        _prepare()
        from torch._inductor import metrics

        before = metrics.generated_kernel_count  # counts those found in the cache too
        with torch.no_grad():
            compiled(_scaled)(torch.ones(64), _mark())
        return None if metrics.generated_kernel_count > before else _left_uncompiled()
    except UserError as error:
        return str(error)
    except Exception as error:
        if reason := explained(error):
            return str(reason)
        return _left_uncompiled() if switched_off() else str(_failure(error))


def _name_user() -> None:
    """Give a user without a name, as in many containers, a number for one: torch 2.12 asks for it."""
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid()) if hasattr(os, "getuid") else "user"


def _prepare() -> None:
    # Where CUDA's tools are installed but no device is there, torch would print a warning in the middle of the output.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch._inductor import config

    # torch compiles headers once for all functions, in the temporary folder and with the help of openssl, which a
    # container may lack. Where that would fail, it is switched off, and compiling takes half as long again.
    if not (_one_word(tempfile.gettempdir()) and shutil.which("openssl")):
        config.cpp_cache_precompile_headers = False


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x * factor


def _mark() -> float:
    """A number that depends on the compiler: with another one, the trial does not take its code from the cache."""
    program = shutil.which(_command()[0]) if _command() else None
    stat = os.stat(program) if program else None
    identity = (program, stat and stat.st_size, stat and stat.st_mtime_ns)
    return 1 + int.from_bytes(hashlib.sha256(repr(identity).encode()).digest()[:4], "little") / 2**32


def _left_uncompiled() -> str:
    found = [f"{name}={os.environ[name]}" for name in SWITCHES if os.environ.get(name, "0") not in ("", "0")]
    setting = f"{' and '.join(found)} in the environment" if found else "A setting of this process"
    return (
        f"{setting} keeps torch.compile from compiling, which the engines fast and fast-bf16 need; undo that, "
        f"{WAY_OUT}."
    )


def switched_off() -> bool:
    """Whether a setting has `torch.compile` leave functions uncompiled. This does not import torch's compiler."""
    dynamo = sys.modules.get("torch._dynamo.config")
    disabled = dynamo.disable if dynamo else os.environ.get("TORCH_COMPILE_DISABLE") == "1"
    return bool(disabled) or os.environ.get("TORCHDYNAMO_DISABLE") == "1"


def explained(error: Exception) -> UserError | None:
    """The message for a user about a failed compilation; None where the surroundings are not to blame."""
    from torch._inductor import exc

    for cause in _causes(error):
        # torch 2.12 runs a program without a name where it finds no compiler
        not_run = isinstance(cause, OSError) and cause.filename in ("", *_command()[:1])
        if not_run or isinstance(cause, exc.InvalidCxxCompiler):
            return UserError(_no_compiler())
        if isinstance(cause, exc.CppCompileError):
            return UserError(
                f"The C++ compiler {shlex.join(_command())} cannot compile what the engines fast and fast-bf16 need: "
                f"{_first_error(cause.output)}; repair it, name another one in CXX, {WAY_OUT}."
            )
        if isinstance(cause, OSError):
            return _failure(cause)
    return None


def _failure(error: BaseException) -> UserError:
    cause = list(_causes(error))[-1]
    said = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return UserError(
        f"torch cannot compile with the C++ compiler {shlex.join(_command())}, as the engines fast and fast-bf16 need: "
        f"{said.rstrip('.')}; mend that, {WAY_OUT}."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors that caused it, the outermost first."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = getattr(error, "inner_exception", None) or error.__cause__  # Dynamo and Inductor set the former


def _first_error(output: str) -> str:
    """The line of a compiler's output that says what is wrong; warnings and «included from» lines are passed over."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wrong = (line for line in lines if re.search(r"\berror\b|cannot find|undefined reference", line, re.IGNORECASE))
    return next(wrong, lines[0] if lines else "it says nothing").rstrip(".;")


# ---------------------------------------------------------------------------------------------------------------------
# The C++ compiler


def _command() -> list[str]:
    """The compiler and its first arguments, since `CXX` may hold `ccache g++`; empty where `CXX` is malformed."""
    named = os.environ.get("CXX")
    if platform.system() == "Windows":
        return [named or "cl"]
    try:
        return shlex.split(named if named is not None else "clang++" if platform.system() == "Darwin" else "g++")
    except ValueError:  # a quotation mark that is never closed
        return []


def _no_compiler() -> str:
    if "CXX" in os.environ:
        return (
            f"The environment variable CXX names {os.environ['CXX']!r}, which is no C++ compiler that can be run here; "
            f"correct it, unset it, {WAY_OUT}."
        )
    return (
        "The engines fast and fast-bf16 need a C++ compiler and found none: install g++ (Linux; Fedora calls it "
        f"gcc-c++) or the Xcode command line tools (macOS), {WAY_OUT}."
    )


@functools.cache
def cxx_version() -> str | None:
    """The first line that the C++ compiler prints for `--version`; None where there is no compiler."""
    command = _command()
    program = shutil.which(command[0]) if command else None
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:], "--version"], capture_output=True, timeout=5, check=True)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    line = (done.stdout.decode(errors="replace").splitlines() or [""])[0].replace(program, "").strip()
    return line or None


# ---------------------------------------------------------------------------------------------------------------------
# Where compiled code is kept


def _keep() -> None:
    """Choose the folder in which this and later processes find compiled code.

    It is the one that the environment names, else one in the platform's cache folder. Where that cannot be used, it is
    torch's own in the temporary folder, and a line on stderr says so.

    Raises:
        UserError: where the folder that the environment names cannot be used, or no folder can.
    """
    named, default = os.environ.get(CACHE_VARIABLE), _torchs_folder()
    if named and Path(named) != default:  # torch sets the variable to its own folder, even when torchvision is imported
        if problem := _unusable(Path(named)):
            raise UserError(f"{problem}; name another folder for compiled code in {CACHE_VARIABLE}, {WAY_OUT}.")
        return
    folder = cache_folder()
    problem = _unusable(folder / "inductor") if folder else "this user has no home folder"
    if folder and not problem:
        from torch._inductor import codecache

        os.environ[CACHE_VARIABLE] = str(folder / "inductor")
        # torch would keep compiled headers in the temporary folder, wherever it keeps the rest, and would compile them
        # again after a restart even if nothing needs them.
        codecache._HEADER_DIR = str(folder / "inductor" / "precompiled_headers")
        codecache._HEADER_LOCK_DIR = os.path.join(codecache._HEADER_DIR, "locks")
    elif worse := _unusable(default):
        raise UserError(
            f"Compiled code can be kept nowhere: {problem}, and {worse}; name another folder in {CACHE_VARIABLE}, "
            f"{WAY_OUT}."
        )
    else:
        os.environ[CACHE_VARIABLE] = str(default)
        print(
            f"resnet_bench: compiled code is kept in {default} only, because {problem}; {CACHE_VARIABLE} may name "
            "another folder",
            file=sys.stderr,
        )


def _torchs_folder() -> Path:
    """Where torch keeps compiled code by default: in the temporary folder, which a restart empties."""
    try:
        from torch._inductor.runtime.cache_dir_utils import default_cache_dir

        return Path(default_cache_dir())
    except Exception:  # the function is private, and in older versions it fails for a user without a name
        return Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def _unusable(folder: Path) -> str | None:
    """Why compiled code cannot be kept in `folder`; None where it can. Creates the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"{folder} cannot be written ({error.strerror})"
    if not _one_word(str(folder)):
        return f"{folder} has a space or a quotation mark in its path, at which torch cuts the compiler's arguments"
    if hasattr(os, "ST_NOEXEC") and os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return f"{folder} is on a file system that is mounted noexec"
    return None


def _one_word(text: str) -> bool:
    """Whether a POSIX shell reads `text` as one word, unchanged; always true on other systems."""
    if os.name != "posix":
        return True
    try:
        return shlex.split(text) == [text]
    except ValueError:
        return False
