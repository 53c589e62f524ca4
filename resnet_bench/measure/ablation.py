"""Why one step is faster than another: from the paper's step to the engine `fast`, one change at a time.

All variants of a network, and of the network it is compared with, train in turn, block by block, so that drift of the
machine does not change their ratios. What denormal numbers cost is measured in pairs of fresh child processes: all
train from states that have such numbers, and one of each pair flushes them to 0.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from resnet_bench import architectures, identity, machine, networks, paper, progress
from resnet_bench.architectures import Architecture
from resnet_bench.child import DenormalChild
from resnet_bench.clock import Clock
from resnet_bench.data import pipelines
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import Batch, crowded
from resnet_bench.engines import fast, reference
from resnet_bench.engines._features import Convolutions, TorchConvolutions
from resnet_bench.engines._units import PERIOD
from resnet_bench.engines.base import Engine
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.measure.contention import reasons
from resnet_bench.measure.epoch_time import EpochTimer, _page_faults, measure_in_turn
from resnet_bench.recipe import Recipe
from resnet_bench.schedules import LearningRates
from resnet_bench.schema import Block, DenormalState, ExplainResult, PhaseSeconds, Variant
from resnet_bench.training.training import Training, set_deterministic

DEAD_SHARE = 0.95
"""Share of the first hidden layer's units that are turned into dead ReLU units: somewhat fewer than die in `baseline`
within 200 steps of the study's recipe (docs/fast-engine.md)."""

EARLY_STEPS = 1200
"""Steps without a gradient after which, early in the training, first moments are denormal: each multiplies them by 0.9,
and after some 800 they are. Second moments decay by 0.999 a step and are denormal only after some 67,000."""

PAIRS = 5  # of processes, one that keeps denormals and one that flushes them; each times one block of every state
MIN_PAIRS = 2
BATCHES = 8  # different ones that the states are trained on, in turn
REMEDY = "explain a smaller network or free memory"
BLOCK_STEPS = 6  # timed, after one that is not; few, because a step with denormals may take seconds


FIRST_STEPS = 512
"""Steps that engines which leave idle units out train before they are timed: by then nearly all rest that ever will."""

FIRST_STEPS_UNTIL, ROUNDS_UNTIL = 0.2, 0.55
"""Shares of the time limit after which these steps, and the rounds of the variants, are over."""


class FusedAdam(reference.Engine):
    """The plain step with torch's fused Adam, which updates all parameters in one pass."""

    name = "reference, fused Adam"

    def __init__(self, network: networks.ResidualNetwork, recipe: Recipe, rates: LearningRates | None = None) -> None:
        super().__init__(network, recipe, rates)
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=True
        )


class IdleUnitsLeftOut(fast.Engine):
    """`fast`, but eager PyTorch computes its convolutions, batch norm and ReLU."""

    name = "fast, eager convolutions"

    def arrange_kernels(self) -> None:
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def convolutions(self, images: int) -> Convolutions:
        return TorchConvolutions(self.network, torch.float32)


class GradientNeverStored(IdleUnitsLeftOut):
    """`IdleUnitsLeftOut`, but idle units of the FC layers are multiplied and updated like all others."""

    name = "fast, eager convolutions, idle units too"
    idle_too = True


@dataclass(frozen=True)
class Change:
    """One variant of the step, told by what differs from the variant before.

    Attributes:
        name: of the variant, e.g. `fused Adam`.
        sentence: what differs.
        engine, pipeline: how the step runs.
        bytes_per_parameter: the optimiser's traffic for each parameter that it updates: every float32 that is read or
            written from the moment the weight gradient is formed. Default Adam writes the gradient (1 float) and makes
            seven passes: lerp (3), mul (2), addcmul (3), sqrt (2), division (2), adding eps (2), addcdiv (4): 19
            floats. Fused Adam writes the gradient (1), reads gradient, weight and moments (4) and writes weight and
            moments (3): 8 floats. Without a stored gradient, 6 remain.
    """

    name: str
    sentence: str
    engine: type[Engine]
    pipeline: str
    bytes_per_parameter: int


CHANGES = (
    Change("plain", "what the paper ran: loader with worker processes, default Adam", reference.Engine, "loader", 76),
    Change("vectorized data", "augmentation of whole chunks, no workers", reference.Engine, "vectorized", 76),
    Change("fused Adam", "one pass of Adam over the parameters instead of seven", FusedAdam, "vectorized", 32),
    Change(
        "gradient never stored", "FC gradient formed inside Adam's pass; FC products of its own", GradientNeverStored,
        "vectorized", 24,
    ),
    Change(
        "idle units left out", "hidden units that answer no image, whose gradient is 0, neither multiplied nor updated",
        IdleUnitsLeftOut, "vectorized", 24,
    ),
    Change("fast", "convolutions of its own, with batch norm and ReLU in the same call", fast.Engine, "vectorized", 24),
)  # fmt: skip


