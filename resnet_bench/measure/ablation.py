"""Why one step is faster than another: from the paper's step to the engine `fast`, one change at a time.

All variants of a network, and of the network it is compared with, train in turn, block by block, so that drift of the
machine does not change their ratios. What denormal numbers cost is measured in two child processes, also in turn: both
train from a state that has such numbers, and one of them flushes them to 0. Each needs a process of its own, because
threads inherit the setting when they start, so that it has to be made before a process's first operation.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from resnet_bench import architectures, identity, machine
from resnet_bench.architectures import Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import crowded, how_it_ended, ignore_interrupt, starting_processes
from resnet_bench.engines import Engine, fast, reference
from resnet_bench.engines._features import features, features_backward
from resnet_bench.errors import UserError
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.measure.epoch_time import EpochTimer, measure_in_turn
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Block, ExplainResult, PhaseSeconds, Variant
from resnet_bench.training.training import Training, set_deterministic

DEAD_SHARE = 0.5
"""Share of the first FC layer's hidden units that are turned into dead ReLU units."""

STEPS_WITHOUT_GRADIENT = 1200
"""Steps without a gradient whose effect on Adam's first moments is imitated. Each multiplies them by 0.9, and after
some 800 they are denormal."""


FIRST_STEPS = 512
"""Steps that engines which leave idle units out train before they are timed: by then nearly all rest that ever will."""


class FusedAdam(reference.Engine):
    """The plain step with torch's fused Adam, which updates all parameters in one pass."""

    name = "reference, fused Adam"

    def __init__(self, network: architectures.ResidualNetwork, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=True
        )


