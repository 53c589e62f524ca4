"""What a reader has to know about the runs of a file: why they may be doubted, and what the comparison leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resnet_bench.analysis.comparison.networks import Pair, Role
from resnet_bench.results.samples import Samples
from resnet_bench.schema import AccuracyResult, EpochTimeResult
from resnet_bench.wording import short


@dataclass(frozen=True)
class Mark:
    """A remark on runs of one file.

    Attributes:
        file: which of the two.
        text: the remark.
        networks: the networks whose runs it is about, each once.
    """

    file: Role
    text: str
    networks: tuple[str, ...]


def doubts(role: Role, samples: Samples) -> list[Mark]:
    """Warnings of the runs of a file; runs that stopped early or were resumed under another setting."""
    found = []
    for result in (run.result for run in samples.runs):
        texts: list[str] = []
        if isinstance(result, EpochTimeResult):
            texts += [short(warning, 200) for warning in result.warnings]
        if isinstance(result, EpochTimeResult | AccuracyResult) and not result.complete:
            texts.append(f"{result.kind.replace('_', ' ')} run stopped early")
        if isinstance(result, AccuracyResult) and result.mixed:
            texts.append("resumed under another setting or machine: its times are not used")
        if isinstance(result, AccuracyResult) and result.beside:
            texts.append("other trainings ran beside it: its times are not used")
        found += [(role, text, result.architecture) for text in texts]
    return _gathered(found)


def omissions(held: Sequence[Pair], compared: Sequence[Pair]) -> list[Mark]:
    """What the files hold and the comparison does not use.

    Args:
        held: the pairs with all that the files hold.
        compared: the same pairs, in the same order, with what is compared.
    """
    roles: tuple[Role, ...] = ("base", "other")
    found = []
    for held_pair, compared_pair in zip(held, compared, strict=True):
        for role, all_, used in zip(roles, held_pair, compared_pair, strict=True):
            if all_.modes != used.modes:
                mode, rest = (" and ".join(modes) for modes in (used.modes, all_.modes - used.modes))
                text = f"epoch times of mode {mode} are compared, those of mode {rest} left out"
                found.append((role, text, all_.architecture))
            if len(all_.trainings) != len(used.trainings):
                found.append((role, "trainings that both files hold are left out here", all_.architecture))
    return _gathered(found)


def _gathered(remarks: Sequence[tuple[Role, str, str]]) -> list[Mark]:
    """Each text once for a file, with all networks that it is about; `remarks` are (file, text, network)."""
    networks: dict[tuple[Role, str], dict[str, None]] = {}
    for role, text, network in remarks:
        networks.setdefault((role, text), {})[short(network)] = None
    return [Mark(role, text, tuple(names)) for (role, text), names in networks.items()]
