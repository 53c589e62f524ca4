"""`resnet-bench history` from the command line: what it reads, refuses and writes, and how it exits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_bench.cli import main
from tests.analysis.test_history import course, save, session

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def run(capsys):
    """Runs the command: (exit status, standard output, standard error)."""

    def call(*arguments):
        with pytest.raises(SystemExit) as exit_:
            main(["history", *map(str, arguments)])
        return (exit_.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """The storage of the working directory, with a session slower by a third in the second half of twelve."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / ".benchmarks" / "Linux-CPython-3.12-64bit"
    folder.mkdir(parents=True)
    save(folder, [session(i, s) for i, s in enumerate(course([60] * 6 + [80] * 6))])
    (tmp_path / ".benchmarks" / "duel-1").mkdir()  # a duel's files have no numbers, and are no runs
    (tmp_path / ".benchmarks" / "duel-1" / "journal.json").write_text("{")
    return folder


def test_the_storage_is_read_by_default(run, storage):
    status, out, err = run()
    assert (status, err) == (0, "")
    assert out.startswith("REGRESSION reference, fc3: 1.3")
    assert run(".benchmarks")[1] == run(storage)[1] == out


def test_a_step_to_slower_fails_and_one_to_faster_does_not(run, storage):
    assert run("--fail-on-step")[0] == 1
    assert run("--fail-on-step", *sorted(storage.glob("*.json"))[:6])[0] == 0
    save(storage, [session(i, s) for i, s in enumerate(course([80] * 6 + [60] * 6))])
    status, out, _ = run("--fail-on-step")
    assert status == 0
    assert out.startswith("reference, fc3: 1.3")


def test_an_accepted_step_is_listed_and_does_not_fail(run, storage):
    status, out, err = run("--fail-on-step", "--accept", "2027-01-07")
    assert (status, err) == (0, "")
    assert out.startswith("accepted: reference, fc3: 1.3")
    assert run("--fail-on-step", "--accept", "2027-01-06")[0] == 1
    (line,) = json.loads(run("--accept", "2027-01-07", "--format", "json")[1])["lines"]
    assert ([change["accepted"] for change in line["changes"]], line["regression"]) == ([True], False)


def test_eight_real_sessions_of_the_same_code_do_not_fail(run):
    status, out, _ = run(REPOSITORY / "reports" / "same-code", "--with-doubtful", "--fail-on-step")
    assert status == 0
    assert out.startswith("No step was found.")


def test_more_lines_than_the_simulation_resolves_are_told_and_cannot_fail(run, storage, monkeypatch):
    """They would pass for ever."""
    for module in ("analysis.history", "render.history_tables"):
        monkeypatch.setattr(f"resnet_bench.{module}.MOST_TOGETHER", 0)
    status, out, err = run()
    assert (status, err) == (0, "")
    assert "Of 1 line together no step can be significant; choose at most 0" in out
    status, _, err = run("--fail-on-step")
    assert status == 2
    assert err.startswith("resnet-bench: error: Of 1 line together no step can be significant; choose at most 0 with ")


def test_a_storage_as_pytest_benchmark_spells_it(run, storage):
    assert run(f"file://{storage.parent.resolve()}") == run(storage.parent.resolve())
    assert run("file://nowhere") == (2, "", "resnet-bench: error: There is no file nowhere; give the JSON of a run.\n")


def test_files_of_other_projects_in_the_storage_are_passed_over(run, storage):
    """Such as one of `pytest benchmarks -k augmentation`."""
    out = run()[1]
    for number in range(5):
        (storage / f"002{number}_other.json").write_text('{"benchmarks": [{"name": "test_augmentation"}]}')
    status, without, err = run()
    assert (status, without) == (0, out)
    assert err.startswith(
        f"resnet-bench: 5 files without results: {Path('.benchmarks') / storage.name}/0020_other.json, "
    )
    assert err.endswith("0022_other.json and 2 more\n")
    assert run(storage / "0020_other.json")[0] == 2  # which the user named
    for path in storage.glob("00[01]*.json"):
        path.unlink()
    status, _, err = run()
    assert status == 2
    assert "The folder .benchmarks holds no results of resnet_bench; give files that this suite saved." in err


