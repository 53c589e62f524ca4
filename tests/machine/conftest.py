from __future__ import annotations

from pathlib import Path

import pytest

from resnet_bench import machine
from resnet_bench.machine import Calibration, calibration, system


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `proc` and `sys` replace the system's; empty at first."""
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")
    monkeypatch.setattr(system, "SYS", tmp_path / "sys")
    return tmp_path


@pytest.fixture(scope="session")
def measured() -> Calibration:
    """A real calibration, of few and short samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "ROUNDS", 3)
        patch.setattr(calibration, "MIN_ROUNDS", 3)
        patch.setattr(calibration, "SAMPLE_SECONDS", 1e-5)
        return machine.calibrate(1)
