"""The training recipe of the study: every number of it, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from resnet_bench import schedules
from resnet_bench.errors import UserError
from resnet_bench.schedules import LearningRates


@dataclass(frozen=True)
class Recipe:
    """The numbers that decide the result of a training. The defaults are the paper's (section "Experimental setup").

    Where the paper gives no number, the default is torch's: Adam's `betas` and `eps`, no weight decay; its
    learning rate is constant. How a training is run (engine, pipeline, workers, threads) is not part of its recipe.

    Raises:
        UserError: for numbers out of range.
    """

    epochs: int = 15
    batch_size: int = 4
    lr: float = 4e-4  # learning rate of Adam
    schedule: str = "constant"  # how it changes in the course of the training (`resnet_bench.schedules`)
    warmup_steps: int = 0  # in which it first rises to what the schedule says
    betas: tuple[float, float] = (0.9, 0.999)  # decay of Adam's first and second moment
    eps: float = 1e-8  # added to the denominator of Adam's update
    padding: int = 4  # black pixels on each side of the image before the random 32×32 crop
    flip_probability: float = 0.5  # of a horizontal flip
    rotation_degrees: float = 15.0  # the angle is uniform in [-15°, 15°]

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"--epochs is {self.epochs}; give at least 1.")
        if self.batch_size < 1:
            raise UserError(f"--batch-size is {self.batch_size}; give at least 1.")
        if not 0 < self.lr < float("inf"):
            raise UserError(f"--lr is {self.lr}; give a finite number above 0.")
        schedules.require(self.schedule, self.warmup_steps)

    def steps_per_epoch(self, train_images: int) -> int:
        """Batches in an epoch; the last one may be smaller, as in torch's `DataLoader`."""
        return -(-train_images // self.batch_size)

    def learning_rates(self, steps: int | None = None) -> LearningRates:
        """The learning rate of each step of a training of so many steps, which only a constant schedule may leave out.

        Raises:
            UserError: for a warm-up that is as long as the training.
        """
        return LearningRates(self.lr, self.schedule, self.warmup_steps, steps)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as JSON holds it."""
        return {**asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `as_dict` wrote, also before there were schedules."""
        return cls(**{**values, "betas": tuple(values["betas"])})

    def differences(self, other: Recipe, *, ignore: tuple[str, ...] = ()) -> list[str]:
        """The fields in which two recipes differ, except those in `ignore`: `["lr 0.0004 against 0.001"]`."""
        mine, theirs = self.as_dict(), other.as_dict()
        return [f"{k} {mine[k]} against {theirs[k]}" for k in mine if k not in ignore and mine[k] != theirs[k]]


BEFORE_SCHEDULES = {"schedule": "constant", "warmup_steps": 0}
"""What releases without schedules did, whose recipes do not say it."""


def completed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The dict of a recipe of any release, as this release writes it."""
    return {**BEFORE_SCHEDULES, **recipe}


def compact(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The dict of a recipe without what releases without schedules do not know, if it says no more than they did."""
    return {key: value for key, value in recipe.items() if BEFORE_SCHEDULES.get(key) != value}


def of_each_step(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What decides each step of a training: the dict of a recipe, without its epochs where the rate is constant.

    A training of more epochs then begins with the very same steps. With any other schedule it does not.
    """
    constant = recipe.get("schedule", "constant") == "constant"
    return {key: value for key, value in recipe.items() if key != "epochs" or not constant}


LOADER_WORKERS = 2  # worker processes of the paper's DataLoader
EVALUATION_BATCH_SIZE = 500  # large enough to be fast on any CPU; affects an accuracy by no more than rounding
