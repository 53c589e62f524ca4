"""Epoch times from several fresh processes, one after the other, and how their reports become results.

Model: the logarithm of a block's time is μ + aₚ + e, where aₚ belongs to the process and e to the block. All processes
time equally many blocks, so the mean of a process says everything that its blocks say about μ. The interval is over the
processes' means (`resnet_bench.intervals.over_processes`).
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import IO, Any, Literal

from pydantic import ValidationError

from resnet_bench import architectures, engines, identity, machine, progress
from resnet_bench.data.pipelines import crowded
from resnet_bench.errors import UserError
from resnet_bench.intervals import over_processes
from resnet_bench.machine import Calibration
from resnet_bench.measure.contention import NowAndThen, reasons
from resnet_bench.measure.process import CaseReport, Order, Report
from resnet_bench.recipe import completed
from resnet_bench.schema import Block, EpochTimeResult, MeasuringProcess

COMMAND = (sys.executable, "-m", "resnet_bench.measure.process")
TASK = "timing epochs"
"""What `progress` calls it."""

LAST_LINES = 5  # of what a process printed before it failed


@dataclass(frozen=True)
class Plan:
    """How epoch time is measured; decided before it starts.

    Attributes:
        mode: `sampled`, `full` or `both`.
        processes: fresh processes.
        time_limit: seconds for all of them together, without compiling; the number of `sampled` blocks follows from it.
        epochs: whole epochs that `full` and `both` time of each network.
        cut: whether `full` times only as many first steps of each epoch as fit into the time limit.

    Raises:
        UserError: where a number is out of range; the message names the command-line option.
    """

    mode: Literal["sampled", "full", "both"] = "sampled"
    processes: int = 5
    time_limit: float = 120.0
    epochs: int = 1
    cut: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"--rounds is {self.epochs}; give at least 1.")
        if not 1 <= self.processes <= 1000:
            raise UserError(f"--processes is {self.processes}; give a number from 1 to 1000.")
        if not self.time_limit > 0:  # nor NaN
            raise UserError(f"--time-limit is {self.time_limit:g}; give a number of seconds above 0.")

    @property
    def modes(self) -> tuple[Literal["sampled", "full"], ...]:
        """The modes in which each network is measured."""
        return ("full", "sampled") if self.mode == "both" else (self.mode,)


def measure(
    order: Order,
    plan: Plan,
    seed: int,
    after_process: Callable[[Sequence[Report]], None] = lambda reports: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[Report]:
    """Run the processes, one after the other, as the task `timing epochs`.

    The first process finds out how many rounds or steps fit into its share of the time; all others measure as many.

    Args:
        order: what to measure; `process`, `draw`, `seconds`, `rounds`, `steps` and `cut` are filled in here.
        plan: how many processes, and for how long.
        seed: decides the order in which each process measures.
        after_process: called with the reports so far, e.g. to save what is measured.
        say: called with a sentence where threads wait for a core, now and then.

    Raises:
        UserError: where a process finds a mistake of the user's or dies.
    """
    reports: list[Report] = []
    draws, warn = random.Random(seed), NowAndThen(say)
    with progress.task(TASK, unit="blocks") as running:
        for number in range(plan.processes):
            process = f"{TASK}, process {number + 1}/{plan.processes}"
            running.what = f"{process}, which starts"
            first = reports[0] if reports else None
            own = order.model_copy(
                update={
                    "process": number,
                    "draw": draws.getrandbits(32),
                    "seconds": plan.time_limit / plan.processes,
                    "rounds": first and first.rounds,
                    "steps": first and first.steps,
                    "cut": plan.cut and first is None,
                    "tells": True,
                }
            )

            def hear(event: dict[str, Any], number: int = number, process: str = process) -> None:
                if event["event"] == "progress":
                    running.total = event["total"] * plan.processes
                    running.done = event["total"] * number + event["done"]
                elif event["event"] == "waiting":
                    warn(event["message"])
                elif event["event"] == "now":
                    running.what = f"{process}: {event['what']}"

            reports.append(reported(own, hear))
            after_process(reports)
    return reports


def reported(order: Order, hear: Callable[[dict[str, Any]], None]) -> Report:
    """The report of a process that carries out an order, without turns; `hear` is called with each other event.

    Raises:
        UserError: as `events` does.
    """
    last: dict[str, Any] = {}
    for last in events(order.model_dump(mode="json")):
        if last["event"] != "report":
            hear(last)
    return report(last)


def events(
    order: Mapping[str, Any], command: Sequence[str] = COMMAND, environment: Mapping[str, str] | None = None
) -> Generator[dict[str, Any], None, None]:
    """Start a process, give it the order, and yield its events; the last is a report.

    The process ends when the iteration does, also after an exception such as Ctrl-C. After the event `turn`, it waits
    until the next event is asked for: so the caller decides which of several processes works.

    Args:
        order: an `Order` as a JSON object.
        command: the program and its arguments.
        environment: variables that differ from this process's.

    Raises:
        UserError: where the process finds a mistake of the user's or dies; then with the last lines that it printed.
    """
    variables = {**os.environ, identity.SESSION_VARIABLE: identity.session(), **(environment or {})}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables
    ) as process:
        stdin, stdout, stderr = _open(process.stdin), _open(process.stdout), _open(process.stderr)
        printed: collections.deque[str] = collections.deque(maxlen=LAST_LINES)

        def listen() -> None:
            for line in stderr:
                if text := line.decode(errors="replace").rpartition("\r")[2].strip():
                    printed.append(text)

        listener = threading.Thread(target=listen, daemon=True)
        reported = False
        try:
            # not before: after Ctrl-C in between, closing the pipe that it reads would wait for ever
            listener.start()
            with contextlib.suppress(BrokenPipeError):  # it died at once; its status says so
                stdin.write(json.dumps(order).encode() + b"\n")
                stdin.flush()
                if not order.get("turns"):
                    stdin.close()
            for line in stdout:
                event = _event(line)
                if event.get("event") == "error":
                    raise UserError(str(event.get("message")))
                reported = event.get("event") == "report"
                yield event
                if event.get("event") == "turn":
                    with contextlib.suppress(BrokenPipeError):
                        stdin.write(b"\n")
                        stdin.flush()
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            if listener.is_alive():  # it may not have been started
                listener.join(timeout=5)  # before its pipe is closed, also after an exception
        if not reported:
            raise UserError(f"The process that measures epoch times {_ended(status)}{_said(printed)}")


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # it was asked for
    return pipe


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "event" not in found:
        raise UserError(f"The process that measures epoch times wrote no event: {line[:200].decode(errors='replace')}")
    return found


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    hint = ", as happens where memory runs out" if status == -9 else ""
    return f"was ended by signal {-status}{hint}"


def _said(lines: Sequence[str]) -> str:
    if len(lines) < 2:
        return f": {lines[0]}" if lines else "."
    return "; its last lines:\n  " + "\n  ".join(lines)


def report(event: Mapping[str, Any]) -> Report:
    """The report of a process; `UserError` where it is none, as from another version of this package."""
    try:
        return Report.model_validate(event)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"The report of a measuring process is not of this version ({where}: {first['msg']})."
        ) from None


def joined(
    reports: Sequence[Report],
    case: int,
    order: Order,
    *,
    complete: bool,
    origin: Mapping[str, Any],
    warnings: Sequence[str] = (),
    load_averages: tuple[float | None, float | None] = (None, None),
) -> EpochTimeResult:
    """One result of all processes.

    Args:
        reports: of the processes so far, at least one.
        case: index of the case in `order.cases`.
        order: what they measured.
        complete: whether all planned processes have reported.
        origin: `identity.origin` of the process that started them.
        warnings: sentences that say why the result is doubtful.
        load_averages: over one minute, before and after the measurement.
    """
    mode = order.cases[case].mode
    points = order.places[order.cases[case].architecture] if mode == "sampled" else ()
    own = [r.cases[case] for r in reports]
    info = own[0].info
    crowding = crowded(info["pipeline"], info["workers"])
    blocks = tuple(b.model_copy(update={"process": i}) for i, c in enumerate(own) for b in c.blocks)
    waiting = reasons(blocks, len(own), [c.one_thread_ratio for c in own])
    result = EpochTimeResult(
        **{
            **info,
            **origin,
            "recipe": completed(info["recipe"]),  # the processes may run an earlier release
            "compile_seconds": max(c.info["compile_seconds"] for c in own),
        },
        complete=complete,
        mode=mode,
        stopped_by="plan" if complete else None,
        steps_per_epoch=own[0].steps_per_epoch,
        warmup_steps=sum(c.warmup_steps for c in own),
        startup_seconds=sum(c.startup_seconds for c in own) / len(own),
        points=tuple(place.point for place in points),
        processes=tuple(map(_measuring_process, reports, own)),
        blocks=blocks,
        epoch_seconds=None,
        peak_memory_bytes=max((c.peak_memory_bytes for c in own if c.peak_memory_bytes is not None), default=None),
        load_average_before=load_averages[0],
        load_average_after=load_averages[1],
        warnings=(*warnings, *([crowding] if crowding else []), *waiting),
    )
    if result.measured != mode:
        reason = f"the time limit allowed only the {result.measured} of an epoch"
        result = result.model_copy(update={"warnings": (*result.warnings, reason)})
    read, updated = parameters_per_step(result)
    times = list(result.epoch_times.values())
    known = {"epoch_seconds": over_processes(times), "read_parameters": read, "updated_parameters": updated}
    return _with_bounds(result.model_copy(update=known), [r.calibration for r in reports])


def _with_bounds(result: EpochTimeResult, calibrations: Sequence[Calibration | None]) -> EpochTimeResult:
    """The result with the model of its step's least time in each process; as it is where a process has no calibration.

    An engine that is not float32-equivalent has none: a calibration is in float32 and says nothing about other formats.
    """
    known = [c for c in calibrations if c]
    if len(known) < len(calibrations) or not engines.get(result.engine).float32_equivalent:
        return result
    bounds = [
        machine.step_bound(
            architectures.get(result.architecture), result.recipe["batch_size"], calibration, result.dataset.classes,
            result.read_parameters, result.updated_parameters,
        ).seconds
        for calibration in known
    ]  # fmt: skip
    processes = tuple(
        p.model_copy(update={"step_bound_seconds": bound}) for p, bound in zip(result.processes, bounds, strict=True)
    )
    return result.model_copy(update={"processes": processes, "step_bound_seconds": fmean(bounds)})


def _measuring_process(report: Report, case: CaseReport) -> MeasuringProcess:
    return MeasuringProcess(
        process=report.process,
        started_at=report.started_at,
        startup_seconds=case.startup_seconds,
        compile_seconds=case.info["compile_seconds"],
        peak_memory_bytes=case.peak_memory_bytes,
        one_thread_ratio=case.one_thread_ratio,
    )


def parameters_per_step(result: EpochTimeResult) -> tuple[float, float]:
    """Parameters that a forward pass reads and that an update goes over, mean over the training."""
    return result.mean_per_step(_read), result.mean_per_step(_updated)


def _read(block: Block) -> float:
    return (block.read_parameters or 0) * block.steps


def _updated(block: Block) -> float:
    return (block.updated_parameters or 0) * block.steps
