"""What makes a session of `pytest benchmarks` lose its results is found out before anything is measured."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pytest_benchmark.utils import get_machine_id

from resnet_bench.errors import without_credentials
from resnet_bench.results import reading
from tests.conftest import needs_compiler
from tests.session.conftest import small
from tests.session.sessions import ROOT, assert_refused

PARAMETERS = ("-k", "parameters")  # takes a moment, and needs no images


XDIST = "With -n or --dist every process of pytest-xdist would train the networks anew"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "2"], XDIST),
        (["-n", "1", "--benchmark-save=x"], XDIST),
        (["--dist=load", "--tx=2*popen"], XDIST),
        (["--benchmark-disable", "--benchmark-save=x"], "With --benchmark-disable everything would be measured"),
        (["--benchmark-disable", "--benchmark-only"], "With --benchmark-disable everything would be measured"),
        (["--benchmark-skip", "--benchmark-json=x.json"], "With --benchmark-skip nothing is measured"),
        (["-p", "no:benchmark"], "The benchmarks need pytest-benchmark"),
    ],
)
def test_an_option_with_which_nothing_is_saved_is_refused(session, arguments, message):
    assert_refused(session(*arguments), message)


def test_an_environment_with_which_nothing_is_saved_is_refused(session):
    assert_refused(session(PYTEST_ADDOPTS="-n 2"), XDIST)
    assert_refused(session(PYTEST_XDIST_WORKER="gw0"), "PYTEST_XDIST_WORKER is set in the environment")


@needs_compiler
def test_the_header_says_that_fast_leaves_no_idle_units_out_of_large_batches(session):
    note = "resnet_bench: fast leaves no idle units out at batches above 16 images; `resnet-bench scale"
    asked = ["--engine", "fast", "--collect-only", "--batch-size"]
    assert note in session(*asked, "32").output
    assert note not in session(*asked, "16").output


def test_options_that_undo_each_other_are_fine(session):
    undone = ["-n", "0", "--benchmark-disable", "--benchmark-enable", "--benchmark-skip", "--benchmark-only"]
    done = session(*PARAMETERS, *undone, "--benchmark-save=x", PYTEST_ADDOPTS="-n 2")
    assert done.status == 0, done.output
    assert len(reading.read(done.saved()).results) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--benchmark-json=no/x.json"], "There is no folder {tmp}/no to write x.json to; make it"),
        (["--benchmark-json=folder"], "--benchmark-json names no file but the folder {tmp}/folder;"),
        (["--benchmark-json="], "--benchmark-json names no file but the folder {tmp};"),
        (["--benchmark-json=file/x.json"], "Cannot write file/x.json: Not a directory; give another --benchmark-json."),
        ([f"--benchmark-json={'x' * 300}"], "File name too long; give another --benchmark-json."),
        ([f"--benchmark-save={'x' * 300}"], "File name too long; give another --benchmark-storage or --benchmark-save"),
        (["--benchmark-storage=file/storage"], "journal to the folder {tmp}/file/storage/journal: Not a directory;"),
        (["--benchmark-storage=s3://user:secret@host/x"], "--benchmark-storage is s3://***@host/x; give file://FOLDER"),
        (["--benchmark-histogram"], '--benchmark-histogram needs pygal; pip install "pytest-benchmark[histogram]"'),
        (["--junit-xml=file/x.xml"], "Cannot write file/x.xml: Not a directory; give another --junit-xml."),
        (["--benchmark-cprofile-dump=file/x"], "Cannot write file/x-…: Not a directory; give another"),
        (["--benchmark-cprofile-dump=x", "--benchmark-cprofile-dump=y"], "--benchmark-cprofile-dump is given 2 times"),
        (["--benchmark-cprofile=tottime"], "--benchmark-cprofile cannot look into test_epoch_time, test_accuracy, "),
        (["--benchmark-group-by=size"], "There is no grouping 'size' for --benchmark-group-by; choose from group, "),
        (
            ["--benchmark-group-by=param:x"],
            "which no selected benchmark has; choose from architecture, engine, explained, how, mode.",
        ),
        (["--benchmark-compare=0007"], "There is no saved run 0007 in file://./.benchmarks; give another"),
        (["--benchmark-compare=a/b/c.json"], "There is no saved run a/b/c.json in file://./.benchmarks; give another"),
        (["--benchmark-compare=ours"], "There is no saved run ours in file://./.benchmarks; give another"),
        (["--benchmark-compare", "--benchmark-compare-fail=min:5%"], "There is no saved run in file://./.benchmarks;"),
        (["--benchmark-compare-fail=min:5%"], "--benchmark-compare-fail needs a saved run to compare with"),
    ],
)
def test_what_cannot_be_done_when_the_session_ends_is_refused_at_its_start(session, tmp_path, arguments, message):
    if "pygal" in message:  # as where it is not installed
        (tmp_path / "without.py").write_text("import sys\nsys.modules['pygal'] = None\n")
        arguments = ["-p", "without", *arguments]
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert_refused(session(*arguments), message.format(tmp=tmp_path))


def test_a_default_storage_that_cannot_be_written_is_one_message(session, tmp_path):
    (tmp_path / ".benchmarks").touch()
    done = session()
    assert_refused(
        done, f"Cannot write the journal to the folder {tmp_path}/.benchmarks/journal: Not a directory; give"
    )
    assert done.output.count("error") == 1
    assert session("--collect-only").status == 0  # nothing is written
    assert session("--help").status == 0


MOUNT = ["unshare", "--mount", "--map-root-user", "sh", "-c", 'mount -t tmpfs -o ro none "$0" && cd "$0" && exec "$@"']


def test_a_read_only_working_folder_is_one_message(tmp_path):
    """A mount, which not even root can write to."""
    if not shutil.which("unshare") or subprocess.run([*MOUNT, tmp_path, "true"], capture_output=True).returncode:
        pytest.skip("needs a mount in a namespace of its own")
    command = [sys.executable, "-m", "pytest", ROOT / "benchmarks", "-p", "no:cacheprovider", "--engine", "reference"]
    done = subprocess.run([*MOUNT, tmp_path, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    folder = tmp_path / ".benchmarks" / "journal"
    reason = "Read-only file system; give another --benchmark-storage."
    assert done.stderr == f"Exit: resnet_bench: error: Cannot write the journal to the folder {folder}: {reason}\n"
    assert done.stdout == ""


def test_a_folder_for_results_that_cannot_be_written_is_told_from_that_of_the_journal(session, tmp_path):
    (tmp_path / ".benchmarks").mkdir()
    results_folder = tmp_path / ".benchmarks" / get_machine_id()
    results_folder.touch()
    assert_refused(session("--benchmark-save=x"), f"Cannot write {results_folder}/0001_x.json: Not a directory; give")


def test_benchmarks_without_the_parameter_are_a_group_of_their_own(session):
    """And what pytest-benchmark times itself can be profiled."""
    selected = ["-k", "parameters or augmentation", "--benchmark-group-by=param:architecture"]
    done = session(*selected, "--benchmark-cprofile=tottime", "--benchmark-save=x")
    assert done.status == 0, done.output
    assert "benchmark 'architecture=conv5x5': 1 tests" in done.output
    assert "benchmark 'architecture=none': 2 tests" in done.output
    assert "cProfile (time in s)" in done.output
    saved = json.loads(done.saved().read_text())["benchmarks"]
    assert [b["params"] for b in saved] == [{"architecture": "conv5x5"}, {"how": "loader"}, {"how": "vectorized"}]


@pytest.fixture(scope="module")
def first(sessions, tmp_path_factory):
    """A session that is to compare, in a new storage, with the run before it; its folder is a repository of git."""
    folder = tmp_path_factory.mktemp("first")
    for command in (["init"], ["remote", "add", "origin", "https://user:password@host"]):
        subprocess.run(["git", *command], cwd=folder, capture_output=True, timeout=60, check=True)
    done = small(sessions, folder, *PARAMETERS, "--benchmark-compare", "--benchmark-save=x")
    assert done.status == 0, done.output
    return done


@pytest.fixture
def saved(first, tmp_path):
    """A saved run in the test's own storage, as its file and what is in it."""
    path = tmp_path / first.saved().relative_to(first.folder)
    path.parent.mkdir(parents=True)
    shutil.copy(first.saved(), path)
    return path, json.loads(path.read_text())


