"""`resnet-bench reconstruct` prints all that the search found, in each of its formats."""

from __future__ import annotations

import json

import pytest

from resnet_bench import cli
from resnet_bench.reconstruction import CANONICAL, reconstruct


@pytest.mark.parametrize("output", ["text", "markdown"])
def test_command_prints_within_110_columns_or_as_markdown(output, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reconstruct", "--format", output])
    assert not exit_.value.code
    printed = capsys.readouterr().out
    assert "canonical" in printed
    assert "assumption" in printed
    if output == "text":
        assert max(map(len, printed.splitlines())) <= 110
    else:
        assert printed.startswith("## ")
        assert "|---" in printed


def test_command_prints_every_design_as_json(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reconstruct", "--format", "json"])
    assert not exit_.value.code
    result = json.loads(capsys.readouterr().out)
    assert len(result["designs"]) == len(reconstruct().designs)
    (canonical,) = (d for d in result["designs"] if d["canonical"])
    assert canonical["parameters"] == CANONICAL.counts
    assert canonical["decided_by"] is None
    ids = {e["id"] for e in result["evidence"]}
    assert all(d["decided_by"] in ids for d in result["designs"] if not d["canonical"])


def test_command_refuses_an_unknown_format(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["reconstruct", "--format", "yaml"])
    assert exit_.value.code == 2
    assert "yaml" in capsys.readouterr().err
