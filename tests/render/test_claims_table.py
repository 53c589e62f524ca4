"""The judged claims to read: every claim is in every format."""

from pathlib import Path
from typing import get_args

import pytest

from resnet_bench.analysis import claims
from resnet_bench.analysis.claims import NOT_REPRODUCED, REPRODUCED, UNDECIDABLE, JudgedClaim
from resnet_bench.paper import CLAIMS, PUBLISHED
from resnet_bench.render import claims_table
from resnet_bench.render.table import TEXT_WIDTH, Format
from resnet_bench.results.reading import read
from tests.handmade import epoch_time, save, together


@pytest.fixture
def judged(tmp_path: Path) -> list[JudgedClaim]:
    """All claims, judged by times of an epoch that are the published ones."""
    entries = [epoch_time(name, seconds=60 * p.epoch_minutes, noise=0.005) for name, p in PUBLISHED.items()]
    return claims.judge(together([read(save(tmp_path / "times.json", entries))]))


@pytest.mark.parametrize("format_", get_args(Format))
def test_every_claim_is_in_every_format(judged: list[JudgedClaim], format_: Format) -> None:
    rendered = claims_table.render(judged, format_)
    outcome = UNDECIDABLE if format_ != "text" else UNDECIDABLE.upper()
    assert rendered.count(outcome) >= sum(j.outcome == UNDECIDABLE for j in judged)
    if format_ == "text":
        assert max(map(len, rendered.splitlines())) <= TEXT_WIDTH
        assert all(claim.id in rendered for claim in CLAIMS)


def test_caption_counts_the_outcomes() -> None:
    judged = [
        JudgedClaim(claim, outcome, "")
        for claim, outcome in zip(CLAIMS, (REPRODUCED, UNDECIDABLE, REPRODUCED, NOT_REPRODUCED), strict=False)
    ]
    expected = "4 claims: 2 reproduced, 1 not reproduced, 1 not decidable from these results."
    assert claims_table.table(judged).caption == expected
