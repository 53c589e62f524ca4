"""Measured rates of a machine as data: what a calibration holds, and what changed between two of them.

`calibration.py` measures them. Reading them needs no torch, whose import takes seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from resnet_bench.architectures import Convolution
from resnet_bench.errors import UserError
from resnet_bench.schema import Model, Seconds

STATE_BYTES = 12
"""Bytes that one parameter has under Adam: its value and two moments, float32."""

DRIFT_LIMIT = 0.10
"""Relative change of a median between start and end of a session beyond which the machine has drifted. On a free
machine the medians of two calibrations in a row mostly agree within 5 %."""

Quantity = Literal["read", "update", "first touch", "gemm", "convolution"]
Positive = Annotated[float, Field(gt=0)]


class Measurement(Model):
    """One measured rate.

    Attributes:
        quantity: what was measured; `Calibration` explains each.
        unit: of `median`, `low` and `high`.
        size: for memory the working set in bytes; for arithmetic the operations of one call, where a
            multiply-accumulate counts as two.
        median, low, high: of the samples, and their lower and upper quartile.
        samples: how many there are.
    """

    quantity: Quantity
    unit: Literal["bytes/s", "FLOP/s"]
    size: Annotated[int, Field(ge=1)]
    median: Positive
    low: Positive
    high: Positive
    samples: Annotated[int, Field(ge=1)]


class Calibration(Model):
    """Measured rates of this machine by name, e.g. `update 98 MB`.

    - `read`: the sum of a tensor; counts bytes read.
    - `update`: three tensors (parameters and two moments) scaled in place; counts bytes read and bytes written.
    - `first touch`: filling memory fresh from the operating system, which has to find and clear each page.
    - `gemm`: a square float32 matrix product.
    - `convolution`: a float32 forward pass at batch size 4, in the faster of torch's two memory layouts.
    """

    schema_version: Literal[1] = 1
    threads: Annotated[int, Field(ge=1)]
    seconds: Seconds  # that measuring took
    measurements: dict[str, Measurement]

    def by_size(self, quantity: Quantity) -> list[Measurement]:
        """All measurements of one quantity, by rising size.

        Raises:
            UserError: where there is none, as in a file made by hand.
        """
        found = sorted((m for m in self.measurements.values() if m.quantity == quantity), key=lambda m: m.size)
        if not found:
            raise UserError(f"The calibration has no measurement of {quantity!r}; measure the machine again.")
        return found

    def bandwidth(self, quantity: Literal["read", "update"], working_set: float) -> float:
        """Bytes/s at the largest measured working set that does not exceed `working_set` (bytes), or at the smallest.

        Bandwidth falls where a cache overflows, so the error is always towards a faster machine.

        Raises:
            UserError: where the quantity was not measured.
        """
        measured = self.by_size(quantity)
        return next((m for m in reversed(measured) if m.size <= working_set), measured[0]).median

    def convolution_rate(self, convolution: Convolution) -> float:
        """FLOP/s of the convolution, or of the fastest one where it was not measured.

        Raises:
            UserError: where no convolution was measured.
        """
        measured = self.measurements.get(convolution_name(convolution))
        return measured.median if measured else max(m.median for m in self.by_size("convolution"))


def convolution_name(c: Convolution) -> str:
    """The name of its measurement, e.g. `conv 64-128 3x3 stride 2 on 16x16`."""
    return (
        f"conv {c.in_channels}-{c.out_channels} {c.kernel_size}x{c.kernel_size} stride {c.stride}"
        f" on {c.input_size}x{c.input_size}"
    )


def drift(start: Calibration, end: Calibration) -> dict[str, float]:
    """Measurements that changed during a session, and by how much: `{"gemm 1024": -0.2}` is 20 % slower at the end.

    A measurement has drifted where its median changed by more than `DRIFT_LIMIT` and the ranges between the quartiles
    do not overlap. The second condition keeps noise out: among some thirty measurements, noise alone would often push
    one beyond the limit.

    Raises:
        ValueError: where the two used different numbers of threads.
    """
    if start.threads != end.threads:
        raise ValueError(f"Calibrations with {start.threads} and {end.threads} threads measure different things.")
    drifted = {}
    for name, before in start.measurements.items():
        after = end.measurements.get(name)
        if after is None:
            continue
        change = after.median / before.median - 1
        apart = after.high < before.low or before.high < after.low
        if abs(change) > DRIFT_LIMIT and apart:
            drifted[name] = change
    return drifted
