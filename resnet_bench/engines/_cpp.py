"""The C++ of the engine `fast`: compiled where it runs, and kept from one process to the next."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

from resnet_bench import compiler

FOLDER = Path(__file__).parent


@functools.cache
def library(name: str) -> ctypes.CDLL:
    """A C++ file of this folder behind `_vectors.cpp`, compiled for this CPU.

    Inductor compiles it, with the options and in the folder that it has for its own code. Its threads are torch's.

    Args:
        name: e.g. `_layer.cpp`.

    Raises:
        UserError: where it cannot be compiled here.
    """
    from torch._inductor.codecache import CppCodeCache

    source = "".join((FOLDER / file).read_text("utf-8") for file in ("_vectors.cpp", name))
    # Inductor keeps a product and a sum apart, so that both round as in eager mode; here they are one instruction.
    try:
        return CppCodeCache.load(source, extra_flags=("-ffp-contract=fast",))  # type: ignore[no-any-return]
    except Exception as error:
        if reason := compiler.explained(error):
            raise reason from None
        raise
