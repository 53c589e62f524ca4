"""The C++ compiler that torch.compile calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnet_bench import compiler


def test_a_compilers_version_in_another_encoding_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler may answer in the user's language, in Latin-1."""
    program = tmp_path / "c++"
    program.write_bytes(b"#!/bin/sh\nprintf 'g++ (f\\374r alle) 14.2\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    assert compiler.cxx_version.__wrapped__() == "g++ (f\ufffdr alle) 14.2"
