"""The C++ of `fast` for every width of vectors that it is written for, not only for this CPU's widest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from torch._inductor import config, cpu_vec_isa

from resnet_bench.engines import _cpp
from tests.conftest import has_compiler

FILES = ("_layer.cpp", "_dots.cpp", "_adam.cpp")
NO_VECTORS = 1  # of Inductor's settings; `_vectors.cpp` then takes vectors of 128 bits, which every CPU has


@pytest.fixture(scope="module", params=["widest", "AVX2", "128 bits"])
def vectors(request: pytest.FixtureRequest) -> Iterator[None]:
    """What Inductor compiles besides is as ever."""
    if not has_compiler:
        pytest.skip("no compiler")
    bits = {"widest": None, "AVX2": 256, "128 bits": NO_VECTORS}[request.param]
    widths = [isa.bit_width() for isa in cpu_vec_isa.valid_vec_isa_list()]
    if bits == 256 and (bits not in widths or bits == max(widths)):
        pytest.skip("this CPU has no wider vectors than AVX2, or not these")
    _cpp.library.cache_clear()
    with config.patch({"cpp.simdlen": bits}):
        for file in FILES:
            _cpp.library(file)
    yield
    _cpp.library.cache_clear()
