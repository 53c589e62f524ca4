"""`pytest benchmarks`: the session's shared state, and what ends up in the saved JSON.

`resnet_bench.pytest_options` has the options and loads this plugin for a session that has benchmarks.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
import pytest_benchmark.plugin
from pytest_benchmark.session import PerformanceRegression

from resnet_bench import architectures, engines, identity, machine, options, saving, session_checks
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.data import datasets
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import require_workers
from resnet_bench.data.sources import SPLITS
from resnet_bench.engines import fast
from resnet_bench.errors import UserError, without_credentials
from resnet_bench.measure.epoch_time import EpochTimer, Plan, StoppedBy, measure_both, measure_interleaved
from resnet_bench.output import make_readable
from resnet_bench.pytest_options import PROFILES, TAKEN
from resnet_bench.render.paper_tables import tables
from resnet_bench.results.journal import Journal, left_behind
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import Samples
from resnet_bench.schema import EpochTimeResult, ParametersResult, Result
from resnet_bench.training.training import Training, set_deterministic

ORDER = ("test_parameters", "test_epoch_time", "test_accuracy")
"""What takes longer comes later, so that the first results are there soon; anything else comes last."""


APART: dict[str, tuple[Any, str]] = {
    "codspeed": (False, "replaces pytest-benchmark"),
    "forked": (False, "runs each test in a process of its own"),
    "isolate": (False, "runs each test in a process of its own"),
    "workers": (None, "runs tests at the same time"),
    "tests_per_worker": (None, "runs tests at the same time"),
    "parallel_threads": (1, "runs each test several times at once"),
}
"""Options of other plugins that leave nothing to save, or nothing right: by destination, the harmless value and why.

