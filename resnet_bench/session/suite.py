"""What the benchmarks of one session share: settings, data set, measurements, and where results are written."""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import pytest
from pytest_benchmark.utils import get_machine_id

from resnet_bench import architectures, engines, identity, machine, progress
from resnet_bench.analysis.earlier import Earlier, last_alike, saved_before
from resnet_bench.data import datasets
from resnet_bench.data.datasets import Dataset
from resnet_bench.data.pipelines import learning_rates, steps_per_epoch
from resnet_bench.data.sources import SPLITS
from resnet_bench.errors import UserError
from resnet_bench.measure import process
from resnet_bench.measure.places import Place, prepared_places
from resnet_bench.measure.points import training_points
from resnet_bench.measure.process import Data, Order, Report
from resnet_bench.measure.processes import TASK as TIMING
from resnet_bench.measure.processes import joined, measure
from resnet_bench.results.journal import Journal
from resnet_bench.results.reading import ResultFile
from resnet_bench.results.samples import Samples
from resnet_bench.schema import EpochTimeResult, Result
from resnet_bench.session import checks, items
from resnet_bench.session.checkpoints import Checkpoints
from resnet_bench.session.items import Case
from resnet_bench.session.replay import hand_over
from resnet_bench.session.settings import Settings
from resnet_bench.session.terminal import say, shown, user_errors
from resnet_bench.training.training import Training, set_deterministic

CALIBRATIONS = {"start": "measuring the machine", "end": "measuring the machine again"}
"""What `progress` calls them."""

_T = TypeVar("_T")


def _or_error(measure: Callable[[], _T]) -> _T | BaseException:
    """The result of `measure`, or the exception that it raised.

    A measurement that several tests share is made once, also if it fails: each of the tests then raises the exception.
    """
    try:
        return measure()
    except UserError:
        raise
    except (Exception, pytest.fail.Exception) as error:  # pytest-timeout calls `pytest.fail`
        return error


