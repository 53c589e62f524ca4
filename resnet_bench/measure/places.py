"""The points of a training together with their prepared states: what a measuring process is told and goes to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from resnet_bench import architectures, progress
from resnet_bench.data.datasets import Dataset
from resnet_bench.measure import states
from resnet_bench.measure.states import How, State
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Model, Point


class Place(Model):
    """A point of the training, and the file with the training's state there."""

    point: Point
    path: str | None  # None: the training's beginning

    @property
    def state(self) -> State:
        return State(
            step=self.point.step, path=Path(self.path) if self.path else None, how=self.point.state,
            live_share=self.point.live_share, denormal_exp_avg=self.point.denormal_exp_avg,
            denormal_exp_avg_sq=self.point.denormal_exp_avg_sq,
        )  # fmt: skip


def prepared_places(
    networks: Iterable[str], dataset: Dataset, recipe: Recipe, points: Mapping[int, float], *, how: How, seed: int,
    threads: int | None, say: Callable[[str], None], folder: Path | None = None,
) -> dict[str, tuple[Place, ...]]:  # fmt: skip
    """The places of each network; states that are not kept from before are prepared now.

    Args:
        networks: names of architectures.
        dataset, recipe, seed, threads: of the training.
        points: {step: weight}, as `training_points` returns them.
        how: whether late states are trained or aged.
        say: called with a sentence for each network about what has to be prepared and how long that takes, before the
            first of them is.
        folder: where states lie; None for `states.states_folder()`.

    Raises:
        UserError: as `states.prepare` does.
    """
    named = {name: architectures.get(name) for name in networks}
    options: dict[str, Any] = {"how": how, "seed": seed, "threads": threads, "folder": folder}
    seconds: dict[str, float] = {}
    for architecture in named.values():
        missing = states.missing_steps(architecture, dataset, recipe, list(points), **options)
        if missing.trained_steps or missing.idle_steps:
            say(str(missing))
        seconds[architecture.id] = missing.seconds
    places = {}
    with progress.task("preparing states", sum(seconds.values()) + len(named), seconds=sum(seconds.values())):
        for name, architecture in named.items():
            weight = seconds[architecture.id] + 1
            made = states.prepare(architecture, dataset, recipe, list(points), **options, weight=weight)
            places[name] = tuple(_place(state, points) for state in made)
    return places


def _place(state: State, points: Mapping[int, float]) -> Place:
    point = Point(
        step=state.step, weight=points[state.step], state=state.how, live_share=state.live_share,
        denormal_exp_avg=state.denormal_exp_avg, denormal_exp_avg_sq=state.denormal_exp_avg_sq,
    )  # fmt: skip
    return Place(point=point, path=str(state.path) if state.path else None)