pytest-codspeed, pytest-forked, pytest-isolate, pytest-parallel (twice), pytest-run-parallel."""


def _check_plugins(config: pytest.Config) -> None:
    for name, (harmless, why) in APART.items():
        if str(config.getoption(name, harmless)) != str(harmless):
            raise UserError(
                f"--{name.replace('_', '-')} {why}, but benchmarks are measured in turn by one process and saved by "
                "pytest-benchmark; leave it out."
            )


def pytest_configure(config: pytest.Config) -> None:
    make_readable(sys.stdout, sys.stderr)
    with user_errors():
        _check_plugins(config)
        notes = session_checks.check_options(config)
        suite = config.stash[SUITE] = Suite(config)
    suite.notes += notes
    config.option.benchmark_save_data = True  # pytest-benchmark would drop the raw values
    compared = "pytest_benchmark_compare_machine_info"
    without_its_own = config.pluginmanager.subset_hook_caller(compared, [pytest_benchmark.plugin])
    setattr(config.hook, compared, without_its_own)  # it warns even of another momentary clock rate, in 17 kB


def pytest_report_header(config: pytest.Config) -> list[str]:
    suite = config.stash[SUITE]
    shown = {k: v for k, v in suite.values.items() if v is not None} | {"engine": ",".join(suite.engines)}
    shown = {"profile": config.getoption("resnet_profile"), **shown}
    lines = ["resnet_bench: " + ", ".join(f"{k} {v}" for k, v in shown.items())]
    if taken := config.stash[TAKEN]:
        long = ", ".join(name.replace("--", "--resnet-", 1) for name in taken)
        lines.append(f"resnet_bench: another plugin has {', '.join(taken)}; here it is {long}")
    lines += [f"resnet_bench: {note}" for note in suite.notes]
    for path in left_behind(suite.journal_folder):
        lines.append(f"resnet_bench: a session that did not finish left {path}: `resnet-bench report` reads it")
    return lines


def _benchmarks(items: Sequence[pytest.Item]) -> list[pytest.Function]:
    """Those of this suite: a session may have other tests."""
    return [item for item in items if isinstance(item, pytest.Function) and "suite" in item.fixturenames]


def _own_parameters(item: pytest.Function) -> dict[str, str]:
    """What the test function itself is parametrised with; plugins that repeat tests do it with parameters of theirs."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    return {name: str(given[name]) for name in inspect.signature(item.function).parameters if name in given}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [getattr(item, "originalname", "") for item in items]
    places = {name: place for place, name in enumerate(ORDER)}
    items[:] = [items[i] for i in sorted(range(len(items)), key=lambda i: places.get(names[i], len(ORDER)))]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse what does not go with the selected benchmarks, and repeated ones: a copy is no other measurement."""
    seen = set()
    for item in _benchmarks(session.items):
        benchmark = (item.function, *_own_parameters(item).items())
        if benchmark in seen:
            with user_errors():
                raise UserError(
                    f"{item.nodeid} repeats a benchmark, but a session measures each once; leave out the option that "
                    "repeats tests, and for more values run more sessions or raise --rounds or --time-limit."
                )
        seen.add(benchmark)
    with user_errors():
        session_checks.check_items(session.config, session.items, replay)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    suite = metafunc.config.stash[SUITE]
    if "suite" not in metafunc.fixturenames:
        return  # not a benchmark of ours
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", suite.architectures)
    if "mode" in metafunc.fixturenames:
        runs = [(engine, mode) for engine in suite.engines for mode in suite.plans]
        ids = [engine if len(suite.plans) == 1 else f"{engine}-{mode}" for engine, mode in runs]
        metafunc.parametrize(("engine", "mode"), runs, ids=ids)
    elif "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", suite.engines)
    if "explained" in metafunc.fixturenames:
        metafunc.parametrize("explained", suite.explained)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """End the session with one sentence and exit status 2, as the command line does."""
    try:
        yield
    except UserError as error:
        pytest.exit(f"resnet_bench: error: {error}", returncode=2)


_replayed = 0.0


def replay() -> float:
    """The clock that hands pytest-benchmark durations measured elsewhere; see `Suite.record`."""
    return _replayed


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()] if text else []


_T = TypeVar("_T")


def _or_error(measure: Callable[[], _T]) -> _T | BaseException:
    """The result, or the exception, so that what all tests share is neither measured again nor half there."""
    try:
        return measure()
    except UserError:
        raise
    except (Exception, pytest.fail.Exception) as error:  # pytest-timeout calls `pytest.fail`
        return error


class Run(NamedTuple):
    """One network trained by one engine; `mode` is how its epoch time is measured, empty in other benchmarks."""

    architecture: str
    engine: str
    mode: str = ""


class Suite:
    """The session's options, data set, measurements and journal."""

    def __init__(self, config: pytest.Config) -> None:
        """Read and check the options; raises `UserError`."""
        self.config = config
        profile = PROFILES[config.getoption("resnet_profile")]
        self.architectures = _names(config.getoption("resnet_architectures")) or list(ARCHITECTURES)
        explained = config.getoption("resnet_explain")
        self.explained = _names(profile.get("explain") if explained is None else explained)
        for name in (*self.architectures, *self.explained):
            architectures.get(name)
        self.values = {}
        for option in options.RUN_OPTIONS:
            given = config.getoption(f"resnet_{option.name}")
            self.values[option.name] = given if given is not None else profile.get(option.name, option.default)
        time_limit = config.getoption("resnet_time_limit")
        self.time_limit = profile["time_limit"] if time_limit is None else time_limit
        self.overhead_rounds = profile["overhead_rounds"]
        self.journal_folder = session_checks.storage_folder(config) / "journal"
        self.regressed = False  # by `--benchmark-compare-fail`
        self.calibration: dict[str, Any] = {}
        self.recipe = options.recipe(self.values)
        self.plans = self._plans()
        self.engines = _names(self.values["engine"])
        self.notes: list[str] = []
        self._check_engines(
            engine_asked=config.getoption("resnet_engine") is not None, explain_asked=explained is not None
        )
        used = {self.values["pipeline"] or engines.get(e).pipeline for e in self.engines}
        if "loader" in used or self.explained:  # the plain step that is explained is on the loader
            require_workers(self.recipe, self.values["workers"], self.values["train_images"])
        set_deterministic(self.values["threads"])
        self.load_before = machine.load_average()
        self._epoch_times: dict[Run, tuple[EpochTimeResult, list[float]]] | BaseException | None = None
        self._trainings: dict[Run, Training] | BaseException | None = None

    def _check_engines(self, engine_asked: bool, explain_asked: bool) -> None:
        """Leave out what the profile would run and this machine cannot; what was asked for is an error."""
        try:
            with self.shown():  # what may be said of the folder for compiled code
                for name in self.engines:
                    engines.get(name).require()
        except UserError as error:
            if engine_asked or self.engines == ["reference"]:
                raise
            self.notes.append(f"engine reference instead of {','.join(self.engines)}. {error}")
            self.engines = ["reference"]
            engines.get("reference").require()
        if self.explained:
            try:
                fast.Engine.require()
            except UserError as error:
                if explain_asked:
                    raise
                self.explained = []
                self.notes.append(f"no explanation of a step, which needs the engine fast. {error}")

    def _plans(self) -> dict[str, Plan]:
        """How epoch time is measured in each mode that is asked for."""
        asked, precision = self.config.getoption("resnet_epoch_mode"), self.config.getoption("resnet_precision") / 100
        plans = {
            "full": Plan("full", max_rounds=self.config.getoption("resnet_rounds")),
            "sampled": Plan("sampled", precision=precision, time_limit=self.time_limit),
        }
        return plans if asked == "both" else {asked: plans[asked]}

    @cached_property
    def dataset(self) -> Dataset:
        v = self.values
        with user_errors(), self.shown():
            return datasets.load(
                v["dataset"],
                train_images=v["train_images"],
                test_images=v["test_images"],
                seed=v["seed"],
                at_most=[s for s in SPLITS if self.config.getoption(f"resnet_{s}_images") is None],
            )

    @cached_property
    def machine_info(self) -> dict[str, Any]:
        """`identity.describe()`; `calibration` is filled in at the start and the end of the measurements."""
        return {**identity.describe(), "calibration": self.calibration}

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.journal_folder, {"resnet_bench": self.machine_info})

    def training(self, run: Run) -> Training:
        settings = {name: self.values[name] for name in ("pipeline", "seed", "workers", "threads")}
        architecture = architectures.get(run.architecture)
        return Training(architecture, self.dataset, self.recipe, engine=run.engine, **settings)

    def calibrate(self, when: str) -> None:
        """Measure the machine, once at the `start` and once at the `end` of a session that times training."""
        if when not in self.calibration:
            with self.shown():
                self.calibration[when] = machine.calibrate(self.values["threads"]).model_dump(mode="json")

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Let progress through to the terminal: pytest captures what is printed during a test."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            yield

    def say(self, line: str) -> None:
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is None:  # with -p no:terminal
            return
        with self.shown():
            reporter.ensure_newline()
            reporter.write_line(line)

    def names(self, request: pytest.FixtureRequest) -> dict[Run, str]:
        """What this session runs the requesting test function for, and the test's name for each."""
        items = [i for i in _benchmarks(request.session.items) if i.function is request.function]
        return {Run(**_own_parameters(i)): i.nodeid for i in items}

    def record(self, benchmark: Any, result: Result, seconds: Sequence[float]) -> None:
        """Give pytest-benchmark a result with its raw values, and write it down in the journal.

        Networks are measured in turn, round by round, not while their own test runs; pytest-benchmark's rounds are
        those measurements, read back through a clock that is set to each of them.
        """
        values = iter(seconds)

        def advance() -> None:
            global _replayed
            _replayed = next(values)

        def rewind() -> None:
            global _replayed
            _replayed = 0.0

        benchmark.extra_info.update(result.model_dump(mode="json"))
        benchmark.pedantic(advance, setup=rewind, rounds=len(seconds), iterations=1)
        self.write_down(benchmark.fullname, benchmark.group, result, seconds)

    def write_down(self, name: str, group: str, result: Result, seconds: Sequence[float]) -> None:
        """Write a result into the journal; where that fails, the session ends with a sentence."""
        with user_errors():
            self.journal.add(name, group, result, seconds)

    def epoch_time(self, request: pytest.FixtureRequest, run: Run) -> tuple[EpochTimeResult, list[float]]:
        """Epoch time of a run, and what each block says it is, in seconds.

        The first call measures all networks of the session, interleaved.
        """
        if self._epoch_times is None:
            with user_errors(), self.shown():
                self._epoch_times = _or_error(lambda: self._measure_epoch_times(self.names(request)))
        if isinstance(self._epoch_times, BaseException):
            raise self._epoch_times
        return self._epoch_times[run]

    def _measure_epoch_times(self, names: dict[Run, str]) -> dict[Run, tuple[EpochTimeResult, list[float]]]:
        self.dataset.info()  # load it now, so that no network is charged for it
        warnings = [w for w in (machine.busy_reason(self.load_before),) if w]
        pairs = [(run, run._replace(mode="sampled")) for run in names if run.mode == "full"]
        if len(self.plans) > 1 and {run for pair in pairs for run in pair} != set(names):
            raise UserError("--epoch-mode both needs the two tests of each network; select by network, not by mode.")
        measurements = {run: EpochTimer(partial(self.training, run), self.plans[run.mode]) for run in names}
        self.calibrate("start")  # after all that can be wrong with what was asked for
        calibration = machine.Calibration.model_validate(self.calibration["start"])

        def result(run: Run, stopped_by: StoppedBy | None = None) -> EpochTimeResult:
            architecture, classes = architectures.get(run.architecture), self.dataset.num_classes
            bound = None  # the calibration is in float32, which says nothing about other numerics
            if engines.get(run.engine).float32_equivalent:
                bound = machine.step_bound(
                    architecture, self.recipe.batch_size, calibration, classes, *measurements[run].parameters_per_step()
                ).seconds
            return measurements[run].result(stopped_by, warnings, bound, self.load_before)

        def write_down() -> None:
            for run, name in names.items():
                self.journal.add(name, "epoch time", result(run), measurements[run].epoch_seconds())

        stopped_by: StoppedBy
        if len(self.plans) > 1:
            both = [(measurements[full], measurements[sampled]) for full, sampled in pairs]
            stopped_by = measure_both(both, self.plans["full"].max_rounds, write_down)
        else:
            (plan,) = self.plans.values()
            stopped_by = measure_interleaved(list(measurements.values()), plan, write_down)
        if busy := machine.busy_reason():
            warnings.append(busy.replace("at the start", "at the end"))
        return {run: (result(run, stopped_by), measurements[run].epoch_seconds()) for run in names}

    def accuracy(self, request: pytest.FixtureRequest, run: Run) -> Training:
        """The finished training of a run; the first call trains all networks, interleaved by epoch."""
        if self._trainings is None:
            with user_errors(), self.shown():
                self._trainings = _or_error(lambda: self._train(self.names(request)))
        if isinstance(self._trainings, BaseException):
            raise self._trainings
        return self._trainings[run]

    def _train(self, names: dict[Run, str]) -> dict[Run, Training]:
        trainings = {run: self.training(run) for run in names}
        self.calibrate("start")
        for training in trainings.values():
            training.warm_up()
        for _ in range(self.recipe.epochs):
            for run, training in trainings.items():
                self._train_epoch(training, names[run])
        return trainings

    def _train_epoch(self, training: Training, name: str) -> None:
        epoch = training.run_epoch()
        self.say(
            f"{training.architecture.id} ({training.engine.name}) epoch {epoch.epoch}/{self.recipe.epochs}: "
            f"loss {epoch.train_loss:.3f}, accuracy {epoch.test_accuracy:.1%}, {epoch.train_seconds:.1f} s"
        )
        self.journal.add(name, "accuracy", training.result(), [e.train_seconds for e in training.results])

    def samples(self) -> Samples:
        """What this session has measured, as if read from its file."""
        return Samples((ResultFile(Path("this session"), self.machine_info, "", tuple(self.journal.results)),))


