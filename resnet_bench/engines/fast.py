"""The same training several times faster: this engine leaves out needless passes over the large FC weights.

At batch size 4 the first FC layer decides how long a step takes. Its weight has tens of megabytes and needs little
arithmetic, so what counts is the number of passes over the weight and Adam's two moments. Plain PyTorch stores a weight
gradient as large as the weight, and Adam passes over all of them several times. This engine forms the gradient, a sum
of `batch` outer products, inside the update and never stores it. It updates only the hidden units whose weights change.
A step has four stages:

    features           images → feature map     oneDNN's convolutions, channels-last; the rest fused around them
    head               feature map → loss       the FC layers and their gradients, but the weights' own
    features_backward  gradients of features    without autograd, whose bookkeeping takes time in every step
    update             Adam, all parameters     gradient, moments and parameter in one pass

The stages are the functions in `_features.py`, `_head.py` and `_adam.py`. `torch.compile` compiles all but the head,
because the sizes of the head's products depend on how many units are live. The weight of a later FC layer is stored
transposed, [inputs, outputs]; the parameter is a view of it with the usual shape, so only its strides differ.
docs/fast-engine.md has the bounds, the measurements, and what did not help.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from resnet_bench import compiler
from resnet_bench.architectures import Architecture, ResidualNetwork
from resnet_bench.clock import Clock, NoClock
from resnet_bench.compiler import compiled
from resnet_bench.engines import base
from resnet_bench.engines._adam import (
    SETTLING_STEPS,
    UNROLLED_BATCH,
    WORTH_RESTING,
    UnitFunctions,
    UnitWeight,
    decay,
    update,
    update_units,
)
from resnet_bench.engines._features import features, features_backward
from resnet_bench.engines._head import Gradient, UnitGradient, head
from resnet_bench.recipe import Recipe

# One pass over the weight needs the whole update in one loop. Inductor's defaults would first store the weight
# gradient, because both moments read it.
SINGLE_PASS = {"realize_reads_threshold": 10_000, "realize_opcount_threshold": 10_000}


def in_memory_order(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor`, transposed if `parameter` is stored transposed. Calling it twice gives back the original.

    Args:
        tensor: of the same shape as `parameter`.
    """
    return tensor.t() if parameter.dim() == 2 and not parameter.is_contiguous() else tensor


@dataclass
class Stages:
    """The functions that a step runs.

    Attributes:
        units: the functions for the large weights of hidden layers, by the weight's shape in memory.
        warm: whether a first call has compiled the functions.
    """

    features: Callable[..., Any] = features
    features_backward: Callable[..., Any] = features_backward
    update: Callable[..., Any] = update
    units: dict[tuple[int, ...], UnitFunctions] = field(default_factory=dict)
    warm: bool = False

    def unit_functions(self, weight: UnitWeight) -> UnitFunctions:
        """The functions that update `weight`: compiled ones if `units` has its shape."""
        return self.units.get(tuple(weight.weight.shape), UnitFunctions())


@functools.cache
def compiled_stages(
    architecture: Architecture, num_classes: int, batch_size: int, betas: tuple[float, float], eps: float,
    dtype: torch.dtype, threads: int, deterministic: bool,
) -> Stages:  # fmt: skip
    """The compiled functions. All engines of a process that agree in the arguments share them.

    The arguments are what the compiled code depends on. It does not depend on the network's tensors, which are looked
    up in every call.
    """
    (inputs, outputs), *others = architecture.fc_shapes(num_classes)
    hidden = [(outputs, inputs), *others[:-1]] if others else []  # in the order of memory
    return Stages(
        features=compiled(features),
        features_backward=compiled(features_backward),
        update=compiled(update, SINGLE_PASS),
        units={
            shape: UnitFunctions(
                compiled(update, SINGLE_PASS),
                compiled(update_units, SINGLE_PASS, dynamic=None),
                compiled(decay, SINGLE_PASS, dynamic=None),
            )
            for shape in hidden
            if math.prod(shape) >= WORTH_RESTING
        },
    )


def _whole(g: Gradient) -> Gradient:
    """The same gradient without the list of live units, whose length would be compiled in."""
    return g._replace(live=None) if isinstance(g, UnitGradient) else g


