"""`fast` with the convolutions in bfloat16: about half their time on CPUs that have the instructions, other numerics.

As with autocast, inputs and weights of the convolutions are rounded to bfloat16 (8 bits of precision, not 24); products
are still added up in float32. Weights, batch-norm statistics, FC layers and Adam stay float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from resnet_bench.architectures import Architecture
from resnet_bench.compiled_functions import compiled
from resnet_bench.engines import base, fast
from resnet_bench.engines._features import Convolutions, TorchConvolutions, features, features_backward
from resnet_bench.errors import UserError

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "sve_bf16")
"""Any of these, as `torch.cpu.get_capabilities` names them, multiplies bfloat16 numbers in hardware."""


@functools.cache
def compiled_features(
    convolutions: Architecture, batch_size: int, threads: int, deterministic: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`features` and `features_backward`, which networks share that differ in their FC layers only."""
    return compiled(features), compiled(features_backward)


class Engine(fast.Engine):
    """See the module. oneDNN computes the convolutions; what is around them is compiled with them."""

    name = "fast-bf16"
    float32_equivalent = False

    @classmethod
    def require(cls) -> None:
        capabilities = torch.cpu.get_capabilities()
        if not any(capabilities.get(name, False) for name in INSTRUCTIONS):
            raise UserError(
                "This CPU has no bfloat16 instructions, which --engine fast-bf16 needs; take --engine fast."
            )
        super().require()

    @property
    def threads_compiled_in(self) -> bool:
        return True

    def arrange_kernels(self) -> None:
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(self, images: Tensor) -> Tensor:
        return base.Engine.logits(self, images)  # the kernels do not lie as `_layers` reads them

    def convolutions(self, images: int) -> Convolutions:
        if images != self.recipe.batch_size:
            return TorchConvolutions(self.network, torch.bfloat16)
        convolutional = replace(self.network.architecture, id="", published_name="", change="", hidden=())
        functions = compiled_features(
            convolutional, images, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        )
        return TorchConvolutions(self.network, torch.bfloat16, *functions)