def counterpart(architecture: Architecture) -> Architecture:
    """The network to compare with: the baseline; for the baseline itself `fc1`, the fastest of the study."""
    return architectures.get("fc1" if architecture.id == "baseline" else "baseline")


def explain(
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    *,
    seed: int = 0,
    workers: int = 2,
    threads: int | None = None,
    time_limit: float = 60.0,
) -> ExplainResult:
    """Measure every variant of `architecture` and of its counterpart, in turn, and what denormal numbers cost.

    All train with a constant learning rate: the rate decides nothing about the time of these first steps.

    Args:
        architecture: the network to explain.
        dataset: what all variants train on.
        recipe: how they train.
        seed: of weights and augmentation.
        workers: worker processes of the pipeline `loader`.
        threads: torch's threads; None leaves them as they are.
        time_limit: seconds for all this, without compiling. Where it is short, fewer steps are trained, before and in
            the blocks, which `warnings` say, and there are fewer pairs of processes with denormals, two at least.

    Raises:
        UserError: where torch cannot compile, which the last three variants need, or where a child process dies.
    """
    started_at, begun = identity.now(), time.perf_counter()
    recipe = replace(recipe, schedule="constant", warmup_steps=0)
    fast.Engine.require()
    threads = set_deterministic(threads)
    busy = machine.busy_reason()
    other = counterpart(architecture)
    pairs = [(a, change) for a in (architecture, other) for change in CHANGES]
    with progress.task(f"explaining {architecture.id}", time_limit, seconds=time_limit):
        with progress.task("building and compiling the variants"):
            measurements = [
                EpochTimer(
                    partial(
                        Training, a, dataset, recipe, engine=c.engine, pipeline=c.pipeline, seed=seed, workers=workers,
                        threads=threads,
                    )
                )
                for a, c in pairs
            ]  # fmt: skip
        begun += sum(m.training.engine.compile_seconds for m in measurements)

        def left(share: float) -> float:
            return max(0.1, begun + share * time_limit - time.perf_counter())

        trained = _train_first_steps(measurements, left(FIRST_STEPS_UNTIL))
        share = measure_in_turn(measurements, left(ROUNDS_UNTIL))
        waiting = reasons([b for m in measurements for b in m.blocks])
        states = _denormal_states(architecture, dataset, recipe, seed, threads, PAIRS, left(1))
    short = []
    if trained < FIRST_STEPS:
        short.append(
            f"the time limit allowed {trained} of {FIRST_STEPS} steps before the first block; units still came to rest"
        )
    if share < 1:
        short.append(
            f"the time limit allowed blocks of {share:.0%} of the usual length, between which augmentation may fall"
        )
    unflushed = "This CPU cannot flush denormal numbers." if any(s.flushed is None for s in states) else None
    return ExplainResult(
        **identity.origin(started_at),
        architecture=architecture.id,
        counterpart=other.id,
        dataset=dataset.info(),
        recipe=recipe.as_dict(),
        seed=seed,
        threads=threads,
        workers=workers,
        variants=tuple(
            _variant(a, c.name, c.sentence, m.blocks, round(c.bytes_per_parameter * m.parameters_per_step()[1]))
            for (a, c), m in zip(pairs, measurements, strict=True)
        ),
        states=states,
        warnings=tuple(w for w in (busy, crowded("loader", workers), *waiting, *short, unflushed) if w),
    )


def _train_first_steps(timers: Sequence[EpochTimer], seconds: float) -> int:
    """Train `FIRST_STEPS` steps with the engines that leave idle units out, as far as the time allows; how many it was.

    Two periods after which an engine looks for units that may rest are trained in any case.
    """
    resting = [t for t in timers if t.training.engine.leaves_idle_units_out(t.training.architecture, t.training.recipe)]
    begun, done = time.perf_counter(), 0
    while done < FIRST_STEPS:
        for timer in resting:
            timer.run(PERIOD)
        done += PERIOD
        if done >= 2 * PERIOD and (time.perf_counter() - begun) * (1 + PERIOD / done) > seconds:
            break
    return done


def _variant(architecture: Architecture, name: str, change: str, blocks: Sequence[Block], bytes_: int) -> Variant:
    steps = sum(b.steps for b in blocks)
    seconds = [b.seconds / b.steps for b in blocks]
    return Variant(
        architecture=architecture.id,
        name=name,
        change=change,
        step_seconds=positive_mean_interval(seconds),
        block_seconds=tuple(seconds),
        phases=PhaseSeconds(
            **{p: sum(getattr(b.phases, p) for b in blocks) / steps for p in PhaseSeconds.model_fields}
        ),
        page_faults=sum(b.page_faults for b in blocks) / steps,
        optimizer_bytes=bytes_,
    )