class Engine(base.Engine):
    """See the module. Batches of `recipe.batch_size` run compiled; others, such as an epoch's last, run eagerly."""

    name = "fast"
    pipeline = "vectorized"
    needs_compiler = True
    convolution_dtype = torch.float32
    idle_too: ClassVar[bool] = False
    """Whether products and updates include idle hidden units; only `explain` sets this."""

    @classmethod
    def require(cls) -> None:
        super().require()
        compiler.require()

    def __init__(self, network: ResidualNetwork, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        network.train().to(memory_format=torch.channels_last)
        first, *later = (layer.weight for layer in network.fc if isinstance(layer, nn.Linear))
        for weight in later or [first]:
            weight.data = weight.data.t().contiguous().t()
        self.parameters = [in_memory_order(p.detach(), p) for p in network.parameters()]
        self.exp_avgs = [torch.zeros_like(parameter) for parameter in self.parameters]  # and its strides
        self.exp_avg_sqs = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = 0
        self._fc = [p.detach().t() if p.dim() == 2 else p.detach() for p in network.fc.parameters()]
        hidden = [first, *later][:-1]
        self._unit_weights = {
            i: UnitWeight(*state, recipe.lr, recipe.betas, recipe.eps)
            for i, (p, state) in enumerate(zip(network.parameters(), self._state(), strict=True))
            if p.numel() >= WORTH_RESTING and any(p is weight for weight in hidden)
        }
        if recipe.batch_size > UNROLLED_BATCH:  # many images leave few units idle, and see `outer_product`
            self._unit_weights = {}
        in_first_layer = (u for u in self._unit_weights.values() if u.weight.data_ptr() == first.data_ptr())
        self._first = next(in_first_layer, None)  # its inputs are the feature map
        self.settling_steps = SETTLING_STEPS if self._unit_weights and not self.idle_too else 0
        others = (state for i, state in enumerate(self._state()) if i not in self._unit_weights)
        self._others = list(zip(*others, strict=True))  # parameters, first moments, second moments
        self._compiled = compiled_stages(
            network.architecture, network.num_classes, recipe.batch_size, recipe.betas, recipe.eps,
            self.convolution_dtype, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip

    def _state(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each parameter with its first and second moment, in the order of memory."""
        return zip(self.parameters, self.exp_avgs, self.exp_avg_sqs, strict=True)

    def warm_up(self, images: Tensor, labels: Tensor) -> None:
        """Compile for batches of `recipe.batch_size`, by a step that is undone afterwards.

        Does nothing for batches of another size, or if an earlier engine has compiled the same functions. If this is
        never called, the first step compiles.

        Raises:
            UserError: the compiler failed for a reason that the user can mend.
        """
        if self._compiled.warm or len(images) != self.recipe.batch_size:
            return
        start = time.perf_counter()
        network, optimizer = deepcopy(self.network.state_dict()), self.optimizer_state()
        try:
            with torch.random.fork_rng(devices=[]):
                for unit_weight in self._unit_weights.values():
                    unit_weight.compile(len(images), self._compiled.unit_functions(unit_weight))
                self._step(images, labels, NoClock())
        except Exception as error:  # the disk may be full by now, the compiler gone
            if reason := compiler.explained(error):
                raise reason from None
            raise
        self.network.load_state_dict(network)
        self.load_optimizer_state(optimizer)
        self._compiled.warm = True
        self.compile_seconds += time.perf_counter() - start

    def step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        if not self._compiled.warm and len(images) == self.recipe.batch_size:
            self.warm_up(images, labels)
            clock.start()  # compiling belongs to no phase
        return self._step(images, labels, clock)

    @torch.no_grad()
    def _step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        full = len(images) == self.recipe.batch_size
        stages = self._compiled if full else Stages()
        (beta1, beta2), lr, eps = self.recipe.betas, self.recipe.lr, self.recipe.eps

        images = images.contiguous(memory_format=torch.channels_last)
        x, saved = stages.features(self.network, images, self.convolution_dtype)
        flat = x.float().flatten(1)
        activations = self._first.activations(flat, self._fc[1], whole=not full) if self._first else None
        loss, g, fc_gradients = head(flat, labels, self._fc[::2], self._fc[1::2], self.idle_too, activations)
        g = g.view_as(x).to(x.dtype)
        clock.lap("forward")

        gradients = [*stages.features_backward(self.network, g, saved), *fc_gradients]
        clock.lap("backward")

        self.steps += 1
        correction = torch.tensor([lr / (1 - beta1**self.steps), (1 - beta2**self.steps) ** 0.5])
        for i, unit_weight in self._unit_weights.items():
            unit_weight.update(gradients[i], correction, self.steps, stages.unit_functions(unit_weight))
        others = [_whole(g) for i, g in enumerate(gradients) if i not in self._unit_weights]
        stages.update(*self._others, others, correction, (beta1, beta2), eps)
        clock.lap("optimizer")
        self._count(fc_gradients)
        return loss

    def _count(self, fc_gradients: Sequence[Gradient]) -> None:
        """Set how many parameters the step with these gradients read and updated."""
        self.read_parameters = sum(p.numel() for p in self.parameters)
        if self._first:
            self.read_parameters -= self._first.weight.numel() - self._first.read_parameters
        for weight, g in zip(self._fc[2::2], fc_gradients[2::2], strict=True):
            assert isinstance(g, UnitGradient)
            if g.live is not None:
                self.read_parameters -= (len(weight) - len(g.live)) * weight.shape[1]
        unit_weights = self._unit_weights.values()
        self.updated_parameters = sum(p.numel() for p in self._others[0]) + sum(
            unit_weight.updated_parameters for unit_weight in unit_weights
        )

    def optimizer_state(self) -> dict[str, Any]:
        stages = self._compiled if self._compiled.warm else Stages()
        for unit_weight in self._unit_weights.values():
            unit_weight.catch_up(stages.unit_functions(unit_weight))
        recipe, parameters = self.recipe, list(self.network.parameters())
        adam = torch.optim.Adam(parameters, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)
        state = {
            i: {
                "step": torch.tensor(float(self.steps)),
                "exp_avg": in_memory_order(exp_avg, p).clone(memory_format=torch.contiguous_format),
                "exp_avg_sq": in_memory_order(exp_avg_sq, p).clone(memory_format=torch.contiguous_format),
            }
            for i, (p, (_, exp_avg, exp_avg_sq)) in enumerate(zip(parameters, self._state(), strict=True))
        }
        # torch's Adam has no state before its first step
        return {**adam.state_dict(), "state": state if self.steps else {}}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """See `base.Engine`. Also to be called after weights were changed from outside, because it wakes all units."""
        saved = state["state"]  # by the parameter's number; empty before the first step
        self.steps = int(saved[0]["step"]) if saved else 0
        for i, (p, (_, exp_avg, exp_avg_sq)) in enumerate(zip(self.network.parameters(), self._state(), strict=True)):
            exp_avg.copy_(in_memory_order(saved[i]["exp_avg"], p) if saved else torch.zeros(()))
            exp_avg_sq.copy_(in_memory_order(saved[i]["exp_avg_sq"], p) if saved else torch.zeros(()))
        for unit_weight in self._unit_weights.values():
            unit_weight.wake()
