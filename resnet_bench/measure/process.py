"""One fresh process that measures epoch times: `python -m resnet_bench.measure.process`.

It reads an `Order` as JSON, one line, from standard input and writes events to standard output, one JSON object a line:

- `{"event": "turn"}` where the order says that it takes turns with other processes: it is ready for the next block, or
  for the way to the next point, and waits for a line on standard input; `{"event": "going"}` once it has that line;
- `{"event": "progress", "done": N, "total": M}` after every block;
- `{"event": "waiting", "message": "..."}`, one sentence, where threads wait for a core (`measure.contention`);
- `{"event": "report", ...}`, a `Report`, at the end;
- `{"event": "error", "message": "..."}` in place of the report, for a mistake of the user's: one sentence.

Each process has its own memory layout, allocator state and thread placement, which stay for as long as it lives. So the
networks are measured in several of them (`resnet_bench.measure.processes`).
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from resnet_bench import architectures, identity, machine, progress
from resnet_bench.child import ignore_interrupt
from resnet_bench.data import datasets
from resnet_bench.data.datasets import Dataset
from resnet_bench.errors import UserError
from resnet_bench.machine import Calibration
from resnet_bench.machine.availability import take_interop_threads
from resnet_bench.machine.calibration import SHARE
from resnet_bench.measure import states
from resnet_bench.measure.contention import Lookout
from resnet_bench.measure.epoch_time import PILOT_STEPS, EpochTimer, step_seconds
from resnet_bench.measure.places import Place
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Block, Model, NonNegativeCount, Positive, Seconds
from resnet_bench.training.training import Training

MAX_ROUNDS = 20
"""Most blocks that a process times at a point. More would make its mean hardly better: processes differ more."""

PIECES = 12
"""Pieces of a whole epoch, where sampled blocks are measured between them. Each is short against the minutes in which a
machine drifts."""

LEAST_PIECE_STEPS = 250
"""Steps of a piece, at least. Where a sampled block's loader has forked its workers, each page of memory that the whole
epoch then writes is copied once. Of a short piece that would be a part of the time, and it is none of an epoch's."""


class Case(Model):
    """What is measured: a network with an engine in one mode."""

    architecture: str
    engine: str
    mode: Literal["sampled", "full"]


class Data(Model):
    """The images: the arguments of `datasets.load`, and the digest that the images must have."""

    name: str
    train_images: int | None
    test_images: int | None
    at_most: tuple[str, ...] = ()
    classes: int | None = None  # of synthetic images, in place of their own (`datasets.with_classes`)
    sha256: str


class Order(Model):
    """What a process is to measure."""

    dataset: Data
    recipe: dict[str, Any]  # `Recipe.as_dict()`
    seed: int
    pipeline: str | None
    workers: int
    threads: int | None
    cases: tuple[Case, ...]
    places: dict[str, tuple[Place, ...]]  # of each architecture, by rising step; the same number for all
    rounds: int | None = None  # blocks at each point; None: as many as fit into `seconds`, at least one
    steps: int | None = None  # of each epoch in mode `full`, the first ones; None: whole epochs, or see `cut`
    cut: bool = False  # whether only so many first steps of each epoch are timed as fit into `seconds`
    seconds: float = 0  # that the process may take, without compiling
    process: int = 0  # index of this process among those of the measurement
    epochs: int = 1  # whole epochs that the mode `full` times
    draw: int = 0  # decides the order in which networks and points are measured
    turns: bool = False  # whether processes take turns, block by block
    calibrate: bool = False  # whether the machine's rates are measured too, between the blocks
    tells: bool = (
        False  # whether the process also sends `now` and `going`, which older versions of the parent do not know
    )


class CaseReport(Model):
    """What a process measured of one case."""

    info: dict[str, Any]  # `Training.run_info()`
    steps_per_epoch: int
    startup_seconds: Seconds
    peak_memory_bytes: NonNegativeCount | None
    warmup_steps: NonNegativeCount
    one_thread_ratio: Positive | None = None  # of a step, where threads waited for a core
    blocks: tuple[Block, ...]


class Report(Model):
    """What a process measured."""

    event: Literal["report"] = "report"
    process: str
    started_at: str
    machine: dict[str, Any]  # `identity.describe()`
    rounds: int
    steps: int | None = None  # of each epoch that was timed in mode `full`; None: all, or another mode
    seconds: Seconds  # from its start to its end
    cases: tuple[CaseReport, ...]  # in the order of `Order.cases`
    calibration: Calibration | None = None  # the machine's rates between the blocks, where the order asks for them
    takes_turns: bool = False  # whether this version of the suite can; the first that measured in processes could not


# Measuring ----------------------------------------------------------------------------------------------------------