# Denormals ----------------------------------------------------------------------------------------------------------

Moments = Literal["exp_avg", "exp_avg_sq"]
Step = Literal["kept", "flushed", "only_exp_avg", "only_exp_avg_sq"]


def carried_on(exp_avg: Tensor, exp_avg_sq: Tensor, betas: tuple[float, float], steps: int) -> tuple[Tensor, Tensor]:
    """Adam's moments of weights without a gradient, `steps` steps later.

    Each step multiplies them by a factor and rounds to float32. The product is computed in float64 and rounded once, so
    that what is still ordinary differs by a few roundings from what the steps give. But what would fall below the
    number at which rounding keeps it is exactly that number, and what began there or below has stayed.
    """
    first, second = (_decayed(m, b, steps) for m, b in zip((exp_avg, exp_avg_sq), betas, strict=True))
    return first, second


def stuck_at(beta: float) -> int:
    """The largest n for which `beta` times n units of the smallest denormal float32 rounds to n units again."""
    factor = float(torch.tensor(beta, dtype=torch.float32))
    n = int(0.5 / (1 - factor))
    return n if round(n * factor) == n else n - 1  # both round ties to even


def _decayed(moments: Tensor, beta: float, steps: int) -> Tensor:
    factor = float(torch.tensor(beta, dtype=torch.float32))
    stuck = torch.tensor(stuck_at(beta), dtype=torch.int32).view(torch.float32)
    size = moments.abs()
    decayed = (size.double() * factor**steps).float()
    return torch.where(size <= stuck, moments, torch.maximum(decayed, stuck).copysign(moments))


@dataclass(frozen=True)
class _Idle:
    """How the moments of dead units are set: carried on by so many steps, those of one kind set to 0."""

    steps: int
    zero: Moments | None = None


@dataclass(frozen=True)
class _Shares:
    """Of the network's first or second moments, how many are denormal and how many are 0."""

    denormal: float
    zero: float


class _DeadUnits:
    """Answers `(idle, round)` with a block of plain steps in that state, and the shares of each kind of moments.

    Most units of the first hidden layer get a bias that no input overcomes. Behind the ReLU their activations, and the
    gradients of all weights into them and out of them, are exactly 0. All states are set in the same memory: where it
    lies decides how long the same step takes.

    The step uses default Adam, since each of its passes over the moments meets the denormals, and batches that are
    ready, since augmentation and worker processes would add noise.
    """

    def __init__(
        self, architecture: Architecture, classes: int, recipe: Recipe, seed: int, threads: int, batches: list[Batch]
    ) -> None:
        set_deterministic(threads)
        self.engine = reference.Engine(networks.build(architecture, classes, seed), recipe)
        self._batches = itertools.cycle(batches)
        self._train(BATCHES, Clock())  # from here on there are moments
        into, out_of = [m for m in self.engine.network.fc if isinstance(m, nn.Linear)][:2]
        dead = _dead_units(into.out_features)
        with torch.no_grad():
            into.bias[:dead] = -1e9
        state = self.engine.optimizer.state
        rows = [(state[p]["exp_avg"][:dead], state[p]["exp_avg_sq"][:dead]) for p in (into.weight, into.bias)]
        columns = state[out_of.weight]["exp_avg"][:, :dead], state[out_of.weight]["exp_avg_sq"][:, :dead]
        self._moments = [*rows, columns]  # views of what the optimiser has
        self._before = [(first.clone(), second.clone()) for first, second in self._moments]

    def __call__(self, question: tuple[_Idle, int]) -> tuple[Block, dict[Moments, _Shares]]:
        idle, round_ = question
        self.set(idle)
        shares = self.shares()
        self._train(1, Clock())
        clock = Clock()
        faults_before, begun = _page_faults(), time.perf_counter()
        self._train(BLOCK_STEPS, clock)
        seconds = time.perf_counter() - begun
        block = Block(
            round=round_,
            steps=BLOCK_STEPS,
            seconds=seconds,
            phases=PhaseSeconds(**clock.seconds),
            page_faults=_page_faults() - faults_before,
        )
        return block, shares

    def set(self, idle: _Idle) -> None:
        """Set the moments of the dead units."""
        for moments, before in zip(self._moments, self._before, strict=True):
            carried = carried_on(*before, self.engine.recipe.betas, idle.steps)
            for kind, target, value in zip(("exp_avg", "exp_avg_sq"), moments, carried, strict=True):
                if kind == idle.zero:
                    target.zero_()
                else:
                    target.copy_(value)

    def shares(self) -> dict[Moments, _Shares]:
        """Counted over all parameters."""
        kinds: tuple[Moments, ...] = ("exp_avg", "exp_avg_sq")
        return {kind: _counted([s[kind] for s in self.engine.optimizer.state.values()]) for kind in kinds}

    def _train(self, steps: int, clock: Clock) -> None:
        clock.start()
        for batch in itertools.islice(self._batches, steps):
            self.engine.step(*batch, clock)


