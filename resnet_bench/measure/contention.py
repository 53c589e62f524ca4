"""Threads that wait for a core: said while it happens, with what one thread would give here, measured.

The threads of an operation end together. So where another process has the core of one of them, the others wait too,
and a step takes several times as long. With one thread there is no partner to wait for.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from resnet_bench import machine
from resnet_bench.machine import availability
from resnet_bench.machine.waiting import DOUBTFUL_SHARE
from resnet_bench.measure.epoch_time import EpochTimer
from resnet_bench.schema import Block
from resnet_bench.training.training import Training
from resnet_bench.wording import counted

LEAST_SECONDS = 0.05
"""A thread has to wait so long in a block until anything is said: several of the scheduler's time slices."""

REPEAT_SECONDS = 60.0
"""It is said again after so long at the earliest."""

TRIAL_SECONDS = 1.5
"""How long one thread is compared with as many as were asked for."""

TRIAL_STEPS = 3
"""Steps with each number of threads, at least."""

WATCH_SECONDS = 0.5
"""How long other processes are watched, to name those that use the cores."""

NAMED = 2  # other processes at most


class NowAndThen:
    """Lets a sentence be said at once, then again after `REPEAT_SECONDS` at the earliest."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._said = -math.inf

    def __call__(self, sentence: str) -> None:
        if time.monotonic() - self._said >= REPEAT_SECONDS:
            self._said = time.monotonic()
            self._say(sentence)


class Lookout:
    """Looks at each block of a process as soon as it is timed, and tells where threads waited."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        """`send` is called with an event of the process."""
        self._send = send
        self._told: float | None = None

    def after(self, timer: EpochTimer, block: Block) -> None:
        """Tell where threads waited in the block that `timer` has just timed; compare with one thread the first time.

        The timer's training is then in the state that the block left.
        """
        if not _disturbed(block) or (self._told is not None and time.monotonic() - self._told < REPEAT_SECONDS):
            return
        who = _who(timer.training, block)
        if self._told is None:  # once in a process, before the machine is another
            timer.one_thread_ratio = one_thread_ratio(timer.training)
        self._send({"event": "waiting", "message": _sentence(timer, block, who)})
        self._told = time.monotonic()


def one_thread_ratio(training: Training, seconds: float = TRIAL_SECONDS) -> float | None:
    """How long a step takes with one thread, over how long it takes with the training's number, measured in turn.

    None where that number is 1, and for engines that would have to compile for another number, which takes longer than
    it is worth. The training is left as it was, to the last bit; its pipeline is opened anew.
    """
    if training.threads == 1 or training.engine.threads_compiled_in:
        return None
    spent: dict[int, list[float]] = {training.threads: [], 1: []}
    with training.undone():
        try:
            _step(training)  # it may open the pipeline
            begun, turn = time.perf_counter(), list(spent)
            while time.perf_counter() - begun < seconds or len(spent[1]) < TRIAL_STEPS:
                for threads in turn:
                    torch.set_num_threads(threads)
                    spent[threads].append(_step(training))
                turn.reverse()
        finally:
            torch.set_num_threads(training.threads)
    return sum(spent[1]) / sum(spent[training.threads])


def _step(training: Training) -> float:
    """Seconds of a step, of the next epoch where this one is over."""
    if training.step == training.steps_per_epoch:
        training.close_epoch()
    begun = time.perf_counter()
    training.train_step()
    return time.perf_counter() - begun


# Sentences ------------------------------------------------------------------------------------------------------------


def reasons(blocks: Sequence[Block], processes: int = 1, ratios: Sequence[float | None] = ()) -> list[str]:
    """Why times are doubtful by what threads waited and what a host took, a sentence each. They name no process.

    Args:
        blocks: of all processes.
        processes: how many these are.
        ratios: what `one_thread_ratio` measured in each.
    """
    found = []
    if waited := _doubtful(blocks, "waiting_share"):
        measured = [ratio for ratio in ratios if ratio is not None]
        one = f"; with --threads 1 a step took {_span(measured, '{:.2f}')} of the time (measured)" if measured else ""
        found.append(
            f"A thread waited for a core {_span(waited, '{:.0%}')} of the time{_in(len(waited), processes)}, and steps "
            f"took longer than on a free machine{one}."
        )
    if stolen := _doubtful(blocks, "stolen_share"):
        found.append(
            f"The host of this virtual machine took {_span(stolen, '{:.0%}')} of the cores' time"
            f"{_in(len(stolen), processes)}."
        )
    return found


def _doubtful(blocks: Sequence[Block], name: Literal["waiting_share", "stolen_share"]) -> list[float]:
    """The share of each process over all its blocks, of those in which it is doubtful."""
    told: dict[int, list[tuple[float, float]]] = {}
    for block in blocks:
        if (share := getattr(block, name)) is not None:
            told.setdefault(block.process, []).append((share, block.seconds))
    shares = [sum(share * s for share, s in own) / sum(s for _, s in own) for own in told.values()]
    return [share for share in shares if share >= DOUBTFUL_SHARE]


def _span(values: Sequence[float], form: str) -> str:
    low, high = (form.format(end).replace("%", "") for end in (min(values), max(values)))
    return (low if low == high else f"{low} to {high}") + (" %" if form.endswith("%}") else "")


def _in(affected: int, processes: int) -> str:
    return "" if affected == processes else f" in {affected} of {processes} processes"


def _disturbed(block: Block) -> bool:
    share = max(block.waiting_share or 0.0, block.stolen_share or 0.0)
    return share >= DOUBTFUL_SHARE and share * block.seconds >= LEAST_SECONDS


def _sentence(timer: EpochTimer, block: Block, who: str) -> str:
    """`fc1: a thread waits 41 % of the time for a core (yes (77) 1.0 cores); with --threads 1 ...`."""
    text = f"{timer.training.architecture.id}: {_what(block)}{f' ({who})' if who else ''}"
    if slower := _slower(timer.blocks, block):
        text += f", and a step takes {slower:.1f} times as long as in undisturbed blocks"
    return f"{text}; {_remedy(timer)}."


def _what(block: Block) -> str:
    if (block.waiting_share or 0.0) >= DOUBTFUL_SHARE:
        return f"a thread waits {_span([block.waiting_share or 0.0], '{:.0%}')} of the time for a core"
    return f"the host of this virtual machine takes {_span([block.stolen_share or 0.0], '{:.0%}')} of the cores' time"


def _who(training: Training, block: Block) -> str:
    """What has the cores, as far as it is known."""
    threads, cores = training.threads, machine.usable_cores()
    workers = training.workers if training.pipeline == "loader" else 0
    busiest = [p for p in availability.busiest(WATCH_SECONDS) if p.cores >= availability.BUSY_SHARE][:NAMED]
    found = []
    if threads + workers > cores:
        own = counted(threads, "thread")
        own += f" and {counted(workers, 'loader worker')}" if workers else ""
        found.append(f"{own} share {cores:g} usable core{'' if cores == 1 else 's'}")
    if busiest:
        found.append(f"cores in use by others: {', '.join(map(str, busiest))}")
    if (block.waiting_share or 0.0) >= DOUBTFUL_SHARE and (block.stolen_share or 0.0) >= DOUBTFUL_SHARE:
        found.append(f"the host takes {_span([block.stolen_share or 0.0], '{:.0%}')} of their time")
    return "; ".join(found)


def _slower(blocks: Sequence[Block], block: Block) -> float | None:
    """How many times as long a step takes as in the undisturbed blocks of the same point; None without any."""
    free = [
        b.seconds / b.steps
        for b in blocks
        if b.point == block.point and b.waiting_share is not None and b.waiting_share < DOUBTFUL_SHARE
    ]
    return block.seconds / block.steps / statistics.median(free) if free else None


def _remedy(timer: EpochTimer) -> str:
    training, ratio = timer.training, timer.one_thread_ratio
    if training.threads == 1:
        return "end what need not run, or measure later"
    if training.engine.threads_compiled_in:
        return (
            "--threads 1 has no partner to wait for; what it gives here is not measured, because "
            f"{training.engine.name} would have to compile for it"
        )
    if ratio is None:  # measured with another network of this process
        return "--threads 1 has no partner to wait for"
    if ratio < 1:
        return f"with --threads 1 a step takes {ratio:.2f} of the time here (measured)"
    return f"--threads 1 does not help here: a step takes {ratio:.2f} times as long (measured)"
