"""`fast` with the convolutions in bfloat16: about half their time on CPUs that have the instructions, other numerics.

As with autocast, inputs and weights of the convolutions are rounded to bfloat16 (8 bits of precision, not 24); products
are still added up in float32. Weights, batch-norm statistics, FC layers and Adam stay float32.
"""

from __future__ import annotations

import torch

from resnet_bench.engines import fast
from resnet_bench.errors import UserError

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "sve_bf16")
"""Any of these, as `torch.cpu.get_capabilities` names them, multiplies bfloat16 numbers in hardware."""


class Engine(fast.Engine):
    name = "fast-bf16"
    float32_equivalent = False
    convolution_dtype = torch.bfloat16

    @classmethod
    def require(cls) -> None:
        capabilities = torch.cpu.get_capabilities()
        if not any(capabilities.get(name, False) for name in INSTRUCTIONS):
            raise UserError(
                "This CPU has no bfloat16 instructions, which --engine fast-bf16 needs; take --engine fast."
            )
        super().require()