def test_a_first_comparison_has_nothing_to_compare_with(first):
    """In CI the run that is compared with is often the one before."""
    assert "resnet_bench: nothing to compare with: there is no saved run in file://./.benchmarks yet." in first.output
    assert first.saved().name == "0001_x.json"


def test_a_password_in_the_address_of_the_repository_is_not_saved(first):
    """pytest-benchmark takes the end of the address for the project's name."""
    assert json.loads(first.saved().read_text())["commit_info"]["project"] == "***@host"


def test_a_comparison_notes_what_differs_between_the_machines(session, saved, tmp_path):
    """In a line, also where the storage is not in the working folder."""
    path, run = saved
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    storage = f"--benchmark-storage={tmp_path / '.benchmarks'}"
    same = session(*PARAMETERS, storage, "--benchmark-compare", folder=elsewhere)
    assert same.status == 0, same.output
    assert "Comparing against benchmarks from" in same.output
    assert "differs" not in same.output
    run["machine_info"]["resnet_bench"]["cpu"]["model"] = "another"
    path.write_text(json.dumps(run))
    other = session(*PARAMETERS, storage, f"--benchmark-compare={path}", folder=elsewhere)
    assert other.status == 0, other.output
    assert "resnet_bench: the saved run differs in cpu; `resnet-bench compare` says what that explains." in other.output
    assert "machine_info" not in other.output
    assert max(map(len, other.output.splitlines())) < 1000


