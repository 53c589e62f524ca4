"""What a duel measures, in which order, and how long it will take."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from resnet_bench.duel.arms import Arm
from resnet_bench.errors import UserError
from resnet_bench.measure import processes
from resnet_bench.measure.process import MAX_ROUNDS


@dataclass(frozen=True)
class Settings:
    """What every arm measures.

    Attributes:
        architectures: names of the networks.
        values: of the options of a training, by `Option.name`; an arm's own options replace them.
        at_most: names of splits of the data set whose number of images is an upper limit.
        processes: fresh processes of each arm, that is, rounds.
        time_limit: seconds for all processes of one arm together, from which the number of blocks follows.
        states: how later points of the training are reached.
        accuracy_epochs: epochs that each arm trains each network with each seed; 0 leaves accuracy out.

    Raises:
        UserError: a number is out of range; the message names the option.
    """

    architectures: tuple[str, ...]
    values: Mapping[str, Any]
    at_most: tuple[str, ...]
    processes: int
    time_limit: float
    states: Literal["trained", "aged"]
    accuracy_epochs: int = 0

    def __post_init__(self) -> None:
        processes.Plan(processes=self.processes, time_limit=self.time_limit)  # checks them
        if self.accuracy_epochs < 0:
            raise UserError(f"--accuracy-epochs is {self.accuracy_epochs}; give 0 or more.")

    def of(self, arm: Arm) -> dict[str, Any]:
        """The values of the options of a training for one arm."""
        return {**self.values, **arm.options}


def rounds(arms: Sequence[str], count: int, seed: str) -> list[list[str]]:
    """The order of each round: every arm once.

    Orders are drawn in pairs, the second the reverse of the first (A B, then B A), so that over two rounds each arm has
    the same mean place: a machine that warms up during a round favours none.
    """
    draw = random.Random(seed)
    found: list[list[str]] = []
    while len(found) < count:
        order = draw.sample(arms, len(arms))
        found += [order, order[::-1]]
    return found[:count]


@dataclass(frozen=True)
class Pilot:
    """What a process that does not count told about the duration of an arm's processes.

    Attributes:
        fixed_seconds: of a process, whatever it measures: its start, the images, compiled code, the way to each point.
        block_round_seconds: of one block of every network at every point.
        takes_turns: whether the arm's version of the suite can.
    """

    fixed_seconds: float
    block_round_seconds: float
    takes_turns: bool = False

    @classmethod
    def of(cls, whole: float, between: float, blocks: int, takes_turns: bool = False) -> Pilot:
        """Of a process that measured one block of everything.

        Args:
            whole: seconds from its start to its end.
            between: seconds from its first block to its last.
            blocks: that it measured.
            takes_turns: as it reported.
        """
        per_block = between / (blocks - 1) if blocks > 1 else whole / 2
        block_round = min(whole, per_block * blocks)
        return cls(whole - block_round, block_round, takes_turns)

    def seconds(self, block_rounds: int) -> float:
        """How long a process takes that measures so many blocks of everything."""
        return self.fixed_seconds + block_rounds * self.block_round_seconds


def block_rounds(pilots: Sequence[Pilot], settings: Settings) -> int:
    """How many blocks a process times at each point: as many as fit into the time limit for the slowest arm."""
    each = settings.time_limit / settings.processes
    fitting = min((each - p.fixed_seconds) / max(p.block_round_seconds, 1e-3) for p in pilots)
    return max(1, min(MAX_ROUNDS, int(fitting)))


def duration(pilots: Sequence[Pilot], blocks: int, rounds_left: int) -> float:
    """Seconds that so many rounds take."""
    return rounds_left * sum(p.seconds(blocks) for p in pilots)
