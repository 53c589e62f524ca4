"""The same training as `reference`, up to rounding, in a fraction of the time, by fewer passes over the FC weights.

At batch size 4 the first FC layer decides how long a step takes. Its weight is tens of megabytes large and needs little
arithmetic. So the time depends on how often a step passes over the weight and over Adam's two moments of it. Plain
PyTorch stores a weight gradient as large as the weight, and default Adam passes over everything seven times. Here the
gradient, a sum of `batch` outer products, is formed inside the update and never stored, and the update passes only over
those hidden units whose weights move. A step has four stages:

    convolutions       images → feature map       forward pass, in C++: `_layers.py` and `_layer.cpp`
    head               feature map → loss         the FC layers, forward and backward, without their weight gradients
    convolutions       gradients of the features  backward pass, in C++ too
    update             Adam                       FC weight gradients, moments and parameters in one pass

The update is C++ too (`_adam.cpp`). `_units.py` has the head, and tells which units may be left out. Leaving idle units
out changes no bit of an update for a given gradient; it changes products by rounding (see `_units.py`).

The weight of every FC layer but the first lies transposed in memory, as [inputs, outputs]; so does that of a single FC
layer. The network's parameter is a view with the usual shape, so only its strides differ from the usual ones.
docs/fast-engine.md has the bounds, the measurements and what did not help.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from resnet_bench import attention, compiler
from resnet_bench.architectures import Architecture
from resnet_bench.clock import Clock, NoClock
from resnet_bench.compiled_functions import compiled
from resnet_bench.engines import _adam, base
from resnet_bench.engines._features import Convolutions, attention_backward
from resnet_bench.engines._layers import AttentionFunctions, Layers, in_product_order, weights
from resnet_bench.engines._units import (
    FUSED_BATCH,
    WORTH_RESTING,
    Gradient,
    UnitGradient,
    UnitWeight,
    adam_correction,
    head,
    update,
)
from resnet_bench.networks import ResidualNetwork
from resnet_bench.recipe import Recipe
from resnet_bench.schedules import LearningRates

EVALUATED_AT_ONCE = 20
"""Images that are evaluated together. From 4 to 64 took the same time; this divides what a training asks for."""

MOVED = "the network's parameters were moved, as network.to() may do; build a new engine on it"


@dataclass
class Compiled:
    """What torch compiles for a network.

    Attributes:
        attention: the functions for the attention of each block; uncompiled ones serve those that are not there.
        warm: whether a step has compiled all that it needs, the C++ too.
    """

    attention: Sequence[AttentionFunctions] = ()
    warm: bool = False


@functools.cache
def compiled_for(
    engine: type[base.Engine], architecture: Architecture, batch_size: int, threads: int, deterministic: bool
) -> Compiled:
    """Compiled once in a process for all engines with the same arguments, which are compiled in.

    The network is not compiled in: its tensors are looked up in every call. Another class of engine compiles other
    things, so that it is not warm where this one is.
    """
    blocks = architecture.widths if architecture.attention else ()
    return Compiled([AttentionFunctions(compiled(weights), compiled(attention_backward)) for _ in blocks])


@functools.cache
def attention_fault(made: Callable[[int], attention.ChannelAttention], channels: int) -> str | None:
    """Why a block of attention cannot be trained by its weights alone, computed twice; None where it can.

    The layer multiplies the maps by the weights, and the backward pass computes the weights again, and gives every
    parameter a gradient (see `_features.attention_backward`). The block is tried, since no rule on its code would tell
    what it does.

    Args:
        made: makes the block for a number of channels.
        channels: of its input in the network.
    """
    with torch.device("cpu"), torch.random.fork_rng(devices=[]), torch.no_grad():
        block = made(channels)
        if type(block).forward is not attention.ChannelAttention.forward:
            return "has a forward pass of its own, not only weights"
        if any(True for _ in block.buffers()):
            return "has buffers, which a second forward pass would change"
        if not all(p.requires_grad for p in block.parameters()):
            return "has a parameter with requires_grad=False, which would be trained like the others"
        means = torch.randn(2, channels)
        before, parameters, numbers = means.clone(), [p.clone() for p in block.parameters()], _plain_attributes(block)
        generator = torch.get_rng_state()
        first = block.weights(means).clone()  # it may be the means themselves
        if first.shape != means.shape:
            return "gives weights of another shape than the means"
        if not _same(means, before):
            return "changes the means, which a second forward pass would change again"
        if not torch.equal(torch.get_rng_state(), generator):
            return "draws random numbers, which would be others in a second forward pass"
        second = block.weights(means)
        kept = all(_same(p, old) for p, old in zip(block.parameters(), parameters, strict=True))
        if not kept or _plain_attributes(block) != numbers:
            return "changes itself in a forward pass, and would do so again in a second one"
        return None if _same(first, second) else "gives other numbers in a second forward pass"


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _plain_attributes(module: nn.Module) -> dict[tuple[str, str], Any]:
    """Numbers and texts of a module and its parts, such as a counter; by the part's name and their own."""
    return {
        (name, attribute): value
        for name, part in module.named_modules()
        for attribute, value in vars(part).items()
        if isinstance(value, (int, float, str))
    }


