"""The interface of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_bench.architectures import Architecture
from resnet_bench.clock import Clock
from resnet_bench.errors import UserError
from resnet_bench.networks import ResidualNetwork
from resnet_bench.recipe import Recipe
from resnet_bench.schedules import LearningRates


class Engine(ABC):
    """Runs training steps on one network.

    An engine owns the network and the optimiser's state. Its step computes: logits of the batch in training mode,
    mean cross-entropy, gradients, one Adam update (`torch.optim.Adam`'s rule, with the recipe's `betas` and `eps` and
    the learning rate that the schedule has for the step).

    Attributes:
        name: as in `--engine` and in every table.
        pipeline: the data pipeline it runs on unless told otherwise (`loader` or `vectorized`).
        float32_equivalent: whether it computes what float32 arithmetic gives, up to the order of additions. Only then
            do its accuracies count as the paper's, and its times stand beside the machine's float32 rates.
        needs_compiler: whether it compiles C++ code, which needs a compiler on the machine.
        compile_seconds: time spent compiling so far; 0 for an engine that compiles nothing.
        rates: the learning rate of each step.
        steps: how many the optimiser has done, from the beginning of the training.
        read_parameters: parameters that the last step's forward pass read; a quarter of one where it read 8 bits of it.
        updated_parameters: parameters that the last step's update went over, with their moments.
    """

    name: ClassVar[str]
    pipeline: ClassVar[str] = "loader"
    float32_equivalent: ClassVar[bool] = True
    needs_compiler: ClassVar[bool] = False

    @classmethod
    def require(cls) -> None:
        """`UserError` where the engine cannot run here, or would be something else than its name says."""
        if reason := _not_in_float32():
            raise UserError(f"{reason}, so that no engine computes what its name says; take that setting back.")

    @classmethod
    def supports(cls, architecture: Architecture, recipe: Recipe) -> str | None:
        """Why the engine cannot train this network with this recipe, in one sentence; None where it can."""
        return None

    @classmethod
    def note(cls, recipe: Recipe) -> str | None:
        """What is known by construction and makes the engine worth less with this recipe, in one sentence; or None."""
        return None

    @classmethod
    def leaves_idle_units_out(cls, architecture: Architecture, recipe: Recipe) -> bool:
        """Whether its steps take less time once hidden units have died."""
        return False

    def __init__(self, network: ResidualNetwork, recipe: Recipe, rates: LearningRates | None = None) -> None:
        """Take `network` over; raises `UserError` as `require` does.

        `rates` may be left out where the recipe's schedule is constant.
        """
        self.require()
        self.network = network
        self.recipe = recipe
        self.rates = rates or recipe.learning_rates()
        self.rates.highest_from(0)  # finds a schedule that is none
        self.steps = 0
        self.compile_seconds = 0.0
        self.updated_parameters = sum(p.numel() for p in network.parameters())
        self.read_parameters: float = self.updated_parameters

    @property
    def threads_compiled_in(self) -> bool:
        """Whether it would have to compile anew to train with another number of threads."""
        return False

    def warm_up(self, images: Tensor, labels: Tensor) -> None:  # noqa: B027 (nothing to do is a fine default)
        """Compile what steps on batches like this one need, so that no step pays for it; state is left as it was."""

    @abstractmethod
    def step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        """Train on one batch.

        Args:
            images: float32 [batch, 3, 32, 32], augmented and normalised.
            labels: int64 [batch].
            clock: told when the phases `forward`, `backward` and `optimizer` end.

        Returns:
            The batch's mean loss before the update, a detached scalar.
        """

    def logits(self, images: Tensor) -> Tensor:
        """float32 [batch, 3, 32, 32] → logits [batch, classes] in evaluation mode (running batch-norm statistics)."""
        self.network.eval()
        with torch.no_grad():
            logits: Tensor = self.network(images)
        self.network.train()
        return logits

    @abstractmethod
    def optimizer_state(self) -> dict[str, Any]:
        """Adam's state as `torch.optim.Adam(network.parameters()).state_dict()` gives it, whatever the engine."""

    @abstractmethod
    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Take over what `optimizer_state` of any engine returned. The next step goes on with the next learning rate.

        Raises:
            UserError: for the state of another optimiser, such as one with weight decay.
        """

    def require_same_adam(self, state: dict[str, Any]) -> None:
        """Raise `UserError` for the state of an optimiser that is not the recipe's Adam."""
        for group in state.get("param_groups", ()):
            wanted: dict[str, Any] = {"betas": tuple(self.recipe.betas), "eps": self.recipe.eps}
            wanted |= dict.fromkeys(("weight_decay", "amsgrad", "maximize"), 0)
            for name, value in wanted.items():
                found = tuple(group[name]) if name == "betas" else group.get(name, value)
                if found != value:
                    raise UserError(
                        f"The optimiser's state has {name} {found} where the recipe has {value}; "
                        "give a state that this suite saved."
                    )


def _not_in_float32() -> str | None:
    """Which setting has torch compute on this CPU with other numbers than float32; None if none has.

    Whether a lower precision that was asked for has any effect depends on the CPU. So it is tried, on numbers that
    need more than the 11 significant bits of bfloat16, float16 and TF32, at sizes for which libraries would use them.
    """
    if torch.get_default_device().type != "cpu":
        return f"torch's default device is {torch.get_default_device()}"
    if torch.get_default_dtype() != torch.float32:
        return f"torch's default type of number is {torch.get_default_dtype()}"
    number, channels = 1 + 2.0**-12, 64
    with torch.no_grad():
        images, matrix = torch.full((4, channels, 8, 8), number), torch.full((channels, channels), number)
        products = F.conv2d(images, torch.eye(channels)[:, :, None, None]), matrix @ torch.eye(channels)
    if all((product.double() == number).all() for product in products):  # or the number would be rounded as well
        return None
    return (
        "torch computes with fewer digits than float32 has (torch.set_float32_matmul_precision, "
        "torch.backends.mkldnn, torch.autocast or TORCH_ALLOW_TF32_CUBLAS_OVERRIDE asks for it)"
    )