def test_a_regression_fails_and_shows_the_summary(session, saved):
    """Status 1, no traceback, no journal: everything is saved."""
    path, run = saved
    run["benchmarks"][0]["stats"]["min"] /= 1e6
    path.write_text(json.dumps(run))
    compare = ["--benchmark-compare", "--benchmark-compare-fail=min:5%"]
    done = session(*PARAMETERS, *compare, "--benchmark-save=y")
    assert done.status == 1
    assert "Performance has regressed" in done.output
    assert "Traceback" not in done.output
    assert "Parameters, counted" in done.output
    assert "StdDev" in done.output  # pytest-benchmark's comparison is in its tables
    assert "1 passed" in done.output
    assert [Path(name).name for name in done.files] == ["0001_x.json", "0002_y.json"]
    lacking = session("-k", "parameters or vectorized", *compare)
    assert lacking.status == 2
    name = "benchmarks/test_augmentation.py::test_augmentation[vectorized]"
    assert f"cannot judge {name}, for the saved run lacks it" in lacking.output


@pytest.mark.parametrize("damage", ["no machine", "no name", "no median"])
def test_a_damaged_file_is_not_compared_with(session, saved, damage):
    path, run = saved
    del {"no machine": run, "no name": run["benchmarks"][0], "no median": run["benchmarks"][0]["stats"]}[damage][
        {"no machine": "machine_info", "no name": "fullname", "no median": "median"}[damage]
    ]
    path.write_text(json.dumps(run))
    done = session(*PARAMETERS, "--benchmark-compare")
    assert done.status == 2
    assert "0001_x.json is no complete file of pytest-benchmark; give another --benchmark-compare." in done.output
    assert "Traceback" not in done.output


# pytest-benchmark's own commands and options that are not refused ----------------------------------------------------


def test_a_histogram_is_drawn(session, tmp_path):
    """A picture for each group, named by the prefix, beside the results."""
    done = session(*PARAMETERS, "--benchmark-histogram=drawn/h", "--benchmark-save=x")
    assert done.status == 0, done.output
    (picture,) = (tmp_path / "drawn").glob("h-*.svg")
    assert "test_parameters[conv5x5]" in picture.read_text()
    assert len(reading.read(done.saved()).results) == 1


@pytest.mark.parametrize(
    "options", [["--benchmark-columns=min,max"], ["--benchmark-sort=mean"], ["--benchmark-time-unit=ms"]], ids=str
)
def test_who_shapes_the_tables_sees_them(session, options):
    assert "Name (time in" not in session(*PARAMETERS).output
    assert "Name (time in" in session(*PARAMETERS, *options).output


def test_a_database_that_takes_the_results_is_not_called_nothing(session):
    """Here none answers: what was measured is kept, and the two sentences do not contradict each other."""
    done = session(*PARAMETERS, "--benchmark-storage=elasticsearch+http://127.0.0.1:9/i/d", "--benchmark-save=x")
    assert "Not saved" not in done.output
    assert "Not saved" in session(*PARAMETERS).output


