"""`pytest benchmarks`: options, the session's shared state, and what ends up in the saved JSON."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from resnet_bench import architectures, datasets, engines, machine, options
from resnet_bench.architectures import ARCHITECTURES
from resnet_bench.datasets import Dataset
from resnet_bench.engines import fast
from resnet_bench.errors import UserError
from resnet_bench.journal import Journal, left_behind
from resnet_bench.measurement import EpochTime, Plan, StoppedBy, measure_both, measure_interleaved
from resnet_bench.pipelines import require_workers
from resnet_bench.report.tables import tables
from resnet_bench.results import EpochTimeResult, ParametersResult, Result, ResultFile
from resnet_bench.training import Training, set_deterministic

PROFILES: dict[str, dict[str, Any]] = {
    "quick": {
        "engine": "fast", "epochs": 2, "train_images": 500, "test_images": 500, "time_limit": 17.0,
        "overhead_rounds": 4,
    },
    "standard": {
        "epochs": 5, "train_images": 10_000, "test_images": 2000, "time_limit": 300.0, "explain": "baseline",
        "overhead_rounds": 12,
    },
    "paper": {"time_limit": 1800.0, "explain": "baseline", "overhead_rounds": 24},
}  # fmt: skip
"""What a profile does not name is the paper's (`resnet_bench.options`). An explicit option wins over it."""

