"""The judged claims to read: every claim is in every format."""

from pathlib import Path
from typing import get_args

import pytest

from resnet_bench.analysis import claims
from resnet_bench.analysis.claims import HOLDS_ELSEWHERE, NOT_REPRODUCED, REPRODUCED, UNDECIDED, JudgedClaim
from resnet_bench.paper import CLAIMS, PUBLISHED
from resnet_bench.render import claims_table
from resnet_bench.render.table import TEXT_WIDTH, Format
from resnet_bench.results.reading import read
from tests.handmade import in_processes, save, together


@pytest.fixture
def judged(tmp_path: Path) -> list[JudgedClaim]:
    """All claims, judged by times of an epoch that are the published ones."""
    entries = [in_processes(name, seconds=60 * p.epoch_minutes, noise=0.005) for name, p in PUBLISHED.items()]
    return claims.judge(together([read(save(tmp_path / "times.json", entries))]))


@pytest.mark.parametrize("format_", get_args(Format))
def test_every_claim_is_in_every_format(judged: list[JudgedClaim], format_: Format) -> None:
    rendered = claims_table.render(judged, format_)
    outcome = UNDECIDED if format_ != "text" else UNDECIDED.upper()
    assert rendered.count(outcome) >= sum(j.outcome == UNDECIDED for j in judged)
    if format_ == "text":
        assert max(map(len, rendered.splitlines())) <= TEXT_WIDTH
        assert all(claim.id in rendered for claim in CLAIMS)


def test_caption_counts_the_outcomes_and_what_holds_elsewhere_apart() -> None:
    outcomes = (REPRODUCED, UNDECIDED, REPRODUCED, NOT_REPRODUCED, HOLDS_ELSEWHERE)
    judged = [JudgedClaim(claim, outcome, "") for claim, outcome in zip(CLAIMS, outcomes, strict=False)]
    expected = "reproduced 2 · not reproduced 1 · holds elsewhere 1 · does not hold elsewhere 0 · undecided 1"
    assert claims_table.table(judged).caption == expected


@pytest.mark.parametrize("format_", get_args(Format))
def test_a_verdict_elsewhere_names_the_data_set(format_: Format) -> None:
    rendered = claims_table.render([JudgedClaim(CLAIMS[0], HOLDS_ELSEWHERE, "", "CIFAR-10")], format_)
    assert ("HOLDS ON CIFAR-10" if format_ == "text" else "holds on CIFAR-10") in rendered


def test_text_lists_the_decided_claims_first(judged: list[JudgedClaim]) -> None:
    rendered = claims_table.render(judged, "text")
    assert rendered.rindex("REPRODUCED  ") < rendered.index("UNDECIDED  ")
