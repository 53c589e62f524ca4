"""Checks at the start of a session that its results can be saved when it ends.

pytest-benchmark opens its files and reads some of its options only at the end. Without these checks, a session could
measure for hours and then lose the results in a traceback, or save nothing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.logger import Logger
from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import ALLOWED_COLUMNS, get_machine_id, load_storage

from resnet_bench.errors import UserError, without_credentials
from resnet_bench.files import require_writable
from resnet_bench.folders import STORAGE
from resnet_bench.session.items import benchmarks, own_parameters
from resnet_bench.session.replay import replay

NOTHING_RUNS = ("help", "version", "collectonly", "setuponly", "showfixtures", "show_fixtures_per_test", "markers")
"""Options of pytest with which no test function is called."""

OTHER_PLUGINS_OPTIONS: dict[str, tuple[Any, str]] = {
    "codspeed": (False, "replaces pytest-benchmark"),
    "forked": (False, "runs each test in a process of its own"),
    "isolate": (False, "runs each test in a process of its own"),
    "workers": (None, "runs tests at the same time"),
    "tests_per_worker": (None, "runs tests at the same time"),
    "parallel_threads": (1, "runs each test several times at once"),
}
"""Options of other plugins with which results are lost or wrong: the harmless value, and what any other does.

The plugins are pytest-codspeed, pytest-forked, pytest-isolate, pytest-parallel (twice) and pytest-run-parallel."""

GROUPINGS = ("group", "name", "func", "fullname", "fullfunc", "param")
"""What `--benchmark-group-by` accepts, besides `param:NAME`."""


def check_options(config: pytest.Config) -> list[str]:
    """Check the options. To be called before pytest-benchmark is configured, which opens its storage.

    Returns:
        Notes for the session's header.

    Raises:
        UserError: the options, or the environment, would keep results from being saved.
    """
    _refuse_other_plugins_options(config)
    if not hasattr(config.option, "benchmark_storage"):
        raise UserError(
            "The benchmarks need pytest-benchmark, which is switched off; leave out -p no:benchmark, or add "
            "-p pytest_benchmark.plugin where PYTEST_DISABLE_PLUGIN_AUTOLOAD is set."
        )
    if any(config.getoption(name, False) for name in NOTHING_RUNS):
        return []
    _refuse_what_saves_nothing(config)
    _check_groupings(config)
    _check_places(config)
    return _check_comparison(config)


def check_items(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Check the tests that were selected, and the options against them.

    Raises:
        UserError: a benchmark is there twice, or an option does not go with the selected benchmarks.
    """
    _refuse_repeated(items)
    if any(config.getoption(name, False) for name in NOTHING_RUNS):
        return
    functions = [item for item in items if isinstance(item, pytest.Function) and "benchmark" in item.fixturenames]
    if config.getoption("benchmark_cprofile"):
        timers = {f: m.kwargs.get("timer") for f in functions if (m := f.get_closest_marker("benchmark"))}
        if replayed := dict.fromkeys(f.originalname for f, timer in timers.items() if timer is replay):
            raise UserError(
                f"--benchmark-cprofile cannot look into {', '.join(replayed)}, whose times it is only told; "
                "leave it out (`resnet-bench explain` takes a step apart), or select other benchmarks with -k."
            )
    parameters = sorted({name for f in functions if hasattr(f, "callspec") for name in f.callspec.params})
    for name in parameters_grouped_by(config.getoption("benchmark_group_by")):
        if functions and name not in parameters:
            raise UserError(
                f"--benchmark-group-by names the parameter {name!r}, which no selected benchmark has; "
                f"choose from {', '.join(parameters) or 'group, name and func'}."
            )
    if config.getoption("benchmark_compare_fail"):
        compared = config.pluginmanager.getplugin("pytest-benchmark").compared_mapping
        known = set[str]().union(*compared.values())
        if missing := [f.nodeid for f in functions if f.nodeid not in known]:
            raise UserError(
                f"--benchmark-compare-fail cannot judge {missing[0]}"
                + (f" and {len(missing) - 1} more" if missing[1:] else "")
                + ", for the saved run lacks it; select others with -k, or compare with another run."
            )