ORDER = ("test_parameters", "test_epoch_time", "test_accuracy")
"""What takes longer comes later, so that the first results are there soon; anything else comes last."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("resnet_bench", "resnet_bench: what is measured, on which data")
    group.addoption(
        "--profile", choices=list(PROFILES), default="quick", help="Sizes of everything below.  [default: quick]"
    )
    group.addoption(
        "--architectures",
        help="Comma-separated networks, e.g. baseline,conv5x5,conv5x5-same.  [default: the study's five]",
    )
    group.addoption(
        "--explain",
        help="Comma-separated networks to explain step by step, as `resnet-bench explain` does; needs a C++ compiler.  "
        "[default: none in quick, else baseline]",
    )
    for option in options.RUN_OPTIONS:
        default = "" if option.default is None else f"  [default: the profile's, else {option.default}]"
        if option.name == "engine":
            default = "  Several, with commas, run side by side." + default
        group.addoption(option.flag, dest=f"run_{option.name}", type=option.type, help=option.help + default)
    group.addoption(
        "--epoch-mode",
        choices=["sampled", "full", "both"],
        default="sampled",
        help="sampled extrapolates an epoch's time from blocks of steps; full times whole epochs; both measures blocks "
        "in the course of whole epochs, to hold one against the other.  [default: sampled]",
    )
    group.addoption("--precision", type=float, default=3.0, help="sampled stops at ± this many percent.  [default: 3]")
    group.addoption("--time-limit", type=float, help="sampled stops after this many seconds.  [default: the profile's]")
    group.addoption(
        "--rounds", type=int, default=2, help="Epochs that full and both time of each network.  [default: 2]"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_save_data = True  # pytest-benchmark would drop the raw values
    target = config.option.benchmark_json and Path(config.option.benchmark_json)
    if target and (target.is_file() or not target.exists()):  # it would cut off the old file before writing the new
        config.stash[JSON] = target
        config.option.benchmark_json = str(target.with_name(f".{target.name}.partial"))
    with user_errors():
        config.stash[SUITE] = Suite(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    suite = config.stash[SUITE]
    shown = {k: v for k, v in suite.values.items() if v is not None} | {"engine": ",".join(suite.engines)}
    lines = [f"resnet_bench: profile {config.getoption('profile')}, " + ", ".join(f"{k} {v}" for k, v in shown.items())]
    lines += [f"resnet_bench: {note}" for note in suite.notes]
    for path in left_behind(suite.journal_folder):
        lines.append(f"resnet_bench: a session that did not finish left {path}: `resnet-bench report` reads it")
    return lines


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [getattr(item, "originalname", "") for item in items]
    places = {name: place for place, name in enumerate(ORDER)}
    items[:] = [items[i] for i in sorted(range(len(items)), key=lambda i: places.get(names[i], len(ORDER)))]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    suite = metafunc.config.stash[SUITE]
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


def _or_error(measure: Callable[[], _T]) -> _T | Exception:
    """The result, or the exception, so that what all tests share is neither measured again nor half there."""
    try:
        return measure()
    except UserError:
        raise
    except Exception as error:
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
        profile = PROFILES[config.getoption("profile")]
        self.architectures = _names(config.getoption("architectures")) or list(ARCHITECTURES)
        explained = config.getoption("explain")
        self.explained = _names(profile.get("explain") if explained is None else explained)
        for name in (*self.architectures, *self.explained):
            architectures.get(name)
        self.values = {}
        for option in options.RUN_OPTIONS:
            given = config.getoption(f"run_{option.name}")
            self.values[option.name] = given if given is not None else profile.get(option.name, option.default)
        time_limit = config.getoption("time_limit")
        self.time_limit = profile["time_limit"] if time_limit is None else time_limit
        self.overhead_rounds = profile["overhead_rounds"]
        storage = config.getoption("benchmark_storage")
        self.journal_folder = Path(storage.removeprefix("file://")) / "journal"
        self.calibration: dict[str, Any] = {}
        self.recipe = options.recipe(self.values)
        self.plans = self._plans()
        self.engines = _names(self.values["engine"])
        self.notes: list[str] = []
        for name in self.engines:
            engines.get(name)
        self._check_compiler(
            engine_asked=config.getoption("run_engine") is not None, explain_asked=explained is not None
        )
        used = {self.values["pipeline"] or engines.get(e).pipeline for e in self.engines}
        if "loader" in used or self.explained:  # the plain step that is explained is on the loader
            require_workers(self.recipe, self.values["workers"], self.values["train_images"])
        set_deterministic(self.values["threads"])
        self.load_before = machine.load_average()
        self._epoch_times: dict[Run, tuple[EpochTimeResult, list[float]]] | Exception | None = None
        self._trainings: dict[Run, Training] | Exception | None = None

    def _check_compiler(self, engine_asked: bool, explain_asked: bool) -> None:
        """Without a C++ compiler, leave out what the profile would run with it; what was asked for is an error."""
        compiling = any(e.startswith("fast") for e in self.engines)
        if not compiling and not self.explained:
            return  # looking for one takes seconds, for torch's compiler is imported
        try:
            fast.require_compiler()
        except UserError as error:
            if (engine_asked and compiling) or (explain_asked and self.explained):
                raise
            if "fast" in self.engines:
                self.engines = ["reference"]
                self.notes.append(f"engine reference instead of fast. {error}")
            if self.explained:
                self.explained = []
                self.notes.append("no explanation of a step: it needs the engine fast.")

    def _plans(self) -> dict[str, Plan]:
        """How epoch time is measured in each mode that is asked for."""
        asked, precision = self.config.getoption("epoch_mode"), self.config.getoption("precision") / 100
        plans = {
            "full": Plan("full", max_rounds=self.config.getoption("rounds")),
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
                at_most=[s for s in datasets.SPLITS if self.config.getoption(f"run_{s}_images") is None],
            )

    @cached_property
    def machine_info(self) -> dict[str, Any]:
        """`machine.describe()`; `calibration` is filled in at the start and the end of the measurements."""
        return {**machine.describe(), "calibration": self.calibration}

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
        with self.shown():
            reporter.ensure_newline()
            reporter.write_line(line)

    def names(self, request: pytest.FixtureRequest) -> dict[Run, str]:
        """What this session runs the requesting test function for, and the test's name for each."""
        function = request.function
        items = [i for i in request.session.items if isinstance(i, pytest.Function) and i.function is function]
        return {Run(**{str(key): str(value) for key, value in i.callspec.params.items()}): i.nodeid for i in items}

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
        if isinstance(self._epoch_times, Exception):
            raise self._epoch_times
        return self._epoch_times[run]

    def _measure_epoch_times(self, names: dict[Run, str]) -> dict[Run, tuple[EpochTimeResult, list[float]]]:
        self.dataset.info()  # load it now, so that no network is charged for it
        warnings = [w for w in (machine.busy_reason(self.load_before),) if w]
        pairs = [(run, run._replace(mode="sampled")) for run in names if run.mode == "full"]
        if len(self.plans) > 1 and {run for pair in pairs for run in pair} != set(names):
            raise UserError("--epoch-mode both needs the two tests of each network; select by network, not by mode.")
        measurements = {run: EpochTime(partial(self.training, run), self.plans[run.mode]) for run in names}
        self.calibrate("start")  # after all that can be wrong with what was asked for
        calibration = machine.Calibration.model_validate(self.calibration["start"])

        def result(run: Run, stopped_by: StoppedBy | None = None) -> EpochTimeResult:
            architecture, classes = architectures.get(run.architecture), self.dataset.num_classes
            bound = None  # the calibration is in float32, which says nothing about other numerics
            if engines.get(run.engine).precision == "float32":
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
        if isinstance(self._trainings, Exception):
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

    def results(self) -> ResultFile:
        """What this session has measured, as if read from its file."""
        return ResultFile(Path("this session"), self.machine_info, "", tuple(self.journal.results))


