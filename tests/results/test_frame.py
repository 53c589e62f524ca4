"""The rows of epoch times in the data frame: each block with the process and the point of the training it is of."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import resnet_bench
from resnet_bench.results import frame
from resnet_bench.results.reading import read
from resnet_bench.schema import EpochTimeResult
from tests.handmade import epoch_time, in_processes, save


def test_blocks_tell_their_process_and_their_point(tmp_path: Path) -> None:
    """Two processes, two points, three blocks at each: in this order."""
    entry = in_processes("fc1", processes=2, blocks=3, late=1.5)
    entry["points"][1]["state"] = "aged"
    entry["processes"][1] |= {"started_at": "2026-01-02T04:00:00+00:00", "peak_memory_bytes": 7}
    table = resnet_bench.load(save(tmp_path / "a.json", [entry]))
    first, second = (p["process"] for p in entry["processes"])
    assert table["process"].tolist() == [first] * 6 + [second] * 6
    assert table["point"].tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert table["round"].tolist() == [0, 1, 2] * 4
    assert table["training_step"].tolist() == ([0] * 3 + [100_000] * 3) * 2
    assert table["point_weight"].tolist() == [0.5] * 12
    assert table["point_state"].tolist() == (["trained"] * 3 + ["aged"] * 3) * 2
    assert table["started_at"].unique().tolist() == ["2026-01-02T03:04:05+00:00", "2026-01-02T04:00:00+00:00"]
    assert table["peak_memory_bytes"].unique().tolist() == [500_000_000, 7]


def test_the_means_of_the_points_with_their_weights_are_the_epoch_times(tmp_path: Path) -> None:
    path = save(tmp_path / "a.json", [in_processes("fc1", processes=3, noise=0.1, process_noise=0.1, late=1.5)])
    table = resnet_bench.load(path)
    points = table.groupby(["process", "point"]).agg(epoch=("epoch_seconds", "mean"), weight=("point_weight", "first"))
    means = (points["epoch"] * points["weight"]).groupby("process").sum()
    (result,) = read(path).of_kind(EpochTimeResult)
    assert means.tolist() == pytest.approx(list(result.epoch_times.values()))


def test_older_files_tell_no_point_state(tmp_path: Path) -> None:
    table = resnet_bench.load(save(tmp_path / "a.json", [epoch_time("fc1")]))
    assert table[["training_step", "point_weight", "point_state"]].isna().all(axis=None)


@pytest.mark.parametrize("value", [2.0**60, 1e300, -1e300, 5e-324])
def test_no_number_is_too_large_for_a_column_of_numbers(value: float) -> None:
    assert frame._cell(value, frame.NUMBER) == value


def test_whole_numbers_have_the_limits_of_their_columns() -> None:
    assert frame._cell(2**64 - 1, frame.UNSIGNED) == 2**64 - 1
    assert all(frame._cell(value, frame.UNSIGNED) is pd.NA for value in (-1, 2**64))
    assert frame._cell(-(2**63), frame.WHOLE) == -(2**63)
    assert frame._cell(2**63, frame.WHOLE) is pd.NA


def test_no_files_are_no_rows() -> None:
    assert resnet_bench.load([]).empty
