"""An 8-bit copy of a hidden layer's weight, which tells that most resting units are idle at a quarter of the reading.

Once most units of a hidden layer rest (see `_units.py`), a step would spend most of its time on them with reading all
their weights, only to find that they are idle again. The copy shows the same for nearly all of them. It never decides
wrongly: a unit counts as idle only if its activation would be 0 even with the largest error that the copy can make (see
`CoarseCopy`). All other units are computed from their float32 weights, so activations do not depend on the copy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from resnet_bench.engines import _dots

LEVELS = 127
"""Largest magnitude of a copied weight."""

RELATIVE_SIZE = 1 / 4
"""Bytes of a copied weight for each byte of a float32 one."""


class CoarseCopy:
    """Rows of a weight [units, columns] in 8 bits, each row with a scale of its own.

    Let w be a row, q its copy and s its scale; x an input, none of whose n elements is negative, and |x| the sum of the
    elements of x. The copy gives s·Σ q·x. The unit's own product in float32 is Σ w·x. The two differ by no more than
    the sum of

    - s/2 · |x|, because w is rounded to s·q (and a little more, because the division that gives q rounds too);
    - 127·s · n·2⁻²⁴ · |x| for each of the two sums of n terms in float32, in whichever order, because |w| ≤ 127·s;
    - n·2⁻²⁴ of the bias, which is added last;
    - the smallest normal number for each term, because below it rounding errors are not relative.

    For the errors of rounding and of a sum see N. Higham, Accuracy and Stability of Numerical Algorithms (2002),
    sections 2.1 and 3.1. That the compiled sums are sums in float32, rounded to nearest, is tried before the first of
    them (`_dots.require`).

    If a weight, an input or the bias is infinite or NaN, so is the bound. The comparison that would show the unit to be
    idle is then false, and the unit is computed in float32. So it is where either sum could become larger than any
    float32 number.

    Attributes:
        quantized: int8 [units, columns]; 0 in rows that were not copied yet.
        scale: float32 [units], at least 1/127 of the largest magnitude in the row.
    """

    def __init__(self, units: int, columns: int) -> None:
        self.quantized = torch.zeros(units, columns, dtype=torch.int8)
        self.scale = torch.zeros(units)

    def copy(self, rows: Tensor, weight: Tensor) -> None:
        """Copy some rows of a weight.

        Args:
            rows: int64 [rows].
            weight: float32 [units, columns].
        """
        values = weight[rows]
        # A row of zeros still needs a scale that it can be divided by.
        largest = values.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * LEVELS)
        # The factor makes the scale larger by more than rounding can make it smaller.
        self.scale[rows] = largest / LEVELS * (1 + 4 * torch.finfo(torch.float32).eps)
        self.quantized[rows] = (values / self.scale[rows, None]).round().to(torch.int8)

    def may_be_live(self, x: Tensor, bias: Tensor) -> Tensor:
        """Which units may be live: bool [units], False only for units that are idle for certain.

        Args:
            x: inputs, float32 [batch, columns], none negative.
            bias: float32 [units].
        """
        scale, columns = self.scale.double(), self.quantized.shape[1]
        coarse = _dots.products(x, self.quantized).double() * scale
        of_sum = (columns + 2) * torch.finfo(torch.float32).eps / 2 * 1.01  # the factor covers second-order terms
        share = 0.501 + LEVELS * 2 * of_sum
        total = x.sum(1, keepdim=True, dtype=torch.float64)
        error = scale * total * share + of_sum * bias.abs()
        error += 2 * columns * torch.finfo(torch.float32).tiny * (1 + LEVELS * scale)
        finite = LEVELS * 1.01 * total * scale.clamp(min=1) < torch.finfo(torch.float32).max  # both sums, rounded too
        return ~((coarse + error + bias < 0) & finite).all(0)