class Engine(base.Engine):
    """See the module. What torch compiles is for batches of `recipe.batch_size`; for others it runs eagerly."""

    name = "fast"
    pipeline = "vectorized"
    needs_compiler = True
    idle_too: ClassVar[bool] = False
    """Whether idle hidden units take part in products and updates too; only `resnet-bench explain` asks for it."""

    @classmethod
    def require(cls) -> None:
        super().require()
        compiler.require()

    @classmethod
    def supports(cls, architecture: Architecture, recipe: Recipe) -> str | None:
        if architecture.attention:
            made = attention.ATTENTION[architecture.attention]
            for channels in architecture.widths:
                if fault := attention_fault(made, channels):
                    return (
                        f"--engine {cls.name} cannot train {architecture.id}: its attention, {architecture.attention}, "
                        f"{fault}; take --engine reference."
                    )
        return super().supports(architecture, recipe)

    @classmethod
    def note(cls, recipe: Recipe) -> str | None:
        if recipe.batch_size <= FUSED_BATCH:
            return super().note(recipe)
        return (
            f"{cls.name} leaves no idle units out at batches above {FUSED_BATCH} images; `resnet-bench scale --over "
            "batch-size=...` tells whether it is still worth it here."
        )

    @classmethod
    def leaves_idle_units_out(cls, architecture: Architecture, recipe: Recipe) -> bool:
        hidden = architecture.fc_shapes(num_classes=1)[:-1]
        large = any(inputs * outputs >= WORTH_RESTING for inputs, outputs in hidden)
        return large and recipe.batch_size <= FUSED_BATCH and not cls.idle_too

    def __init__(self, network: ResidualNetwork, recipe: Recipe, rates: LearningRates | None = None) -> None:
        super().__init__(network, recipe, rates)
        network.train()
        self.arrange_kernels()
        first, *later = (layer.weight for layer in network.fc if isinstance(layer, nn.Linear))
        self._transposed = later or [first]
        for weight in self._transposed:
            weight.data = weight.data.t().contiguous().t()
        self._of_network = list(network.parameters())
        self._addresses = [p.data_ptr() for p in self._of_network]  # C++ is given them once
        self._all_addresses = [t.data_ptr() for t in self._in_network()]  # to look them up takes longer
        self.parameters = [self._in_memory_order(p.detach(), p) for p in self._of_network]
        self.exp_avgs = [torch.zeros_like(parameter) for parameter in self.parameters]  # with its strides
        self.exp_avg_sqs = [torch.zeros_like(parameter) for parameter in self.parameters]
        self._fc = [p.detach().t() if p.dim() == 2 else p.detach() for p in network.fc.parameters()]
        hidden = [first, *later][:-1]
        self._unit_weights = {
            i: UnitWeight(*state, recipe.betas, recipe.eps)
            for i, (p, state) in enumerate(zip(network.parameters(), self._state(), strict=True))
            if p.numel() >= WORTH_RESTING and any(p is weight for weight in hidden)
        }
        if recipe.batch_size > FUSED_BATCH:  # few units are idle for so many images
            self._unit_weights = {}
        in_first_layer = (u for u in self._unit_weights.values() if u.weight.data_ptr() == first.data_ptr())
        self._first = next(in_first_layer, None)  # its inputs are the feature map
        others = [state for i, state in enumerate(self._state()) if i not in self._unit_weights]
        self._others = _adam.Parameters(others)
        self._convolutions: dict[tuple[int, int], Convolutions] = {}  # by the size of the batch and threads
        self._evaluated: dict[tuple[int, int], Layers] = {}  # likewise
        self._compiled = compiled_for(
            type(self), network.architecture, recipe.batch_size, torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip

    @property
    def threads_compiled_in(self) -> bool:
        return self.network.architecture.attention is not None

    def arrange_kernels(self) -> None:
        """Put the kernels of the convolutions into the order in memory that `convolutions` needs."""
        in_product_order(self.network)

    def convolutions(self, images: int) -> Convolutions:
        """What computes the convolutional part for batches of so many images."""
        full = images == self.recipe.batch_size
        return Layers(self.network, images, self._compiled.attention if full else ())

    def _in_memory_order(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """A tensor of the shape of `parameter`, transposed if `parameter` is transposed in memory; its own inverse."""
        return tensor.t() if any(parameter is weight for weight in self._transposed) else tensor

    def _state(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each parameter with its first and second moment, in their order in memory."""
        return zip(self.parameters, self.exp_avgs, self.exp_avg_sqs, strict=True)

    def warm_up(self, images: Tensor, labels: Tensor) -> None:
        """Compile for batches of `recipe.batch_size`, by a step that is then undone.

        There is nothing to do for batches of other sizes, which run eagerly, nor where an earlier engine has compiled
        the same functions. An engine that was not warmed up compiles in its first step.
        """
        if self._compiled.warm or len(images) != self.recipe.batch_size:
            return
        start = time.perf_counter()
        network, optimizer = deepcopy(self.network.state_dict()), self.optimizer_state()
        try:
            with torch.random.fork_rng(devices=[]):
                self._step(images, labels, NoClock())
        except Exception as error:  # the disk may be full by now, the compiler gone
            if reason := compiler.explained(error):
                raise reason from None
            raise
        self.network.load_state_dict(network)
        self.load_optimizer_state(optimizer)
        self._compiled.warm = True
        self.compile_seconds += time.perf_counter() - start

    def _in_network(self) -> Iterator[Tensor]:
        yield from self.network.parameters()
        yield from self.network.buffers()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """See `base.Engine`."""
        if [t.data_ptr() for t in self._in_network()] != self._all_addresses:
            raise RuntimeError(MOVED)
        self.network.eval()
        maps = []
        for part in images.split(EVALUATED_AT_ONCE):
            size = len(part), torch.get_num_threads()
            if size not in self._evaluated:
                self._evaluated[size] = Layers(self.network, len(part), ())
            x = self._evaluated[size].forward(part, training=False)
            maps.append(x.flatten(1).clone())  # the next part overwrites it
        logits: Tensor = self.network.fc(torch.cat(maps))
        self.network.train()
        return logits

    def step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        if [p.data_ptr() for p in self._of_network] != self._addresses:
            raise RuntimeError(MOVED)
        if not self._compiled.warm and len(images) == self.recipe.batch_size:
            self.warm_up(images, labels)
            clock.start()  # compiling belongs to no phase
        return self._step(images, labels, clock)

    @torch.no_grad()
    def _step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        size = len(images), torch.get_num_threads()
        if size not in self._convolutions:
            if len(images) * self.network.architecture.map_size == 1:
                raise ValueError("batch norm needs more than one number per channel, and one image has a map of 1×1")
            self._convolutions[size] = self.convolutions(len(images))
        convolutions = self._convolutions[size]
        x = convolutions.forward(images)
        flat = x.float().flatten(1)
        activations = self._first.activations(flat, self._fc[1]) if self._first else None
        loss, g, fc_gradients = head(flat, labels, self._fc[::2], self._fc[1::2], self.idle_too, activations)
        g = g.view_as(x).to(x.dtype)
        clock.lap("forward")

        gradients: list[Gradient] = [*convolutions.backward(g), *fc_gradients]
        clock.lap("backward")

        lr, highest = self.rates.at(self.steps), self.rates.highest_from(self.steps)
        if lr > highest:  # on which the units that rest rely
            raise RuntimeError(f"step {self.steps} has the learning rate {lr}, above {highest}, its bound")
        self.steps += 1
        correction = adam_correction(lr, self.recipe.betas, self.steps)
        for i, unit_weight in self._unit_weights.items():
            of_units = gradients[i]
            assert isinstance(of_units, UnitGradient)
            unit_weight.update(of_units, correction, highest, self.steps)
        others = [g for i, g in enumerate(gradients) if i not in self._unit_weights]
        update(self._others, others, correction, self.recipe.betas, self.recipe.eps)
        clock.lap("optimizer")
        self._count(fc_gradients)
        return loss

    def _count(self, fc_gradients: Sequence[Gradient]) -> None:
        """Count the parameters that the step with these gradients read and updated."""
        self.read_parameters = sum(p.numel() for p in self.parameters)
        if self._first:
            self.read_parameters -= self._first.weight.numel() - self._first.read_parameters
        for weight, g in zip(self._fc[2::2], fc_gradients[2::2], strict=True):
            assert isinstance(g, UnitGradient)
            if g.live is not None:
                self.read_parameters -= (len(weight) - len(g.live)) * weight.shape[1]
        unit_weights = self._unit_weights.values()
        self.updated_parameters = sum(p.numel() for p, _, _ in self._others.states) + sum(
            unit_weight.updated_parameters for unit_weight in unit_weights
        )

    def optimizer_state(self) -> dict[str, Any]:
        for unit_weight in self._unit_weights.values():
            unit_weight.catch_up()
        recipe, parameters = self.recipe, list(self.network.parameters())
        adam = torch.optim.Adam(parameters, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)
        state = {
            i: {
                "step": torch.tensor(float(self.steps)),
                "exp_avg": self._in_memory_order(exp_avg, p).clone(memory_format=torch.contiguous_format),
                "exp_avg_sq": self._in_memory_order(exp_avg_sq, p).clone(memory_format=torch.contiguous_format),
            }
            for i, (p, (_, exp_avg, exp_avg_sq)) in enumerate(zip(parameters, self._state(), strict=True))
        }
        # torch's Adam has no state before its first step
        return {**adam.state_dict(), "state": state if self.steps else {}}

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """See `base.Engine`. Call it also after weights were changed from outside: it looks which units may rest."""
        self.require_same_adam(state)
        saved = state["state"]
        self.steps = int(saved[0]["step"]) if saved else 0
        for i, (p, (_, exp_avg, exp_avg_sq)) in enumerate(zip(self.network.parameters(), self._state(), strict=True)):
            exp_avg.copy_(self._in_memory_order(saved[i]["exp_avg"], p) if saved else torch.zeros(()))
            exp_avg_sq.copy_(self._in_memory_order(saved[i]["exp_avg_sq"], p) if saved else torch.zeros(()))
        if not self.idle_too:
            for unit_weight in self._unit_weights.values():
                unit_weight.look(self.rates.highest_from(self.steps), self.steps)
