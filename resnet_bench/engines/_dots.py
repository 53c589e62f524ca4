"""Products of a batch with a large weight, or with some of its rows without copying them, computed by `_dots.cpp`."""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_bench.engines._cpp import call

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
    arguments = weight, weight.stride(0), rows, count, x, len(x), columns, out, torch.get_num_threads()
    call("_dots.cpp", function, *arguments)
    return out
