"""Engines: how one training step runs. An engine is one file of this folder with a class `Engine`, and one entry here.

`reference` is what the paper ran, plain eager PyTorch. Every engine computes the same training, from the same initial
weights and batches, and writes the same state, so a checkpoint of one loads in another.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from resnet_bench.errors import UserError

if TYPE_CHECKING:
    from resnet_bench.engines.base import Engine  # imports torch, which takes seconds

__all__ = ["ENGINES", "get"]

ENGINES = {"reference": "reference", "fast": "fast", "fast-bf16": "fast_bf16"}
"""The module of each engine by the engine's name; imported where the engine is asked for."""


def get(name: str) -> type[Engine]:
    """The engine class called `name`; `UserError` lists the known ones if there is none."""
    if name not in ENGINES:
        raise UserError(f"There is no engine {name!r}; choose one of {', '.join(ENGINES)}.")
    engine: type[Engine] = importlib.import_module(f"{__name__}.{ENGINES[name]}").Engine
    return engine