class Suite:
    """What the benchmarks of one session share.

    Attributes:
        settings: what the options ask for.
        notes: sentences for the session's header.
        journal_folder: where the journal is written.
        calibration: what the machine can do, at the `start` and the `end` of the measurements, and in their
            `processes`, by their ids.
        load_before: the load average when the session began.
        regressed: whether `--benchmark-compare-fail` found a regression.
        saved: the file that has the results at the end; None where none has.
    """

    def __init__(self, config: pytest.Config) -> None:
        """Read the options; raises `UserError` as `Settings.from_config` does."""
        self.config = config
        self.settings = Settings.from_config(config)
        self.values, self.recipe = self.settings.values, self.settings.recipe
        self.notes = list(self.settings.notes)
        self.journal_folder = checks.storage_folder(config) / "journal"
        self.regressed = False
        self.saved: Path | None = None
        self.calibration: dict[str, Any] = {}
        set_deterministic(self.values["threads"])
        self.load_before = machine.load_average()
        self._epoch_times: dict[Case, tuple[EpochTimeResult, list[float]]] | BaseException | None = None
        self._trainings: dict[Case, Training] | BaseException | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The images, loaded when they are first asked for. If that fails, the session ends with a sentence."""
        v = self.values
        with user_errors(), self.shown():
            loaded = datasets.load(
                v["dataset"],
                train_images=v["train_images"],
                test_images=v["test_images"],
                seed=v["seed"],
                at_most=self._at_most,
            )
            learning_rates(loaded, self.recipe)  # may find that the warm-up is too long
            return loaded

    @property
    def _at_most(self) -> list[str]:
        """The splits of which the data set may have fewer images than the profile says."""
        return [s for s in SPLITS if self.config.getoption(f"resnet_{s}_images") is None]

    @cached_property
    def machine_info(self) -> dict[str, Any]:
        """What is saved about the machine: `identity.describe()`, and `calibration`, which is filled in later."""
        return {**identity.describe(), "calibration": self.calibration}

    @cached_property
    def journal(self) -> Journal:
        """Results as soon as they are measured, on disk. The file is made when the journal is first asked for."""
        return Journal(self.journal_folder, {"resnet_bench": self.machine_info})

    @property
    def _training_settings(self) -> dict[str, Any]:
        """The options that `Training` and the orders of measuring processes take as they are."""
        return {name: self.values[name] for name in ("pipeline", "seed", "workers", "threads")}

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of this session's trainings."""
        settings = self._training_settings | {"dataset": self.dataset.sha256, "recipe": self.recipe.as_dict()}
        return Checkpoints(self.journal_folder.with_name("checkpoints"), self.machine_info, settings, self.say)

    def training(self, case: Case, checkpoint: Path | None = None) -> Training:
        """A training of the case's network by its engine, with checkpoints in a folder if one is given."""
        architecture, settings = architectures.get(case.architecture), self._training_settings
        return Training(architecture, self.dataset, self.recipe, engine=case.engine, checkpoint=checkpoint, **settings)

    def calibrate(self, when: str) -> None:
        """Measure what the machine can do at the `start` or the `end`; does nothing if that is there already."""
        if when not in self.calibration:
            with self.shown(), progress.task(CALIBRATIONS[when]):
                self.calibration[when] = machine.calibrate(self.values["threads"]).model_dump(mode="json")

    def announce(self, functions: Collection[str]) -> None:
        """Plan the progress of a session that runs these test functions: its phases, and how long each may take."""
        plan, explained = self.settings.plan, len(self.settings.explained)
        timed, trained = "test_epoch_time" in functions, "test_accuracy" in functions
        phases: dict[str, progress.Expected] = {"reading the images": 1.0, CALIBRATIONS["start"]: 6.0}
        if timed and "sampled" in self.settings.modes:
            phases["preparing states"] = None  # from a second to hours
        if timed:
            phases[TIMING] = plan.time_limit if plan.mode == "sampled" else None
            phases[CALIBRATIONS["end"]] = lambda: progress.whole(CALIBRATIONS["start"])
        if trained:
            phases["training"] = self._training_seconds if timed else None
        if "test_explain" in functions and explained:
            phases["explaining steps"] = explained * plan.time_limit
        if "test_overhead" in functions and self.settings.overhead_rounds:
            phases["measuring the harness"] = 4.0 * self.settings.overhead_rounds
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        progress.plan(phases, lambda: (reporter.ensure_newline(), reporter.flush()) if reporter else None)

    def _training_seconds(self) -> float | None:
        """How long training all networks takes, by the epochs that were timed, or by those that are being timed."""
        if isinstance(self._epoch_times, dict):
            return self.recipe.epochs * sum(self._epoch_seconds.values())
        plan, whole = self.settings.plan, progress.whole(TIMING)
        return whole and (self.recipe.epochs * whole / plan.processes / plan.epochs if plan.mode == "full" else None)

    @property
    def _epoch_seconds(self) -> dict[tuple[str, str], float]:
        """{(network, engine): seconds of an epoch}, as far as they were timed."""
        measured = self._epoch_times if isinstance(self._epoch_times, dict) else {}
        return {(c.architecture, c.engine): fmean(seconds) for c, (_, seconds) in measured.items() if seconds}

    def shown(self) -> AbstractContextManager[None]:
        """Let through to the terminal what is printed; see `terminal.shown`."""
        return shown(self.config)

    def say(self, line: str) -> None:
        """Print a line in the terminal."""
        say(self.config, line)

    def record(self, benchmark: Any, result: Result, seconds: Sequence[float]) -> None:
        """Give pytest-benchmark a result with its raw values, and write both into the journal.

        Args:
            benchmark: pytest-benchmark's fixture, in a test whose timer is `replay`.
            seconds: of each round.
        """
        benchmark.extra_info.update(result.model_dump(mode="json"))
        hand_over(seconds, benchmark)
        self.write_down(benchmark.fullname, benchmark.group, result, seconds)

    def write_down(self, name: str, group: str, result: Result, seconds: Sequence[float]) -> None:
        """Write a result into the journal. If that fails, the session ends with a sentence."""
        with user_errors():
            self.journal.add(name, group, result, seconds)

    def epoch_time(self, request: pytest.FixtureRequest, case: Case) -> tuple[EpochTimeResult, list[float]]:
        """The epoch time of a case, and the estimate of it from each process, in seconds.

        Each value is a process's. The first call measures all cases of the session, interleaved.
        """
        if self._epoch_times is None:
            with user_errors(), self.shown():
                self._epoch_times = _or_error(lambda: self._measure_epoch_times(items.cases(request)))
        if isinstance(self._epoch_times, BaseException):
            raise self._epoch_times
        return self._epoch_times[case]

    def _measure_epoch_times(self, names: dict[Case, str]) -> dict[Case, tuple[EpochTimeResult, list[float]]]:
        self._check(names)
        started_at, plan = identity.now(), self.settings.plan
        warnings = [w for w in (machine.busy_reason(self.load_before),) if w]
        order = self._order(names)
        self.calibrate("start")  # only once the options are known to be right

        def results(reports: Sequence[Report], complete: bool = False) -> dict[Case, EpochTimeResult]:
            return {
                case: joined(
                    reports, i, order, complete=complete, origin=identity.origin(started_at), warnings=warnings,
                    load_averages=(self.load_before, machine.load_average()),
                )
                for i, case in enumerate(names)
            }  # fmt: skip

        def write_down(reports: Sequence[Report]) -> None:
            self.calibration["processes"] = {
                r.process: r.calibration.model_dump(mode="json") for r in reports if r.calibration
            }
            for case, result in results(reports).items():
                self.journal.add(names[case], "epoch time", result, list(result.epoch_times.values()))

        def warn(sentence: str) -> None:
            self.say(f"resnet_bench: warning: {sentence}")

        reports = measure(order, plan, self.values["seed"], write_down, warn)
        if busy := machine.busy_reason():
            warnings.append(busy.replace("at the start", "at the end"))
        self.calibrate("end")
        return {
            case: (result, list(result.epoch_times.values()))
            for case, result in results(reports, complete=True).items()
        }

    def _check(self, names: Collection[Case]) -> None:
        """Find out before anything is prepared what cannot be measured.

        Raises:
            UserError: an engine does not support a network or the recipe, or whole epochs are asked for without the
                sampled ones or the other way round.
        """
        for case in names:
            if reason := engines.get(case.engine).supports(architectures.get(case.architecture), self.recipe):
                raise UserError(reason)
        by_network: dict[tuple[str, str], int] = collections.Counter((c.architecture, c.engine) for c in names)
        if any(count < len(self.settings.modes) for count in by_network.values()):
            raise UserError("--epoch-mode both needs the two tests of each network; select by network, not by mode.")

    def _order(self, names: Iterable[Case]) -> Order:
        """What each process measures; prepares the states of the points."""
        v = self.values
        return Order(
            dataset=Data(
                name=self.dataset.name if v["dataset"] == "auto" else v["dataset"],
                train_images=v["train_images"], test_images=v["test_images"],
                at_most=tuple(self._at_most), sha256=self.dataset.sha256,
            ),
            recipe=self.recipe.as_dict(),
            cases=tuple(process.Case(**case._asdict()) for case in names),
            places=self._places({case.architecture for case in names}) if "sampled" in self.settings.modes else {},
            epochs=self.settings.plan.epochs,
            calibrate=True,
            **self._training_settings,
        )  # fmt: skip

    def _places(self, networks: Collection[str]) -> dict[str, tuple[Place, ...]]:
        """The points of the training with their states, which are prepared now where they are not kept from before."""
        plan, per_epoch = self.settings.plan, steps_per_epoch(self.dataset, self.recipe)
        points = training_points(plan.epochs if plan.mode == "both" else self.recipe.epochs, per_epoch)
        return prepared_places(
            sorted(networks), self.dataset, self.recipe, points, how=self.settings.states, seed=self.values["seed"],
            threads=self.values["threads"], say=self.say,
        )  # fmt: skip

    def accuracy(self, request: pytest.FixtureRequest, case: Case) -> Training:
        """The finished training of a case. The first call trains all cases of the session, interleaved by epoch.

        Skips the test of a case that the time limit left untrained.
        """
        if self._trainings is None:
            with user_errors(), self.shown():
                self._trainings = _or_error(lambda: self._train(items.cases(request)))
        if isinstance(self._trainings, BaseException):
            raise self._trainings
        training = self._trainings[case]
        if not training.results:
            pytest.skip(self._not_trained(case))
        return training

    def _not_trained(self, case: Case) -> str:
        limit = f"the {self.settings.plan.time_limit:g} s of --time-limit are over, which a longer one changes"
        return f"{case.architecture} ({case.engine}) is not trained: {limit}"

    def _train(self, names: dict[Case, str]) -> dict[Case, Training]:
        worth_keeping = self.recipe.epochs > 1
        trainings = {
            case: self.checkpoints.training(case, self.training) if worth_keeping else self.training(case)
            for case in names
        }
        self.calibrate("start")
        for case, training in trainings.items():
            if training.results:  # by an earlier session
                self._write_accuracy(training, names[case])
            if len(training.results) < self.recipe.epochs:
                with progress.task(f"starting {case.architecture} ({case.engine}), compiling it where need be"):
                    training.warm_up()
        seconds = self._epoch_seconds
        weights = {case: seconds.get((case.architecture, case.engine), 1.0) for case in trainings}
        left = sum(w * (self.recipe.epochs + 1 - trainings[case].epoch) for case, w in weights.items())
        begun, limit = time.monotonic(), self.settings.plan.time_limit if self.settings.plan.cut else math.inf
        with progress.task("training", left):
            for epoch in range(1, self.recipe.epochs + 1):
                for case, training in trainings.items():
                    if training.epoch != epoch:
                        continue
                    needed = time.monotonic() - begun + seconds.get((case.architecture, case.engine), 0.0)
                    if needed > limit and any(other.results for other in trainings.values()):
                        self.say(self._not_trained(case))
                        continue
                    self._train_epoch(training, names[case], weights[case])
        return trainings

    def _train_epoch(self, training: Training, name: str, weight: float) -> None:
        epoch = training.run_epoch(weight)
        self.say(
            f"{training.architecture.id} ({training.engine.name}) epoch {epoch.epoch}/{self.recipe.epochs}: "
            f"loss {epoch.train_loss:.3f}, accuracy {epoch.test_accuracy:.1%}, {epoch.train_seconds:.1f} s"
        )
        self._write_accuracy(training, name)

    def _write_accuracy(self, training: Training, name: str) -> None:
        self.journal.add(name, "accuracy", training.result(), [e.train_seconds for e in training.results])

    def samples(self) -> Samples:
        """The results so far, as if read from a file."""
        return Samples((ResultFile(Path("this session"), self.machine_info, "", tuple(self.journal.results)),))

    def earlier(self) -> Earlier:
        """The last session in the storage that was measured like this one."""
        folder = checks.storage_folder(self.config).absolute() / get_machine_id()  # type: ignore[no-untyped-call]
        saved = self.saved.name if self.saved and self.saved.absolute().parent == folder else None
        return last_alike(self.samples(), saved_before(folder, saved))
