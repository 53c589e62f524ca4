"""The machine with its measured rates, as `resnet-bench machine` prints it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.machine import Calibration, DenormalCosts, Measurement, step_bound
from resnet_bench.machine.denormals import DenormalCost
from resnet_bench.recipe import Recipe
from resnet_bench.render.table import Table

NUM_CLASSES = 100  # the study's; bounds are for so many classes


def as_json(description: dict[str, Any], calibration: Calibration, denormals: DenormalCosts) -> str:
    """The description with its calibration, as `machine_info` of a benchmark has them; bounds in seconds; denormals."""
    measured = {
        "calibration": {"start": calibration.model_dump(mode="json")},
        "step_bound_seconds": {name: bound.seconds for name, bound in _bounds(calibration).items()},
        "denormals": denormals.model_dump(mode="json"),
    }
    return json.dumps({**description, **measured}, indent=2)


def tables(description: dict[str, Any], calibration: Calibration, denormals: DenormalCosts) -> list[Table]:
    """The description; measured memory bandwidth and arithmetic rate; the least time of a step; cost of denormals."""
    how = (
        f"Median and quartiles of interleaved samples, threads: {calibration.threads}, measured in "
        f"{calibration.seconds:.1f} s"
    )
    memory = [[name, *_rate(m)] for name, m in calibration.measurements.items() if m.unit == "bytes/s"]
    arithmetic = [
        [name, f"{m.size / 1e6:,.1f}", *_rate(m)] for name, m in calibration.measurements.items() if m.unit == "FLOP/s"
    ]
    bounds = [
        [
            name,
            f"{b.bytes_moved / 1e6:,.0f}",
            f"{b.memory_seconds * 1e3:.2f}",
            f"{(b.operations + b.fc_operations) / 1e6:,.0f}",
            f"{b.arithmetic_seconds * 1e3:.2f}",
            f"{b.seconds * 1e3:.2f}",
        ]
        for name, b in _bounds(calibration).items()
    ]
    return [
        Table("Machine", ["what", "value"], [list(row) for row in _flat(description)]),
        Table(
            "Memory bandwidth",
            ["pattern and working set", "GB/s", "quartiles"],
            memory,
            f"{how}.",
            ["read: sum of a tensor; update: parameters and two moments read and written; first touch: fresh pages."],
        ),
        Table(
            "Float32 arithmetic rate",
            ["operation", "MFLOP/call", "GFLOP/s", "quartiles"],
            arithmetic,
            f"{how}; convolutions: forward pass at the paper's batch size.",
        ),
        Table(
            "Least time of a training step",
            ["network", "MB moved", "memory ms", "MFLOP", "convolutions ms", "step ms"],
            bounds,
            f"From the rates above, for {NUM_CLASSES} classes and batch size {Recipe().batch_size}, where every "
            "parameter is read and updated.",
        ),
        _denormals(denormals),
    ]


def _denormals(costs: DenormalCosts) -> Table:
    """A row for each work and what of it is denormal: how many times as long it takes, with them kept and flushed."""
    rows = []
    for kept in (c for c in costs.costs if not c.flushed):
        flushed = costs.cost(kept.work, kept.denormal, True)
        row = [kept.work, kept.denormal, f"{kept.ordinary_seconds * 1e3:.4g}", *_times(kept)]
        rows.append([*row, *(_times(flushed) if flushed else ("", ""))])
    caption = (
        "Times as long as with ordinary numbers: median and quartiles over "
        f"{max(c.samples for c in costs.costs)} interleaved rounds, measured in {costs.seconds:.1f} s. Operations: "
        f"{costs.numbers:,} float32, 1 thread. Steps: one layer of {costs.parameters:,} weights without a gradient, "
        f"threads: {costs.threads}."
    )
    columns = ["work", "denormal", "ordinary ms", "times as long", "quartiles", "flushed: times as long", "quartiles"]
    return Table("Cost of denormal numbers", columns, rows, caption, [_cost_of_a_step(costs)])


def _times(cost: DenormalCost) -> list[str]:
    return [f"{cost.median:.2f}", f"{cost.low:.2f} to {cost.high:.2f}"]


def _cost_of_a_step(costs: DenormalCosts) -> str:
    """How much longer a step of default Adam takes once the moments of idle units are denormal."""
    second, both = (costs.cost("default Adam", which, False) for which in ("second moments", "both moments"))
    flushed = costs.cost("default Adam", "both moments", True)
    if not second or not both:
        return ""
    text = (
        f"A step of default Adam takes {second.median:.2f} times as long here once the second moments of all weights "
        "are denormal, as those of idle units become some 67,000 steps after their last gradient "
        f"(docs/denormals.md); with both moments denormal {both.median:.2f} times"
    )
    return f"{text}, and {flushed.median:.2f} where they are flushed to 0." if flushed else f"{text}."


def _bounds(calibration: Calibration) -> dict[str, Any]:
    batch_size = Recipe().batch_size
    return {a.id: step_bound(a, batch_size, calibration, NUM_CLASSES) for a in ARCHITECTURES.values()}


def _rate(m: Measurement) -> list[str]:
    return [f"{m.median / 1e9:,.1f}", f"{m.low / 1e9:,.1f} to {m.high / 1e9:,.1f}"]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """`{"cpu": {"model": "X"}}` → `("cpu model", "X")`; what is unknown or empty is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} {key}".strip())
    elif isinstance(value, list):
        if value:
            yield name, textwrap.fill(" ".join(map(str, value)), 72)
    elif isinstance(value, bool):
        yield name, "yes" if value else "no"
    elif isinstance(value, int) and (name.endswith("bytes") or " caches " in name):
        yield name.removesuffix("_bytes"), f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**10:,.0f} KiB"
    elif value is not None:
        yield name, str(value)
