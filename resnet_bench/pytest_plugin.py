"""`pytest benchmarks`: the hooks and fixtures of a session. The modules of `resnet_bench.session` do the work.

`resnet_bench.pytest_options` has the options and loads this plugin for a session that has benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_benchmark.plugin
from pytest_benchmark.session import PerformanceRegression

from resnet_bench.analysis.differences import differences
from resnet_bench.errors import without_credentials
from resnet_bench.output import make_readable
from resnet_bench.pytest_options import TAKEN
from resnet_bench.render import first_screen
from resnet_bench.render.paper_tables import tables
from resnet_bench.results.journal import left_behind
from resnet_bench.session import checkpoints, checks
from resnet_bench.session.items import benchmarks, in_order
from resnet_bench.session.saving import journal_kept_if_needed
from resnet_bench.session.suite import Suite
from resnet_bench.session.terminal import user_errors

SUITE = pytest.StashKey[Suite]()


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> Suite:
    """What the benchmarks of the session share."""
    return pytestconfig.stash[SUITE]


# Start ----------------------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    make_readable(sys.stdout, sys.stderr)
    with user_errors():
        notes = checks.check_options(config)
        suite = config.stash[SUITE] = Suite(config)
    suite.notes += notes
    config.option.benchmark_save_data = True  # pytest-benchmark would drop the raw values
    compared = "pytest_benchmark_compare_machine_info"
    without_its_own = config.pluginmanager.subset_hook_caller(compared, [pytest_benchmark.plugin])
    setattr(config.hook, compared, without_its_own)  # it warns even of another momentary clock rate, in 17 kB


def pytest_report_header(config: pytest.Config) -> list[str]:
    suite = config.stash[SUITE]
    given = {name: value for name, value in suite.values.items() if value is not None}
    shown = {"profile": suite.settings.profile, **given, "engine": ",".join(suite.settings.engines)}
    lines = ["resnet_bench: " + ", ".join(f"{name} {value}" for name, value in shown.items())]
    if taken := config.stash[TAKEN]:
        long = ", ".join(name.replace("--", "--resnet-", 1) for name in taken)
        lines.append(f"resnet_bench: another plugin has {', '.join(taken)}; here it is {long}")
    lines += [f"resnet_bench: {note}" for note in suite.notes]
    for path in left_behind(suite.journal_folder):
        lines.append(f"resnet_bench: a session that did not finish left {path}: `resnet-bench report` reads it")
    folder = suite.journal_folder.with_name("checkpoints")
    count, size = checkpoints.left_behind(folder)
    if count:
        lines.append(
            f"resnet_bench: sessions that did not finish left {count} checkpoints ({size / 1e6:.0f} MB) in {folder}: "
            "the same command goes on with them; else delete them"
        )
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    settings = metafunc.config.stash[SUITE].settings
    if "suite" not in metafunc.fixturenames:
        return  # not a benchmark of ours
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", settings.architectures)
    if "mode" in metafunc.fixturenames:
        pairs = [(engine, mode) for engine in settings.engines for mode in settings.modes]
        ids = [engine if len(settings.modes) == 1 else f"{engine}-{mode}" for engine, mode in pairs]
        metafunc.parametrize(("engine", "mode"), pairs, ids=ids)
    elif "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", settings.engines)
    if "explained" in metafunc.fixturenames:
        metafunc.parametrize("explained", settings.explained)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = in_order(items)


def pytest_collection_finish(session: pytest.Session) -> None:
    with user_errors():
        checks.check_items(session.config, session.items)
    session.config.stash[SUITE].announce({getattr(item, "originalname", "") for item in benchmarks(session.items)})


# What is saved --------------------------------------------------------------------------------------------------------


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["resnet_bench"] = config.stash[SUITE].machine_info
    machine_info.pop("node", None)  # saved files are made to be shared; a host's name says nothing about its speed


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """If a test ran again (pytest-rerunfailures), save its latest result only, as the journal does."""
    latest = {entry["fullname"]: entry for entry in output_json["benchmarks"]}
    output_json["benchmarks"] = list(latest.values())


def pytest_benchmark_update_commit_info(commit_info: dict[str, Any]) -> None:
    for key in ("project", "error"):  # the project is the end of git's address, which may have a password
        if isinstance(commit_info.get(key), str):
            commit_info[key] = without_credentials(commit_info[key])


# Comparison with a saved run ------------------------------------------------------------------------------------------


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Note the differences that matter. `pytest_configure` switches pytest-benchmark's own check off."""
    ours, theirs = ((info.get("resnet_bench") or {}) for info in (machine_info, compared_benchmark["machine_info"]))
    found = [d.key.partition(".")[0] for d in differences(theirs, ours)]  # what an older file lacks is none
    keys = [k for k in ("cpu", "memory_bytes", "torch", "threads", "container") if k in found]
    if keys:
        config.stash[SUITE].notes.append(
            f"the saved run differs in {', '.join(keys)}; `resnet-bench compare` says what that explains."
        )