def test_autosaved_results_are_found_by_the_next_comparison(session, tmp_path):
    first = session(*PARAMETERS, "--benchmark-autosave")
    assert first.status == 0, first.output
    assert len(reading.read(first.saved()).results) == 1
    second = session(*PARAMETERS, "--benchmark-autosave", "--benchmark-compare")
    assert second.status == 0, second.output
    assert re.search(r"Comparing against benchmarks from: \S*0001_", second.output)
    assert [path.name[:5] for path in sorted(tmp_path.glob(".benchmarks/*/*.json"))] == ["0001_", "0002_"]


def test_skipped_benchmarks_measure_nothing_and_leave_nothing(session):
    done = session("--benchmark-skip")
    assert done.status == 0, done.output
    assert "passed" not in done.output
    assert re.search(r"\d+ skipped", done.output)
    assert "Table 1" not in done.output
    assert done.files == []


def pytest_benchmark(folder, *arguments):
    """What `pytest-benchmark` prints in a folder."""
    command = [sys.executable, "-m", "pytest_benchmark", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_pytest_benchmark_lists_what_was_saved(saved, tmp_path):
    path, _ = saved
    assert pytest_benchmark(tmp_path, "list").split() == [str(path)]


def test_pytest_benchmark_compares_groups_and_writes_csv(saved, tmp_path):
    path, run = saved
    second = path.with_name("0002_y.json")
    second.write_text(json.dumps(run))
    grouped = pytest_benchmark(tmp_path, "compare", "--group-by=param:architecture", "--csv=x.csv")
    assert "benchmark 'architecture=conv5x5': 2 tests" in grouped
    assert (tmp_path / "x.csv").read_text().count("test_parameters[conv5x5]") == 2


ELASTICSEARCH = """
class Elasticsearch:
    def __init__(self, hosts, serializer):
        self.hosts, self.indices = hosts, self
    def create(self, **anything):
        pass
    def search(self, **anything):
        return {"hits": {"hits": []}}
    def index(self, **anything):
        if "answers" not in self.hosts[0]:
            raise RuntimeError(f"no answer from {self.hosts}")
"""


def test_a_password_in_the_storage_is_neither_printed_nor_written(session, tmp_path):
    """The journal of a session that saves in a database is where that of another is; it keeps what was not saved."""
    storage = "--benchmark-storage=elasticsearch+https://user:pass%2Dword@127.0.0.1:1/index"
    missing = session(*PARAMETERS, storage)
    assert missing.status == 2
    package = tmp_path / "elasticsearch"
    package.mkdir()
    (package / "__init__.py").write_text(ELASTICSEARCH)
    (package / "serializer.py").write_text("class JSONSerializer: pass\n")
    measured = ("--profile", "standard", "-k", "overhead")
    done = session(*measured, storage, "--benchmark-compare", "--benchmark-save=x", "--showlocals")
    assert done.status == 2
    assert "there is no saved run in elasticsearch+https://***@127.0.0.1:1/index yet" in done.output
    assert "resnet_bench: error: cannot save the results: RuntimeError." in done.output
    assert "Traceback" not in done.output
    (journal,) = tmp_path.glob(".benchmarks/journal/*.json")
    assert f"what was measured is kept in {journal.relative_to(tmp_path)}" in done.output
    for name in done.files:
        assert "word" not in name
    answers = session(*PARAMETERS, storage.replace("%2D", "@").replace("127.0.0.1:1", "answers"), "--benchmark-save=x")
    assert answers.status == 0, answers.output
    assert "Saved benchmark data to ***@answers'] to index index" in answers.output
    assert "word" not in answers.output
    for printed in (missing.output, done.output, journal.read_text()):
        assert "pass%2Dword" not in printed
        assert "pass-word" not in printed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("elasticsearch+https://user:a@b@host:1,user:c@other/index", "elasticsearch+https://***@other/index"),
        ("in https://user@host/x and file://folder", "in https://***@host/x and file://folder"),
        ("user:password@host", "***@host"),
        ("file://./.benchmarks", "file://./.benchmarks"),
    ],
)
def test_credentials_are_left_out(text, expected):
    assert without_credentials(text) == expected
