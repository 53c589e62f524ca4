"""The calibrations in a machine's description, read defensively, and how the machine drifted between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

if TYPE_CHECKING:
    from resnet_bench.machine import Calibration


def calibration(machine: dict[str, Any], when: str) -> Calibration | None:
    """The calibration at the `start` or the `end` of a run; None where there is none that can be read."""
    calibrations = machine.get("calibration")
    if not isinstance(calibrations, dict) or not isinstance(calibrations.get(when), dict):
        return None
    from resnet_bench.machine import Calibration  # imports torch, which files without a calibration do not need

    try:
        return Calibration.model_validate(calibrations[when])
    except ValidationError:
        return None


def drift_during_run(machine: dict[str, Any]) -> dict[str, float]:
    """What changed between the start and the end of a run: {measurement: relative change}, the largest change first.

    Empty where nothing drifted, and without two calibrations with the same number of threads.
    """
    start, end = calibration(machine, "start"), calibration(machine, "end")
    if not start or not end or start.threads != end.threads:
        return {}
    from resnet_bench.machine import drift

    return dict(sorted(drift(start, end).items(), key=lambda change: -abs(change[1])))
