"""Running what `plan` says: rounds of fresh processes, one for each value in an order that is drawn, and the file.

A drift of the machine hits all values alike, because every round has them all, and all networks and engines take turns
in each process.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from resnet_bench import architectures, engines, identity, machine, progress
from resnet_bench.files import write_json
from resnet_bench.measure import processes, states
from resnet_bench.measure.ablation import FIRST_STEPS
from resnet_bench.measure.contention import NowAndThen
from resnet_bench.measure.places import Place, prepared_places
from resnet_bench.measure.process import Order, Report, dataset_of
from resnet_bench.recipe import Recipe
from resnet_bench.results.journal import entry
from resnet_bench.scale.plan import Settings
from resnet_bench.schema import ScaleResult
from resnet_bench.study import packing

Event = dict[str, Any]

TASK = "measuring how the cost grows"
"""What `progress` calls it."""


def run(settings: Settings, output: Path, say: Callable[[str], None]) -> list[ScaleResult]:
    """Measure everything, and write the file after each round, so that an interruption loses one round at most.

    Args:
        settings: what is asked for.
        output: the file.
        say: called with a sentence where threads wait for a core, now and then.

    Raises:
        KeyboardInterrupt: after Ctrl-C, or `Terminated` after SIGTERM, with what is kept.
        UserError: where a process finds a mistake of the user's or dies.
    """
    started_at, busy, orders = identity.now(), machine.busy_reason(), settings.orders()
    reports: dict[int, list[Report]] = {value: [] for value in orders}
    warnings, rounds = [busy] if busy else [], 0
    found: list[ScaleResult] = []
    try:
        with states.temporary_folder() as folder:
            orders = prepared(orders, folder)
            with progress.task(TASK, seconds=settings.plan.time_limit) as running:
                for rounds in _rounds(settings, orders, reports, running, NowAndThen(say)):
                    complete = rounds == settings.plan.processes
                    found = _results(settings, orders, reports, complete, started_at, warnings)
                    _write(output, found)
    except KeyboardInterrupt as error:
        kept = f"{rounds} of {settings.plan.processes} rounds are kept in {output}" if rounds else "nothing is kept"
        raise type(error)(kept) from None
    return found


def prepared(orders: Mapping[int, Order], folder: Path) -> dict[int, Order]:
    """The orders with the states from which steps are timed, made in `folder`: the same for all engines and rounds.

    Where an engine leaves idle units out, that is the state in which nearly all units that die are dead, at the latest
    that at the end of the training; elsewhere it is the training's beginning.

    Raises:
        UserError: as `states.prepare` does.
    """
    places: dict[tuple[str, str], dict[str, tuple[Place, ...]]] = {}
    complete = {}
    for value, order in orders.items():
        key = (order.dataset.sha256, repr(order.recipe))
        if key not in places:
            places[key] = _places(order, folder / str(value))
        complete[value] = order.model_copy(update={"places": places[key]})
    return complete


def _places(order: Order, folder: Path) -> dict[str, tuple[Place, ...]]:
    dataset, recipe = dataset_of(order.dataset, order.seed), Recipe.from_dict(order.recipe)
    last = recipe.epochs * recipe.steps_per_epoch(len(dataset.train))
    networks = {case.architecture for case in order.cases}
    dying = {
        case.architecture
        for case in order.cases
        if engines.get(case.engine).leaves_idle_units_out(architectures.get(case.architecture), recipe)
    }
    places: dict[str, tuple[Place, ...]] = {}
    for names, step in ((dying, min(FIRST_STEPS, last)), (networks - dying, 0)):
        places |= prepared_places(
            sorted(names), dataset, recipe, {step: 1.0}, how="trained", seed=order.seed, threads=order.threads,
            say=lambda line: None, folder=folder,
        )  # fmt: skip
    return places


def _rounds(
    settings: Settings,
    orders: Mapping[int, Order],
    reports: Mapping[int, list[Report]],
    running: progress.Task,
    warn: NowAndThen,
) -> Iterator[int]:
    """Measure round after round and yield how many are complete; `reports` gets the reports of each value.

    The first process of a value finds out how many blocks fit into its share of the time; all others time as many.
    Processes side by side time one block each at the same time, so they have to know before: one alone finds out.
    """
    plan, beside = settings.plan, settings.over.name == "processes"
    draws = random.Random(settings.values["seed"])
    share = plan.time_limit / plan.processes / len(orders)
    running.total = plan.processes * len(orders)
    blocks = dict.fromkeys(orders)
    if beside:
        running.what = f"{TASK}, one process alone, which finds out how many blocks fit into the time"
        alone = processes.reported(_with(next(iter(orders.values())), share, None, draws), lambda event: None)
        blocks = dict.fromkeys(orders, alone.rounds)
    for round_ in range(plan.processes):
        for value in draws.sample(list(orders), len(orders)):
            what = f"{TASK}, round {round_ + 1}/{plan.processes}, {settings.over.name} {value}"
            running.what = f"{what}, which starts"

            def hear(event: Event, what: str = what) -> None:
                if event["event"] == "now":
                    running.what = f"{what}: {event['what']}"
                elif event["event"] == "waiting":
                    warn(event["message"])

            order = _with(orders[value], share, blocks[value], draws)
            if beside:
                reports[value].extend(side_by_side(order, settings.jobs(value), hear))
            else:
                reports[value].append(processes.reported(order, hear))
                blocks[value] = reports[value][0].rounds
            running.advance()
        yield round_ + 1


def _with(order: Order, seconds: float, rounds: int | None, draws: random.Random) -> Order:
    return order.model_copy(update={"seconds": seconds, "rounds": rounds, "draw": draws.getrandbits(32)})


def side_by_side(order: Order, jobs: int, hear: Callable[[Event], None]) -> list[Report]:
    """The reports of so many processes that carry out one order at the same time, pinned as a study's trainings are.

    All begin each block together, of the same network, so that no block has the machine to itself for a part of its
    time. `hear` is called with each event that is none of the turns.

    Raises:
        UserError: as `processes.events` does.
    """
    assert order.rounds is not None  # each would find another number
    told = order.model_copy(update={"turns": True}).model_dump(mode="json")
    pinned = packing.pinned(packing.cache_groups(), jobs, order.threads or 1)
    cores: Sequence[Sequence[int] | None] = pinned or [None] * jobs
    variables = packing.environment(jobs)
    with contextlib.ExitStack() as stack:
        copies = [processes.events(told, environment=variables) for _ in cores]
        for copy in copies:
            stack.enter_context(contextlib.closing(copy))

        def started(copy: Iterator[Event], place: Sequence[int] | None) -> Event:
            with packing.on_cores(place):
                return next(copy)

        with ThreadPoolExecutor(jobs) as pool:  # each takes seconds to start
            for event in pool.map(started, copies, cores):
                hear(event)
        while True:
            last = [_until_turn(copy, hear) for copy in copies]
            if any(event["event"] == "report" for event in last):
                return [processes.report(event) for event in last]
            for copy in copies:
                next(copy)  # the event `going`: this one is on its way


def _until_turn(copy: Iterator[Event], hear: Callable[[Event], None]) -> Event:
    """The next event that says that it is this process's turn, or its report."""
    for event in copy:
        if event["event"] in ("turn", "report"):
            return event
        hear(event)
    raise AssertionError("the last event is a report")


