"""How much of a ratio of times the calibrations of the two machines predict."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resnet_bench.analysis.comparison.networks import Network
from resnet_bench.analysis.comparison.times import Ratio
from resnet_bench.errors import UserError
from resnet_bench.schema import EpochTimeResult, Interval

if TYPE_CHECKING:
    from resnet_bench.machine import Bound, Calibration

DOMINANCE = 4
"""One resource explains a prediction where its effect is more than this many times the other's, on the log scale."""


@dataclass(frozen=True)
class Explanation:
    """A ratio of times as a product of two factors.

    Attributes:
        expected: the ratio that the calibrations predict: of the least times that a step can take on each machine.
        resource: what accounts for most of that prediction, e.g. `memory bandwidth`.
        unexplained: the measured ratio over the expected one; its interval is that of the measurement alone.
    """

    expected: float
    resource: str
    unexplained: Ratio


def explain(
    network: Network, time: Ratio, calibrations: tuple[Calibration | None, Calibration | None]
) -> Explanation | None:
    """Explain `time`, the ratio of times of `network`; None where it has no interval or a calibration is missing.

    Args:
        network: that of BASE. The bounds on both machines are those of its steps.
        calibrations: of the machine of BASE and of that of OTHER, at the start of each run.
    """
    base, other = (_bound(network, calibration) for calibration in calibrations)
    measured = time.interval
    if base is None or other is None or measured is None:
        return None
    expected = other.seconds / base.seconds
    unexplained = Interval(
        estimate=measured.estimate / expected,
        low=measured.low / expected,
        high=measured.high / expected,
        method=measured.method,
    )
    return Explanation(expected, _resource(base, other), Ratio(unexplained))


def _resource(base: Bound, other: Bound) -> str:
    """What accounts for most of the predicted change: the change of the bound if only that resource had changed."""
    only_memory = replace(base, memory_seconds=other.memory_seconds)
    effects = {
        "memory bandwidth": abs(math.log(only_memory.seconds / base.seconds)),
        "arithmetic rate": abs(math.log(other.seconds / only_memory.seconds)),
    }
    less, more = sorted(effects, key=effects.__getitem__)
    return more if effects[more] > DOMINANCE * effects[less] else "memory bandwidth and arithmetic rate"


def _bound(network: Network, calibration: Calibration | None) -> Bound | None:
    """The least time of a step of `network` on a machine; None where the file does not tell enough."""
    run = network.times[0]
    batch_size, classes = run.recipe.get("batch_size"), run.dataset.classes
    if calibration is None or not isinstance(batch_size, int) or not 0 < batch_size <= 10**6 or classes > 10**6:
        return None
    counts = (run.read_parameters, run.updated_parameters) if isinstance(run, EpochTimeResult) else ()
    from resnet_bench import architectures, machine  # they import torch

    try:
        bound = machine.step_bound(architectures.get(network.architecture), batch_size, calibration, classes, *counts)
    except UserError:  # a network of another version, or a calibration that lacks a rate
        return None
    return bound if 1e-12 < bound.seconds < 1e12 else None
