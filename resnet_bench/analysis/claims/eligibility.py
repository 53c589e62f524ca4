"""Which results a rule may use. Each function returns the reason why it may not use one, or `""` where it may."""

from __future__ import annotations

import functools
from typing import Any

from resnet_bench import paper
from resnet_bench.recipe import LOADER_WORKERS, Recipe
from resnet_bench.schema import AccuracyResult, EpochTimeResult


@functools.cache
def eligible_engines() -> tuple[str, ...]:
    """The engines that compute the paper's training in float32, the preferred one first."""
    from resnet_bench import engines  # here, because it imports torch, which takes seconds

    return tuple(name for name in engines.ENGINES if engines.get(name).float32_equivalent)


def reason_against_times(result: EpochTimeResult | AccuracyResult) -> str:
    """Why the times of `result` are neither those of the paper's program nor those of the same training done fast."""
    if changed := _changes_of_recipe(result.recipe):
        return f"ran with {changed}"
    if result.engine == "reference" and (result.pipeline, result.workers) != ("loader", LOADER_WORKERS):
        return (
            f"ran with the {result.pipeline} pipeline and {result.workers} workers, not the loader with "
            f"{LOADER_WORKERS}"
        )
    if result.engine not in eligible_engines():
        return f"ran on the {result.engine} engine"
    return ""


def reason_against_mean_time(result: EpochTimeResult | AccuracyResult) -> str:
    """Why a time of `result` is no mean over the training that the published minutes are a mean of.

    That is 15 epochs of 12,500 steps on real images. How long a step takes depends on which units are dead by then and
    on how far the moments of their weights have decayed, so on what was trained, and for how long.
    """
    if result.dataset.synthetic:
        return "was trained on synthetic images"
    steps = -(-result.dataset.train_images // Recipe().batch_size)
    if steps != paper.TRAIN_IMAGES // Recipe().batch_size:
        return f"has epochs of {steps:,} steps"
    if isinstance(result, AccuracyResult):
        return "" if len(result.epochs) >= paper.EPOCHS else f"was trained for {len(result.epochs)} epochs"
    if result.measured != result.mode:
        return f"was timed for the {result.measured} of an epoch"
    if result.mode == "full":
        timed = min(map(len, result.process_blocks.values()), default=0)
        return (
            ""
            if timed >= paper.EPOCHS
            else f"was timed for the first {timed} epochs"
            if timed > 1
            else ("was timed for the first epoch")
        )
    if not result.points:
        return "was timed in the first minute of the training"
    if (epochs := result.recipe.get("epochs")) != paper.EPOCHS:
        return f"was timed over a training of {str(epochs)[:40]} epochs"
    last = max(point.step for point in result.points if point.weight)
    if last < steps * paper.EPOCHS / 2:  # the points of a training reach its end
        return f"was timed up to step {last:,}"
    return ""


def reason_against_accuracies(result: AccuracyResult, epochs: int) -> str:
    """Why the accuracies of `result` in its first `epochs` epochs do not compare with the paper's."""
    data = result.dataset
    if data.synthetic:
        return "trained on synthetic images, not on CIFAR-100"
    if data.name != paper.DATASET or data.classes != paper.CLASSES:
        return f"trained on {data.name} with {data.classes} classes, not on CIFAR-100"
    if data.subset or (data.train_images, data.test_images) != (paper.TRAIN_IMAGES, paper.TEST_IMAGES):
        return f"trained on a subset of CIFAR-100 ({data.train_images:,} images), not on all of it"
    return reason_against_trainings(result, epochs)


def reason_against_trainings(result: AccuracyResult, epochs: int) -> str:
    """Why `result` is no training like the paper's, for `epochs` epochs, on any real images."""
    if result.dataset.synthetic:
        return "trained on synthetic images"
    if result.engine not in eligible_engines():
        return f"trained by the {result.engine} engine, whose numerics differ"
    if changed := _changes_of_recipe(result.recipe):
        return f"trained with {changed}"
    if len(result.epochs) < epochs:
        return f"trained for {len(result.epochs)} of {epochs} epochs"
    return ""


def _changes_of_recipe(recipe: dict[str, Any]) -> str:
    """`batch size 64 instead of 4`: where a recipe differs from the paper's, but for the number of epochs."""
    return ", ".join(
        f"{key.replace('_', ' ')} {str(recipe.get(key))[:40]} instead of {value}"
        for key, value in Recipe().as_dict().items()
        if key != "epochs" and recipe.get(key) != value
    )
