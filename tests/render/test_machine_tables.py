"""What `resnet-bench machine` prints."""

from __future__ import annotations

import json
import os

import pytest
import torch
from click.testing import CliRunner

from resnet_bench import machine
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.cli import cli
from resnet_bench.machine import Calibration
from tests import handmade

MEASURED = Calibration.model_validate(handmade.calibration())


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "calibrate", lambda threads=None: MEASURED)
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
    assert data["cpu"]["logical_cores"] == os.cpu_count()
    assert set(data["step_bound_seconds"]) == set(ARCHITECTURES)


@pytest.mark.usefixtures("instant")
def test_command_sets_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        result = CliRunner().invoke(cli, ["machine", "--threads", "3", "--format", "json"])
        assert json.loads(result.stdout)["threads"]["intraop"] == 3
    finally:
        torch.set_num_threads(before)


def test_command_refuses_zero_threads() -> None:
    result = CliRunner().invoke(cli, ["machine", "--threads", "0"])
    assert result.exit_code == 2
    assert "--threads" in result.output
