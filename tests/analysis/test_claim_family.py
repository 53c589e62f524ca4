"""The claims as a family: where networks do not differ, hardly a table holds any false verdict. Small simulations."""

from collections.abc import Iterator

import numpy as np
import pytest

from resnet_bench import architectures, networks
from resnet_bench.analysis.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDED, questions
from resnet_bench.analysis.claims.judging import judge_selection
from resnet_bench.analysis.claims.outcome import Untestable
from resnet_bench.analysis.claims.selection import Curves, Selection
from resnet_bench.analysis.claims.step_times import StepTimes
from resnet_bench.paper import EPOCHS
from resnet_bench.schema import DatasetInfo
from tests import handmade

NETWORKS = ("baseline", "fc1", "fc3", "blocks2", "conv5x5", "conv5x5-same", "blocks2-same")
PARAMETERS = {n: networks.parameter_count(architectures.get(n), 100) for n in NETWORKS}
LEVEL = 0.35
TABLES = 120

NO_DIFFERENCE = {
    "fc1-faster", "fc3-slower", "blocks2-slower", "conv5x5-faster", "kernel-time", "depth-time", "parameters-time",
    "fc1-higher", "fc3-lower", "blocks2-lower", "conv5x5-higher", "blocks2-below", "conv5x5-crossing",
    "conv5x5-rising", "depth-accuracy",
}  # fmt: skip
"""Claims about differences that are 0 in the simulation, so that either verdict is false."""

TRUE = {"baseline-peak", "baseline-final"}
"""36 and 34 % are within 2 points of what the simulation has."""


class Alike(Selection):
    """Seeds and processes drawn from one distribution for all networks: nothing differs but by chance."""

    def __init__(self, random: np.random.Generator, replicates: int) -> None:
        dataset = DatasetInfo.model_validate(handmade.dataset())
        shape = (replicates, EPOCHS)
        self._curves = {
            name: LEVEL + random.normal(0, 0.006, (replicates, 1)) + random.normal(0, 0.004, shape) for name in NETWORKS
        }
        modes = random.choice([1.0, 1.3], replicates)  # a process's memory layout, shared by the networks in it
        own = {n: modes * np.exp(random.normal(0, 0.03, replicates)) for n in NETWORKS}
        self._only = StepTimes(handmade.machine(), dataset, 2, "sampled")
        self._only.seconds = {(n, "reference"): {str(i): s for i, s in enumerate(own[n])} for n in NETWORKS}
        self._only.parameters = PARAMETERS
        self._dataset = dataset

    def parameter_count(self, architecture: str) -> int:
        raise Untestable("not counted")

    def curves(self, *names: str, epochs: int, least_epochs: int | None = None) -> Curves:
        return Curves({n: self._curves[n][:, :epochs] for n in names}, "reference", self._dataset)

    def step_times(self, *names: str) -> list[StepTimes]:
        return [self._only]


def tables(replicates: int) -> Iterator[dict[str, str]]:
    random = np.random.default_rng([2026, replicates])
    for _ in range(TABLES):
        yield {judged.claim.id: judged.outcome for judged in judge_selection(Alike(random, replicates))}


def is_false(claim: str, outcome: str) -> bool:
    if claim in NO_DIFFERENCE:
        return outcome != UNDECIDED
    return outcome == (NOT_REPRODUCED if claim in TRUE else REPRODUCED)


@pytest.mark.parametrize("replicates", [3, 6])
def test_at_most_5_percent_of_tables_hold_any_false_verdict(replicates: int) -> None:
    """Of 120 tables 6 may; 11 are two standard errors more."""
    wrong = [t for t in tables(replicates) if any(is_false(claim, outcome) for claim, outcome in t.items())]
    assert len(wrong) <= 11


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (["epoch 3"], "epoch 3"),
        (["epoch 3", "epoch 5"], "epochs 3 and 5"),
        (["epoch 2", "epoch 3", "epoch 9", "epoch 10", "epoch 11"], "epochs 2, 3 and 9 to 11"),
        (["epoch 2", "epoch 3", "epoch 4", "the plateau"], "epochs 2 to 4 and the plateau"),
        (["the effect", "more than half of it in the control"], "the effect and more than half of it in the control"),
    ],
)
def test_many_epochs_are_told_in_few_words(keys: list[str], text: str) -> None:
    assert questions._named(keys) == text
