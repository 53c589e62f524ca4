"""The calibrations that a file holds, read defensively, and whether the machine drifted between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from resnet_bench.wording import short

if TYPE_CHECKING:
    from resnet_bench.machine import Calibration


def calibration(machine: dict[str, Any], when: str) -> Calibration | None:
    """Of the `start` or the `end`, as the file has it; None where there is none that can be read."""
    calibrations = machine.get("calibration")
    if not isinstance(calibrations, dict) or not isinstance(calibrations.get(when), dict):
        return None
    from resnet_bench.machine import Calibration  # imports torch, which files without a calibration do not need

    try:
        return Calibration.model_validate(calibrations[when])
    except ValidationError:
        return None


def drift_text(machine: dict[str, Any]) -> str:
    """`memory update 98 MB -20 %, gemm 1024 -15 %`; empty without drift or without two calibrations."""
    start, end = calibration(machine, "start"), calibration(machine, "end")
    if not start or not end or start.threads != end.threads:
        return ""
    from resnet_bench.machine import drift

    changes = sorted(drift(start, end).items(), key=lambda change: -abs(change[1]))
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(f"{short(name)} {100 * change:+.0f} %" for name, change in changes[:3]) + more