def storage_folder(config: pytest.Config) -> Path:
    """The folder of pytest-benchmark's storage. If the storage is a database, the default folder."""
    storage: str = config.getoption("benchmark_storage")
    return STORAGE if _in_database(config) else Path(storage.removeprefix("file://"))


def parameters_grouped_by(group_by: str) -> list[str]:
    """The parameters that `--benchmark-group-by` names."""
    return [part.removeprefix("param:") for part in group_by.split(",") if part.startswith("param:")]


def _in_database(config: pytest.Config) -> bool:
    return str(config.getoption("benchmark_storage")).startswith("elasticsearch+")


def _refuse_other_plugins_options(config: pytest.Config) -> None:
    for name, (harmless, why) in OTHER_PLUGINS_OPTIONS.items():
        if str(config.getoption(name, harmless)) != str(harmless):
            raise UserError(
                f"--{name.replace('_', '-')} {why}, but benchmarks are measured in turn by one process and saved by "
                "pytest-benchmark; leave it out."
            )


def _refuse_repeated(items: Sequence[pytest.Item]) -> None:
    """A copy of a benchmark is no other measurement: both would save the one that they share."""
    seen = set()
    for item in benchmarks(items):
        benchmark = (item.function, *own_parameters(item).items())
        if benchmark in seen:
            raise UserError(
                f"{item.nodeid} repeats a benchmark, but a session measures each once; leave out the option that "
                "repeats tests, and for more values run more sessions or raise --rounds or --time-limit."
            )
        seen.add(benchmark)


def asked_to_save(config: pytest.Config) -> bool:
    """Whether an option says that pytest-benchmark shall save the results, in a file or a database."""
    return any(config.getoption(f"benchmark_{name}") for name in ("save", "autosave", "json"))


def _refuse_what_saves_nothing(config: pytest.Config) -> None:
    if config.getoption("dist", "no") != "no":
        raise UserError(
            "With -n or --dist every process of pytest-xdist would train the networks anew, and pytest-benchmark would "
            "save nothing; leave it out, or add -n 0 where PYTEST_ADDOPTS or a configuration file has it."
        )
    if "PYTEST_XDIST_WORKER" in os.environ:
        raise UserError(
            "PYTEST_XDIST_WORKER is set in the environment, and with it pytest-benchmark saves nothing; unset it."
        )
    if config.getoption("benchmark_disable") and not config.getoption("benchmark_enable"):
        raise UserError(
            "With --benchmark-disable everything would be measured and nothing saved; leave it out, or add "
            "--benchmark-enable where PYTEST_ADDOPTS or a configuration file has it."
        )
    if asked_to_save(config) and config.getoption("benchmark_skip") and not config.getoption("benchmark_only"):
        raise UserError("With --benchmark-skip nothing is measured that could be saved; leave out one of the two.")


def _check_groupings(config: pytest.Config) -> None:
    for part in config.getoption("benchmark_group_by").split(","):
        if part not in GROUPINGS and not part.startswith("param:"):
            raise UserError(
                f"There is no grouping {part!r} for --benchmark-group-by; choose from {', '.join(GROUPINGS)} and "
                "param:NAME."
            )


# Places that are written to -------------------------------------------------------------------------------------------


def _check_places(config: pytest.Config) -> None:
    folder = storage_folder(config).absolute()
    if reason := _not_writable(folder / "journal" / "journal.json"):
        advice = "start where one can be made" if _in_database(config) else "give another --benchmark-storage"
        raise UserError(f"Cannot write the journal to the folder {folder / 'journal'}: {reason}; {advice}.")
    name = config.getoption("benchmark_save") or config.getoption("benchmark_autosave")
    if name and not _in_database(config):
        path = folder / get_machine_id() / f"0001_{name}.json"  # type: ignore[no-untyped-call]
        if reason := _not_writable(path):
            raise UserError(f"Cannot write {path}: {reason}; give another --benchmark-storage or --benchmark-save.")
    if config.getoption("benchmark_json"):
        _check_json(Path(config.getoption("benchmark_json")))
    if config.getoption("benchmark_histogram"):
        try:
            import pytest_benchmark.histogram  # noqa: F401
        except ImportError:
            raise UserError(
                '--benchmark-histogram needs pygal; pip install "pytest-benchmark[histogram]", or leave it out.'
            ) from None
    report = config.getoption("xmlpath", None)
    if report and (reason := _not_writable(Path(report))):
        raise UserError(f"Cannot write {report}: {reason}; give another --junit-xml.")
    for option in ("benchmark_histogram", "benchmark_cprofile_dump"):
        flag, prefixes = "--" + option.replace("_", "-"), config.getoption(option)
        if len(prefixes) > 1:
            raise UserError(f"{flag} is given {len(prefixes)} times; give it once.")
        for prefix in prefixes:
            if reason := _not_writable(Path(f"{prefix}-")):
                raise UserError(f"Cannot write {prefix}-…: {reason}; give another {flag}.")


