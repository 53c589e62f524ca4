"""Products of a batch with a large weight, or with some of its rows without copying them, computed by `_dots.cpp`."""

from __future__ import annotations

import ctypes
import functools

import torch
from torch import Tensor

from resnet_bench import compiler
from resnet_bench.engines._cpp import call, library
from resnet_bench.errors import UserError

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

    Raises:
        UserError: where what was compiled computes something else.
    """
    require()
    return _products(x, weight, rows, torch.get_num_threads())


def combinations(x: Tensor, weight: Tensor, rows: Tensor | None = None) -> Tensor:
    """x @ weight[rows], added up in float32 in the order of the rows.

    Args:
        x: float32 [batch, rows].
        weight: float32 [units, columns], in this order in memory.
        rows: int64 [rows]; None for all.

    Returns:
        float32 [batch, columns].

    Raises:
        UserError: as `products`.
    """
    require()
    count = len(weight) if rows is None else len(rows)
    assert x.shape[1] == count
    columns = weight.shape[1]
    out = x.new_empty(len(x), columns)
    return _called("combinations", x, weight, rows, count, out, columns, torch.get_num_threads())


def _products(x: Tensor, weight: Tensor, rows: Tensor | None, threads: int) -> Tensor:
    count = len(weight) if rows is None else len(rows)
    assert weight.shape[1] >= x.shape[1]
    return _called(_PRODUCTS[weight.dtype], x, weight, rows, count, x.new_empty(len(x), count), x.shape[1], threads)


def _called(
    function: str, x: Tensor, weight: Tensor, rows: Tensor | None, count: int, out: Tensor, columns: int, threads: int
) -> Tensor:
    assert x.dtype == torch.float32
    assert weight.stride(1) == 1
    x = x.contiguous()
    call("_dots.cpp", function, weight, weight.stride(0), rows, count, x, len(x), columns, out, threads)
    return out


# ---------------------------------------------------------------------------------------------------------------------
# Whether the products are what others rely on


def require() -> None:
    """`UserError` where the compiled products are not those that `products` promises; tried once in a process."""
    if fault := _fault(library("_dots.cpp")):
        raise UserError(
            f"What the C++ compiler made of _dots.cpp {fault}, so that --engine fast could leave out units that are "
            f"not idle; name another compiler in CXX, {compiler.WAY_OUT}."
        )


@functools.cache
def _fault(loaded: ctypes.CDLL) -> str | None:
    """What the compiled products do wrong; None where they do all that others rely on. It takes about a millisecond.

    `_coarse.py` calls units idle by a bound of the error of sums in float32 that are rounded to the nearest number.
    Whether a unit rests changes no activation because a row's sum has the same bits whichever others are computed. A
    compiler's options or its faults may undo either, and only the code that it made can tell.

    Args:
        loaded: the library that is tried.
    """
    images, units, columns = 5, 6, 61  # leave a rest in each loop of `_dots.cpp`, for every width of vectors
    image, unit, column = torch.arange(images), torch.arange(units), torch.arange(columns)
    # Whole numbers whose products add up to less than 2²⁴, in whichever order. float32 has all of these numbers and no
    # type with fewer digits has them, so the sums have to be exact.
    weight = (31 * unit[:, None] + 89 * column) % 255 - 127
    weight[:, 13 * image] = 1
    x = (67 * image[:, None] + 53 * column) % 1001
    x[image, 13 * image] = 2**23 + 1
    exact = (x @ weight.t()).float()
    # Sums of two terms, two of them halfway between two numbers.
    terms, factors = torch.tensor([[2.0**24, 0.5], [2.0**24, 1.0]]), torch.tensor([[1, 1], [1, 3]])
    nearest = 2.0**24 + torch.tensor([[0.0, 2.0], [0.0, 4.0]])
    # Sums that are rounded at each term, and so show in which order the terms are added.
    fractions = (53 * column + 67 * image[:, None]).float() / 7
    some = torch.tensor([5, 0, 2])
    for dtype in _PRODUCTS:
        if not torch.equal(_products(x.float(), weight.to(dtype), None, 1), exact):
            return "gives other sums than float32 does"
        if not torch.equal(_products(terms, factors.to(dtype), None, 1), nearest):
            return "does not round sums to the nearest number"
        whole = _products(fractions, weight.to(dtype), None, 1)
        if not torch.equal(_products(fractions, weight.to(dtype), some, torch.get_num_threads()), whole[:, some]):
            return "gives rows other bits than the whole product has"
    return None
