"""What the harness and its clocks cost, against a bare PyTorch loop over the same batches."""

from __future__ import annotations

import time
from itertools import islice
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from resnet_bench import architectures, identity, networks, progress
from resnet_bench.clock import Clock, NoClock
from resnet_bench.data import pipelines
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.schema import OverheadResult
from resnet_bench.session.replay import replay
from resnet_bench.session.suite import Suite
from resnet_bench.session.terminal import user_errors
from resnet_bench.training.training import Training

STEPS = 64  # a whole chunk of the vectorised pipeline at batch size 4
NETWORK = "conv5x5"  # the shortest step, so the harness's share is largest


@pytest.mark.benchmark(group="overhead", timer=replay)
def test_overhead(suite: Suite, benchmark: Any) -> None:
    """Rounds are blocks of the bare loop; the two ratios are taken block by block, in turn."""
    if not suite.settings.overhead_rounds:
        pytest.skip(f"the profile {suite.settings.profile} leaves out what the harness costs; standard measures it")
    architecture, dataset, recipe, seed = architectures.get(NETWORK), suite.dataset, suite.recipe, suite.values["seed"]
    steps = max(1, min(STEPS, pipelines.steps_per_epoch(dataset, recipe) - 1))

    def bare() -> Any:
        network = networks.build(architecture, dataset.num_classes, seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
        epoch = 0
        while True:
            epoch += 1
            begun = time.perf_counter()
            batches = pipelines.batches("vectorized", dataset, recipe, seed, epoch)
            for images, labels in islice(batches, steps):
                optimizer.zero_grad()
                loss = F.cross_entropy(network(images), labels)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                loss.item()
            yield time.perf_counter() - begun

    def harness(clock: Clock) -> Any:
        training = Training(architecture, dataset, recipe, pipeline="vectorized", seed=seed, clock=clock)
        while True:
            begun = time.perf_counter()
            for _ in range(steps):
                training.train_step()
            yield time.perf_counter() - begun
            training.close_epoch()

    started_at = identity.now()
    loops = [bare(), harness(NoClock()), harness(Clock())]
    times: list[list[float]] = [[], [], []]
    with user_errors(), suite.shown():
        rounds = range(-2, suite.settings.overhead_rounds)  # two to warm up
        for round_ in progress.each(rounds, "measuring the harness", "rounds"):
            turn = round_ % 3  # each loop begins in turn, so that none profits from its place
            for i in [0, 1, 2][turn:] + [0, 1, 2][:turn]:
                seconds = next(loops[i])
                if round_ >= 0:
                    times[i].append(seconds)

    def ratio(a: int, b: int) -> Any:
        return positive_mean_interval([x / y for x, y in zip(times[a], times[b], strict=True)])

    result = OverheadResult(
        **identity.origin(started_at),
        architecture=NETWORK,
        engine="reference",
        steps=steps,
        bare_seconds=tuple(times[0]),
        harness_seconds=tuple(times[1]),
        clocks_seconds=tuple(times[2]),
        harness_over_bare=ratio(1, 0),
        clocks_over_harness=ratio(2, 1),
    )
    suite.record(benchmark, result, times[0])
    suite.say(f"harness / bare loop {_shown(result.harness_over_bare)}")
    suite.say(f"clocks on / clocks off {_shown(result.clocks_over_harness)}")


def _shown(interval: Any) -> str:
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
