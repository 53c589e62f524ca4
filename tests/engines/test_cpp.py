"""How the C++ of `fast` is compiled and called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._inductor import codecache

from resnet_bench.engines import _cpp


def test_cpus_that_share_a_folder_do_not_share_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled with `-march=native`; torch names a file by its text and the command alone."""
    compiled: list[str] = []
    monkeypatch.setattr(codecache.CppCodeCache, "load", lambda source, **_: compiled.append(source))
    for cpu in ("one", "other"):
        monkeypatch.setattr(_cpp, "this_cpu", lambda cpu=cpu: cpu)
        _cpp.library.__wrapped__("_adam.cpp")
    assert compiled[0] != compiled[1]
    assert compiled[0].splitlines()[1:] == compiled[1].splitlines()[1:]


def test_indices_must_lie_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function gets no stride of them; with one it would read others."""
    called: list[tuple[Any, ...]] = []

    class Library:
        def function(self, *arguments: Any) -> None:
            called.append(arguments)

    monkeypatch.setattr(_cpp, "library", lambda name: Library())
    rows = torch.arange(8)
    _cpp.call("any.cpp", "function", rows, 3, 0.5, None)
    assert (called[0][0].value, called[0][1].value, called[0][2].value, called[0][3]) == (rows.data_ptr(), 3, 0.5, None)
    with pytest.raises(AssertionError):
        _cpp.call("any.cpp", "function", rows[::2])