def _check_json(path: Path) -> None:
    if os.path.isdir(path):  # an empty value means the folder `.`
        raise UserError(f"--benchmark-json names no file but the folder {path.resolve()}; give the path of a file.")
    require_writable(path, "--benchmark-json")


def _not_writable(path: Path) -> str | None:
    """Why no file can be made at `path`, with the folders that it needs; None if one can."""
    path = path.absolute()
    folder = next(parent for parent in path.parents if os.path.lexists(parent))
    try:
        tempfile.NamedTemporaryFile(dir=folder, prefix=path.name).close()  # the name may be too long
    except OSError as error:
        return error.strerror or str(error)
    return None


# Saved runs to compare with -------------------------------------------------------------------------------------------


def _check_comparison(config: pytest.Config) -> list[str]:
    """Open the storage and read the runs to compare with, as pytest-benchmark will. Returns notes for the header."""
    asked, must_judge = config.getoption("benchmark_compare"), config.getoption("benchmark_compare_fail")
    if must_judge and not asked:
        raise UserError("--benchmark-compare-fail needs a saved run to compare with; give --benchmark-compare too.")
    address = without_credentials(config.getoption("benchmark_storage"))
    try:
        storage = _opened_storage(config)
        runs = _saved_runs(storage, asked) if asked else []
    except UserError:
        raise
    except Exception as error:
        # Without the message: a database's client may put parts of a password into it.
        reason = error if isinstance(error, ImportError) else type(error).__name__
        raise UserError(
            f"Cannot use --benchmark-storage={address}: {reason}; give another, or leave it out to save in .benchmarks."
        ) from None
    if not asked or runs:
        return []
    if asked is not True or must_judge:
        raise UserError(
            f"There is no saved run {'' if asked is True else f'{asked} '}in {address}; give another "
            "--benchmark-compare, or save a run first, without it."
        )
    config.option.benchmark_compare = []  # pytest-benchmark would print the address as it is
    return [f"nothing to compare with: there is no saved run in {address} yet."]


def _opened_storage(config: pytest.Config) -> Any:
    storage = config.getoption("benchmark_storage")
    if "://" in storage and not storage.startswith(("file://", "elasticsearch+")):
        raise UserError(
            f"--benchmark-storage is {without_credentials(storage)}; give file://FOLDER, or "
            "elasticsearch+https://HOST/INDEX."
        )
    logger = Logger(Logger.QUIET, config=config)  # type: ignore[no-untyped-call]
    machine_id, netrc = get_machine_id(), config.getoption("benchmark_netrc")  # type: ignore[no-untyped-call]
    return load_storage(storage, logger=logger, default_machine_id=machine_id, netrc=netrc)  # type: ignore[no-untyped-call]


def _saved_runs(storage: Any, asked: str | bool) -> list[Any]:
    try:
        runs = list(storage.load())[-1:] if asked is True else list(storage.load(asked))
    except ValueError:
        if not isinstance(storage, FileStorage):
            raise
        return []  # a path that does not exist
    for path, run in runs:
        stats = [b.get("stats", {}) if "fullname" in b else {} for b in run["benchmarks"]]
        if not isinstance(run.get("machine_info"), dict) or any(not s.keys() >= set(ALLOWED_COLUMNS) for s in stats):
            raise UserError(f"{path} is no complete file of pytest-benchmark; give another --benchmark-compare.")
    return runs
