"""The same training several times faster: every pass over the large FC weight that need not be made is left out.

At batch 4 the first FC layer decides the step. Its weight is tens of megabytes and its arithmetic next to nothing, so
the step costs as many passes over the weight and Adam's two moments as are made. Plain PyTorch stores a weight
gradient as large as the weight, and passes over everything again and again in Adam; here the gradient, a sum of `batch`
outer products, is formed inside the update and never stored. A step is four stages:

    features           images → feature map     oneDNN's convolutions, channels-last; the rest fused around them
    head               feature map → loss       the FC layers and their gradients, but the weights' own
    features_backward  gradients of features    without autograd, whose book-keeping takes its time in every step
    update             Adam, all parameters     gradient of an FC weight, moments and parameter in one pass

They are the functions below and in `_features.py`, compiled by `torch.compile`. An FC weight lies transposed, [inputs,
outputs], in memory; the parameter is a view of that with the usual shape, so only its strides tell. In this order the
input gradient is a sum along rows and the update one walk through memory. docs/fast-engine.md has the bounds, the
measurements, and what did not help.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from types import FunctionType
from typing import Any, cast

import platformdirs
import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_bench.architectures import Architecture, ResidualNetwork
from resnet_bench.engines import base
from resnet_bench.engines._features import features, features_backward
from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe
from resnet_bench.timing import Clock, NoClock

UNROLLED_BATCH = 16
"""Up to this batch size sums over the batch are written out and cost one pass; above, they are matrix products."""

# Sums of products are not at memory speed unless multiplied and added in one instruction, which rounds once less too.
FUSED_MULTIPLY_ADD = {"cpp.enable_floating_point_contract_flag": "fast"}

# One pass over the weight needs the whole update in one loop. Inductor's defaults would first store the weight
# gradient, because both moments read it.
SINGLE_PASS = {"realize_reads_threshold": 10_000, "realize_opcount_threshold": 10_000}


@torch.library.custom_op("resnet_bench::product", mutates_args=())
def product(x: Tensor, weight: Tensor) -> Tensor:
    """x [batch, inputs] times weight [inputs, outputs].

    oneDNN reads the weight at memory speed where MKL, which torch calls for float32, takes up to three times as long.
    The operator is the one Inductor itself uses for inference.
    """
    if torch.backends.mkldnn.is_available():
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight.t(), None, "none", [], ""))
    return x @ weight


@product.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


def transposed_product(g: Tensor, weight: Tensor) -> Tensor:
    """g [batch, outputs] times weight.T, for weight [inputs, outputs]: sums along the rows of `weight`."""
    if len(g) > UNROLLED_BATCH or not torch.compiler.is_compiling():
        return g @ weight.t()
    return torch.stack([(row * weight).sum(1) for row in g])


def outer_product(x: Tensor, g: Tensor) -> Tensor:
    """x.T times g, for x [batch, inputs] and g [batch, outputs]: the gradient of a weight [inputs, outputs]."""
    if len(x) > UNROLLED_BATCH or not torch.compiler.is_compiling():
        return x.t() @ g
    return functools.reduce(torch.add, [x[i][:, None] * g[i] for i in range(len(x))])


def head(
    x: Tensor, labels: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor | tuple[Tensor, Tensor]]]:
    """FC layers and mean cross-entropy, forward and backward.

    Args:
        x: feature map [batch, channels, size, size].
        labels: int64 [batch].
        weights: of each layer, [inputs, outputs].
        biases: of each layer, [outputs].

    Returns:
        loss: scalar.
        x_gradient: like `x`.
        gradients: of each layer's weight and bias in turn; a weight's is the pair (the layer's input [batch, inputs],
            the loss's gradient with respect to its output [batch, outputs]), whose `outer_product` it is.
    """
    inputs = [x.float().flatten(1)]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        inputs.append(torch.relu(product(inputs[-1], weight) + bias))
    log_probabilities = F.log_softmax(product(inputs[-1], weights[-1]) + biases[-1], dim=1)
    targets = (labels[:, None] == torch.arange(log_probabilities.shape[1])).to(log_probabilities.dtype)
    loss = -(targets * log_probabilities).sum() / len(labels)

    g = (log_probabilities.exp() - targets) / len(labels)
    gradients: list[Tensor | tuple[Tensor, Tensor]] = []
    for weight, x_in in zip(weights[:0:-1], inputs[:0:-1], strict=True):
        gradients[:0] = [(x_in, g), g.sum(0)]
        g = transposed_product(g, weight) * (x_in > 0)
    gradients[:0] = [(inputs[0], g), g.sum(0)]
    return loss, transposed_product(g, weights[0]).view_as(x).to(x.dtype), gradients


def update(
    parameters: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    gradients: Sequence[Tensor | tuple[Tensor, Tensor]],
    correction: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One Adam update, in place: `torch.optim.Adam`'s rule, with its placement of `eps`.

    Args:
        parameters, exp_avgs, exp_avg_sqs: the parameters and their moments; FC weights as [inputs, outputs].
        gradients: of each parameter; of an FC weight, the pair whose `outer_product` the gradient is.
        correction: [2], lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ) for step t; a tensor, since a number would be compiled in.
        betas, eps: Adam's constants.
    """
    step_size, root = correction
    for parameter, exp_avg, exp_avg_sq, g in zip(parameters, exp_avgs, exp_avg_sqs, gradients, strict=True):
        gradient = outer_product(*g) if isinstance(g, tuple) else g
        exp_avg.lerp_(gradient, 1 - betas[0])
        exp_avg_sq.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        parameter.sub_(step_size * exp_avg / (exp_avg_sq.sqrt() / root + eps))


def stored(parameter: Tensor) -> Tensor:
    """A parameter, or what belongs to it, in the order of memory: FC weights transposed; and back again."""
    return parameter.detach().t() if parameter.dim() == 2 else parameter.detach()


def compiled(function: Callable[..., Any], options: dict[str, Any] | None = None) -> Callable[..., Any]:
    """`function` compiled for the shapes of its arguments; what cannot be compiled is an error, never run otherwise.

    A copy of the function is compiled, because Dynamo keeps what it compiled by code object, and only up to a limit.
    Whoever has the copy calls it with tensors of one shape only, which leaves out the guards that would check that
    again in every call.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    unguarded = {"guard_filter_fn": lambda guards: [False] * len(guards)}
    chosen: dict[str, Any] = {**FUSED_MULTIPLY_ADD, **unguarded, **(options or {})}
    return cast(Callable[..., Any], torch.compile(copy, fullgraph=True, dynamic=False, options=chosen))


@dataclass
class Stages:
    """The functions that a step runs, one after the other; `warm` says that their first call has compiled them."""

    features: Callable[..., Any] = features
    head: Callable[..., Any] = head
    features_backward: Callable[..., Any] = features_backward
    update: Callable[..., Any] = update
    warm: bool = False


@functools.cache
def compiled_stages(
    architecture: Architecture, num_classes: int, batch_size: int, betas: tuple[float, float], eps: float,
    dtype: torch.dtype, threads: int, deterministic: bool,
) -> Stages:  # fmt: skip
    """Compiled once in a process for all engines that agree in the arguments, which are what is compiled in.

    The network itself is not: its tensors are looked up in every call.
    """
    return Stages(
        compiled(features), compiled(head, SINGLE_PASS), compiled(features_backward), compiled(update, SINGLE_PASS)
    )


def require_compiler() -> None:
    """`UserError` where Inductor finds no C++ compiler."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        raise UserError(
            "The engines fast and fast-bf16 need a C++ compiler and found none: install g++ (Linux; Fedora calls it "
            "gcc-c++), the Xcode command line tools (macOS) or Visual C++ (Windows), or take --engine reference, which "
            "runs without."
        ) from None


