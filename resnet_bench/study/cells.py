"""The plan of a study: its cells, and whether what is asked for now is what was planned.

A cell is one training: a network, an engine, one value of each varied option and a seed, with a number of threads. The
plan is written when the study begins and stays; `extended` adds networks, engines and seeds.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError

from resnet_bench import architectures, engines
from resnet_bench.data import datasets
from resnet_bench.data.pipelines import require_known
from resnet_bench.errors import UserError
from resnet_bench.options import RUN_OPTIONS, names
from resnet_bench.options import recipe as recipe_of
from resnet_bench.recipe import Recipe, completed
from resnet_bench.results.manifest import NAME
from resnet_bench.schema import AccuracyResult, Count, DatasetInfo, Model

Value = int | float | str
Seed = Annotated[int, Field(ge=0, lt=2**64)]

FIXED = ("dataset", "train_images", "test_images", "seed", "engine", "threads")
"""Options of a training that cannot be varied: the data, and what has an option or a column of its own."""

MAX_CELLS = 10_000


class Cell(Model):
    """One training of the study."""

    architecture: str
    engine: str
    seed: Seed
    threads: Count
    options: dict[str, Value | None]  # of `options.RUN_OPTIONS`, by name, without those in `FIXED`
    varied: tuple[str, ...]  # those of `options` that differ between cells

    def __hash__(self) -> int:
        return hash(self.name)

    @property
    def name(self) -> str:
        """`fc1-fast-0`, or `fc1-fast-lr=0.001-0` where something is varied; also the name of its file."""
        settings = [f"{name}={self.options[name]}" for name in self.varied]
        return "-".join([self.architecture, self.engine, *settings, str(self.seed)])

    @property
    def recipe(self) -> Recipe:
        return recipe_of(self.options)

    def arguments(self, dataset: str, plan: Plan) -> list[str]:
        """Of `resnet-bench train`, which refuses other images than the plan's."""
        values = {
            **self.options,
            "dataset": dataset,
            "train_images": plan.train_images,
            "test_images": plan.test_images,
            "engine": self.engine,
            "seed": self.seed,
            "threads": self.threads,
        }
        given = [[o.flag, str(values[o.name])] for o in RUN_OPTIONS if values.get(o.name) is not None]
        images = ["--images-sha256", plan.digests[str(self.seed)]]
        return [self.architecture, *itertools.chain.from_iterable(given), *images]

    def differs(self, result: AccuracyResult, plan: Plan) -> str | None:
        """In what a result is not of this cell, as `seed 1 instead of 0`; None where it is."""
        found: dict[str, Any] = {
            "architecture": result.architecture,
            "engine": result.engine,
            "seed": result.seed,
            "threads": result.threads,
            "recipe": result.recipe,
            "data set": result.dataset.sha256,
        }
        wanted = {
            "architecture": self.architecture,
            "engine": self.engine,
            "seed": self.seed,
            "threads": self.threads,
            "recipe": self.recipe.as_dict(),
            "data set": plan.digests[str(self.seed)],
        }
        return next((f"{k} {found[k]} instead of {v}" for k, v in wanted.items() if found[k] != v), None)


