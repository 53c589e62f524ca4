"""Products of a batch with a large weight, or with some of its rows without copying them, computed by `_dots.cpp`."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from resnet_bench.engines._cpp import library

_PRODUCTS = {torch.float32: "products_float32", torch.int8: "products_int8"}


def products(x: Tensor, weight: Tensor, rows: Tensor | None = None) -> Tensor:
    """x @ weight[rows].T, added up in float32.

    Each number has the same bits whichever rows are asked for and however many threads there are.

    Args:
        x: float32 [batch, columns].
        weight: float32 or int8 [units, columns or more], in this order in memory; what is beyond `columns` is not read.
        rows: int64 [rows]; None for all.

    Returns:
        float32 [batch, rows].
    """
    count = len(weight) if rows is None else len(rows)
    assert weight.shape[1] >= x.shape[1]
    return _called(_PRODUCTS[weight.dtype], x, weight, rows, count, x.new_empty(len(x), count), x.shape[1])


def combinations(x: Tensor, weight: Tensor, rows: Tensor | None = None) -> Tensor:
    """x @ weight[rows], added up in float32 in the order of the rows.

    Args:
        x: float32 [batch, rows].
        weight: float32 [units, columns], in this order in memory.
        rows: int64 [rows]; None for all.

    Returns:
        float32 [batch, columns].
    """
    count = len(weight) if rows is None else len(rows)
    assert x.shape[1] == count
    columns = weight.shape[1]
    return _called("combinations", x, weight, rows, count, x.new_empty(len(x), columns), columns)


def _called(
    function: str, x: Tensor, weight: Tensor, rows: Tensor | None, count: int, out: Tensor, columns: int
) -> Tensor:
    assert x.dtype == torch.float32
    assert weight.stride(1) == 1
    x = x.contiguous()
    pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in (weight, rows, x, out)]
    distance, count_, images, columns_, threads = map(
        ctypes.c_int64, (weight.stride(0), count, len(x), columns, torch.get_num_threads())
    )
    getattr(library("_dots.cpp"), function)(
        pointers[0], distance, pointers[1], count_, pointers[2], images, columns_, pointers[3], threads
    )
    return out
