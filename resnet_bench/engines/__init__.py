"""Engines: how one training step runs. An engine is one file of this folder with a class `Engine`.

`reference` is what the paper ran, plain eager PyTorch. Every engine computes the same training, from the same initial
weights and batches, and writes the same state, so a checkpoint of one loads in another.
"""

from __future__ import annotations

import importlib
import pkgutil

from resnet_bench.engines.base import Engine
from resnet_bench.errors import UserError

__all__ = ["Engine", "get", "names"]


def names() -> list[str]:
    """The engines there are, `reference` first."""
    found = [m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if m.name != "base" and m.name[0] != "_"]
    return sorted(found, key=lambda name: (name != "reference", name))


def get(name: str) -> type[Engine]:
    """The engine class called `name`; `UserError` lists the known ones if there is none."""
    if name not in names():
        raise UserError(f"There is no engine {name!r}; choose one of {', '.join(names())}.")
    engine: type[Engine] = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").Engine
    return engine
