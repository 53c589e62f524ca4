"""What cannot be saved when a session ends costs neither its tables nor its journal."""

import json
import os
from pathlib import Path

import pytest

from resnet_bench.results import reading

PARAMETERS = ("-k", "parameters")  # takes a moment, and needs no images


def test_results_that_pytest_benchmark_did_not_take_stay_in_the_journal(session, tmp_path):
    """By whatever plugin: here pytest-benchmark is switched off when the checks are over."""
    (tmp_path / "off.py").write_text(
        "def pytest_runtestloop(session): session.config._benchmarksession.disabled = True\n"
    )
    done = session("-p", "off", "--profile", "standard", "-k", "overhead", "--benchmark-save=x")
    assert done.status == 2
    assert "cannot save the results: pytest-benchmark has none of them." in done.output
    (journal,) = tmp_path.glob(".benchmarks/journal/*.json")
    assert f"what was measured is kept in {journal.relative_to(tmp_path)}" in done.output
    assert [r.kind for r in reading.read(journal).results] == ["overhead"]


def test_a_session_without_terminal_saves(session):
    done = session("--profile", "standard", "-k", "overhead", "-p", "no:terminal", "--benchmark-save=x")
    assert done.status == 0, done.output
    assert [r.kind for r in reading.read(done.saved()).results] == ["overhead"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_while_saving(session, tmp_path):
    """What was measured is kept in the journal, and the sentence says where."""
    done = session(*PARAMETERS, "--benchmark-json=/dev/full")
    assert done.status == 2
    assert "cannot save the results: Cannot write /dev/full: No space left on device" in done.output
    assert "Parameters, counted" in done.output
    (journal,) = tmp_path.glob(".benchmarks/journal/*.json")
    assert len(reading.read(journal).results) == 1


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="needs /dev/stdout")
def test_benchmark_json_to_the_output_does_not_cut_it_off(session):
    """What the session printed before stands before it in the file, the summary after it."""
    done = session(*PARAMETERS, "--benchmark-json=/dev/stdout")
    assert done.status == 0, done.output
    start = done.output.index("{\n")
    data, end = json.JSONDecoder().raw_decode(done.output, start)
    assert "test session starts" in done.output[:start]
    assert len(data["benchmarks"]) == 1
    assert "Parameters, counted" in done.output[end:]
    assert Path("/dev/stdout").is_symlink()


def test_a_json_file_is_replaced_when_it_is_complete(session, tmp_path):
    """Through a link, which stays; the file that it names stays as it was until then, and nothing else beside it."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old.json").write_text("old")
    (tmp_path / "link.json").symlink_to("folder/old.json")
    (tmp_path / "breaks.py").write_text(
        "import resnet_bench.session.saving\n"
        "def full(output, **anything): raise OSError(28, 'No space left on device')\n"
        "resnet_bench.session.saving.safe_dumps = full\n"
    )
    done = session(*PARAMETERS, "-p", "breaks", "--benchmark-json=link.json")
    assert done.status == 2
    assert "cannot save the results: Cannot write" in done.output
    assert "1 passed" in done.output
    assert "Parameters, counted" in done.output
    assert (tmp_path / "link.json").read_text() == "old"
    done = session(*PARAMETERS, "--benchmark-json=link.json")
    assert done.status == 0, done.output
    assert (tmp_path / "link.json").is_symlink()
    assert os.listdir(tmp_path / "folder") == ["old.json"]
    assert len(reading.read(tmp_path / "folder" / "old.json").results) == 1


def test_an_interrupt_while_saving_keeps_the_journal(session, tmp_path):
    (tmp_path / "breaks.py").write_text(
        "import pytest_benchmark.storage.file\n"
        "def interrupted(output, **anything): raise KeyboardInterrupt\n"
        "pytest_benchmark.storage.file.safe_dumps = interrupted\n"
    )
    done = session("--profile", "standard", "-k", "overhead", "-p", "breaks", "--benchmark-save=x")
    (journal,) = tmp_path.glob(".benchmarks/journal/*.json")
    assert f"what was measured is kept in {journal.relative_to(tmp_path)}" in done.output


def test_a_saved_run_that_breaks_off_leaves_no_file_in_the_storage(session, tmp_path):
    """It would count as a saved run; the JSON file, which was complete before, stays, and the journal too."""
    (tmp_path / "breaks.py").write_text(
        "import pytest_benchmark.storage.file\n"
        "def full(output, **anything): raise OSError(28, 'No space left on device')\n"
        "pytest_benchmark.storage.file.safe_dumps = full\n"
    )
    done = session(*PARAMETERS, "-p", "breaks", "--benchmark-json=x.json", "--benchmark-save=x")
    assert done.status == 2
    assert "resnet_bench: error: cannot save the results: No space left on device." in done.output
    assert "Traceback" not in done.output
    assert "Parameters, counted" in done.output
    assert len(reading.read(tmp_path / "x.json").results) == 1
    (journal,) = tmp_path.glob(".benchmarks/journal/*.json")
    assert sorted(done.files) == sorted([str(journal.relative_to(tmp_path)), "breaks.py", "x.json"])