def measure(
    order: Order, send: Callable[[dict[str, Any]], None], begun: float, wait: Callable[[], None] = lambda: None
) -> Report:
    """Measure what the order says.

    Args:
        order: what to measure.
        send: called with each event.
        begun: `time.perf_counter()` when the process began.
        wait: called before each sampled block and each way to a point; returns when it is this process's turn.

    Raises:
        UserError: where this machine cannot do it, or the images are not those of the order.
    """
    started_at, draw = identity.now(), random.Random(order.draw)

    def now(what: str) -> None:
        if order.tells:
            send({"event": "now", "what": what})

    dataset, recipe = dataset_of(order.dataset, order.seed), Recipe.from_dict(order.recipe)
    timers = []
    for case in order.cases:
        now(f"{case.architecture} ({case.engine}), compiling where need be")
        build = partial(
            Training, architectures.get(case.architecture), dataset, recipe, engine=case.engine, seed=order.seed,
            pipeline=order.pipeline, workers=order.workers, threads=order.threads,
        )  # fmt: skip
        timers.append(EpochTimer(build, case.mode, order.process))
    lookout, sampler = Lookout(send), machine.Sampler() if order.calibrate else None

    def after(timer: EpochTimer, block: Block) -> None:
        lookout.after(timer, block)
        if sampler:
            sampler.sample_if_due()

    places = [order.places.get(case.architecture, ()) for case in order.cases]
    modes = {case.mode for case in order.cases}
    rounds, steps = order.rounds or 1, order.steps
    # What is compiled here is kept for the processes that follow, so this time is no measure of theirs.
    compiling = sum(timer.training.engine.compile_seconds for timer in timers)
    left = order.seconds - (time.perf_counter() - begun - compiling)
    if sampler:
        left *= 1 - SHARE
    if modes == {"sampled"}:
        rounds = order.rounds or _rounds_that_fit(timers, places, left)
        _sampled(timers, places, rounds, draw, send, wait, after, now)
    elif modes == {"full"}:
        if order.cut and not steps:
            steps = _steps_that_fit(timers, order.epochs, left)
        _full(timers, order.epochs, steps, draw, send, after, now)
    else:
        pairs = {(c.architecture, c.engine): i for i, c in enumerate(order.cases) if c.mode == "sampled"}
        both = [
            (timers[i], timers[sampled], places[sampled])
            for i, c in enumerate(order.cases)
            if c.mode == "full" and (sampled := pairs[c.architecture, c.engine]) is not None
        ]
        _both(both, order.epochs, draw, send, after, now)
    return Report(
        process=identity.PROCESS,
        started_at=started_at,
        machine=identity.describe(),
        calibration=sampler.calibration() if sampler else None,
        rounds=rounds,
        steps=steps,
        seconds=time.perf_counter() - begun,
        cases=tuple(map(_case_report, timers)),
        takes_turns=True,
    )


def dataset_of(wanted: Data, seed: int) -> Dataset:
    """The images that an order names.

    Raises:
        UserError: where they are no longer there, or others than when the order was written.
    """
    dataset = datasets.load(
        wanted.name,
        train_images=wanted.train_images,
        test_images=wanted.test_images,
        seed=seed,
        at_most=wanted.at_most,
    )
    if wanted.classes is not None:
        dataset = datasets.with_classes(dataset, wanted.classes)
    if dataset.sha256 != wanted.sha256:
        raise UserError(f"The images of {wanted.name} changed during the measurement; measure again.")
    return dataset


def _rounds_that_fit(timers: Sequence[EpochTimer], places: Sequence[Sequence[Place]], seconds: float) -> int:
    """How many rounds fit into the time, from how long a few steps of each network take, before any block counts.

    The number depends on how long a step takes, and not on how blocks scatter: a measurement that stops when its
    interval looks narrow has too narrow intervals.
    """
    round_seconds = 0.0
    for timer, own in zip(timers, places, strict=True):
        step = step_seconds(timer, min(PILOT_STEPS, timer.steps_per_block))  # a step on a large batch takes long
        round_seconds += len(own) * timer.steps_per_block * step
    return max(1, min(MAX_ROUNDS, int(seconds / round_seconds)))


def _steps_that_fit(timers: Sequence[EpochTimer], epochs: int, seconds: float) -> int | None:
    """How many first steps of each epoch fit into the time, `PILOT_STEPS` at least; None where whole epochs do.

    Told, as for `_rounds_that_fit`, from a few steps of each network. They are undone, because whole epochs begin with
    the training's first step.
    """
    round_seconds = 0.0
    for timer in timers:
        with timer.training.undone():
            round_seconds += epochs * step_seconds(timer)
    fitting = max(PILOT_STEPS, int(seconds / round_seconds))
    return fitting if any(fitting < timer.training.steps_per_epoch for timer in timers) else None


