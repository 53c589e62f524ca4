"""Seconds for a training epoch, networks interleaved in rounds."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_bench.pytest_plugin import Run, Suite, replay


@pytest.mark.benchmark(group="epoch time", timer=replay)
def test_epoch_time(
    architecture: str, engine: str, mode: str, suite: Suite, benchmark: Any, request: pytest.FixtureRequest
) -> None:
    """Each round is one block of steps, extrapolated to an epoch; in mode `full`, one whole epoch."""
    result, seconds = suite.epoch_time(request, Run(architecture, engine, mode))
    suite.record(benchmark, result, seconds)