@pytest.hookimpl(wrapper=True)
def pytest_benchmark_group_stats(benchmarks: list[dict[str, Any]], group_by: str) -> Iterator[Any]:
    """With `--benchmark-group-by=param:NAME`, benchmarks without this parameter are a group too, not a KeyError."""
    absent = dict.fromkeys(checks.parameters_grouped_by(group_by), "none")
    for benchmark in benchmarks:
        benchmark["params"] = {**absent, **(benchmark["params"] or {})}
    return (yield)


# End ------------------------------------------------------------------------------------------------------------------

_interrupted = False


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    global _interrupted
    _interrupted = excinfo.type is KeyboardInterrupt  # pytest's own interruptions are subclasses


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Around pytest-benchmark's saving: calibrate once more before it; remove the journal only after it."""
    suite = session.config.stash[SUITE]
    interrupted = _interrupted
    if "start" in suite.calibration and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        try:
            suite.calibrate("end")
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        session.exitstatus = 130  # what a shell reports after Ctrl-C; pytest's own would be 2
    with journal_kept_if_needed(suite, session, passed=exitstatus == pytest.ExitCode.OK):
        try:
            return (yield)
        finally:
            if suite.regressed and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED


ASKS_FOR_TABLES = ("compare", "histogram", "cprofile", "verbose", "columns", "time_unit")
"""Options `--benchmark-…` that pytest-benchmark answers in or beside its tables. They are off by default."""

USUAL = {"sort": "min", "group_by": "group"}
"""The defaults of two more."""


def _asks_for_tables(config: pytest.Config) -> bool:
    return any(config.getoption(f"benchmark_{name}") for name in ASKS_FOR_TABLES) or any(
        config.getoption(f"benchmark_{name}") != usual for name, usual in USUAL.items()
    )


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
    """Print the answer first; pytest-benchmark's tables and ours only where they are asked for."""
    suite, asked = config.stash[SUITE], config.getoption("resnet_tables")
    measured = "journal" in vars(suite) and bool(suite.journal.results)
    if measured:
        terminalreporter.section("resnet_bench")
        earlier = suite.earlier()
        commands: list[str] = []
        if suite.saved or not checks.asked_to_save(config):
            commands = first_screen.next_commands(suite.saved, earlier, suite.journal.results)
        width = terminalreporter._tw.fullwidth
        for line in first_screen.lines(suite.samples(), width, earlier=earlier, commands=commands):
            terminalreporter.write_line(line.text, **({line.style: True} if line.style != "plain" else {}))
    if not asked and not _asks_for_tables(config):
        config.pluginmanager.getplugin("pytest-benchmark").quiet = True
    try:
        return (yield)
    except PerformanceRegression:  # it has printed which
        suite.regressed = True
    finally:
        if measured and asked:
            for table in tables(suite.samples()):
                terminalreporter.write_line("")
                terminalreporter.write_line(table.render("text"))
