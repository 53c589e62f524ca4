"""The C++ of the engine `fast`: compiled where it runs, and kept from one process to the next."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_bench import compiler
from resnet_bench.compiled_functions import this_cpu

FOLDER = Path(__file__).parent

Argument = Tensor | int | float | ctypes.Structure | ctypes.Array[Any] | None


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """A C++ file of this folder behind `_vectors.cpp`, compiled for this CPU.

    Inductor compiles it, with the options and in the folder that it has for its own code. Its threads are torch's. A
    first line names the CPU, because machines that share the folder must not share the code.

    Args:
        name: e.g. `_layer.cpp`.

    Raises:
        UserError: where it cannot be compiled here.
    """
    from torch._inductor.codecache import CppCodeCache

    source = f"// for {this_cpu()}\n" + "".join((FOLDER / file).read_text("utf-8") for file in ("_vectors.cpp", name))
    # Inductor keeps a product and a sum apart, so that both round as in eager mode; here they are one instruction.
    try:
        return CppCodeCache.load(source, extra_flags=("-ffp-contract=fast",))  # type: ignore[no-any-return]
    except Exception as error:
        if reason := compiler.explained(error):
            raise reason from None
        raise


def call(name: str, function: str, *arguments: Argument) -> None:
    """Call a function of a C++ file with pointers to tensors, structures and arrays, 64-bit integers and 32-bit floats.

    Raises:
        UserError: as `library`.
    """
    getattr(library(name), function)(*map(_converted, arguments))


def _converted(argument: Argument) -> Any:
    if isinstance(argument, Tensor):
        assert argument.dtype != torch.int64 or argument.is_contiguous()  # no function takes the stride of indices
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, (ctypes.Structure, ctypes.Array)):
        return ctypes.byref(argument)
    if argument is None:
        return None
    return ctypes.c_int64(argument) if isinstance(argument, int) else ctypes.c_float(argument)
