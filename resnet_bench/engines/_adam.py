"""Adam (D. Kingma and J. Ba, 2015), computed by `_adam.cpp` in one pass over weights and moments."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from resnet_bench.engines._cpp import call

PART_COLUMNS = 2048
"""Columns of a row that one thread updates at a time."""

State = tuple[Tensor, Tensor, Tensor]
"""A parameter and its first and second moment, of one shape and in the same order in memory."""


class _Step(ctypes.Structure):
    """The fields of `Step` in `_adam.cpp`, in its order; `rest1` and `rest2` are 1 - β₁ and 1 - β₂."""

    _fields_ = tuple(
        (name, ctypes.c_float)
        for name in (
            "beta1", "beta2", "rest1", "rest2", "eps", "step_size", "correction", "highest_step_size", "smallest"
        )
    )  # fmt: skip

    @classmethod
    def of(cls, correction: Tensor, betas: tuple[float, float], eps: float, limits: Tensor | None = None) -> _Step:
        highest, smallest = limits.tolist() if limits is not None else (0.0, 0.0)
        return cls(*betas, 1 - betas[0], 1 - betas[1], eps, *correction.tolist(), highest, smallest)


class Parameters:
    """Parameters that one call updates as a whole; neither they nor their moments may be given other memory."""

    def __init__(self, states: Sequence[State]) -> None:
        """`states` are float32."""
        self.states = states
        # the fields of `Parameter` in `_adam.cpp`, in its order
        fields = [(p.data_ptr(), m.data_ptr(), v.data_ptr(), p.numel()) for p, m, v in states]
        self._fields = (ctypes.c_int64 * (4 * len(fields)))(*chain.from_iterable(fields))
        self._memory: dict[int, Tensor] = {}

    def memory(self, i: int) -> Tensor:
        """Memory for a gradient of the i-th parameter, the same in every step; fresh pages would cost more than it."""
        if i not in self._memory:
            self._memory[i] = torch.empty_like(self.states[i][0])
        return self._memory[i]

    def update(
        self, gradients: Sequence[Tensor | None], correction: Tensor, betas: tuple[float, float], eps: float
    ) -> None:
        """One step of Adam, in place; its formula is that of `_units.adam`.

        Args:
            gradients: of the parameters, of their shapes, in any order in memory; None leaves a parameter out.
            correction: [2], of `_units.adam_correction`.
            betas, eps: Adam's.
        """
        ordered = [
            g if g is None or g.stride() == p.stride() else torch.empty_like(p).copy_(g)
            for (p, _, _), g in zip(self.states, gradients, strict=True)
        ]  # keeps the copies alive
        addresses = (ctypes.c_void_p * len(ordered))(*(None if g is None else g.data_ptr() for g in ordered))
        step = _Step.of(correction, betas, eps)
        call(
            "_adam.cpp", "update_parameters", self._fields, addresses, len(ordered), step, torch.get_num_threads()
        )  # fmt: skip


def update_rows(
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    rows: Tensor | None,
    units: Tensor,
    columns: Tensor,
    correction: Tensor,
    betas: tuple[float, float],
    eps: float,
    limits: Tensor | None = None,
) -> Tensor | None:
    """One step of Adam, in place, for rows of a large weight; their gradient is units[:, rows].T @ columns.

    Its formula is that of `_units.adam`, and the numbers of a row do not depend on which other rows there are.

    Args:
        weight, exp_avg, exp_avg_sq: float32 [units, columns], in this order in memory.
        rows: int64 [rows], each once; None for all.
        units: float32 [batch, units].
        columns: float32 [batch, columns].
        correction: [2], of `_units.adam_correction`.
        betas, eps: Adam's.
        limits: [2], of `_units.resting_limits`.

    Returns:
        bool [rows], where limits are given: whether `_units.may_move` holds for an element of the row.
    """
    count, width = (len(weight) if rows is None else len(rows)), weight.shape[1]
    units, columns = units.contiguous(), columns.contiguous()
    moved = torch.empty(count, -(-width // PART_COLUMNS), dtype=torch.bool) if limits is not None else None
    step = _Step.of(correction, betas, eps, limits)
    call(
        "_adam.cpp", "update_rows", weight, exp_avg, exp_avg_sq, rows, count, width, units, units.shape[1], columns,
        len(columns), step, PART_COLUMNS, moved, torch.get_num_threads(),
    )  # fmt: skip
    return None if moved is None else moved.any(1)


def decay_rows(moment: Tensor, rows: Tensor, factor: float, times: int) -> None:
    """Multiply some rows of a moment by a factor so many times, in place, and round each time, as idle steps would.

    Args:
        moment: float32 [units, columns], in this order in memory.
        rows: int64 [rows], each once.
    """
    call("_adam.cpp", "decay_rows", moment, rows, len(rows), moment.shape[1], factor, times, torch.get_num_threads())