SUITE = pytest.StashKey[Suite]()


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> Suite:
    return pytestconfig.stash[SUITE]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["resnet_bench"] = config.stash[SUITE].machine_info
    machine_info.pop("node", None)  # saved files are made to be shared; a host's name says nothing about its speed


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Of a test that ran again (pytest-rerunfailures) the latest result stands, as in the journal."""
    latest = {entry["fullname"]: entry for entry in output_json["benchmarks"]}
    output_json["benchmarks"] = list(latest.values())


def pytest_benchmark_update_commit_info(commit_info: dict[str, Any]) -> None:
    for key in ("project", "error"):  # the project is the end of git's address, where a password may be
        if isinstance(commit_info.get(key), str):
            commit_info[key] = without_credentials(commit_info[key])


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    """Note the differences that matter, instead of pytest-benchmark's own check: see `pytest_configure`."""
    ours, theirs = ((info.get("resnet_bench") or {}) for info in (machine_info, compared_benchmark["machine_info"]))
    keys = [k for k in ("cpu", "memory_bytes", "torch", "threads", "container") if ours.get(k) != theirs.get(k)]
    if keys:
        config.stash[SUITE].notes.append(
            f"the saved run differs in {', '.join(keys)}; `resnet-bench compare` says what that explains."
        )


