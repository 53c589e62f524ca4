"""What a denormal number costs this machine: in one operation, and in a step of torch's Adam.

A float32 below 1.2e-38 is denormal. Some CPUs take many times as long for an operation that meets one. Adam's moments
of a unit that answers no image become such numbers, and stay such: docs/denormals.md.
"""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from resnet_bench import progress
from resnet_bench.child import DenormalChild
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Count, Model, Seconds

LAYER = (8192, 1000)
"""Inputs and outputs of the first FC layer of `baseline`, whose weight the steps of Adam update."""

NUMBERS = 16_384
"""Operands of one operation, which one thread computes. They fit the L2 cache of most cores: no waiting for memory."""

STUCK_FIRST, STUCK_SECOND = 4, 500
"""First and second moments of a weight without a gradient, in units of the smallest denormal number: where rounding
keeps them from falling further, for factors of 0.9 and 0.999."""

ORDINARY_FIRST, ORDINARY_SECOND = 1e-10, 1e-12
"""Moments that are no denormal numbers. So small that weights move little, whichever is combined with which."""

ROUNDS = 9
MIN_ROUNDS = 3
TIME_LIMIT = 10.0  # seconds after which no further round starts, for slow machines
SAMPLE_SECONDS = 0.002  # shortest sample of an operation

Work = Literal["multiplication", "division", "square root", "default Adam", "foreach Adam", "fused Adam"]
Operands = Literal["operand", "first moments", "second moments", "both moments"]
Ratio = Annotated[float, Field(gt=0, le=1e9)]

OPERATIONS: tuple[Work, ...] = get_args(Work)[:3]
STEPS: tuple[Work, ...] = get_args(Work)[3:]


class DenormalCost(Model):
    """How many times as long some work takes with denormal numbers as with ordinary ones.

    Attributes:
        work: an operation on a vector, or a step of Adam in one of torch's three implementations.
        denormal: what of it is denormal; all else is ordinary.
        flushed: whether the process flushes denormal numbers to 0.
        seconds, ordinary_seconds: of a call, with denormal and with ordinary numbers; medians.
        median, low, high: of the ratio of the two in each round, and its lower and upper quartile.
        samples: rounds.
    """

    work: Work
    denormal: Operands
    flushed: bool
    seconds: Seconds
    ordinary_seconds: Seconds
    median: Ratio
    low: Ratio
    high: Ratio
    samples: Count


class DenormalCosts(Model):
    """The costs on this machine.

    Attributes:
        threads: of a step of Adam. An operation uses one.
        numbers: operands of an operation.
        parameters: that a step of Adam updates.
        seconds: that measuring took.
        costs: first those of the operations. Without those that are flushed where this CPU cannot flush.
    """

    threads: Count
    numbers: Count
    parameters: Count
    seconds: Seconds
    costs: tuple[DenormalCost, ...]

    def cost(self, work: Work, denormal: Operands, flushed: bool) -> DenormalCost | None:
        """The cost of this work; None where it was not measured."""
        return next((c for c in self.costs if (c.work, c.denormal, c.flushed) == (work, denormal, flushed)), None)


@dataclass(frozen=True)
class _Task:
    """One thing to measure: `denormal` None stands for ordinary numbers."""

    work: Work
    denormal: Operands | None

    @property
    def ordinary(self) -> _Task:
        return _Task(self.work, None)


_OPERATION_TASKS = [_Task(work, denormal) for work in OPERATIONS for denormal in (None, "operand")]
_KEPT = [
    *_OPERATION_TASKS,
    *(_Task(work, which) for work in STEPS for which in (None, "first moments", "second moments", "both moments")),
]
_FLUSHED = [*_OPERATION_TASKS, *(_Task(work, which) for work in STEPS for which in (None, "both moments"))]


