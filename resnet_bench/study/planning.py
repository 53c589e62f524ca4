"""From the options of `resnet-bench study` to the study in its folder: a new plan, or the one that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from resnet_bench import architectures, engines, identity, machine
from resnet_bench.data import datasets
from resnet_bench.data.pipelines import chosen_workers
from resnet_bench.errors import UserError
from resnet_bench.folders import expanded
from resnet_bench.options import RUN_OPTIONS, recipe, require_threads
from resnet_bench.study import cells, packing
from resnet_bench.study.cells import FIXED, Plan
from resnet_bench.study.folder import Jobs, StudyFolder
from resnet_bench.study.packing import Packing
from resnet_bench.study.running import Say, checkpoint_bytes

RESULT_BYTES = 30_000
"""About how large the result of a cell is: one stretch with the machine's description, and its epochs."""


@dataclass(frozen=True)
class Asked:
    """The options, as given or by default.

    Attributes:
        values: of `architectures`, `engines`, `seeds`, `varied`, and of `options.RUN_OPTIONS` by name.
        given: names of those that the user gave.
        jobs: trainings side by side; `auto` measures how many are best; None where nobody said.
    """

    values: Mapping[str, Any]
    given: frozenset[str]
    jobs: Jobs | None

    def with_threads(self, threads: int) -> Asked:
        """The same with so many threads of each training."""
        return replace(self, values={**self.values, "threads": threads})


def new_plan(asked: Asked) -> tuple[Plan, str]:
    """The plan that the options ask for, and the data set as it is called on this machine.

    Raises:
        UserError: for what this machine or release cannot do.
    """
    values = asked.values
    for architecture in values["architectures"]:
        architectures.get(architecture)
    for engine in values["engines"]:
        engines.get(engine).require()
    options = {o.name: values[o.name] for o in RUN_OPTIONS if o.name not in FIXED}
    options["workers"] = chosen_workers(values["workers"])  # once for all cells, so that their results are alike
    require_threads(values["threads"])
    for name, several in {"lr": (values["lr"],), **values["varied"]}.items():
        for value in several:
            recipe({**options, name: value})  # finds numbers out of range, before a plan that cannot be written
    loaded = datasets.load(
        values["dataset"],
        train_images=values["train_images"],
        test_images=values["test_images"],
        seed=values["seeds"][0],
    )
    spec = absolute(values["dataset"], loaded.name)
    plan = Plan(
        architectures=values["architectures"],
        engines=values["engines"],
        seeds=values["seeds"],
        threads=values["threads"] or _threads(asked.jobs),
        options=options,
        varied=values["varied"],
        train_images=values["train_images"],
        test_images=values["test_images"],
        dataset=loaded.info(),
        digests={},
        code=identity.code()["sha256"],
    ).checked()
    plan = plan.model_copy(update={"digests": cells.digests(spec, plan, plan.seeds)})
    return plan, spec


def resumed(study: StudyFolder, asked: Asked, allow_other_code: bool) -> tuple[Plan, str]:
    """The plan of a study, and where its data set is, if the options, the data and the code are still the same.

    Raises:
        UserError: they are not; the message names what differs.
    """
    plan = study.plan
    given = {name: asked.values[name] for name in asked.given - {"dataset"}}
    if differences := plan.differences(given):
        raise UserError(
            f"The study in {study.path} is another one: {'; '.join(differences)}; leave those options out or give "
            "another --output."
        )
    for engine in plan.engines:
        engines.get(engine).require()
    named = asked.values["dataset"] if "dataset" in asked.given else "auto"
    spec = study.dataset if named == "auto" else absolute(named, plan.dataset.name)
    _digests(study, spec, plan)
    code = identity.code()["sha256"]
    if code not in (plan.code, *plan.other_code):
        if not allow_other_code:
            raise UserError(
                f"The study in {study.path} began with other code of this suite ({plan.code[:12]}, not {code[:12]}); "
                "go on with that version, or give --allow-other-code, which marks the cells that this one computes."
            )
        plan = plan.model_copy(update={"other_code": (*plan.other_code, code)})
    return plan, spec


def extended(study: StudyFolder, **more: tuple[Any, ...]) -> Plan:
    """The plan with further architectures, engines or seeds; `UserError` where it cannot be carried out."""
    plan = study.plan.extended(**more).checked()
    return plan.model_copy(update={"digests": _digests(study, study.dataset, plan)})


def _digests(study: StudyFolder, spec: str, plan: Plan) -> dict[str, str]:
    """The digests of the images for each seed of a plan that goes on with a study.

    Raises:
        UserError: where those of the study's own seeds are other images now.
    """
    now = cells.digests(spec, plan, plan.seeds)
    for seed, digest in study.plan.digests.items():
        if now.get(seed) != digest:
            raise UserError(
                f"The images of {spec} are not those that the study in {study.path} began with (SHA-256 "
                f"{now.get(seed, '')[:12]} instead of {digest[:12]}); bring those back or give another --output."
            )
    return now


def jobs(study: StudyFolder | None, asked: Asked) -> Jobs:
    """Trainings side by side: as the user says, else as the study was run last on this machine, else one."""
    before = study.local if study else None
    return asked.jobs or (before.jobs if before else 1)


def packed(
    plan: Plan, spec: str, wanted: Jobs, asked: Asked, say: Say, *, new: bool
) -> tuple[Plan, int, list[Packing]]:
    """The plan, how many trainings run side by side, and the packings that were measured to find out.

    A new plan for which nobody said how many threads gets those of the best packing.
    """
    if wanted != "auto":
        return plan, wanted, []
    free = new and asked.values["threads"] is None
    best, measured = packing.choose(plan, spec, None if free else plan.threads, say)
    return plan.model_copy(update={"threads": best.threads}), best.jobs, measured


def absolute(spec: str, name: str) -> str:
    """The data set as it is found from any folder: `folder:` with the whole path, or the name of what `auto` chose."""
    return f"folder:{expanded(spec.partition(':')[2]).resolve()}" if spec.startswith("folder:") else name


def _threads(jobs: Jobs | None) -> int:
    """Threads of each training where none are given: torch's choice for one, an equal share of the cores for more."""
    if jobs is None or jobs == "auto" or jobs == 1:
        return torch.get_num_threads()
    return max(1, int(machine.usable_cores()) // jobs)


def required_space(plan: Plan, jobs: int) -> int:
    """Bytes that the study needs at most: each training has a checkpoint, and another one while it is written."""
    sizes = sorted((checkpoint_bytes(cell, plan.dataset.classes) for cell in plan.cells), reverse=True)
    return 2 * sum(sizes[:jobs]) + RESULT_BYTES * len(plan.cells)
