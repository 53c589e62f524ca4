"""How far a machine's speed differed over two runs, from the calibrations at their starts and ends."""

from __future__ import annotations

from typing import Any

import pytest

from resnet_bench.analysis.drift import speed_range
from tests.handmade import calibration, machine

MEMORY, ARITHMETIC = 40e9, 200e9


def calibrated(*speeds: tuple[float, float], threads: int = 2, **more: Any) -> dict[str, Any]:
    """A machine with these multiples of its usual memory bandwidth and arithmetic rate at the start and the end."""
    taken = [calibration(MEMORY * memory, ARITHMETIC * sums, threads) for memory, sums in speeds]
    return machine(calibration=dict(zip(("start", "end"), taken, strict=False)), **more)


def test_a_steady_machine_has_one_speed() -> None:
    found = speed_range(calibrated((1, 1), (1, 1)), calibrated((1, 1), (1, 1)))
    assert (found.factor, found.seen) == (pytest.approx(1), True)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("resource", [0, 1])
def test_the_factor_is_the_fastest_over_the_slowest_of_the_resource_that_differs_most(
    place: int, resource: int
) -> None:
    speeds = [(1.0, 1.0)] * 4
    speeds[place] = (0.7, 1.1) if resource == 0 else (1.1, 0.7)
    assert speed_range(calibrated(*speeds[:2]), calibrated(*speeds[2:])).factor == pytest.approx(1 / 0.7)


def test_one_disturbed_measurement_changes_nothing() -> None:
    disturbed = calibrated((1, 1), (1, 1))
    disturbed["calibration"]["end"]["measurements"]["read 98 MB"]["median"] /= 3
    assert speed_range(disturbed, calibrated((1, 1), (1, 1))).factor == pytest.approx(1)


def test_only_what_limits_a_step_counts() -> None:
    """Not what the caches hold, and not memory fresh from the system."""
    other = calibrated((1, 1), (1, 1))
    for name in ("read 4 MB", "update 4 MB", "read 16 MB", "update 16 MB", "first touch 33 MB"):
        other["calibration"]["end"]["measurements"][name]["median"] /= 3
    assert speed_range(calibrated((1, 1), (1, 1)), other).factor == pytest.approx(1)


def test_missing_calibrations_are_told() -> None:
    found = speed_range(calibrated((1, 1)), machine())
    assert found.missing == ((0, "end"), (1, "start"), (1, "end"))
    assert (found.factor, found.seen) == (1, False)
    partial = speed_range(calibrated((1, 1)), calibrated((0.8, 0.8)))
    assert (partial.factor, partial.seen) == (pytest.approx(1.25), False)


def test_with_other_threads_only_the_drift_within_each_run_is_seen() -> None:
    found = speed_range(calibrated((1, 1), (1.1, 1), threads=1), calibrated((2, 2), (2.4, 2)))
    assert found.factor == pytest.approx(1.2)
    assert not found.seen


def test_another_torch_does_other_sums_but_the_memory_is_the_same() -> None:
    new = {"torch": {"version": "2.16.0"}}
    sums = speed_range(calibrated((1, 1), (1, 1)), calibrated((1, 2), (1, 2.1), **new))
    memory = speed_range(calibrated((1, 1), (1, 1)), calibrated((1.3, 2), (1.3, 2), **new))
    assert (sums.factor, sums.seen) == (pytest.approx(1.05), True)
    assert memory.factor == pytest.approx(1.3)


@pytest.mark.parametrize("junk", [None, 7, {}, {"start": {"threads": 2}}])
def test_a_description_that_cannot_be_read_shows_nothing(junk: object) -> None:
    found = speed_range(machine(calibration=junk), machine(calibration=junk, torch=junk))
    assert (found.factor, found.seen, len(found.missing)) == (1, False, 4)
