"""Test accuracy after every epoch, networks interleaved by epoch."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_bench.pytest_plugin import Run, Suite, replay


@pytest.mark.benchmark(group="accuracy", timer=replay)
def test_accuracy(architecture: str, engine: str, suite: Suite, benchmark: Any, request: pytest.FixtureRequest) -> None:
    """Each round is the training time of one epoch; accuracies and losses are in `extra_info`."""
    training = suite.accuracy(request, Run(architecture, engine))
    suite.record(benchmark, training.result(), [e.train_seconds for e in training.results])
