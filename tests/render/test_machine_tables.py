"""What `resnet-bench machine` prints."""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from resnet_bench import machine
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.cli import cli
from resnet_bench.machine import Calibration, DenormalCosts
from resnet_bench.render import machine_tables
from tests import handmade

MEASURED = Calibration.model_validate(handmade.calibration())
DENORMALS = DenormalCosts.model_validate(handmade.denormal_costs())


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "calibrate", lambda threads=None: MEASURED)
    monkeypatch.setattr(machine, "measure_denormals", lambda threads=None: DENORMALS)
    monkeypatch.setattr(machine, "busy_reason", lambda load_before: "Something else runs.")


@pytest.mark.usefixtures("instant")
def test_command_prints_machine_rates_and_bounds() -> None:
    result = CliRunner().invoke(cli, ["machine"])
    assert result.exit_code == 0, result.output
    for expected in ("cpu logical_cores", "GB/s", "GFLOP/s", "update 98 MB", "gemm 1024", "conv5x5", "quartiles"):
        assert expected in result.output
    assert "warning: Something else runs." in result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 120


@pytest.mark.usefixtures("instant")
def test_command_prints_json() -> None:
    result = CliRunner().invoke(cli, ["machine", "--format", "json"])
    data = json.loads(result.stdout)
    assert Calibration.model_validate(data["calibration"]["start"]) == MEASURED
    assert DenormalCosts.model_validate(data["denormals"]) == DENORMALS
    assert data["cpu"]["logical_cores"] == os.cpu_count()
    assert set(data["step_bound_seconds"]) == set(ARCHITECTURES)


@pytest.mark.usefixtures("instant", "threads")
def test_command_sets_the_threads() -> None:
    result = CliRunner().invoke(cli, ["machine", "--threads", "3", "--format", "json"])
    assert json.loads(result.stdout)["threads"]["intraop"] == 3


def test_command_refuses_zero_threads() -> None:
    result = CliRunner().invoke(cli, ["machine", "--threads", "0"])
    assert result.exit_code == 2
    assert "--threads" in result.output


def test_denormals_have_a_table_and_a_sentence_that_says_what_a_step_of_default_adam_costs() -> None:
    table = machine_tables.tables({}, MEASURED, DENORMALS)[-1]
    assert table.title == "Cost of denormal numbers"
    assert table.rows[:4] == [
        ["square root", "operand", "20", "2.00", "1.80 to 2.20", "", ""],
        ["default Adam", "first moments", "20", "1.00", "0.90 to 1.10", "", ""],
        ["default Adam", "second moments", "20", "4.00", "3.60 to 4.40", "", ""],
        ["default Adam", "both moments", "20", "4.00", "3.60 to 4.40", "1.50", "1.35 to 1.65"],
    ]
    assert "9 interleaved rounds" in table.caption
    assert "one layer of 8,192,000 weights without a gradient, threads: 2" in table.caption
    assert list(table.notes) == [
        "A step of default Adam takes 4.00 times as long here once the second moments of all weights are denormal, as "
        "those of idle units become some 67,000 steps after their last gradient (docs/denormals.md); with both moments "
        "denormal 4.00 times, and 1.50 where they are flushed to 0."
    ]


def test_a_cpu_that_cannot_flush_has_no_ratio_with_denormals_flushed() -> None:
    costs = DenormalCosts.model_validate(handmade.denormal_costs(second=3.0, flushed=None))
    table = machine_tables.tables({}, MEASURED, costs)[-1]
    assert all(row[-2:] == ["", ""] for row in table.rows)
    assert table.notes[0].endswith("with both moments denormal 3.00 times.")
