"""The machine that measures.

- `description`: what it is: `describe`.
- `availability`: whether it is free: `usable_cores`, `load_average`, `other_processes`, `busy_reason`.
- `calibration`: how fast it is at what training needs: `calibrate`, `Calibration`, `Measurement`, `drift`.
- `bound`: a model of the least time of a training step at these rates: `step_bound`, `best_rates`, `Bound`.
- `system`: how the others ask the operating system.

A calibration explains times and shows drift within a session. It does not normalise times between machines, because
most of the variance is each benchmark's own.
"""

from resnet_bench.machine.availability import busy_reason, load_average, other_processes, usable_cores
from resnet_bench.machine.bound import Bound, best_rates, step_bound
from resnet_bench.machine.calibration import Calibration, Measurement, calibrate, drift
from resnet_bench.machine.description import describe

__all__ = [
    "Bound",
    "Calibration",
    "Measurement",
    "best_rates",
    "busy_reason",
    "calibrate",
    "describe",
    "drift",
    "load_average",
    "other_processes",
    "step_bound",
    "usable_cores",
]
