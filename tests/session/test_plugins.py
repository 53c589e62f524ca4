"""`pytest benchmarks` beside other plugins, each played by a few lines that do what the plugin named with it does."""

import json
import re

import pytest

from resnet_bench.pytest_options import _options
from resnet_bench.results import reading
from resnet_bench.schema import AccuracyResult, EpochTimeResult, ParametersResult
from tests.session.sessions import ROOT, assert_refused
from tests.session.test_benchmarks import BRIEF, arguments_for, saved_files

PLUGINS = {
    "brief": BRIEF,
    # pytest-profiling and pytest-parallel, whose options have our short names
    "same_names": """
def pytest_addoption(parser):
    parser.addoption("--profile", action="store_true")
    parser.addoption("--workers")
""",
    # pytest-repeat, pytest-flakefinder: a parameter for every test
    "repeat": """
import pytest
def pytest_addoption(parser):
    parser.addoption("--count", type=int, default=1)
@pytest.fixture
def step_number(request):
    return request.param
def pytest_generate_tests(metafunc):
    metafunc.fixturenames.append("step_number")
    metafunc.parametrize("step_number", range(metafunc.config.option.count), indirect=True)
""",
    # pytest-random-order, pytest-randomly: another order, and generators seeded before each test
    "shuffle": """
import random, numpy, pytest, torch
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    items.reverse()
def pytest_runtest_setup():
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
""",
    # pytest-rerunfailures, flaky, pytest-stress: the same test again
    "again": """
from _pytest.runner import runtestprotocol
def pytest_runtest_protocol(item, nextitem):
    for _ in range(2):
        item._initrequest()
        for report in runtestprotocol(item, nextitem=nextitem, log=False):
            item.ihook.pytest_runtest_logreport(report=report)
    return True
""",
    # pytest-timeout: an alarm in the middle of a test
    "timeout": """
import os, signal, pytest
from resnet_bench.training.training import Training
run_epoch = Training.run_epoch
def late(self, *arguments):
    print("epoch", self.epoch, "begins")
    if self.epoch == 2:
        signal.signal(signal.SIGALRM, lambda *_: pytest.fail("Timeout (>1.0s) from pytest-timeout."))
        os.kill(os.getpid(), signal.SIGALRM)
    return run_epoch(self, *arguments)
Training.run_epoch = late
""",
    # pytest-forked, pytest-run-parallel
    "apart": """
def pytest_addoption(parser):
    parser.addoption("--forked", action="store_true")
    parser.addoption("--parallel-threads", default=1)
""",
}


ALL_KINDS = "accuracy or epoch_time or parameters"


def run_with(plugin, sessions, images, folder, *arguments, beside=()):
    """`pytest benchmarks` with one of the plugins; its files are saved in the folder.

    `beside` are more folders of tests. They come before the options, because an older pytest reads at its start the
    conftest.py of those alone.
    """
    for name, code in PLUGINS.items():
        (folder / f"{name}.py").write_text(code)
    options = ["-p", "brief", "-p", plugin, "--resnet-pipeline", "vectorized"]
    benchmarks, *others = arguments_for(folder, images, *options, *arguments)
    return sessions.run(folder, benchmarks, *map(str, beside), *others)


@pytest.fixture
def start(sessions, images, tmp_path):
    """`run_with` in the test's own folder."""
    return lambda plugin, *arguments, **more: run_with(plugin, sessions, images, tmp_path, *arguments, **more)


@pytest.fixture(scope="module")
def repeated(sessions, images, tmp_path_factory):
    """What a session saves in which a plugin adds a parameter to every test."""
    folder = tmp_path_factory.mktemp("repeated")
    done = run_with("repeat", sessions, images, folder, "-k", ALL_KINDS, "--benchmark-save=x")
    assert done.status == 0, done.output
    (path,) = saved_files(folder)
    return reading.read(path)


NAMES = [name for name, _ in _options()]


def test_help_says_both_names_of_every_option(sessions):
    described = " ".join(sessions.run(ROOT, "--help").output.split())
    for name in NAMES:
        assert re.search(rf"--resnet-{name}[=,]", described)
        assert re.search(rf", --{name}[= ]", described)
    assert "Every option is --resnet-NAME, or --NAME for short unless another plugin has that name" in described


