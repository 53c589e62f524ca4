"""Seconds for a training epoch, networks interleaved in rounds."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_bench.session.items import Case
from resnet_bench.session.replay import replay
from resnet_bench.session.suite import Suite


@pytest.mark.benchmark(group="epoch time", timer=replay)
def test_epoch_time(
    architecture: str, engine: str, mode: str, suite: Suite, benchmark: Any, request: pytest.FixtureRequest
) -> None:
    """Each round is one block of steps, extrapolated to an epoch; in mode `full`, one whole epoch."""
    result, seconds = suite.epoch_time(request, Case(architecture, engine, mode))
    suite.record(benchmark, result, seconds)
