"""Which results a rule may use. Each function returns the reason why it may not use one, or `""` where it may."""

from __future__ import annotations

from typing import Any

from resnet_bench import engines, paper
from resnet_bench.recipe import LOADER_WORKERS, Recipe
from resnet_bench.schema import AccuracyResult, EpochTimeResult

ELIGIBLE_ENGINES = tuple(name for name in engines.ENGINES if engines.get(name).float32_equivalent)
"""The engines that compute the paper's training in float32, the preferred one first."""


def reason_against_times(result: EpochTimeResult | AccuracyResult) -> str:
    """Why the times of `result` are neither those of the paper's program nor those of the same training done fast."""
    if changed := _changes_of_recipe(result.recipe):
        return f"ran with {changed}"
    if result.engine == "reference" and (result.pipeline, result.workers) != ("loader", LOADER_WORKERS):
        return (
            f"ran with the {result.pipeline} pipeline and {result.workers} workers, not the loader with "
            f"{LOADER_WORKERS}"
        )
    if result.engine not in ELIGIBLE_ENGINES:
        return f"ran on the {result.engine} engine"
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
    if result.engine not in ELIGIBLE_ENGINES:
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