def measure_denormals(threads: int | None = None, layer: tuple[int, int] = LAYER) -> DenormalCosts:
    """Measure what denormal numbers cost here, in some 20 seconds, with a progress bar on a terminal.

    One child process keeps denormal numbers, another flushes them. Both measure in turn, in rounds, in an order that is
    drawn anew in each. A ratio is of two samples of one round and one process, because processes differ: where their
    memory lies decides how long the same step takes. The two need 1 GB of memory beside what torch itself takes.

    Args:
        threads: of a step; None stands for as many as torch uses now.
        layer: inputs and outputs of the layer whose weight is updated.

    Raises:
        UserError: where a child process dies.
    """
    start = time.perf_counter()
    threads = threads or torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        children = {flush: stack.enter_context(contextlib.closing(DenormalChild(flush))) for flush in (False, True)}
        for child in children.values():
            child.prepare(_Worker, threads, math.prod(layer))
        able = [flush for flush, child in children.items() if child.ready()]
        tasks = [(flush, task) for flush in able for task in (_FLUSHED if flush else _KEPT)]
        samples: dict[tuple[bool, _Task], list[float]] = {task: [] for task in tasks}
        draws, begun = random.Random(0), time.perf_counter()
        for done in progress.each(range(ROUNDS), "measuring denormal numbers", "rounds"):
            if done >= MIN_ROUNDS and time.perf_counter() - begun > TIME_LIMIT:
                break
            for flush, task in draws.sample(tasks, len(tasks)):
                children[flush].ask(task)
                samples[flush, task].append(children[flush].answer())
    return DenormalCosts(
        threads=threads,
        numbers=NUMBERS,
        parameters=math.prod(layer),
        seconds=time.perf_counter() - start,
        costs=tuple(
            _cost(task, task.denormal, flush, samples[flush, task], samples[flush, task.ordinary])
            for flush, task in tasks
            if task.denormal
        ),
    )


def _cost(
    task: _Task, denormal: Operands, flushed: bool, seconds: Sequence[float], ordinary: Sequence[float]
) -> DenormalCost:
    ratios = [a / b for a, b in zip(seconds, ordinary, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return DenormalCost(
        work=task.work,
        denormal=denormal,
        flushed=flushed,
        seconds=statistics.median(seconds),
        ordinary_seconds=statistics.median(ordinary),
        median=median,
        low=low,
        high=high,
        samples=len(ratios),
    )


# In the child process ------------------------------------------------------------------------------------------------


class _Worker:
    """Answers a task with the seconds of one call."""

    def __init__(self, threads: int, parameters: int) -> None:
        self.threads = threads
        self.operand, self.divisor, self.out = torch.empty(3, NUMBERS)
        self.divisor.fill_(Recipe().eps)  # that of Adam, where a second moment is 0
        weight = torch.nn.Parameter(torch.full((parameters,), 0.01))
        weight.grad = torch.zeros(parameters)  # as an idle unit's
        self.first, self.second = torch.zeros(2, parameters)
        self.optimizers = {
            work: _adam(weight, self.first, self.second, foreach=work == "foreach Adam", fused=work == "fused Adam")
            for work in STEPS
        }
        for task in _KEPT:  # the first call of each takes longer
            self(task)

    @torch.no_grad()
    def __call__(self, task: _Task) -> float:
        if task.work in OPERATIONS:
            _fill(self.operand, STUCK_SECOND if task.denormal else ORDINARY_SECOND)
            call = self._operation(task.work)
            torch.set_num_threads(1)
            return _seconds(call, calls=min(10_000, math.ceil(SAMPLE_SECONDS / _seconds(call, 10) * 10)))
        first = task.denormal in ("first moments", "both moments")
        second = task.denormal in ("second moments", "both moments")
        _fill(self.first, STUCK_FIRST if first else ORDINARY_FIRST)
        _fill(self.second, STUCK_SECOND if second else ORDINARY_SECOND)
        torch.set_num_threads(self.threads)
        return _seconds(self.optimizers[task.work].step, calls=1)

    def _operation(self, work: Work) -> Callable[[], Any]:
        """The operation as Adam's step has it: what decays, what is divided by `eps`, what a root is taken of."""
        if work == "multiplication":
            return lambda: torch.mul(self.operand, 0.999, out=self.out)
        if work == "division":
            return lambda: torch.div(self.operand, self.divisor, out=self.out)
        return lambda: torch.sqrt(self.operand, out=self.out)


def _adam(weight: torch.nn.Parameter, first: Tensor, second: Tensor, *, foreach: bool, fused: bool) -> torch.optim.Adam:
    """An Adam for `weight` in the middle of a training, with these two tensors as its moments."""
    recipe = Recipe()
    optimizer = torch.optim.Adam(
        [weight], lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, foreach=foreach, fused=fused
    )
    optimizer.state[weight] = {"step": torch.tensor(1e5), "exp_avg": first, "exp_avg_sq": second}
    return optimizer


def _fill(numbers: Tensor, value: float) -> None:
    """Fill with a number, or, where `value` is an int, with so many units of the smallest denormal number."""
    if isinstance(value, int):
        numbers.view(torch.int32).fill_(value)  # the bits, which no setting flushes
    else:
        numbers.fill_(value)


def _seconds(call: Callable[[], Any], calls: int) -> float:
    """Of one call, the mean of `calls` in a row."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls
