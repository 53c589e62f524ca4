from __future__ import annotations

import pytest

from resnet_bench.reconstruction import Reconstruction
from tests.reconstruction.modules import reconstruct_once


@pytest.fixture(scope="session")
def found() -> Reconstruction:
    return reconstruct_once()
