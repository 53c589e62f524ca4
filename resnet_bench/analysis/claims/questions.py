"""What a rule asks: conditions that all have to hold, of the seeds or processes of one setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from resnet_bench.analysis.claims.evidence import counted
from resnet_bench.analysis.claims.outcome import Judgement, Undecided, Untestable, decided
from resnet_bench.analysis.conditions import MOST_PLANNED, TYPICAL_SPREAD, Condition, step_down
from resnet_bench.intervals import LEAST_VALUES
from resnet_bench.wording import listed


@dataclass(frozen=True)
class Question:
    """A claim as conditions on one setting's measurements.

    Attributes:
        conditions: all of them have to hold, by what they are about (`epoch 3`).
        evidence: the text of the numbers, with intervals that miss with this probability.
        unit: what the conditions have one value of.
        place: as in `Judgement`.
    """

    conditions: Mapping[str, Condition]
    evidence: Callable[[float], str]
    unit: Literal["seed", "process"]
    place: str = ""

    @property
    def values(self) -> int:
        """The number of seeds or processes."""
        return min(len(condition.values) for condition in self.conditions.values())

    def judge(self, error: float) -> Judgement:
        """The verdict, which is false with the probability `error` at most.

        The conditions share this error by Holm's method, because one that fails is enough for «not reproduced».

        Raises:
            Untestable: there are fewer than `LEAST_VALUES` seeds or processes.
            Undecided: conditions stay open.
        """
        if self.values < LEAST_VALUES:
            raise Untestable(f"{self._too_few(error)}: {self.evidence(error)}")
        answers = step_down({about: c.answer for about, c in self.conditions.items()}, error)
        still = [about for about in self.conditions if about not in answers]
        evidence = self.evidence(error / max(1, len(still)))
        if failing := [about for about in self.conditions if answers.get(about) is False]:
            return decided(False, self._about("not so", failing) + evidence, self.place)
        if still:
            more = self._needed({about: self.conditions[about] for about in still}, error)
            raise Undecided(f"{self._about('open', still)}{more}: {evidence}")
        return decided(True, evidence, self.place)

    def _about(self, word: str, keys: list[str]) -> str:
        """`not so (epochs 3 and 5): `; empty where there is one condition only."""
        return f"{word} ({_named(keys)}): " if len(self.conditions) > 1 else ""

    def _too_few(self, error: float) -> str:
        """`not decidable from one seed; …`."""
        there = counted(self.values, self.unit)
        if self.unit == "process":
            return f"measured in {there}, and fewer than {LEAST_VALUES} decide nothing"
        return f"not decidable from {there}; {self._needed(self.conditions, error)}"

    def _needed(self, conditions: Mapping[str, Condition], error: float) -> str:
        """How many more seeds or processes would decide. One condition that fails is enough, else all have to hold."""
        each = {about: c.needed(error / len(conditions)) for about, c in conditions.items()}
        failing = [n for about, n in each.items() if n is not None and conditions[about].fails]
        every = [n for n in each.values() if n is not None]
        if not failing and len(every) < len(each):
            return f"even {MOST_PLANNED:,} {self.unit}{'es' if self.unit == 'process' else 's'} would not decide it"
        more = max(1, (min(failing) if failing else max(every)) - self.values)
        if self.values > 1:
            given = "if their mean and scatter stay"
        else:
            given = f"if its value is the mean and seeds scatter by {100 * TYPICAL_SPREAD:.1f} points, as is typical"
        return f"about {counted(more, f'more {self.unit}')} would decide it, {given}"


def _named(keys: Sequence[str]) -> str:
    """The conditions' names; of several epochs the numbers, of many in a row the ends: `epochs 2 and 5 to 15`."""
    epochs = [int(key.removeprefix("epoch ")) for key in keys if key.startswith("epoch ")]
    if len(epochs) < 2:
        return listed(keys)
    rows: list[list[int]] = []
    for epoch in epochs:
        if rows and epoch == rows[-1][-1] + 1:
            rows[-1].append(epoch)
        else:
            rows.append([epoch])
    numbers = [n for row in rows for n in ([f"{row[0]} to {row[-1]}"] if len(row) > 2 else row)]
    others = [key for key in keys if not key.startswith("epoch ")]
    return listed([f"epochs {listed(numbers)}", *others])