# The file -------------------------------------------------------------------------------------------------------------


def _results(
    settings: Settings,
    orders: Mapping[int, Order],
    reports: Mapping[int, Sequence[Report]],
    complete: bool,
    started_at: str,
    warnings: Sequence[str],
) -> list[ScaleResult]:
    """A result for each value, network and engine."""
    origin = identity.origin(started_at)
    return [
        _result(settings, value, case, order, reports[value], {"complete": complete, "origin": origin}, warnings)
        for value, order in orders.items()
        for case in range(len(order.cases))
    ]


def _result(
    settings: Settings,
    value: int,
    case: int,
    order: Order,
    reports: Sequence[Report],
    common: dict[str, Any],
    warnings: Sequence[str],
) -> ScaleResult:
    timed = processes.joined(reports, case, order, warnings=warnings, **common)
    own = [report.cases[case] for report in reports]
    return ScaleResult(
        **timed.model_dump(include=set(ScaleResult.model_fields) - {"kind"}),
        varied=settings.over.name,
        jobs=settings.jobs(value),
        first_steps=max(p.point.step for p in order.places[order.cases[case].architecture])
        + max(c.warmup_steps + sum(b.steps for b in c.blocks) for c in own),
    )


def _write(output: Path, results: Sequence[ScaleResult]) -> None:
    write_json(
        output,
        {
            "machine_info": {"resnet_bench": identity.describe()},
            "commit_info": {},
            "datetime": identity.now(),
            "version": "",
            "benchmarks": [entry(_name(r), f"scale {r.varied}", r, r.process_step_times) for r in results],
        },
    )


def _name(result: ScaleResult) -> str:
    return f"resnet-bench scale[{result.architecture}-{result.engine}-{result.varied}={result.value}]"
