"""Model of the least time of a training step: its traffic and its arithmetic at the rates measured on the machine."""

from __future__ import annotations

from dataclasses import dataclass

from resnet_bench.architectures import Architecture, convolutions, plain_parameter_count
from resnet_bench.machine.rates import STATE_BYTES, Calibration

READ_BYTES = 4
"""Bytes that the forward pass moves for one parameter: it reads the value."""

UPDATE_BYTES = 2 * STATE_BYTES
"""Bytes that the update moves for one parameter: it reads and writes the value and two moments."""


@dataclass(frozen=True)
class Bound:
    """The model of the least time of one training step, and its parts.

    Attributes:
        bytes_moved: bytes of parameters and moments that are read or written.
        operations: FLOP of the convolutions.
        fc_operations: FLOP of the FC layers.
        memory_seconds: what moving `bytes_moved` takes.
        arithmetic_seconds: what `operations` take.
        fc_arithmetic_seconds: what `fc_operations` take.
    """

    bytes_moved: float
    operations: int
    fc_operations: float
    memory_seconds: float
    arithmetic_seconds: float
    fc_arithmetic_seconds: float

    @property
    def seconds(self) -> float:
        """`arithmetic_seconds + max(memory_seconds, fc_arithmetic_seconds)`.

        The convolutions do not overlap with the traffic of the FC layers: every core computes them before the FC layers
        in the forward pass, and after them in the backward pass. Within the FC layers the arithmetic overlaps with the
        traffic, and at small batches the traffic takes longer.
        """
        return self.arithmetic_seconds + max(self.memory_seconds, self.fc_arithmetic_seconds)


def _parameter_count(architecture: Architecture, num_classes: int) -> int:
    if architecture.attention is None:
        return plain_parameter_count(architecture, num_classes)
    from resnet_bench.networks import parameter_count  # here, because it imports torch, which takes seconds

    return parameter_count(architecture, num_classes)


def step_bound(
    architecture: Architecture,
    batch_size: int,
    calibration: Calibration,
    num_classes: int,
    read_parameters: float | None = None,
    updated_parameters: float | None = None,
) -> Bound:
    """Model of the least time that a training step with Adam in float32 takes on the calibrated machine.

    The model counts, at the rates measured at the networks' own sizes:

    - memory: the forward pass reads each parameter (4 bytes), and the update reads and writes its value and two moments
      (24 bytes). This assumes the best organisation known: the gradient of a weight is formed inside the update and
      never stored, and the same pass over the weight computes the gradient of the layer's input. A step that stores the
      gradient moves at least 8 bytes more for each parameter. Activations are not counted: at small batches they stay
      in the caches.
    - arithmetic: of each convolution the forward pass, the input gradient (which the stem does not need) and the weight
      gradient, all at the rate of the forward pass, which is the fastest of the three; of the FC layers the same three
      matrix products, at the rate of the square matrix product. Batch norm, ReLU, attention, loss and the arithmetic
      of Adam are not counted.

    It is a model and no bound: a step can still be faster, for two reasons. Some of the parameters and moments, up to
    the size of the L3 cache, may stay in the cache from one step to the next, which the calibration does not see. And
    an engine may compute a convolution in another way than torch, or with fewer operations than its definition has
    (Winograd). The rates of the convolutions are those at batch size 4, whatever `batch_size` is.

    Args:
        architecture: the network.
        batch_size: images in a step.
        calibration: of the machine; for what a process measured, that of the same minutes (`calibration.Sampler`).
        num_classes: outputs of the network.
        read_parameters: parameters that the forward pass of the mean step reads; it need not read those that only meet
            zeros. None stands for all.
        updated_parameters: parameters that the update of the mean step goes over; it need not visit those that it
            leaves as they are. None stands for all.

    Raises:
        UserError: where the calibration lacks a rate.
    """
    parameters = _parameter_count(architecture, num_classes)
    read = parameters if read_parameters is None else read_parameters
    updated = parameters if updated_parameters is None else updated_parameters
    working_set = READ_BYTES * read + (STATE_BYTES - READ_BYTES) * updated
    memory_seconds = READ_BYTES * read / calibration.bandwidth("read", working_set)
    memory_seconds += UPDATE_BYTES * updated / calibration.bandwidth("update", working_set)

    operations, arithmetic_seconds = 0, 0.0
    for position, convolution in enumerate(convolutions(architecture)):
        passes = 3 if position else 2
        work = passes * 2 * batch_size * convolution.multiply_accumulates
        operations += work
        arithmetic_seconds += work / calibration.convolution_rate(convolution)

    fc_parameters = sum(i * o for i, o in architecture.fc_shapes(num_classes))
    # Parameters that are not read or not updated belong to the FC layers.
    fc_read, fc_updated = (max(0.0, fc_parameters - parameters + p) for p in (read, updated))
    fc_operations = 2 * batch_size * (fc_read + 2 * fc_updated)
    return Bound(
        bytes_moved=READ_BYTES * read + UPDATE_BYTES * updated,
        operations=operations,
        fc_operations=fc_operations,
        memory_seconds=memory_seconds,
        arithmetic_seconds=arithmetic_seconds,
        fc_arithmetic_seconds=fc_operations / calibration.by_size("gemm")[-1].median,
    )