def _sampled(
    timers: Sequence[EpochTimer],
    places: Sequence[Sequence[Place]],
    rounds: int,
    draw: random.Random,
    send: Callable[[dict[str, Any]], None],
    wait: Callable[[], None],
    after: Callable[[EpochTimer, Block], None],
    now: Callable[[str], None],
) -> None:
    """At each point, in an order that is drawn, `rounds` rounds: a block of every network, in an order drawn anew."""
    total, done = sum(map(len, places)) * rounds, 0
    points = list(range(len(places[0])))
    draw.shuffle(points)
    for point in points:
        wait()
        for timer, own in zip(timers, places, strict=True):
            now(f"{_name(timer)} goes to step {own[point].point.step:,}")
            states.load(timer.training, own[point].state)
        for round_ in range(rounds):
            for timer in draw.sample(timers, len(timers)):
                wait()
                after(timer, timer.measure(round_, point))
                done += 1
                send({"event": "progress", "done": done, "total": total})


def _full(
    timers: Sequence[EpochTimer],
    epochs: int,
    steps: int | None,
    draw: random.Random,
    send: Callable[[dict[str, Any]], None],
    after: Callable[[EpochTimer, Block], None],
    now: Callable[[str], None],
) -> None:
    """Whole epochs from the training's beginning, or their first `steps` steps, of all networks in turn."""
    total, done = epochs * len(timers), 0
    for epoch in range(epochs):
        for timer in draw.sample(timers, len(timers)):
            now(_name(timer))
            after(timer, timer.measure(epoch, steps=steps))
            done += 1
            send({"event": "progress", "done": done, "total": total})


def _both(
    pairs: Sequence[tuple[EpochTimer, EpochTimer, Sequence[Place]]],
    epochs: int,
    draw: random.Random,
    send: Callable[[dict[str, Any]], None],
    after: Callable[[EpochTimer, Block], None],
    now: Callable[[str], None],
) -> None:
    """Whole epochs and, between their pieces, sampled blocks of the same network, to check the sampling.

    If one mode were measured after the other, the machine's drift in between would appear as a difference between them.
    In the pipeline `loader`, workers go on while a sampled block is measured, so up to four batches of the next piece
    are prepared before it is timed.
    """
    pieces = [max(1, min(PIECES, full.training.steps_per_epoch // LEAST_PIECE_STEPS)) for full, _, _ in pairs]
    # so many sampled blocks after each piece, the last one too, that each point has its turn
    blocks = [-(-max(PIECES, len(places)) // n) for n, (_, _, places) in zip(pieces, pairs, strict=True)]
    total, done = epochs * sum(n * b for n, b in zip(pieces, blocks, strict=True)), 0
    for epoch in range(epochs):
        for i in draw.sample(range(len(pairs)), len(pairs)):
            full, sampled, places = pairs[i]
            now(_name(full))

            def between(
                sampled: EpochTimer = sampled, places: Sequence[Place] = places, count: int = blocks[i]
            ) -> None:
                nonlocal done
                for _ in range(count):
                    point, round_ = len(sampled.blocks) % len(places), len(sampled.blocks) // len(places)
                    states.load(sampled.training, places[point].state)
                    after(sampled, sampled.measure(round_, point))
                    done += 1
                    send({"event": "progress", "done": done, "total": total})

            after(full, full.measure(epoch, pieces=pieces[i], between=between))
            between()


def _name(timer: EpochTimer) -> str:
    return f"{timer.training.architecture.id} ({timer.training.engine.name})"


def _case_report(timer: EpochTimer) -> CaseReport:
    return CaseReport(
        info=timer.training.run_info(),
        steps_per_epoch=timer.training.steps_per_epoch,
        startup_seconds=timer.startup_seconds,
        peak_memory_bytes=timer.peak_memory_bytes,
        warmup_steps=timer.warmup_steps,
        one_thread_ratio=timer.one_thread_ratio,
        blocks=tuple(timer.blocks),
    )


def main() -> int:
    """Read an order, measure, report; the exit status is 2 for a mistake of the user's."""
    progress.be_silent()
    ignore_interrupt()  # the parent answers Ctrl-C and ends this process
    begun = time.perf_counter()
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no event

    def send(event: dict[str, Any]) -> None:
        print(json.dumps(event), file=events, flush=True)

    def wait() -> None:
        if order.turns:
            send({"event": "turn"})
            if not sys.stdin.readline():
                raise SystemExit(1)  # the parent has ended
            if order.tells:
                send({"event": "going"})

    take_interop_threads()
    try:
        order = Order.model_validate_json(sys.stdin.readline())
        report = measure(order, send, begun, wait)
        send(report.model_dump(mode="json"))
    except UserError as error:
        send({"event": "error", "message": str(error)})
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
