"""Running a duel: pilots, then rounds in which every arm has one fresh process, then trainings.

The processes of a round take turns, block by block, so that each block of one arm is next to one of every other: what
the machine does for a few seconds hits all arms alike. Only one of them works at any time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from resnet_bench import identity, machine, progress
from resnet_bench.analysis import duel as analysis
from resnet_bench.duel import environments, journal, plan, saving
from resnet_bench.duel.arms import Arm
from resnet_bench.duel.environments import ArmError, Code, Setup, last_lines, without_credentials_in_addresses
from resnet_bench.duel.journal import Journal, Measured
from resnet_bench.duel.orders import Orders
from resnet_bench.duel.plan import Pilot, Settings
from resnet_bench.errors import UserError
from resnet_bench.files import make_folder
from resnet_bench.folders import STORAGE
from resnet_bench.measure import contention, processes
from resnet_bench.measure.process import Order, Report
from resnet_bench.options import RUN_OPTIONS
from resnet_bench.recipe import compact
from resnet_bench.render import duel_tables
from resnet_bench.wording import counted, duration

Events = Callable[[Mapping[str, Any], Sequence[str], Mapping[str, str]], Iterator[dict[str, Any]]]
"""Starts a process: takes an order, a command and environment variables; see `measure.processes.events`."""


PROCESS = "resnet_bench.measure.process"


class DuelEnded(Exception):
    """Fewer than two arms are left."""


@dataclass
class Outcome:
    """How a duel ended.

    Attributes:
        plan: lines that say what was to be measured.
        files: of the arms that have complete rounds, by name, in the order of the command line; but an arm that failed
            is not the first, with which the others are compared.
        failed: {name of an arm: why it could not be measured}.
        kept: what is measured and where it is, as a clause.
        interrupted: whether it ended by Ctrl-C.
    """

    plan: list[str]
    files: dict[str, Path]
    failed: dict[str, str]
    kept: str
    interrupted: bool


def run(
    arms: Sequence[Arm],
    settings: Settings,
    output: Path | None,
    say: Callable[[str], None],
    *,
    plan_only: bool = False,
    events: Events = processes.events,
) -> Outcome:
    """Run a duel, or what is left of it.

    Args:
        arms: two to four.
        settings: what they measure.
        output: the folder; by default one in `.benchmarks`, which the same command finds again until it is over.
        say: called with a line of progress.
        plan_only: end when the pilots have run.
        events: starts a process.

    Raises:
        UserError: something that is asked for does not exist or cannot be done.
    """
    duel, lines, interrupted = prepare(arms, settings, output, say, events), [], False
    with contextlib.closing(duel.journal):
        try:
            if duel.journal["over"]:
                say(f"The duel in {duel.journal.folder} is over; to measure again, give another --output.")
            duel.make_setups(arms)
            duel.pilot()
            lines = duel.description()
            if not plan_only:
                for line in lines:
                    say(line)
                duel.measure()
                duel.train()
                duel.journal["over"] = True
        except DuelEnded:
            pass
        except KeyboardInterrupt:
            interrupted = True
        rounds = max(len(duel.rounds_of(name)) for name in duel.codes)
        kept = f"{rounds} of {settings.processes} rounds are kept in {duel.journal.folder}"
        files = {} if plan_only else duel.save()
        first = [name for name in files if name in duel.standing][:1]
        return Outcome(lines, {n: files[n] for n in [*first, *files]}, duel.failed, kept, interrupted)


def prepare(
    arms: Sequence[Arm],
    settings: Settings,
    output: Path | None,
    say: Callable[[str], None],
    events: Events,
) -> Duel:
    """Check all that is asked for, and find or make the folder; the arguments are those of `run`."""
    orders = Orders(settings, say)
    for arm in arms:
        orders.check(arm)
    if any(arm.requirements for arm in arms):
        environments.uv()
    kept = environments.kept_in(output or STORAGE)
    codes = {arm.name: environments.code_of(arm, kept) for arm in arms}
    for arm in arms:
        orders.check_images(arm)
    command = _command(arms, settings, codes)
    folder = output or journal.unfinished(STORAGE, command) or _new_folder(arms)
    return Duel(Journal(folder, command), settings, codes, kept, orders, say, events)


def _command(arms: Sequence[Arm], settings: Settings, codes: Mapping[str, Code]) -> dict[str, str]:
    """Everything that decides what is measured, each with the name that the user knows it by."""
    values = {o.flag: settings.values[o.name] for o in RUN_OPTIONS if settings.values[o.name] is not None}
    return {
        "--arm": ", ".join(arm.name for arm in arms),
        **{f"arm {arm.name}": arm.text or "this environment as it is" for arm in arms},
        "--architectures": ",".join(settings.architectures),
        "--processes": str(settings.processes),
        "--time-limit": f"{settings.time_limit:g}",
        "--states": settings.states,
        "--accuracy-epochs": str(settings.accuracy_epochs),
        **{flag: str(value) for flag, value in values.items()},
        "the interpreter": sys.executable,
        **{f"the code of arm {name}": str(code.identity["sha256"])[:12] for name, code in codes.items()},
    }


def _new_folder(arms: Sequence[Arm]) -> Path:
    now = datetime.now(timezone.utc)
    return STORAGE / f"duel-{now:%Y%m%dT%H%M%SZ}-{'-'.join(arm.name for arm in arms)}"[:200]


@dataclass
class Duel:
    """A duel in progress.

    Attributes:
        journal: its folder.
        settings: what every arm measures.
        codes: of all arms, by name, in the order of the command line.
        kept: the folder of environments.
        maker: makes the orders.
        say: called with a line of progress.
        setups: of the arms that have not failed, by name.
        orders: for the processes of these.
        events: starts a process.
    """

    journal: Journal
    settings: Settings
    codes: dict[str, Code]
    kept: Path
    maker: Orders
    say: Callable[[str], None]
    events: Events
    setups: dict[str, Setup] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, str]:
        """{name of an arm that cannot be measured: why}."""
        return dict(self.journal["failed"])

    @property
    def standing(self) -> list[str]:
        """The arms that have not failed."""
        return [name for name in self.codes if name not in self.failed]

    def fail(self, name: str, error: ArmError) -> None:
        """Go on without an arm.

        Raises:
            DuelEnded: fewer than two are left.
        """
        self.journal["failed"] = {**self.failed, name: str(error)}
        self.say(f"arm {name} is left out: {error}")
        if len(self.standing) < 2:
            raise DuelEnded

    # Before anything counts ------------------------------------------------------------------------------------------

    def make_setups(self, arms: Sequence[Arm]) -> None:
        """Make the environments and the orders of the arms that have not failed.

        Raises:
            DuelEnded: fewer than two arms can be made.
        """
        if len(self.standing) < 2:  # the user has mended what made them fail, or wants to see the error again
            self.journal["failed"] = {}
        for arm in arms:
            if arm.name in self.standing:
                try:
                    python = environments.interpreter(arm, self.codes[arm.name], self.kept, self.say)
                except ArmError as error:
                    self.fail(arm.name, error)
                else:
                    self.setups[arm.name] = Setup(arm, python, self.codes[arm.name])
        self.orders = {name: self.maker.of(setup.arm) for name, setup in self.setups.items()}
        self.maker.forget_images()

    def pilot(self) -> None:
        """Run a short process of every arm, which does not count: it finds what does not run, and how long it takes."""
        for name in progress.each(self.standing, "pilot processes"):
            if name not in self.journal["pilots"]:
                self.say(f"{name}: a pilot process, which does not count")
                try:
                    pilot = self._pilot(name)
                except ArmError as error:
                    self.fail(name, error)
                else:
                    self.journal["pilots"] = {**self.journal["pilots"], name: vars(pilot)}
        if self.journal["block_rounds"] is None:
            self.journal["block_rounds"] = plan.block_rounds(self._pilots(), self.settings)

    def _pilot(self, name: str) -> Pilot:
        begun, first, last, blocks, takes_turns = time.perf_counter(), 0.0, 0.0, 0, False
        for event in self._events(name, {"rounds": 1}):
            if event["event"] == "progress":
                last = time.perf_counter()
                first, blocks = first or last, int(event["done"])
            elif event["event"] == "report":
                takes_turns = _report(event).takes_turns
        return Pilot.of(time.perf_counter() - begun, last - first, blocks, takes_turns)

    def _pilots(self) -> list[Pilot]:
        return [Pilot(**self.journal["pilots"][name]) for name in self.standing]

    def description(self) -> list[str]:
        """The plan, a line for each thing that will be done."""
        rounds, blocks = self._rounds(), self.journal["block_rounds"]
        left = self._missing_rounds()
        trained = self._missing_trainings()
        lines = [f"{n}: {setup.arm.text or 'this environment as it is'}" for n, setup in self.setups.items()]
        lines.append(
            f"{self.settings.processes} rounds of one process of each arm, {counted(blocks, 'block')} at each "
            f"point of the training; {', '.join(self.settings.architectures)}"
        )
        if not self._takes_turns():
            lines.append("an arm's version of the suite cannot take turns: processes run one after the other")
        shown = ", then ".join(" ".join(order) for order in rounds[:2])
        lines.append(f"order: {shown}{' …' if len(rounds) > 2 else ''}; drawn for this duel, {self.journal.id}")
        lines.append(
            f"accuracy: {len(trained)} trainings, --accuracy-epochs {self.settings.accuracy_epochs}, one seed a round"
            if self.settings.accuracy_epochs
            else "accuracy is not measured; --accuracy-epochs N compares it after N epochs"
        )
        seconds = plan.duration(self._pilots(), blocks, len(left))
        lines.append(
            f"estimated: {duration(seconds)} for {counted(len(left), 'round')}"
            + (", besides the trainings" if trained else "")
            + (", by pilots that were just measured" if not self.journal.resumed else "")
        )
        return lines

    # Measuring -------------------------------------------------------------------------------------------------------

    def _rounds(self) -> list[list[str]]:
        return plan.rounds(list(self.codes), self.settings.processes, self.journal.id)

    def _missing_rounds(self) -> list[int]:
        return [i for i in range(self.settings.processes) if not all(self.journal.has(i, a) for a in self.standing)]

    def rounds_of(self, name: str) -> list[int]:
        """The complete rounds of an arm: those in which another arm measured too, up to the first that it lacks."""
        found = []
        for i in range(self.settings.processes):
            if not self.journal.has(i, name):
                break
            if any(self.journal.has(i, other) for other in self.codes if other != name):
                found.append(i)
        return found

    def measure(self) -> None:
        """Measure the rounds that are missing. After each, the arms' files are written.

        Raises:
            DuelEnded: fewer than two arms are left; the complete rounds are kept.
        """
        rounds, missing = self._rounds(), self._missing_rounds()
        if missing and (busy := machine.busy_reason()):
            self.journal["warnings"] = list(dict.fromkeys([*self.journal["warnings"], busy]))
            self.say(f"warning: {busy}")
        whole = plan.duration(self._pilots(), self.journal["block_rounds"], len(missing))
        with progress.task("duel", len(missing), "rounds", seconds=whole):
            self._measure(rounds, missing)

    def _measure(self, rounds: Sequence[Sequence[str]], missing: Sequence[int]) -> None:
        for done, i in enumerate(missing):
            order = [name for name in rounds[i] if name in self.standing]
            for name in order:
                self.journal.set_aside(i, name)
            self._round(i, order)
            self.save()
            seconds = plan.duration(self._pilots(), self.journal["block_rounds"], len(missing) - done - 1)
            left = f"{duration(seconds)} left" if seconds else "all are measured"
            self.say(f"round {i + 1} of {len(rounds)}: {'; '.join(self._so_far())}; {left}")

    def _round(self, round_: int, names: Sequence[str]) -> None:
        """Measure a process of each arm; they take turns, in this order and in the reverse one."""
        seed = random.Random(f"{self.journal.id} {round_}").getrandbits(32)  # arms measure networks in the same order
        told = {"rounds": self.journal["block_rounds"], "process": round_, "draw": seed, "turns": self._takes_turns()}
        description = f"round {round_ + 1} of {self.settings.processes}"
        running = {name: self._events(name, told) for name in names}
        with contextlib.ExitStack() as stack, progress.task(description, unit="blocks", weight=1) as blocks:
            for process in running.values():
                stack.callback(process.close)
            while running:
                for name in running:
                    blocks.what = f"{description}, {name}"
                    try:
                        report = self._turn(name, running[name], len(names), blocks)
                    except ArmError as error:
                        self.fail(name, error)
                    else:
                        if not report:
                            continue
                        order = self.orders[name].model_copy(update=told)
                        self.journal.keep(round_, name, Measured(order=order, report=report))
                    running = {other: events for other, events in running.items() if other != name}
                running = dict(reversed(running.items()))

    def _takes_turns(self) -> bool:
        """Whether all arms can; where one is an older version of the suite, processes run one after the other."""
        return all(pilot.takes_turns for pilot in self._pilots())

    def _turn(
        self, name: str, events: Iterator[dict[str, Any]], processes_: int, blocks: progress.Task
    ) -> Report | None:
        """Have a process work until it is another's turn; its report when it has measured everything and ended."""
        report = None
        for event in events:
            if event["event"] == "turn":
                return None
            if event["event"] == "report":
                report = _report(event)
            elif event["event"] == "waiting":
                self._warn(f"{name}: {event['message']}")
            else:
                blocks.total = event["total"] * processes_
                blocks.advance()
        return report

    @functools.cached_property
    def _warn(self) -> contention.NowAndThen:
        """Says that an arm's threads wait for a core."""
        return contention.NowAndThen(lambda sentence: self.say(f"warning: {sentence}"))

    def _events(self, name: str, told: Mapping[str, Any]) -> Generator[dict[str, Any]]:
        """The events of a process of an arm; `ArmError` where it fails or is not what it should be."""
        setup, order = self.setups[name], self.orders[name].model_copy(update=dict(told))
        try:
            for event in self.events(_dumped(order), setup.command(PROCESS), self._variables(setup)):
                if event["event"] == "report":
                    self._require_its_code(setup, _report(event))
                yield event
        except UserError as error:
            raise ArmError(str(error).rstrip(".")) from None

    def _variables(self, setup: Setup) -> dict[str, str]:
        return {**setup.variables, identity.SESSION_VARIABLE: self.journal.id}

    def _require_its_code(self, setup: Setup, report: Report) -> None:
        ran = identity.part(report.machine, "code").get("sha256")
        if ran != setup.code.identity["sha256"]:
            raise ArmError("its processes ran other code of resnet_bench than they were to run")

    def _so_far(self) -> Iterator[str]:
        """What is known of each arm against the first one."""
        rounds = {name: self.rounds_of(name) for name in self.standing}
        first, *others = [name for name in self.standing if rounds[name]]
        for name in others:
            common = [i for i in rounds[name] if i in rounds[first]]
            sides = [
                saving.epoch_times(self.journal.measured(side, common), len(common), self.journal["begun_at"])
                for side in (first, name)
            ]
            yield duel_tables.sentence(name, first, analysis.over_networks(*sides))

    # Trainings -------------------------------------------------------------------------------------------------------

    def _missing_trainings(self) -> list[tuple[int, str, str]]:
        """(seed, arm, network) of the trainings that are still to be done, arms in turn."""
        if not self.settings.accuracy_epochs:
            return []
        return [
            (seed, name, architecture)
            for seed, order in enumerate(self._rounds())
            for architecture in self.settings.architectures
            for name in order
            if name in self.standing and not self.journal.training(seed, name, architecture).exists()
        ]

    def train(self) -> None:
        """Train each network with each arm and seed, where accuracy is compared.

        Raises:
            DuelEnded: fewer than two arms are left; finished trainings are kept.
        """
        missing = self._missing_trainings()
        make_folder(self.journal.folder / "trainings", "--output")
        for done, (seed, name, architecture) in enumerate(progress.each(missing, "trainings", "trainings")):
            if name not in self.standing:
                continue
            self.say(f"training {done + 1} of {len(missing)}: {name}, {architecture}, seed {seed}")
            try:
                self._train(seed, name, architecture)
            except ArmError as error:
                self.fail(name, error)
            self.save()

    def _train(self, seed: int, name: str, architecture: str) -> None:
        setup, output = self.setups[name], self.journal.training(seed, name, architecture)
        images = self.orders[name].dataset
        values = {
            **self.settings.of(setup.arm),
            "dataset": images.name,
            "train_images": images.train_images,
            "test_images": images.test_images,
            "seed": seed,
            "epochs": self.settings.accuracy_epochs,
        }
        known = compact(values)  # also to older versions of the suite
        options = [f"{o.flag}={known[o.name]}" for o in RUN_OPTIONS if known.get(o.name) is not None]
        unfinished = output.with_suffix(".part")
        command = setup.command("resnet_bench.cli", "train", architecture, *options, "--output", str(unfinished))
        done = subprocess.run(
            command,
            env={**os.environ, **self._variables(setup)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            said = without_credentials_in_addresses(last_lines(done.stderr.decode(errors="replace").splitlines()))
            raise ArmError(f"the training of {architecture} with seed {seed} failed: {said}")
        unfinished.replace(output)

    # The end ---------------------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Path]:
        """Write the files of all arms that have complete rounds: {name: file}, in the order of the command line."""
        rounds = {name: self.rounds_of(name) for name in self.codes}
        return saving.write(self.journal, self.codes, rounds, self.settings.processes)


def _dumped(order: Order) -> dict[str, Any]:
    """Without what has its default, which older versions of the suite may not know."""
    return {**order.model_dump(mode="json", exclude_defaults=True), "recipe": compact(order.recipe)}


def _report(event: Mapping[str, Any]) -> Report:
    return processes.report(event)
