"""Which hidden units certainly answer 0, told from an 8-bit copy of their weights: a quarter of the bytes to read.

Once most units of a hidden layer rest (see `_units.py`), reading all their weights in every step, only to find that
they answer 0 again, would cost more than anything else that is done with them. The copy says so too, for all but those
that come close to an answer. The result does not depend on it: a unit is left out only where not even the largest error
that the copy can make (see `CoarseCopy`) would let it answer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 127
COLUMN_MULTIPLE = 64
"""The columns are made up to a multiple of so many: with others, torch's product reads beyond the end of the weight."""

BYTES = 1 / 4  # of a copied weight, by those of a float32 one


class CoarseCopy:
    """Rows of a weight [units, columns] in 8 bits, each with a scale of its own.

    Let w be a row, q its copy and s its scale; x an input, none negative, x' the same in bfloat16, and |x| the sum of
    its elements. What torch's product for 8-bit weights (`_weight_int8pack_mm`, a private one) gives, s·Σ q·x', differs
    from the Σ w·x that is computed in float32 by no more than

    - s/2 · |x| for the rounding of w to s·q (and a little for the division's own rounding);
    - 127·s · 2⁻⁸ · |x| for that of x, since |q| ≤ 127, and x' has 8 significant bits;
    - 127·s · n·2⁻²⁴ · |x| for each of the two sums of n terms in float32, in whichever order, as |w| ≤ 127·s;
    - 2⁻⁸ of itself, for its own rounding to bfloat16,

    n·2⁻²⁴ of the bias, where that goes into the sum, and for each term the smallest normal number, below which rounding
    is not relative. (N. Higham, Accuracy and Stability of Numerical Algorithms, sections 2.1 and 3.1, for these and the
    error of a sum.) What is no number makes the bound none, and then no unit is left out.

    Attributes:
        quantized: int8 [units, padded columns]; 0 where nothing was copied yet.
        scale: bfloat16 [units], at least 1/127 of the row's largest magnitude.
    """

    def __init__(self, units: int, columns: int) -> None:
        self.quantized = torch.zeros(units, -(-columns // COLUMN_MULTIPLE) * COLUMN_MULTIPLE, dtype=torch.int8)
        self.scale = torch.zeros(units, dtype=torch.bfloat16)

    def copy(self, rows: Tensor, weight: Tensor) -> None:
        """Copy `rows`, int64 [rows], of `weight`, float32 [units, columns]."""
        values = weight[rows]
        # Rounding to bfloat16 takes off less than the factor adds. A row of zeros needs a scale to be divided by.
        largest = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * LEVELS)
        self.scale[rows] = (largest / LEVELS * (1 + torch.finfo(torch.bfloat16).eps)).bfloat16()
        self.quantized[rows, : values.shape[1]] = (values / self.scale[rows, None]).round().to(torch.int8)

    def may_answer(self, x: Tensor, bias: Tensor) -> Tensor:
        """Bool [units]: False for those that answer no image of the batch behind a ReLU, computed in float32.

        Args:
            x: inputs, float32 [batch, columns], none negative.
            bias: float32 [units].
        """
        scale, columns = self.scale.double(), self.quantized.shape[1]
        padded = F.pad(x.bfloat16(), (0, columns - x.shape[1]))
        coarse = torch._weight_int8pack_mm(padded, self.quantized, self.scale).double()
        unit, coarse_unit = (torch.finfo(dtype).eps / 2 for dtype in (torch.float32, torch.bfloat16))
        rounding = (columns + 2) * unit * 1.01  # of a sum; the factor for products of small numbers
        share = 0.501 + LEVELS * (coarse_unit + 2 * (1 + coarse_unit) * rounding)
        error = scale * x.sum(1, keepdim=True, dtype=torch.float64) * share
        error += 1.01 * coarse_unit * coarse.abs() + rounding * bias.abs()
        error += 2 * columns * torch.finfo(torch.float32).tiny * (1 + LEVELS * scale)
        return ~(coarse + error + bias < 0).all(0)