SUITE = pytest.StashKey[Suite]()
JSON = pytest.StashKey[Path]()
"""Where `--benchmark-json` is to go once it is complete."""


@pytest.fixture(scope="session")
def suite(pytestconfig: pytest.Config) -> Suite:
    return pytestconfig.stash[SUITE]


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["resnet_bench"] = config.stash[SUITE].machine_info
    machine_info.pop("node", None)  # saved files are made to be shared; a host's name says nothing about its speed


def pytest_benchmark_compare_machine_info(
    config: pytest.Config, benchmarksession: Any, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> bool:
    """Warn of differences that matter; pytest-benchmark's own check warns even of another momentary clock rate."""
    ours, theirs = ((info.get("resnet_bench") or {}) for info in (machine_info, compared_benchmark["machine_info"]))
    keys = [k for k in ("cpu", "memory_bytes", "torch", "threads", "container") if ours.get(k) != theirs.get(k)]
    if keys:
        benchmarksession.logger.warning(
            f"The saved run differs in {', '.join(keys)}; `resnet-bench compare` says what that explains."
        )
    return True  # the first answer counts, so pytest-benchmark's own check is not asked


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
    saved = True
    target, partial_json = session.config.stash.get(JSON, None), session.config.option.benchmark_json
    try:
        yield
        if target and Path(partial_json).exists():
            os.replace(partial_json, target)
            suite.say(f"resnet_bench: now complete as {target}")
    except OSError as error:
        session.exitstatus = 2
        saved = False
        suite.say(f"resnet_bench: error: cannot save the results: {error.strerror}; free space and try again.")
        if target:
            Path(partial_json).unlink(missing_ok=True)
    if "journal" not in vars(suite):
        return
    worthless = all(isinstance(result, ParametersResult) for result in suite.journal.results)
    if saved and (exitstatus == pytest.ExitCode.OK or worthless):  # what failed half-way is in the journal only
        suite.journal.remove()
    else:
        suite.say(f"resnet_bench: what was measured is kept in {suite.journal.path}")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    suite = config.stash[SUITE]
    if "journal" not in vars(suite) or not suite.journal.results:
        return
    terminalreporter.section("resnet_bench")
    for table in tables([suite.results()]):
        terminalreporter.write_line("")
        terminalreporter.write_line(table.render("text"))
