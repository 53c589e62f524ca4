"""The options of a training, defined once for `resnet-bench train` and `pytest benchmarks`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from resnet_bench.errors import UserError
from resnet_bench.recipe import LOADER_WORKERS, Recipe
from resnet_bench.schedules import SCHEDULES

_PAPER = Recipe()


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: its name in Python: `train_images` for `--train-images`.
        type: turns the text on the command line into the value.
        default: the value without the option. Where that depends on something, it is None and `help` explains it.
        help: what the command line's help says.
    """

    name: str
    type: Callable[[str], Any]
    default: Any
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


RUN_OPTIONS = (
    Option(
        "dataset", str, "auto",
        "cifar100, cifar10, folder:PATH ({train,test}/<class>/*), synthetic, or auto: CIFAR-100 if it is there or can "
        "be fetched, else synthetic.",
    ),
    Option(
        "engine", str, "reference",
        "How a step is computed: reference is plain PyTorch, as the paper ran; fast and fast-bf16 need a C++ compiler.",
    ),
    Option("epochs", int, _PAPER.epochs, "Epochs to train."),
    Option("train_images", int, None, "Train on this many images, stratified by class.  [default: all]"),
    Option("test_images", int, None, "Test on this many images, stratified by class.  [default: all]"),
    Option("batch_size", int, _PAPER.batch_size, "Images in a batch."),
    Option("lr", float, _PAPER.lr, "Learning rate of Adam."),
    Option(
        "schedule", str, _PAPER.schedule,
        f"How the learning rate changes from step to step, up to --lr: {', '.join(SCHEDULES)}.",
    ),
    Option(
        "warmup_steps", int, _PAPER.warmup_steps, "Steps in which the rate first rises to where the schedule begins.",
    ),
    Option("seed", int, 0, "Decides initial weights, order, augmentation and subsets."),
    Option(
        "workers", int, None,
        f"Processes of the loader pipeline.  [default: the paper's {LOADER_WORKERS}; 0 where one core is usable]",
    ),
    Option("threads", int, None, "Threads of an operation.  [default: torch's choice, one for each core]"),
    Option("pipeline", str, None, "Data pipeline, loader or vectorized: the same batches.  [default: the engine's]"),
)  # fmt: skip


def names(text: str) -> tuple[str, ...]:
    """`fc1, fc3` → ("fc1", "fc3")."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def require_threads(threads: int | None) -> None:
    """Raise `UserError` for fewer than one thread; None, torch's choice, is fine."""
    if threads is not None and threads < 1:
        raise UserError(f"--threads is {threads}; give at least 1.")


def recipe(values: Mapping[str, Any]) -> Recipe:
    """The recipe for the values of the options, by `Option.name`; `UserError` for numbers out of range."""
    return Recipe(**{name: values[name] for name in ("epochs", "batch_size", "lr", "schedule", "warmup_steps")})
