"""The calibrations in a machine's description, read defensively, and how the machine's speed differed between them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import ValidationError

from resnet_bench import identity

if TYPE_CHECKING:
    from resnet_bench.machine import Calibration

When = Literal["start", "end"]


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


@dataclass(frozen=True)
class SpeedRange:
    """How far the speed of one machine differed over two runs, as the calibrations at their starts and ends show it.

    Attributes:
        factor: the fastest over the slowest, at least 1.
        missing: (index of the run, which calibration) of the calibrations that there are not.
        between: whether any calibration of one run can be set against one of the other.
    """

    factor: float
    missing: tuple[tuple[int, When], ...]
    between: bool

    @property
    def seen(self) -> bool:
        """Whether the calibrations show both runs and what lies between them."""
        return self.between and not self.missing


def speed_range(base: dict[str, Any], other: dict[str, Any]) -> SpeedRange:
    """How far the speed differed within and between two runs on one machine, given the descriptions of both.

    The rates that limit a training step are of two resources: memory bandwidth (reading and updating the two largest
    working sets) and arithmetic (matrix product and convolutions). A resource's speed at a calibration is the median,
    over its measurements, of the measurement over its own geometric mean over the calibrations; so one disturbed
    measurement changes little. The factor is that of the resource whose fastest and slowest calibration lie farthest
    apart.

    Calibrations with other numbers of threads measure different things. Those with another build of torch run other
    matrix products and convolutions; their memory bandwidths compare.
    """
    taken = _taken(enumerate(([base], [other])))
    missing = tuple(
        (run, when) for run, machine in enumerate((base, other)) for when in _WHEN if not calibration(machine, when)
    )
    farthest, between = 0.0, False
    for resource in _RESOURCES:
        for alike in _comparable(taken, resource):
            if len(levels := _levels([t.calibration for t in alike], resource)) > 1:
                farthest = max(farthest, max(levels) - min(levels))
                between |= len({t.run for t in alike}) > 1
    return SpeedRange(math.exp(min(farthest, 600.0)), missing, between)


def speed_change(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> dict[Resource, float]:
    """How many times as fast the machine's resources were in later runs, as the calibrations of all show it.

    The ratio of the geometric means of a resource's speeds, as `speed_range` defines it; without the resources of
    which no calibration of one side can be set against one of the other.
    """
    found: dict[Resource, float] = {}
    taken = _taken(enumerate((before, after)))
    for resource in _RESOURCES:
        for alike in _comparable(taken, resource):
            levels = _levels([t.calibration for t in alike], resource)
            sides = [[level for level, t in zip(levels, alike, strict=False) if t.run == run] for run in (0, 1)]
            if all(sides):
                found.setdefault(resource, math.exp(fmean(sides[1]) - fmean(sides[0])))
    return found


_WHEN: tuple[When, ...] = ("start", "end")
Resource = Literal["memory", "arithmetic"]
_RESOURCES: tuple[Resource, ...] = ("memory", "arithmetic")


class _Taken(NamedTuple):
    run: int
    calibration: Calibration
    threads: str
    torch: str


def _taken(runs: Iterable[tuple[int, Sequence[dict[str, Any]]]]) -> list[_Taken]:
    """The calibrations in the descriptions of machines, with the number under which these were given."""
    return [
        _Taken(run, found, str(found.threads), json.dumps(identity.part(machine, "torch"), default=str, sort_keys=True))
        for run, machines in runs
        for machine in machines
        for when in _WHEN
        if (found := calibration(machine, when))
    ]


def _comparable(taken: Sequence[_Taken], resource: Resource) -> Iterator[list[_Taken]]:
    """The calibrations, in groups that measured the resource in the same way."""
    groups: dict[tuple[str, ...], list[_Taken]] = {}
    for t in taken:
        groups.setdefault((t.threads, *([t.torch] if resource == "arithmetic" else [])), []).append(t)
    yield from groups.values()


def _levels(calibrations: Sequence[Calibration], resource: Resource) -> list[float]:
    """The logarithm of the resource's speed at each calibration, over that of their mean; empty where none has it."""
    rates = [_rates(c, resource) for c in calibrations]
    common = [name for name in rates[0] if all(name in own for own in rates)]
    if not common:
        return []
    means = {name: fmean(own[name] for own in rates) for name in common}
    return [median(own[name] - means[name] for name in common) for own in rates]


def _rates(calibration: Calibration, resource: Resource) -> dict[str, float]:
    """{measurement: logarithm of its median}."""
    measured = calibration.measurements
    if resource == "arithmetic":
        kept = [name for name, m in measured.items() if m.quantity in ("gemm", "convolution")]
    else:
        memory = {name: m.size for name, m in measured.items() if m.quantity in ("read", "update")}
        largest = sorted(set(memory.values()))[-2:]
        kept = [name for name, size in memory.items() if size in largest]
    return {name: math.log(measured[name].median) for name in kept}