class IdleUnitsLeftOut(fast.Engine):
    """`fast`, but eager PyTorch computes its convolutions, batch norm and ReLU."""

    name = "fast, eager convolutions"

    def __init__(self, network: architectures.ResidualNetwork, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        self._compiled = replace(self._compiled, features=features, features_backward=features_backward, warm=False)


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
        "gradient never stored", "FC gradient formed inside Adam's pass; oneDNN's FC products", GradientNeverStored,
        "vectorized", 24,
    ),
    Change(
        "idle units left out", "hidden units that answer no image, whose gradient is 0, neither multiplied nor updated",
        IdleUnitsLeftOut, "vectorized", 24,
    ),
    Change("fast", "convolutions, batch norm and ReLU compiled together", fast.Engine, "vectorized", 24),
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

    Args:
        architecture: the network to explain.
        dataset: what all variants train on.
        recipe: how they train.
        seed: of weights and augmentation.
        workers: worker processes of the pipeline `loader`.
        threads: torch's threads; None leaves them as they are.
        time_limit: seconds that the rounds of the variants may take.

    Raises:
        UserError: where torch cannot compile, which the last three variants need, or where a child process dies.
    """
    started_at = identity.now()
    fast.Engine.require()
    threads = set_deterministic(threads)
    busy = machine.busy_reason()
    other = counterpart(architecture)
    pairs = [(a, change) for a in (architecture, other) for change in CHANGES]
    measurements = [
        EpochTimer(
            partial(
                Training, a, dataset, recipe, engine=c.engine, pipeline=c.pipeline, seed=seed, workers=workers,
                threads=threads,
            )
        )
        for a, c in pairs
    ]  # fmt: skip
    for measurement in measurements:
        if measurement.training.engine.settling_steps:
            measurement.run(FIRST_STEPS)
    measure_in_turn(measurements, time_limit)
    share, denormals = _denormals(architecture, dataset, recipe, seed, threads, rounds=8)
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
        dead_share=DEAD_SHARE,
        denormal_share=share,
        denormals=denormals,
        warnings=tuple(w for w in (busy, crowded("loader", workers)) if w),
    )


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


def kill_units(engine: Engine) -> float:
    """Put an engine in the state that dead ReLU units lead to, and return the share of denormals among Adam's moments.

    The first `DEAD_SHARE` of the units of the first FC layer get a bias that no input overcomes. Behind the ReLU their
    activations, and the gradients of their weights, are exactly 0. Their first moments decay as in so many steps. They
    never reach 0: float32 rounds, and each gets stuck at a small denormal number.
    """
    layer = next(m for m in engine.network.fc if isinstance(m, nn.Linear))
    dead = int(DEAD_SHARE * layer.out_features)
    with torch.no_grad():
        layer.bias[:dead] = -1e9
    state = engine.optimizer_state()
    index = [p is layer.weight for p in engine.network.parameters()].index(True)
    moments: Tensor = state["state"][index]["exp_avg"]
    rows = moments[:dead]
    for _ in range(STEPS_WITHOUT_GRADIENT):
        rows.mul_(engine.recipe.betas[0])
    engine.load_optimizer_state(state)
    every: list[Tensor] = [s[name] for s in state["state"].values() for name in ("exp_avg", "exp_avg_sq")]
    denormal = sum(int(((m != 0) & (m.abs() < torch.finfo(m.dtype).tiny)).sum()) for m in every)
    return denormal / sum(m.numel() for m in every)


class _Child:
    """A child process that measures steps on a state with denormals, and either flushes these to 0 or keeps them.

    Parent and child talk over a pipe, which leaves nothing behind however the parent ends. The pipe also carries the
    images: torch would send them through shared memory, and containers have little of it.
    """

    def __init__(self, flush: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, childs_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(childs_end, flush), daemon=True)
        with starting_processes("spawn"):
            self._process.start()
        childs_end.close()  # then the pipe ends when the process does

    def begin(self, build: bytes) -> None:
        """Have it build the pickled training; `answer` then returns the share of denormals among its moments."""
        self._talk(lambda: self._pipe.send_bytes(build))

    def measure(self, round_: int) -> Block:
        self._talk(lambda: self._pipe.send(round_))
        block: Block = self.answer()
        return block

    def answer(self) -> Any:
        """The next object that it sends; raises it where it is a `UserError`."""
        answer = self._talk(self._pipe.recv)
        if isinstance(answer, UserError):
            raise answer
        return answer

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def _talk(self, exchange: Callable[[], Any]) -> Any:
        """Send or receive; `UserError` where the process has died."""
        try:
            return exchange()
        except (EOFError, ConnectionError):
            self._process.join(timeout=10)
            raise UserError(
                f"The process that measures denormal numbers {how_it_ended(self._process)}; explain a smaller network "
                "or free memory."
            ) from None


def _serve(pipe: Connection, flush: bool) -> None:
    """Answer until the parent ends: to the pickled training with the share of denormals, to each round with a block."""
    ignore_interrupt()
    tqdm.set_lock(threading.RLock())  # tqdm's own lock is a semaphore, which a terminated process leaves behind
    # This comes before the first operation: the threads of torch's pool inherit the setting when they start.
    torch.set_flush_denormal(flush)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        try:
            measured = EpochTimer(pickle.loads(pipe.recv_bytes()))
            pipe.send(kill_units(measured.training.engine))
            while True:
                pipe.send(measured.measure(pipe.recv()))
        except UserError as error:
            pipe.send(error)


def _denormals(
    architecture: Architecture, dataset: Dataset, recipe: Recipe, seed: int, threads: int, rounds: int
) -> tuple[float, tuple[Variant, ...]]:
    """The share of denormals in the state, and the step's times where they are kept and where they are flushed.

    The step uses default Adam, since each of its passes over the moments meets the denormals, and no worker processes,
    since these would add noise.
    """
    plain = next(c for c in CHANGES if c.engine is reference.Engine and c.pipeline == "vectorized")
    build = partial(
        Training, architecture, dataset, recipe, engine=plain.engine, pipeline=plain.pipeline, seed=seed,
        threads=threads,
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(contextlib.closing(_Child(flush))) for flush in (False, True)]
        pickled = pickle.dumps(build)
        for child in children:
            child.begin(pickled)
        share, _ = [child.answer() for child in children]
        blocks: list[list[Block]] = [[], []]
        for round_ in range(rounds):
            for child, measured in zip(children, blocks, strict=True):
                measured.append(child.measure(round_))
    bytes_ = plain.bytes_per_parameter * architectures.parameter_count(architecture, dataset.num_classes)
    names = [
        ("denormals kept", f"{plain.name} on a state with dead units, as torch runs by itself"),
        ("denormals flushed", "torch.set_flush_denormal(True)"),
    ]
    return share, tuple(_variant(architecture, n, c, b, bytes_) for (n, c), b in zip(names, blocks, strict=True))
