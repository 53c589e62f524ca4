"""Test accuracy after every epoch, networks interleaved by epoch."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_bench.session.items import Case
from resnet_bench.session.replay import replay
from resnet_bench.session.suite import Suite


@pytest.mark.benchmark(group="accuracy", timer=replay)
def test_accuracy(architecture: str, engine: str, suite: Suite, benchmark: Any, request: pytest.FixtureRequest) -> None:
    """Each round is the training time of one epoch; accuracies and losses are in `extra_info`."""
    training = suite.accuracy(request, Case(architecture, engine))
    suite.record(benchmark, training.result(), [e.train_seconds for e in training.results])