class Engine(base.Engine):
    """See the module. Batches of `recipe.batch_size` run compiled; any other (the last of an epoch), eagerly."""

    name = "fast"
    pipeline = "vectorized"
    convolution_dtype = torch.float32

    def __init__(self, network: ResidualNetwork, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        require_compiler()
        cache = platformdirs.user_cache_path("resnet_bench", appauthor=False) / "inductor"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))  # what is compiled is kept for other processes

        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        for parameter in network.parameters():
            if parameter.dim() == 2:  # an FC weight
                parameter.data = parameter.data.t().contiguous().t()
        self.parameters = [stored(parameter) for parameter in network.parameters()]
        self.exp_avgs = [torch.zeros_like(parameter) for parameter in self.parameters]  # and its strides
        self.exp_avg_sqs = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = 0
        self._fc = self.parameters[-len(list(network.fc.parameters())) :]  # weight, bias, weight, …
        self._compiled = compiled_stages(
            network.architecture, network.num_classes, recipe.batch_size, recipe.betas, recipe.eps,
            self.convolution_dtype, torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        )  # fmt: skip

    def warm_up(self, images: Tensor, labels: Tensor) -> None:
        """Compile for batches of `recipe.batch_size` by a step that is undone; for other sizes there is nothing to do.

        Nor is there where an engine before this one has compiled the same. The first step does it where nobody asked.
        """
        if self._compiled.warm or len(images) != self.recipe.batch_size:
            return
        start = time.perf_counter()
        network, optimizer = deepcopy(self.network.state_dict()), self.optimizer_state()
        with torch.random.fork_rng(devices=[]):
            self._step(images, labels, NoClock())
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
        stages = self._compiled if len(images) == self.recipe.batch_size else Stages()
        (beta1, beta2), lr, eps = self.recipe.betas, self.recipe.lr, self.recipe.eps

        images = images.contiguous(memory_format=torch.channels_last)
        x, saved = stages.features(self.network, images, self.convolution_dtype)
        loss, g, fc_gradients = stages.head(x, labels, self._fc[::2], self._fc[1::2])
        clock.lap("forward")

        gradients = [*stages.features_backward(self.network, g, saved), *fc_gradients]
        clock.lap("backward")

        self.steps += 1
        correction = torch.tensor([lr / (1 - beta1**self.steps), (1 - beta2**self.steps) ** 0.5])
        stages.update(self.parameters, self.exp_avgs, self.exp_avg_sqs, gradients, correction, (beta1, beta2), eps)
        clock.lap("optimizer")
        return cast(Tensor, loss)

    def optimizer_state(self) -> dict[str, Any]:
        recipe = self.recipe
        adam = torch.optim.Adam(self.network.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)
        moments = enumerate(zip(self.exp_avgs, self.exp_avg_sqs, strict=True))
        state = {
            i: {
                "step": torch.tensor(float(self.steps)),
                "exp_avg": stored(exp_avg).clone(memory_format=torch.contiguous_format),
                "exp_avg_sq": stored(exp_avg_sq).clone(memory_format=torch.contiguous_format),
            }
            for i, (exp_avg, exp_avg_sq) in moments
        }
        return {
            **adam.state_dict(),
            "state": state if self.steps else {},
        }  # torch's Adam has none before its first step

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        of = state["state"]
        self.steps = int(of[0]["step"]) if of else 0
        for i, (exp_avg, exp_avg_sq) in enumerate(zip(self.exp_avgs, self.exp_avg_sqs, strict=True)):
            exp_avg.copy_(stored(of[i]["exp_avg"]) if of else torch.zeros(()))
            exp_avg_sq.copy_(stored(of[i]["exp_avg_sq"]) if of else torch.zeros(()))
