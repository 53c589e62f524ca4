"""What the measuring processes of an arm are told: networks, data, recipe, and the points of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from resnet_bench import architectures, engines
from resnet_bench.data import datasets
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import learning_rates, require_workers, steps_per_epoch
from resnet_bench.duel.arms import Arm
from resnet_bench.duel.plan import Settings
from resnet_bench.errors import UserError
from resnet_bench.measure.places import Place, prepared_places
from resnet_bench.measure.points import training_points
from resnet_bench.measure.process import Case, Data, Order
from resnet_bench.options import recipe as recipe_of
from resnet_bench.options import require_threads
from resnet_bench.recipe import Recipe

_IMAGES = ("dataset", "train_images", "test_images", "seed")
"""Options that decide which images are in use."""


class Orders:
    """Makes the orders of all arms. Arms with the same images and recipe share the states of the points.

    Raises:
        UserError: the options of an arm ask for what does not exist or cannot be done.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self._images: dict[tuple[Any, ...], Dataset] = {}
        self._places: dict[tuple[Any, ...], dict[str, tuple[Place, ...]]] = {}

    def check(self, arm: Arm) -> None:
        """Find mistakes in the options of an arm before anything long runs."""
        values = self._settings.of(arm)
        try:
            recipe, engine = recipe_of(values), engines.get(values["engine"])
            for name in self._settings.architectures:
                if reason := engine.supports(architectures.get(name), recipe):
                    raise UserError(reason)
            require_threads(values["threads"])
            if (values["pipeline"] or engine.pipeline) == "loader":
                require_workers(recipe, values["workers"], values["train_images"])
        except UserError as error:
            raise _of_arm(arm, error) from None

    def check_images(self, arm: Arm) -> None:
        """Load the images of an arm, and find a warm-up that is too long for them."""
        try:
            values = self._settings.of(arm)
            learning_rates(self.dataset(values), recipe_of(values))
        except UserError as error:
            raise _of_arm(arm, error) from None

    def of(self, arm: Arm) -> Order:
        """The order for the processes of an arm; which process, how long and in which order is filled in later."""
        values, recipe = self._settings.of(arm), recipe_of(self._settings.of(arm))
        dataset = self.dataset(values)
        return Order(
            dataset=Data(
                # `auto` and upper limits are decided here, once for all processes
                name=dataset.name if values["dataset"] == "auto" else values["dataset"],
                train_images=len(dataset.train) if values["train_images"] else None,
                test_images=len(dataset.test) if values["test_images"] else None,
                sha256=dataset.sha256,
            ),
            recipe=recipe.as_dict(),
            cases=tuple(
                Case(architecture=name, engine=values["engine"], mode="sampled")
                for name in self._settings.architectures
            ),
            places=self._prepared(values, recipe, dataset),
            **{key: values[key] for key in ("seed", "pipeline", "workers", "threads")},
        )

    def dataset(self, values: Mapping[str, Any]) -> Dataset:
        """The images that the options of an arm ask for."""
        key = tuple(values[name] for name in _IMAGES)
        if key not in self._images:
            name, train_images, test_images, seed = key
            self._images[key] = datasets.load(
                name, train_images=train_images, test_images=test_images, seed=seed, at_most=self._settings.at_most
            )
        return self._images[key]

    def forget_images(self) -> None:
        """Free the memory, which belongs to the processes that measure."""
        self._images.clear()

    def _prepared(self, values: Mapping[str, Any], recipe: Recipe, dataset: Dataset) -> dict[str, tuple[Place, ...]]:
        """The points of the training with their states, made now unless they are kept from before."""
        key = (dataset.sha256, recipe, values["seed"], values["threads"])
        if key not in self._places:
            points = training_points(recipe.epochs, steps_per_epoch(dataset, recipe))
            self._places[key] = prepared_places(
                self._settings.architectures, dataset, recipe, points, how=self._settings.states, seed=values["seed"],
                threads=values["threads"], say=self._say,
            )  # fmt: skip
        return self._places[key]


def _of_arm(arm: Arm, error: UserError) -> UserError:
    """The error with the arm's name, where an option of the arm may be the cause."""
    return UserError(f"--arm {arm.name}: {error}" if arm.options else str(error))
