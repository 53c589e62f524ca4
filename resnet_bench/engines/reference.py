"""What the paper ran: plain eager PyTorch and `torch.optim.Adam` with its default implementation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_bench.clock import Clock
from resnet_bench.engines import base
from resnet_bench.networks import ResidualNetwork
from resnet_bench.recipe import Recipe
from resnet_bench.schedules import LearningRates


class Engine(base.Engine):
    name = "reference"

    def __init__(self, network: ResidualNetwork, recipe: Recipe, rates: LearningRates | None = None) -> None:
        super().__init__(network, recipe, rates)
        network.train()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr, betas=recipe.betas, eps=recipe.eps)

    def step(self, images: Tensor, labels: Tensor, clock: Clock) -> Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.network(images), labels)
        clock.lap("forward")
        loss.backward()
        clock.lap("backward")
        self.optimizer.param_groups[0]["lr"] = self.rates.at(self.steps)
        self.optimizer.step()
        self.steps += 1
        clock.lap("optimizer")
        return loss.detach()

    def optimizer_state(self) -> dict[str, Any]:
        self.optimizer.param_groups[0]["lr"] = self.recipe.lr  # which rate the last step had does not belong to it
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Copy into the moments that are there: how long a step takes depends on where they lie in memory."""
        self.require_same_adam(state)
        own = dict(self.optimizer.state)
        self.steps = int(state["state"][0]["step"]) if state["state"] else 0
        if not state["state"]:
            for entry in own.values():
                for tensor in entry.values():
                    tensor.zero_()
            return
        # The groups also name the implementation of Adam, such as `fused`, which stays this engine's.
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
        for p, entry in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                place = own[p][name] if p in own else torch.zeros_like(p, memory_format=torch.preserve_format)
                entry[name] = place.copy_(entry[name])
