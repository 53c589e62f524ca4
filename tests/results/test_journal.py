import json
import os

from resnet_bench.results.journal import Journal, left_behind
from resnet_bench.schema import ParametersResult, reading


def result(architecture, count=10):
    return ParametersResult(
        process="0123456789abcdef",
        started_at="2026-01-02T03:04:05+00:00",
        architecture=architecture,
        parameters=count,
        num_classes=100,
        fc_parameters=5,
        multiply_accumulates=7,
        published_parameters=None,
    )


def test_every_entry_is_on_disk_at_once(tmp_path):
    """After each `add` the file is complete and reads like a saved one; the latest of a name stands."""
    journal = Journal(tmp_path / "journal", {"resnet_bench": {"cpu": {}}})
    journal.add("b.py::test[fc1]", "parameters", result("fc1"), [1.0, 3.0])
    assert reading.read(journal.path).results == (result("fc1"),)
    journal.add("b.py::test[fc3]", "parameters", result("fc3"), [])
    journal.add("b.py::test[fc1]", "parameters", result("fc1", 11), [1.0, 2.0, 6.0])
    assert reading.read(journal.path).results == (result("fc1", 11), result("fc3"))
    saved = json.loads(journal.path.read_text())["benchmarks"][0]
    assert saved["stats"]["data"] == [1.0, 2.0, 6.0]
    assert saved["stats"]["mean"] == 3.0
    journal.remove()
    assert not (tmp_path / "journal").exists()


def test_only_journals_of_dead_sessions_are_left_behind(tmp_path):
    (tmp_path / f"20260101T000000Z-{os.getpid()}.json").touch()
    (tmp_path / "20260101T000000Z-999999999.json").touch()
    assert [p.name for p in left_behind(tmp_path)] == ["20260101T000000Z-999999999.json"]
