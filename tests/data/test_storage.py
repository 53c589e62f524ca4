"""The data folder."""

from __future__ import annotations

import pytest

from resnet_bench.data import storage


def test_the_data_folder_is_the_platforms_cache_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESNET_BENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert storage.data_folder().name == "resnet_bench"
