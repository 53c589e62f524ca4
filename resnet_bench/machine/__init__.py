"""The machine that measures.

- `description`: what it is: `describe`.
- `advice`: which of its settings make times doubtful, and what changes them; imports no torch.
- `availability`: whether it is free: `usable_cores`, `load_average`, `other_processes`, `busy_reason`.
- `calibration`: how fast it is at what training needs: `calibrate`, `Sampler`.
- `rates`: these measurements as data: `Calibration`, `Measurement`, `drift`.
- `denormals`: what a denormal number costs: `measure_denormals`, `DenormalCosts`.
- `bound`: a model of the least time of a training step at these rates: `step_bound`, `Bound`.
- `system`: how the others ask the operating system.

A calibration explains times and shows drift within a session. It does not normalise times between machines, because
most of the variance is each benchmark's own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnet_bench.machine.availability import busy_reason, load_average, other_processes, usable_cores
    from resnet_bench.machine.bound import Bound, step_bound
    from resnet_bench.machine.calibration import Sampler, calibrate
    from resnet_bench.machine.denormals import DenormalCosts, measure_denormals
    from resnet_bench.machine.description import describe
    from resnet_bench.machine.rates import Calibration, Measurement, drift

__all__ = [
    "Bound",
    "Calibration",
    "DenormalCosts",
    "Measurement",
    "Sampler",
    "busy_reason",
    "calibrate",
    "describe",
    "drift",
    "load_average",
    "measure_denormals",
    "other_processes",
    "step_bound",
    "usable_cores",
]

_WHERE = {
    "Bound": "bound",
    "Calibration": "rates",
    "DenormalCosts": "denormals",
    "Measurement": "rates",
    "Sampler": "calibration",
    "busy_reason": "availability",
    "calibrate": "calibration",
    "describe": "description",
    "drift": "rates",
    "load_average": "availability",
    "measure_denormals": "denormals",
    "other_processes": "availability",
    "step_bound": "bound",
    "usable_cores": "availability",
}


def __getattr__(name: str) -> Any:
    """Import a module when it or one of its names is first asked for: most import torch, which takes seconds."""
    if name in _WHERE.values():
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
