from __future__ import annotations

import pytest

from resnet_bench import machine
from resnet_bench.machine import Calibration, calibration


@pytest.fixture(scope="session")
def measured() -> Calibration:
    """A real calibration, of few and short samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "ROUNDS", 3)
        patch.setattr(calibration, "SAMPLE_SECONDS", 1e-5)
        return machine.calibrate(1)
