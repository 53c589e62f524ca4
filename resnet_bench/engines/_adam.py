"""Adam for some rows of a large weight, whose gradient is never stored; computed by `_adam.cpp`."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from resnet_bench.engines._cpp import call

PART_COLUMNS = 2048
"""Columns of a row that one thread updates at a time."""


class _Step(ctypes.Structure):
    """The fields of `Step` in `_adam.cpp`, in its order; `rest1` and `rest2` are 1 - β₁ and 1 - β₂."""

    _fields_ = tuple(
        (name, ctypes.c_float)
        for name in (
            "beta1", "beta2", "rest1", "rest2", "eps", "step_size", "correction", "highest_step_size", "smallest"
        )
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
    """One step of Adam (D. Kingma and J. Ba, 2015), in place, for rows whose gradient is units[:, rows].T @ columns.

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
    step_size, root = correction.tolist()
    highest, smallest = limits.tolist() if limits is not None else (0.0, 0.0)
    count, width = (len(weight) if rows is None else len(rows)), weight.shape[1]
    units, columns = units.contiguous(), columns.contiguous()
    moved = torch.empty(count, -(-width // PART_COLUMNS), dtype=torch.bool) if limits is not None else None
    step = _Step(*betas, 1 - betas[0], 1 - betas[1], eps, step_size, root, highest, smallest)
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
