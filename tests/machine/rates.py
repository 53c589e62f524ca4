"""Measurements and calibrations made up for the tests."""

from __future__ import annotations

from typing import Literal

from resnet_bench.machine import Calibration, Measurement
from resnet_bench.machine.rates import Quantity


def made_up(
    unit: Literal["bytes/s", "FLOP/s"] = "bytes/s",
    quantity: Quantity = "update",
    size: int = 1,
    median: float = 100.0,
    spread: float = 1.0,
) -> Measurement:
    return Measurement(
        quantity=quantity, unit=unit, size=size, median=median, low=median - spread, high=median + spread, samples=9
    )


def calibration(threads: int = 2, **measurements: Measurement) -> Calibration:
    return Calibration(threads=threads, seconds=1.0, measurements=measurements)
