"""An empty data folder for every test, so that none sees the user's."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It does not exist yet."""
    monkeypatch.setenv("RESNET_BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"
