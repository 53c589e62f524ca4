"""Learning-rate schedules: which share of `--lr` each step of a training takes.

A schedule is one file of this folder with a function `factor`, and one entry in `SCHEDULES`. Every rate is computed
from the number of the step alone, so that a training that is resumed at any step goes on with the same rates, to the
bit.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from resnet_bench.errors import UserError
from resnet_bench.schedules import constant, cosine, onecycle, step

SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": constant.factor,
    "cosine": cosine.factor,
    "onecycle": onecycle.factor,
    "step": step.factor,
}
"""`factor(step, steps)` of each schedule: the share of `--lr`, from 0 to 1, of step `step`, from 0, of `steps`."""

ROUNDING = 1e-12  # relative; by so much a factor may come out above 1


@dataclass(frozen=True)
class LearningRates:
    """The learning rate of each step of one training.

    In the first `warmup_steps` steps the rate rises in a straight line towards the first rate of the schedule, which
    has the steps after them for itself. The first step does not have the rate 0, with which it would train nothing.

    Attributes:
        lr: what `--lr` says, the rate at which the factor is 1.
        schedule: name of an entry of `SCHEDULES`.
        warmup_steps: how many steps the warm-up takes.
        steps: of the whole training. Only a constant schedule does not need to know.

    Raises:
        UserError: for an unknown schedule, or a warm-up that is negative or leaves the schedule no step.
    """

    lr: float
    schedule: str = "constant"
    warmup_steps: int = 0
    steps: int | None = None

    def __post_init__(self) -> None:
        require(self.schedule, self.warmup_steps)
        if self.steps is None and self.schedule != "constant":
            raise ValueError(f"the schedule {self.schedule} needs to know how many steps the training has")
        if self.steps is not None and self.warmup_steps >= self.steps:
            raise UserError(
                f"--warmup-steps is {self.warmup_steps}, but the whole training has {self.steps} steps; give fewer."
            )

    def at(self, step: int) -> float:
        """The rate of the step before which so many were done. Past the training's end it is that of the last step."""
        if self.steps is not None:
            step = min(step, self.steps - 1)
        factor, rest = SCHEDULES[self.schedule], (self.steps or 0) - self.warmup_steps
        if step < self.warmup_steps:
            return self.lr * factor(0, rest) * ((step + 1) / (self.warmup_steps + 1))
        return self.lr * factor(step - self.warmup_steps, rest)

    def highest_from(self, step: int) -> float:
        """The highest rate of this step and all later ones; `ValueError` for a schedule with a factor beyond 0 to 1."""
        if self.steps is None or self.schedule == "constant":  # each step of a warm-up is below the rate after it
            return self.lr
        return self._highest[min(step, self.steps - 1)]

    def highest_step(self) -> int:
        """The step, from 0, in which the rate is first at its highest."""
        if self.steps is None or self.schedule == "constant":
            return self.warmup_steps
        return max(range(self.steps), key=self.at)

    @functools.cached_property
    def _highest(self) -> list[float]:
        rates = [self.at(step) for step in range(self.steps or 0)]
        for i, rate in enumerate(rates):
            if not 0 <= rate <= self.lr * (1 + ROUNDING):
                factor = rate / self.lr
                raise ValueError(f"the schedule {self.schedule} gives step {i} the factor {factor}, beyond 0 to 1")
        return list(itertools.accumulate(reversed(rates), max))[::-1]


def require(schedule: str, warmup_steps: int) -> None:
    """Raise `UserError` for an unknown schedule or a negative warm-up."""
    if schedule not in SCHEDULES:
        raise UserError(f"There is no schedule {schedule!r}; choose one of {', '.join(SCHEDULES)}.")
    if warmup_steps < 0:
        raise UserError(f"--warmup-steps is {warmup_steps}; give 0 or more.")
