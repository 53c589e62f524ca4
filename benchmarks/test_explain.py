"""Where a step's time goes, from the paper's step to the engine `fast`, one change at a time."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_bench import architectures, progress
from resnet_bench.measure.ablation import explain
from resnet_bench.session.replay import replay
from resnet_bench.session.suite import Suite
from resnet_bench.session.terminal import user_errors


@pytest.mark.benchmark(group="explain", timer=replay)
def test_explain(explained: str, suite: Suite, benchmark: Any) -> None:
    """Rounds are the step times of the plain variant; the others, block by block too, are in `extra_info`."""
    v = suite.values
    with suite.shown(), user_errors(), progress.task("explaining steps"):
        result = explain(
            architectures.get(explained),
            suite.dataset,
            suite.recipe,
            seed=v["seed"],
            workers=v["workers"],
            threads=v["threads"],
            time_limit=suite.settings.plan.time_limit,
        )
    suite.record(benchmark, result, result.variants[0].block_seconds)
