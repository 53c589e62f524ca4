"""The size of each network; building it is what is timed."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_bench import architectures, identity, networks, paper
from resnet_bench.schema import ParametersResult
from resnet_bench.session.suite import Suite


@pytest.mark.benchmark(group="parameters")
def test_parameters(architecture: str, suite: Suite, benchmark: Any) -> None:
    """The exact count for 100 classes rounds to the published one."""
    described, published = architectures.get(architecture), paper.PUBLISHED.get(architecture)
    started_at = identity.now()
    network = benchmark.pedantic(networks.ResidualNetwork, args=(described, 100), rounds=5, warmup_rounds=1)
    count = sum(p.numel() for p in network.parameters())
    result = ParametersResult(
        **identity.origin(started_at),
        architecture=architecture,
        parameters=count,
        num_classes=100,
        fc_parameters=architectures.fc_parameter_count(described, 100),
        multiply_accumulates=networks.multiply_accumulates(described, 100),
        published_parameters=published.parameters if published else None,
    )
    benchmark.extra_info.update(result.model_dump(mode="json"))
    suite.write_down(benchmark.fullname, benchmark.group, result, benchmark.stats.stats.data if benchmark.stats else [])
    if published and published.parameters:
        assert architectures.millions(count) == published.parameters
