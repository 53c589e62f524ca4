"""An 8-bit copy of a hidden layer's weight, which tells that most resting units are idle at a quarter of the reading.

Once most units of a hidden layer rest (see `_units.py`), a step would spend most of its time on them with reading all
their weights, only to find that they are idle again. The copy shows the same for nearly all of them. It never decides
wrongly: a unit counts as idle only if its activation would be 0 even with the largest error that the copy can make (see
`CoarseCopy`). All other units are computed from their float32 weights, so activations do not depend on the copy.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 127
"""Largest magnitude of a copied weight."""

COLUMN_MULTIPLE = 64
"""Columns are padded to a multiple of this many: with other numbers, torch's product reads beyond the weight's end."""

RELATIVE_SIZE = 1 / 4
"""Bytes of a copied weight for each byte of a float32 one."""


class CoarseCopy:
    """Rows of a weight [units, columns] in 8 bits, each row with a scale of its own.

    Let w be a row, q its copy and s its scale; x an input, none of whose n elements is negative, x' the same rounded to
    bfloat16, and |x| the sum of the elements of x. Torch's product for 8-bit weights (`_weight_int8pack_mm`, which is
    private) gives s·Σ q·x'. The unit's own product in float32 is Σ w·x. The two differ by no more than the sum of

    - s/2 · |x|, because w is rounded to s·q (and a little more, because the division that gives q rounds too);
    - 127·s · 2⁻⁸ · |x|, because x is rounded to x', which has 8 significant bits, and |q| ≤ 127;
    - 127·s · n·2⁻²⁴ · |x| for each of the two sums of n terms in float32, in whichever order, because |w| ≤ 127·s;
    - 2⁻⁸ of the product s·Σ q·x', which is itself rounded to bfloat16;
    - n·2⁻²⁴ of the bias, where the library adds it within the sum;
    - the smallest normal number for each term, because below it rounding errors are not relative.

    For the errors of rounding and of a sum see N. Higham, Accuracy and Stability of Numerical Algorithms (2002),
    sections 2.1 and 3.1. If a weight, an input or the bias is infinite or NaN, so is the bound. The comparison that
    would show the unit to be idle is then false, and the unit is computed in float32.

    Attributes:
        quantized: int8 [units, padded columns]; 0 in rows that were not copied yet.
        scale: bfloat16 [units], at least 1/127 of the largest magnitude in the row.
    """

    def __init__(self, units: int, columns: int) -> None:
        self.quantized = torch.zeros(units, -(-columns // COLUMN_MULTIPLE) * COLUMN_MULTIPLE, dtype=torch.int8)
        self.scale = torch.zeros(units, dtype=torch.bfloat16)

    def copy(self, rows: Tensor, weight: Tensor) -> None:
        """Copy some rows of a weight.

        Args:
            rows: int64 [rows].
            weight: float32 [units, columns].
        """
        values = weight[rows]
        # A row of zeros still needs a scale that it can be divided by.
        largest = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * LEVELS)
        # The factor makes the scale larger by more than rounding to bfloat16 can make it smaller.
        self.scale[rows] = (largest / LEVELS * (1 + torch.finfo(torch.bfloat16).eps)).bfloat16()
        self.quantized[rows, : values.shape[1]] = (values / self.scale[rows, None]).round().to(torch.int8)

    def may_be_live(self, x: Tensor, bias: Tensor) -> Tensor:
        """Which units may be live: bool [units], False only for units that are idle for certain.

        Args:
            x: inputs, float32 [batch, columns], none negative.
            bias: float32 [units].
        """
        scale, columns = self.scale.double(), self.quantized.shape[1]
        padded = F.pad(x.bfloat16(), (0, columns - x.shape[1]))
        coarse = torch._weight_int8pack_mm(padded, self.quantized, self.scale).double()
        roundoff, coarse_roundoff = (torch.finfo(dtype).eps / 2 for dtype in (torch.float32, torch.bfloat16))
        of_sum = (columns + 2) * roundoff * 1.01  # relative error of a sum; the factor covers second-order terms
        share = 0.501 + LEVELS * (coarse_roundoff + 2 * (1 + coarse_roundoff) * of_sum)
        error = scale * x.sum(1, keepdim=True, dtype=torch.float64) * share
        error += 1.01 * coarse_roundoff * coarse.abs() + of_sum * bias.abs()
        error += 2 * columns * torch.finfo(torch.float32).tiny * (1 + LEVELS * scale)
        return ~(coarse + error + bias < 0).all(0)


@functools.cache
def adds_in_float32(batch_size: int, units: int, columns: int, threads: int) -> bool:
    """Whether torch's product for 8-bit weights is as exact as `CoarseCopy` relies on.

    Its result has to be that of sums in float32, rounded once to bfloat16. A library that adds up in bfloat16 or
    float16 would break the bound, and units would be left out that are live. So this tries the product, once in a
    process for given arguments, on numbers that show it: sums of terms of one sign, which are long and grow large, and
    sums of pairs that cancel.
    """
    generator = torch.Generator().manual_seed(0)
    padded = -(-columns // COLUMN_MULTIPLE) * COLUMN_MULTIPLE
    x = torch.rand(batch_size, padded, generator=generator).bfloat16()
    q = torch.randint(-LEVELS, LEVELS + 1, (units, padded), generator=generator, dtype=torch.int8)
    q[::3] = q[::3].abs()
    q[1::3, 1::2] = -q[1::3, ::2]
    found = torch._weight_int8pack_mm(x, q, torch.ones(units, dtype=torch.bfloat16)).double()
    exact = torch.cat([x.double() @ some.double().t() for some in q.split(64)], 1)  # in parts, to take little memory
    roundoff, coarse_roundoff = (torch.finfo(dtype).eps / 2 for dtype in (torch.float32, torch.bfloat16))
    of_sum = LEVELS * padded * roundoff * 1.01 * x.double().sum(1, keepdim=True)
    return bool(((found - exact).abs() <= of_sum + 1.01 * coarse_roundoff * (exact.abs() + of_sum)).all())
