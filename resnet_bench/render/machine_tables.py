"""The machine with its measured rates, as `resnet-bench machine` prints it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.machine import Calibration, Measurement, step_bound
from resnet_bench.recipe import Recipe
from resnet_bench.render.table import Table

NUM_CLASSES = 100  # the study's; bounds are for so many classes


def as_json(description: dict[str, Any], calibration: Calibration) -> str:
    """The description with its calibration, as `machine_info` of a benchmark has them, and the bounds in seconds."""
    bounds = {name: bound.seconds for name, bound in _bounds(calibration).items()}
    calibrations = {"start": calibration.model_dump(mode="json")}
    return json.dumps({**description, "calibration": calibrations, "step_bound_seconds": bounds}, indent=2)


def tables(description: dict[str, Any], calibration: Calibration) -> list[Table]:
    """The description; measured memory bandwidth and arithmetic rate; the least time of a step."""
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
    ]


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