@pytest.mark.parametrize("place", ["plugin", "conftest"])
def test_a_short_name_that_another_plugin_has_is_that_plugins(start, tmp_path, place):
    """Whether it registers before or after ours; the long name works, and the header says so."""
    asked = ["--resnet-profile", "standard", "--resnet-workers", "1", "--collect-only"]
    if place == "plugin":
        done = start("same_names", *asked)
    else:  # a conftest.py registers after every plugin
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "conftest.py").write_text(PLUGINS["same_names"])
        done = start("brief", *asked, "-c", str(ROOT / "pyproject.toml"), beside=[tmp_path / "other"])
    assert done.status == 0, done.output
    assert "resnet_bench: profile standard, " in done.output
    assert ", workers 1, " in done.output
    said = "resnet_bench: another plugin has --profile, --workers; here it is --resnet-profile, --resnet-workers"
    assert said in done.output


def test_help_leaves_out_a_short_name_that_is_taken(start):
    described = " ".join(start("same_names", "--help").output.split())
    assert "--resnet-profile={quick,standard,paper} Sizes" in described
    assert "--resnet-workers=WORKERS Processes" in described


def test_options_of_the_benchmarks_are_refused_where_there_are_none(sessions):
    done = sessions.run(ROOT, "tests/test_recipe.py", "--profile", "standard")
    assert done.status == pytest.ExitCode.USAGE_ERROR
    assert "--resnet-profile is for `pytest benchmarks`; here are no benchmarks." in done.output


def test_parameters_that_a_plugin_adds_are_not_the_runs(repeated):
    assert [r.architecture for r in repeated.of_kind(EpochTimeResult)] == ["fc1", "conv5x5"]


def test_a_benchmark_that_would_be_measured_twice_is_refused(start):
    """At the start: both copies would save the one measurement, and count as two."""
    done = start("repeat", "--count", "2", "-k", "accuracy")
    message = "test_accuracy[fc1-reference-1] repeats a benchmark, but a session measures each once; leave out"
    assert_refused(done, message)


def test_order_and_global_seeds_change_nothing(start, repeated, tmp_path):
    """The same weights and the same results, whatever the order in which the tests run."""
    done = start("shuffle", "-k", ALL_KINDS, "--benchmark-save=x")
    assert done.status == 0, done.output
    shuffled = reading.read(saved_files(tmp_path)[0])
    weights = []
    for file in (repeated, shuffled):
        assert len(file.of_kind(EpochTimeResult)) == len(file.of_kind(ParametersResult)) == 2
        weights.append({r.architecture: r.weights_sha256 for r in file.of_kind(AccuracyResult)})
    assert len(weights[0]) == 2
    assert weights[0] == weights[1]


def test_of_a_test_that_ran_again_one_result_is_saved(start, tmp_path):
    done = start("again", "-k", "epoch_time or parameters", "--benchmark-save=x")
    assert done.status == 0, done.output
    assert "8 passed" in done.output
    saved = json.loads(saved_files(tmp_path)[0].read_text())["benchmarks"]
    assert len(saved) == len({b["fullname"] for b in saved}) == 4


def test_a_timeout_ends_what_the_tests_share_for_all_of_them(start, tmp_path):
    """Nothing is trained again for the next test; the finished epochs are in the journal, which is named."""
    done = start("timeout", "-k", "accuracy", "-s")
    assert done.status == 1
    assert "2 failed" in done.output
    assert [done.output.count(f"epoch {epoch} begins") for epoch in (1, 2)] == [2, 1]
    (journal,) = (tmp_path / "journal").glob("*.json")
    assert f"what was measured is kept in {journal}" in done.output
    assert [len(r.epochs) for r in reading.read(journal).of_kind(AccuracyResult)] == [1, 1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--forked"], "--forked runs each test in a process of its own, but benchmarks are measured in turn"),
        (["--parallel-threads", "2"], "--parallel-threads runs each test several times at once, but"),
    ],
)
def test_options_that_run_tests_apart_are_refused(start, option, said):
    assert_refused(start("apart", *option), said)


@pytest.mark.parametrize(
    "arguments", [["."], ["benchmarks", "tests"], [".", "--import-mode=importlib"]], ids=lambda a: " ".join(a)
)
def test_the_whole_project_is_one_session(sessions, tmp_path, arguments):
    """Every file is collected, and the benchmarks are what they are alone: raw values are saved."""
    options = ["--dataset", "synthetic", "--architectures", "conv5x5", "--engine", "reference"]
    saving = [f"--benchmark-storage=file://{tmp_path}", "--benchmark-save=x"]
    done = sessions.run(ROOT, *arguments, *options, *saving, "-k", "test_parameters and conv5x5")
    assert done.status == 0, done.output
    assert "1 passed" in done.output
    (benchmark,) = json.loads(saved_files(tmp_path)[0].read_text())["benchmarks"]
    assert benchmark["fullname"] == "benchmarks/test_parameters.py::test_parameters[conv5x5]"
    assert len(benchmark["stats"]["data"]) == 5
