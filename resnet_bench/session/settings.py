"""What the options of a session ask for, as far as this machine can do it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from resnet_bench import architectures, engines, options, progress
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.data.pipelines import chosen_workers, fewer_workers, require_workers
from resnet_bench.engines import fast
from resnet_bench.errors import UserError
from resnet_bench.measure.points import SHORT_TRAINING_STEPS
from resnet_bench.measure.processes import Plan
from resnet_bench.pytest_options import PROFILES
from resnet_bench.recipe import Recipe
from resnet_bench.session.terminal import shown


@dataclass(frozen=True)
class Settings:
    """The options, checked, with the profile's values for those that are not given.

    Attributes:
        profile: its name.
        architectures: names of the networks to measure.
        engines: names of the engines to measure them with.
        explained: names of the networks whose step is taken apart.
        values: of `options.RUN_OPTIONS`, by name.
        recipe: made of `values`.
        plan: how epoch time is measured.
        modes: those of it, `sampled`, `full` or both.
        states: how the states of later points are made, `trained` or `aged`.
        overhead_rounds: rounds of the benchmark of the harness's own cost; 0 leaves it out.
        notes: sentences about what is left out, for the session's header.
    """

    profile: str
    architectures: list[str]
    engines: list[str]
    explained: list[str]
    values: dict[str, Any]
    recipe: Recipe
    plan: Plan
    modes: tuple[Literal["sampled", "full"], ...]
    states: Literal["trained", "aged"]
    overhead_rounds: int
    notes: tuple[str, ...]

    @classmethod
    def from_config(cls, config: pytest.Config) -> Settings:
        """Read and check the options.

        Raises:
            UserError: an option has a bad value, or asks for what this machine cannot do.
        """
        name = config.getoption("resnet_profile")
        profile = PROFILES[name]
        networks = list(options.names(config.getoption("resnet_architectures") or "") or ARCHITECTURES)
        explain = config.getoption("resnet_explain")
        explained = list(options.names((profile.get("explain") if explain is None else explain) or ""))
        for network in (*networks, *explained):
            architectures.get(network)
        values = {}
        for option in options.RUN_OPTIONS:
            given = config.getoption(f"resnet_{option.name}")
            values[option.name] = given if given is not None else profile.get(option.name, option.default)
        asked = {name: config.getoption(f"resnet_{name}") for name in ("time_limit", "processes", "states")}
        measuring = {name: profile[name] if given is None else given for name, given in asked.items()}
        recipe, epochs = options.recipe(values), config.getoption("resnet_rounds")
        asked_mode = config.getoption("resnet_epoch_mode")
        mode = asked_mode or _mode(recipe, values["train_images"])
        cut = mode == "full" and not asked_mode  # who asks for whole epochs gets them
        plan = Plan(mode, measuring["processes"], measuring["time_limit"], epochs, cut)
        notes: list[str] = []
        with (
            shown(config),
            progress.task("trying the engines, compiling where need be"),
        ):  # engines may print a warning about the folder for compiled code
            used = _usable(list(options.names(values["engine"])), config.getoption("resnet_engine") is not None, notes)
            explained = _explainable(explained, explain is not None, notes)
        notes += filter(None, [engines.get(engine).note(recipe) for engine in used])
        pipelines = {values["pipeline"] or engines.get(engine).pipeline for engine in used}
        asked_workers, values["workers"] = values["workers"], chosen_workers(values["workers"])
        if "loader" in pipelines or explained:  # the plain step that is explained uses the loader
            notes += filter(None, [fewer_workers("loader", asked_workers)])
            require_workers(recipe, values["workers"], values["train_images"])
        return cls(
            name, networks, used, explained, values, recipe, plan, plan.modes, measuring["states"],
            profile["overhead_rounds"], tuple(notes),
        )  # fmt: skip


def _mode(recipe: Recipe, train_images: int | None) -> Literal["sampled", "full"]:
    """How epochs are timed where the user does not say."""
    short = train_images is not None and train_images <= SHORT_TRAINING_STEPS * recipe.batch_size
    return "full" if short and recipe.epochs == 1 else "sampled"


def _usable(names: list[str], asked: bool, notes: list[str]) -> list[str]:
    """The engines, or `reference` if one does not run here. That is an error only if the user asked for them."""
    try:
        for name in names:
            engines.get(name).require()
    except UserError as error:
        if asked or names == ["reference"]:
            raise
        notes.append(f"engine reference instead of {','.join(names)}. {error}")
        engines.get("reference").require()
        return ["reference"]
    return names


def _explainable(names: list[str], asked: bool, notes: list[str]) -> list[str]:
    """The networks, or none if the engine fast does not run here. That is an error only if the user asked for them."""
    try:
        if names:
            fast.Engine.require()
    except UserError as error:
        if asked:
            raise
        notes.append(f"no explanation of a step, which needs the engine fast. {error}")
        return []
    return names