class Plan(Model):
    """What a study is."""

    architectures: Annotated[tuple[str, ...], Field(min_length=1)]
    engines: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    threads: Count
    options: dict[str, Value | None]  # the value that cells have in common
    varied: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]]
    train_images: int | None
    test_images: int | None
    dataset: DatasetInfo  # with the first seed
    digests: dict[str, str]  # SHA-256 of the images in use, by seed: a subset is drawn anew for each
    code: str  # SHA-256 of the sources that began the study
    other_code: tuple[str, ...] = ()  # of those that were let in later

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells: every network once, then the next seed."""
        axes = [[(name, value) for value in values] for name, values in self.varied.items()]
        return tuple(
            Cell(
                architecture=architecture,
                engine=engine,
                seed=seed,
                threads=self.threads,
                options={**self.options, **dict(chosen)},
                varied=tuple(self.varied),
            )
            for seed in self.seeds
            for engine in self.engines
            for chosen in itertools.product(*axes)
            for architecture in self.architectures
        )

    def checked(self) -> Plan:
        """This plan, if this release can carry it out.

        Raises:
            UserError: it cannot.
        """
        count = len(self.architectures) * len(self.engines) * len(self.seeds)
        for values in self.varied.values():
            count *= len(values)
        if count > MAX_CELLS:
            raise UserError(f"The study would have {count:,} cells; give fewer, at most {MAX_CELLS:,}.")
        known = {o.name for o in RUN_OPTIONS} - set(FIXED)
        if set(self.options) != known or not set(self.varied) <= known:
            raise UserError("The study was planned by a release with other options; go on with that one.")
        for cell in self.cells:
            if not re.fullmatch(NAME, cell.name):
                raise UserError(f"{cell.name!r} cannot be the name of a cell; vary other values.")
            if reason := engines.get(cell.engine).supports(architectures.get(cell.architecture), cell.recipe):
                raise UserError(reason)
            pipeline = cell.options["pipeline"] or engines.get(cell.engine).pipeline
            require_known(str(pipeline), int(cell.options["workers"] or 0))
            steps = cell.recipe.steps_per_epoch(self.dataset.train_images)
            cell.recipe.learning_rates(cell.recipe.epochs * steps)  # may find that the warm-up is too long
        return self

    def extended(self, **more: Iterable[Any]) -> Plan:
        """With further `architectures`, `engines` or `seeds`."""
        changed = {key: tuple(dict.fromkeys((*getattr(self, key), *values))) for key, values in more.items()}
        return self.model_copy(update=changed)

    def differences(self, asked: Mapping[str, Any]) -> list[str]:
        """In what the options that a user gave are not what was planned: `["lr 0.001 instead of 0.0004"]`.

        Args:
            asked: `architectures`, `engines`, `seeds`, `varied` and options by name; only those that were given.
        """
        found = []
        for key, value in asked.items():
            if key in ("architectures", "engines", "seeds"):
                if new := [v for v in value if v not in getattr(self, key)]:
                    found.append(f"{key} {', '.join(map(str, new))}, which resnet-bench study add would add")
            elif key == "varied":
                if {k: tuple(v) for k, v in value.items()} != self.varied:
                    found.append(f"--vary {_varied(value)} instead of {_varied(self.varied)}")
            else:
                planned = self.options[key] if key in self.options else getattr(self, key)
                if planned != value and key not in self.varied:
                    found.append(f"{key} {value} instead of {planned}")
        return found


def parsed(content: dict[str, Any], where: object) -> Plan:
    """The plan in a manifest; `UserError` where it is none that this release can carry out."""
    if isinstance(options := content.get("options"), dict):  # planned before there were schedules, perhaps
        content = {**content, "options": completed(options)}
    try:
        return Plan.model_validate(content).checked()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{where} holds no plan of this release ({place}: {first['msg'].lower()}).") from None
    except (TypeError, ValueError, OverflowError) as error:  # options of another type than this release writes
        raise UserError(f"{where} holds no plan of this release ({error}).") from None


def digests(spec: str, plan: Plan, seeds: Iterable[int]) -> dict[str, str]:
    """{seed: SHA-256 of the images in use}. The images of a subset depend on the seed, those of a whole set do not."""
    found: dict[str, str] = {}
    for seed in seeds:
        if found and not plan.dataset.subset:
            found[str(seed)] = next(iter(found.values()))
        else:
            loaded = datasets.load(spec, train_images=plan.train_images, test_images=plan.test_images, seed=seed)
            found[str(seed)] = loaded.sha256
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Texts of options


def numbers(text: str) -> tuple[int, ...]:
    """`0-4,7` → (0, 1, 2, 3, 4, 7).

    Raises:
        UserError: for another text.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,20})(?:\s*-\s*(\d{1,20}))?\s*", part)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not low <= high < min(2**64, low + MAX_CELLS):
            raise UserError(f"--seeds is {text!r}; give numbers and ranges from 0 on, such as 0-4 or 0,3,7-9.")
        found.update(dict.fromkeys(range(low, high + 1)))
    return tuple(found)


def varied(texts: Iterable[str]) -> dict[str, tuple[Value, ...]]:
    """`["lr=0.0004,0.001"]` → {"lr": (0.0004, 0.001)}.

    Raises:
        UserError: for an option that is unknown or cannot be varied, and for a value that it does not take.
    """
    found: dict[str, tuple[Value, ...]] = {}
    known = {o.name: o for o in RUN_OPTIONS if o.name not in FIXED}
    for text in texts:
        name, _, values = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if name not in known or not names(values):
            raise UserError(
                f"--vary is {text!r}; give an option and its values, such as lr=0.0004,0.001, where the option is "
                f"one of {', '.join(n.replace('_', '-') for n in known)}."
            )
        flag = f"--{name.replace('_', '-')}"
        if name in found:
            raise UserError(f"--vary has {flag} more than once; give all its values in one, such as lr=0.0004,0.001.")
        try:
            found[name] = tuple(known[name].type(value) for value in names(values))
        except ValueError as error:
            raise UserError(f"--vary is {text!r}: {error}; give values that {flag} takes.") from None
        if len(set(found[name])) < len(found[name]):
            raise UserError(f"--vary is {text!r}, which has one value twice; give each value once.")
    return found


def _varied(values: Mapping[str, Iterable[Value]]) -> str:
    return " ".join(f"{k}={','.join(map(str, v))}" for k, v in values.items()) or "nothing"


def by_network(cells: Iterable[Cell]) -> Iterator[tuple[tuple[str, str], list[Cell]]]:
    """((network, engine), its cells)."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.architecture, cell.engine), []).append(cell)
    yield from found.items()