def _dead_units(units: int) -> int:
    return int(DEAD_SHARE * units)


def _counted(moments: Sequence[Tensor]) -> _Shares:
    every = sum(m.numel() for m in moments)
    zero = sum(int((m == 0).sum()) for m in moments)
    small = sum(int((m.abs() < torch.finfo(m.dtype).tiny).sum()) for m in moments)
    return _Shares(denormal=(small - zero) / every, zero=zero / every)


def _denormal_states(
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    seed: int,
    threads: int,
    pairs: int,
    time_limit: float,
) -> tuple[DenormalState, ...]:
    """The shares of denormals in each state, and the step's times; nothing for a network without a hidden layer.

    `late` is the end of the study's training: so many epochs over so many images.
    """
    if not architecture.hidden:
        return ()
    late = paper.EPOCHS * -(-paper.TRAIN_IMAGES // recipe.batch_size)
    tasks: dict[tuple[Literal["early", "late"], Step], _Idle] = {
        ("early", "kept"): _Idle(EARLY_STEPS),
        ("early", "flushed"): _Idle(EARLY_STEPS),
        ("late", "kept"): _Idle(late),
        ("late", "flushed"): _Idle(late),
        ("late", "only_exp_avg"): _Idle(late, zero="exp_avg_sq"),
        ("late", "only_exp_avg_sq"): _Idle(late, zero="exp_avg"),
    }
    batches = list(itertools.islice(pipelines.batches("vectorized", dataset, recipe, seed, 1), BATCHES))
    blocks: dict[tuple[str, Step], list[Block]] = {task: [] for task in tasks}
    shares: dict[str, dict[Moments, _Shares]] = {}
    draws, begun = random.Random(seed), time.perf_counter()
    for pair in progress.each(range(pairs), "denormal numbers", "pairs of processes", weight=time_limit):
        spent = time.perf_counter() - begun
        if pair >= MIN_PAIRS and spent * (1 + 1 / pair) > time_limit:
            break
        with contextlib.ExitStack() as stack:
            children = {
                flush: stack.enter_context(contextlib.closing(DenormalChild(flush, REMEDY))) for flush in (False, True)
            }
            for child in children.values():
                child.prepare(_DeadUnits, architecture, dataset.num_classes, recipe, seed, threads, batches)
            able = {flush: child.ready() for flush, child in children.items()}
            for (state, step), idle in draws.sample(list(tasks.items()), len(tasks)):
                if not able[step == "flushed"]:
                    continue
                child = children[step == "flushed"]
                child.ask((idle, pair))
                block, counted = child.answer()
                blocks[state, step].append(block)
                if step == "kept":
                    shares[state] = counted
    return tuple(
        _state(architecture, dataset.num_classes, state, tasks[state, "kept"].steps, shares[state], blocks)
        for state in ("early", "late")
    )


def _state(
    architecture: Architecture,
    classes: int,
    name: Literal["early", "late"],
    idle_steps: int,
    shares: dict[Moments, _Shares],
    blocks: dict[tuple[str, Step], list[Block]],
) -> DenormalState:
    bytes_ = CHANGES[0].bytes_per_parameter * networks.parameter_count(architecture, classes)
    changes: dict[Step, tuple[str, str]] = {
        "kept": ("denormals kept", "as torch runs by itself"),
        "flushed": ("denormals flushed", "torch.set_flush_denormal(True)"),
        "only_exp_avg": ("only first moments denormal", "second moments of dead units set to 0"),
        "only_exp_avg_sq": ("only second moments denormal", "first moments of dead units set to 0"),
    }
    steps = {
        step: _variant(architecture, f"{name}: {text}", change, blocks[name, step], bytes_)
        for step, (text, change) in changes.items()
        if blocks.get((name, step))
    }
    first, second = shares["exp_avg"], shares["exp_avg_sq"]
    return DenormalState(
        name=name,
        idle_steps=idle_steps,
        dead_share=_dead_units(architecture.hidden[0]) / architecture.hidden[0],
        denormal_share=(first.denormal + second.denormal) / 2,
        denormal_exp_avg=first.denormal,
        zero_exp_avg=first.zero,
        denormal_exp_avg_sq=second.denormal,
        zero_exp_avg_sq=second.zero,
        kept=steps["kept"],
        flushed=steps.get("flushed"),
        only_exp_avg=steps.get("only_exp_avg"),
        only_exp_avg_sq=steps.get("only_exp_avg_sq"),
    )
