"""What `resnet-bench scale` measures: the values of one quantity, and what the processes of each value are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from resnet_bench import architectures, engines, machine
from resnet_bench.data import datasets
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import chosen_workers, require_known, require_workers
from resnet_bench.errors import UserError
from resnet_bench.measure.process import Case, Data, Order
from resnet_bench.measure.processes import Plan
from resnet_bench.options import require_threads
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Varied
from resnet_bench.wording import counted

IMAGES = 10_000
"""At most so many training images are in an epoch unless the user says: more change no step, and take long to load."""

OPTION = {"threads": "threads", "batch-size": "batch_size", "images": "train_images"}
"""The option of a training that each quantity replaces; the others replace none."""

MOST = 10**6
"""No value is larger."""


@dataclass(frozen=True)
class Over:
    """The quantity that is varied, and its values in rising order."""

    name: Varied
    values: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Over:
        """`threads=1,2`; `UserError` for anything else."""
        name, _, rest = text.partition("=")
        known: tuple[Varied, ...] = get_args(Varied)
        if name not in known:
            raise UserError(f"--over is {text!r}; give one of {', '.join(known)}, such as threads=1,2.")
        texts = [value.strip() for value in rest.split(",") if value.strip()]
        if not texts:
            raise UserError(f"--over {name} has no values; give some, such as {name}=1,2.")
        for value in texts:
            if not (value.isdecimal() and 1 <= int(value) <= MOST):
                raise UserError(f"--over {name} has the value {value!r}; give whole numbers from 1 to {MOST:,}.")
        values = [int(value) for value in texts]
        if repeated := sorted({v for v in values if values.count(v) > 1}):
            raise UserError(f"--over {name} has {repeated[0]} more than once; give each value once.")
        if name == "classes" and min(values) < 2:
            raise UserError("--over classes has the value 1; give at least 2 classes.")
        return cls(known[known.index(name)], tuple(sorted(values)))


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        over: what is varied.
        cases: each network with each engine.
        values: of the options of a training, by `Option.name`; None where nobody said.
        plan: rounds of fresh processes, one for each value, and seconds for all of them.

    Raises:
        UserError: for what contradicts itself, does not exist, or cannot be done here.
    """

    over: Over
    cases: tuple[Case, ...]
    values: Mapping[str, Any]
    plan: Plan

    def __post_init__(self) -> None:
        over, dataset = self.over, self.values["dataset"]
        option = OPTION.get(over.name)
        if option and self.values[option] is not None:
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{flag} is what --over {over.name} varies; leave out one of them.")
        if over.name == "classes" and dataset != "synthetic":
            raise UserError(
                f"--over classes needs --dataset synthetic, whose labels can be of any number of classes; {dataset} "
                "has a number of its own."
            )
        for case in self.cases:
            architecture, engine = architectures.get(case.architecture), engines.get(case.engine)
            engine.require()
            require_known(self.values["pipeline"] or engine.pipeline, chosen_workers(self.values["workers"]))
            for value in over.values:
                if reason := engine.supports(architecture, self.recipe(value)):
                    raise UserError(reason)
        self._require_cores()

    def _require_cores(self) -> None:
        cores = int(machine.usable_cores())
        for value in self.over.values:
            jobs, threads = self.jobs(value), self.threads(value)
            require_threads(threads)
            if jobs * (threads or 1) > cores:
                asked = counted(threads or 1, "thread")
                asked = f"{value:,} side by side with {asked} each" if self.over.name == "processes" else asked
                raise UserError(f"{asked} need more than the {counted(cores, 'core')} here; give fewer.")

    def jobs(self, value: int) -> int:
        """How many processes measure side by side."""
        return value if self.over.name == "processes" else 1

    def threads(self, value: int) -> int | None:
        """Threads of an operation; None is torch's choice. Processes side by side have one each unless it is given."""
        if self.over.name == "threads":
            return value
        given: int | None = self.values["threads"]
        return 1 if given is None and self.over.name == "processes" else given

    def recipe(self, value: int) -> Recipe:
        """The recipe with this value."""
        given = {name: self.values[name] for name in ("batch_size", "lr") if self.values[name] is not None}
        return Recipe(**given | ({"batch_size": value} if self.over.name == "batch-size" else {}))

    def orders(self) -> dict[int, Order]:
        """What the processes of each value are told.

        The states from which they time steps are filled in later, and which process, how long and in which order.

        Raises:
            UserError: where there are no such images, fewer than a batch has, or no room for the loader's batches.
        """
        seen: dict[tuple[int | None, int | None], Data] = {}
        return {value: self._order(value, self._data(value, seen)) for value in self.over.values}

    def _data(self, value: int, seen: dict[tuple[int | None, int | None], Data]) -> Data:
        images = value if self.over.name == "images" else self.values["train_images"]
        classes = value if self.over.name == "classes" else None
        if (images, classes) not in seen:
            seen[images, classes] = self._loaded(images, classes)
        return seen[images, classes]

    def _loaded(self, images: int | None, classes: int | None) -> Data:
        name, seed, wanted = self.values["dataset"], self.values["seed"], IMAGES if images is None else images
        at_most = ("train",) if images is None else ()
        try:
            dataset = datasets.load(name, train_images=wanted, test_images=1, seed=seed, at_most=at_most)
        except UserError as error:
            raise (UserError(f"--over images={images}: {error}") if self.over.name == "images" else error) from None
        if classes is not None:
            dataset = datasets.with_classes(dataset, classes)
        self._require_a_batch(dataset)
        return Data(
            name=dataset.name if name == "auto" else name, train_images=len(dataset.train), test_images=1,
            classes=classes, sha256=dataset.sha256,
        )  # fmt: skip

    def _require_a_batch(self, dataset: Dataset) -> None:
        largest = max(self.recipe(value).batch_size for value in self.over.values)
        if largest > len(dataset.train):
            raise UserError(
                f"A batch of {largest:,} needs as many training images, and there are {len(dataset.train):,}; give a "
                "smaller batch or more images."
            )

    def _order(self, value: int, data: Data) -> Order:
        recipe, workers = self.recipe(value), chosen_workers(self.values["workers"])
        if any((self.values["pipeline"] or engines.get(c.engine).pipeline) == "loader" for c in self.cases):
            require_workers(recipe, workers, data.train_images)
        return Order(
            dataset=data, recipe=recipe.as_dict(), seed=self.values["seed"], pipeline=self.values["pipeline"],
            workers=workers, threads=self.threads(value), cases=self.cases, tells=True,
            places={},
        )  # fmt: skip