@pytest.mark.parametrize("format_", ["text", "json", "html"])
def test_nothing_to_show_is_no_history(run, format_):
    """Where it is a gate, it must not pass."""
    status, out, err = run(REPOSITORY / "reports" / "duel-same", "--format", format_, "--fail-on-step")
    assert (status, out) == (2, "")
    assert err.startswith("resnet-bench: error: There is no session to show. Left out: ")
    assert "of a duel" in err


@pytest.mark.parametrize("names", ["", ",", " "])
def test_an_empty_list_of_names_is_refused(run, storage, names):
    assert run("--network", names)[0] == run("--engine", names)[0] == 2
    assert "--network names none; give one or leave it out." in run("--network", names)[2]


def test_one_session_is_too_few(run, storage):
    status, out, _ = run(next(storage.glob("*.json")), "--fail-on-step")
    assert status == 0
    assert out.startswith("No line could be judged: none has 6 sessions without doubts.")
    assert "too few sessions: 1 of 6" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json"], "There is no file nowhere.json"),
        (["empty"], "The folder empty holds no JSON of a run"),
        (["--network", "fc9"], "no epoch time of network fc9; give one of fc3"),
        (["--engine", "quantum"], "no epoch time of engine quantum; give one of reference"),
        (["--accept", "soon"], "--accept soon is neither a date, such as 2027-01-04, nor a commit"),
        (["--accept", "cccc"], "--accept cccc names no session"),
        (["--output", "nowhere/x.html"], "nowhere to write x.html to; make it or give another --output"),
        (["--format", "csv"], "Invalid value for '--format'"),
    ],
)
def test_bad_input(run, storage, arguments, message):
    Path("empty").mkdir()
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_without_a_storage(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run()
    assert status == 2
    assert err.startswith("resnet-bench: error: There is no .benchmarks here; save runs with pytest benchmarks")
    Path(".benchmarks").mkdir()
    status, _, err = run()
    assert status == 2
    assert "The folder .benchmarks holds no JSON of a run" in err


@pytest.mark.parametrize("kept", [0, 1, 1000, -5])
def test_a_file_that_was_cut_off_is_named(run, storage, kept):
    damaged = sorted(storage.glob("*.json"))[3]
    damaged.write_bytes(damaged.read_bytes()[:kept])
    status, out, err = run("--fail-on-step")
    assert (status, out) == (2, "")
    assert damaged.name in err
    assert len(err.splitlines()) == 1


def test_a_damaged_description_of_the_machine(run, storage):
    """Of any type, where a reader might expect a dict."""
    for path, part in zip(sorted(storage.glob("*.json")), [None, 3, [], "x", {"version": []}], strict=False):
        content = json.loads(path.read_text())
        machine = content["machine_info"]["resnet_bench"]
        machine |= dict.fromkeys(("code", "torch", "calibration", "container", "session"), part)
        path.write_text(json.dumps(content))
    for format_ in ("text", "json", "html"):
        status, _, err = run("--format", format_)
        assert (status, err) == (0, "")


def test_what_is_written_is_what_is_printed(run, storage):
    for format_ in ("text", "json"):
        _, out, _ = run("--format", format_)
        assert run("--format", format_, "--output", "out")[1:] == ("", "")
        assert Path("out").read_text() == out
    run("--format", "html", "--output", "out.html")
    assert Path("out.html").read_text().startswith("<!DOCTYPE html>")


def test_results_are_not_replaced(run, storage):
    path = next(storage.glob("*.json"))
    before = path.read_bytes()
    status, _, err = run("--output", path)
    assert status == 2
    assert "would replace the results in it" in err
    assert path.read_bytes() == before


def test_only_what_is_asked_for(run, storage):
    save(storage, [session(0, 60, networks=("fc1", "fc3", "baseline"))])
    _, out, _ = run("--network", "fc1, baseline", "--format", "json")
    assert [line["architecture"] for line in json.loads(out)["lines"]] == ["baseline", "fc1"]


@pytest.mark.parametrize("format_", ["text", "json", "html"])
def test_no_torch_and_any_encoding(storage, format_):
    code = (
        "import sys; sys.argv[0] = 'x'\nfrom resnet_bench.cli import main\n"
        "try: main(['history', '--format', sys.argv[1]])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code, format_], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "slower" in done.stdout
