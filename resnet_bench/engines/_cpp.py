"""The C++ of the engine `fast`: compiled where it runs, and kept from one process to the next."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

FOLDER = Path(__file__).parent


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """A C++ file of this folder behind `_vectors.cpp`, compiled for this CPU.

    Inductor compiles it, with the options and in the folder that it has for its own code. Its threads are torch's.

    Args:
        name: e.g. `_layer.cpp`.

    Raises:
        Exception: any of torch's, where it cannot be compiled; `compiler.explained` explains it.
    """
    from torch._inductor.codecache import CppCodeCache

    source = "".join((FOLDER / file).read_text("utf-8") for file in ("_vectors.cpp", name))
    # Inductor keeps a product and a sum apart, so that both round as in eager mode; here they are one instruction.
    compiled: ctypes.CDLL = CppCodeCache.load(source, extra_flags=("-ffp-contract=fast",))
    return compiled