@pytest.hookimpl(wrapper=True)
def pytest_benchmark_group_stats(benchmarks: list[dict[str, Any]], group_by: str) -> Iterator[Any]:
    """With `--benchmark-group-by=param:NAME`, benchmarks without this parameter are a group too, not a KeyError."""
    absent = dict.fromkeys(session_checks.parameters_grouped_by(group_by), "none")
    for benchmark in benchmarks:
        benchmark["params"] = {**absent, **(benchmark["params"] or {})}
    return (yield)


_interrupted = False


def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    global _interrupted
    _interrupted = excinfo.type is KeyboardInterrupt  # pytest's own interruptions are subclasses


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Around pytest-benchmark's saving: calibrate once more before it; remove the journal only after it."""
    suite = session.config.stash[SUITE]
    finished = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    interrupted = _interrupted
    if "start" in suite.calibration and finished:
        try:
            suite.calibrate("end")
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        session.exitstatus = 130  # what a shell reports after Ctrl-C; pytest's own would be 2
    pytest_benchmark_session = session.config.pluginmanager.getplugin("pytest-benchmark")
    errors = saving.collect_errors(pytest_benchmark_session)
    try:
        return (yield)
    finally:
        passed = exitstatus == pytest.ExitCode.OK
        written = suite.journal.names if "journal" in vars(suite) else set()
        taken = {b.fullname for b in pytest_benchmark_session.benchmarks if not b.has_error}
        if passed and written and not taken:  # a plugin has switched it off
            errors.append("pytest-benchmark has none of them")
        if suite.regressed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if errors:
            session.exitstatus = 2
            suite.say(f"resnet_bench: error: cannot save the results: {errors[0].rstrip('.')}.")
        if written:
            worthless = all(isinstance(result, ParametersResult) for result in suite.journal.results)
            if not errors and (worthless or (passed and written <= taken)):  # else it is in the journal only
                suite.journal.remove()
            else:
                suite.say(f"resnet_bench: what was measured is kept in {suite.journal.path}")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Iterator[None]:
    """Our tables after pytest-benchmark's, also where it ends in an error."""
    suite = config.stash[SUITE]
    try:
        return (yield)
    except PerformanceRegression:  # it has printed which
        suite.regressed = True
    finally:
        if "journal" in vars(suite) and suite.journal.results:
            terminalreporter.section("resnet_bench")
            for table in tables(suite.samples()):
                terminalreporter.write_line("")
                terminalreporter.write_line(table.render("text"))
