"""The same training several times faster: every pass over the large FC weight that need not be made is left out.

At batch 4 the first FC layer decides the step. Its weight is tens of megabytes and its arithmetic next to nothing, so
the step costs as many passes over the weight and Adam's two moments as are made. Plain PyTorch stores a weight
gradient as large as the weight, and passes over everything again and again in Adam; here the gradient, a sum of `batch`
outer products, is formed inside the update and never stored. A step is four stages:

    features  images → feature map    oneDNN's convolutions, channels-last; batch norm, ReLU and residual sums fused
    head      feature map → loss      the FC layers, and the gradient with respect to each one's output
              the backward pass of `features`, by autograd
    update    Adam on the FC weights  gradient, both moments and weight in one pass
              Adam on all other parameters, which are small, by torch's fused kernel

The named ones are the functions below, compiled by `torch.compile`. An FC weight lies transposed, [inputs, outputs], in
memory; the parameter is a view of that with the usual shape, so only its strides tell. In this order the input gradient
is a sum along rows and the update one walk through memory. docs/fast-engine.md has the bounds, the measurements, and
what did not help.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from types import FunctionType
from typing import Any, cast

import platformdirs
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adam import adam

from resnet_bench.architectures import ResidualNetwork
from resnet_bench.engines import base
from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe
from resnet_bench.timing import Clock, NoClock

UNROLLED_BATCH = 16
"""Up to this batch size sums over the batch are written out and cost one pass; above, they are matrix products."""

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


def features(network: ResidualNetwork, images: Tensor) -> Tensor:
    """images [batch, 3, 32, 32] → feature map [batch, channels, size, size]."""
    return cast(Tensor, network.blocks(network.stem(images)))


def head(
    x: Tensor, labels: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """FC layers, mean cross-entropy, and all of their gradients but those of the weights.

    Args:
        x: feature map [batch, channels, size, size].
        labels: int64 [batch].
        weights: of each layer, [inputs, outputs].
        biases: of each layer, [outputs].

    Returns:
        loss: scalar.
        inputs: of each layer, [batch, inputs].
        gradients: of the loss with respect to each layer's output, [batch, outputs].
        bias_gradients: [outputs] each.
        x_gradient: like `x`.
    """
    inputs = [x.float().flatten(1)]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        inputs.append(torch.relu(product(inputs[-1], weight) + bias))
    log_probabilities = F.log_softmax(product(inputs[-1], weights[-1]) + biases[-1], dim=1)
    targets = (labels[:, None] == torch.arange(log_probabilities.shape[1])).to(log_probabilities.dtype)
    loss = -(targets * log_probabilities).sum() / len(labels)

    gradients = [(log_probabilities.exp() - targets) / len(labels)]
    for weight, activation in zip(weights[:0:-1], inputs[:0:-1], strict=True):
        gradients.insert(0, transposed_product(gradients[0], weight) * (activation > 0))
    x_gradient = transposed_product(gradients[0], weights[0]).view_as(x).to(x.dtype)
    return loss, inputs, gradients, [g.sum(0) for g in gradients], x_gradient


def update(
    weights: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    gradients: Sequence[Tensor],
    correction: Tensor,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """One Adam update of the FC weights, in place: `torch.optim.Adam`'s rule, with its placement of `eps`.

    Args:
        weights, exp_avgs, exp_avg_sqs: of each layer, [inputs, outputs].
        inputs, gradients: as `head` returns them.
        correction: [2], lr / (1 - β₁ᵗ) and √(1 - β₂ᵗ) for step t; a tensor, since a number would be compiled in.
        betas, eps: Adam's constants.
    """
    step_size, root = correction
    for weight, exp_avg, exp_avg_sq, x, g in zip(weights, exp_avgs, exp_avg_sqs, inputs, gradients, strict=True):
        gradient = outer_product(x, g)
        exp_avg.lerp_(gradient, 1 - betas[0])
        exp_avg_sq.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        weight.sub_(step_size * exp_avg / (exp_avg_sq.sqrt() / root + eps))


def compiled(function: Callable[..., Any], options: dict[str, Any] | None = None) -> Callable[..., Any]:
    """`function` compiled for the shapes of its arguments; what cannot be compiled is an error, never run otherwise.

    A copy of the function is compiled, because Dynamo counts what it compiled per code object, up to a limit that the
    engines of one process would otherwise share.
    """
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__)
    return cast(Callable[..., Any], torch.compile(copy, fullgraph=True, dynamic=False, options=options or {}))


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

    def __init__(self, network: ResidualNetwork, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        require_compiler()
        cache = platformdirs.user_cache_path("resnet_bench", appauthor=False) / "inductor"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))  # what is compiled is kept for other processes

        network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        layers = [layer for layer in network.fc if isinstance(layer, nn.Linear)]
        for layer in layers:
            layer.weight.data = layer.weight.data.t().contiguous().t()
        self.fc_weights = [layer.weight for layer in layers]
        self.fc_biases = [layer.bias for layer in layers]
        fc = {id(weight) for weight in self.fc_weights}
        self.others: list[Tensor] = [parameter for parameter in network.parameters() if id(parameter) not in fc]

        # Never asked to step: it holds the state in torch's form.
        self.adam = torch.optim.Adam(network.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)
        for parameter in network.parameters():
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}  # with its strides
            self.adam.state[parameter] = {"step": torch.tensor(0.0), **moments}

        self._compiled = compiled(features), compiled(head, SINGLE_PASS), compiled(update, SINGLE_PASS)
        self._warm = False

    def convolution_precision(self) -> AbstractContextManager[Any]:
        """The context that `features` runs in."""
        return nullcontext()

    def warm_up(self, images: Tensor, labels: Tensor) -> None:
        """Compile for batches of `recipe.batch_size` by a step that is undone; for other sizes there is nothing to do.

        The first step does it where nobody asked.
        """
        if self._warm or len(images) != self.recipe.batch_size:
            return
        start = time.perf_counter()
        network, optimizer = deepcopy(self.network.state_dict()), deepcopy(self.adam.state_dict())
        with torch.random.fork_rng(devices=[]):
            self._step(images, labels, NoClock())
        self.network.load_state_dict(network)
        self.load_optimizer_state(optimizer)
        self._warm = True
        self.compile_seconds += time.perf_counter() - start

    def step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        if not self._warm and len(images) == self.recipe.batch_size:
            self.warm_up(images, labels)
            clock.start()  # compiling belongs to no phase
        return self._step(images, labels, clock)

    def _step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        compiled_batch = len(images) == self.recipe.batch_size
        run_features, run_head, run_update = self._compiled if compiled_batch else (features, head, update)

        with self.convolution_precision():
            x = run_features(self.network, images.contiguous(memory_format=torch.channels_last))
        weights = [weight.detach().t() for weight in self.fc_weights]
        with torch.no_grad():
            loss, inputs, gradients, bias_gradients, x_gradient = run_head(x.detach(), labels, weights, self.fc_biases)
        clock.lap("forward")

        for parameter in self.others:
            parameter.grad = None
        for bias, gradient in zip(self.fc_biases, bias_gradients, strict=True):
            bias.grad = gradient
        x.backward(x_gradient)
        clock.lap("backward")

        with torch.no_grad():
            self._update_fc(run_update, weights, inputs, gradients)
            self._update_others()
        clock.lap("optimizer")
        return cast(Tensor, loss)

    def _update_fc(
        self, run_update: Callable[..., Any], weights: list[Tensor], inputs: list[Tensor], gradients: list[Tensor]
    ) -> None:
        states = [self.adam.state[weight] for weight in self.fc_weights]
        for state in states:
            state["step"] += 1
        (beta1, beta2), t = self.recipe.betas, states[0]["step"].item()
        correction = torch.tensor([self.recipe.lr / (1 - beta1**t), (1 - beta2**t) ** 0.5])
        moments = [[state[name].t() for state in states] for name in ("exp_avg", "exp_avg_sq")]
        run_update(weights, *moments, inputs, gradients, correction, self.recipe.betas, self.recipe.eps)

    def _update_others(self) -> None:
        states = [self.adam.state[parameter] for parameter in self.others]
        adam(
            self.others,
            [cast(Tensor, parameter.grad) for parameter in self.others],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=self.recipe.betas[0],
            beta2=self.recipe.betas[1],
            lr=self.recipe.lr,
            weight_decay=0.0,
            eps=self.recipe.eps,
            maximize=False,
        )

    def optimizer_state(self) -> dict[str, Any]:
        state = deepcopy(self.adam.state_dict())
        for moments in state["state"].values():
            moments.update({name: tensor.contiguous() for name, tensor in moments.items()})
        return state

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Values only: this engine's strides stay, and before the first step of `reference` there are no values."""
        for i, parameter in enumerate(self.network.parameters()):
            for name, tensor in self.adam.state[parameter].items():
                tensor.copy_(state["state"][i][name]) if i in state["state"] else tensor.zero_()
