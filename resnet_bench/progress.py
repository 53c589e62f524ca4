"""What runs now, how far it is, and how long everything still takes: on a terminal as a line that changes, else as a
line of a log now and then. All goes to standard error.

Whatever may take more than two seconds runs in a `task`. Tasks lie in one another: the outermost ones are the phases of
a session, which `plan` announces with how long each may take, so that there is one estimate for all of it.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, TypeVar

from resnet_bench.wording import duration

SHOWN_AFTER = 1.0
"""Seconds for which a task runs unseen on a terminal."""

LOGGED_EVERY = 15.0
"""Seconds between two lines in a log, and for which a task runs unseen there."""

_BAR = 10  # characters

_RATE_FROM = 0.1  # of a task, from which on its own rate says more than what was expected

Expected = float | Callable[[], float | None] | None
"""Seconds that a phase may take, or a function that says so once it is known; None where nobody knows."""

_T = TypeVar("_T")


class Task:
    """Something that runs.

    Attributes:
        name: what it was begun as.
        what: what runs now, in a few words.
        total: how much there is to do, in any unit; None where that is not known.
        done: how much of it is done.
        seconds_left: that it still takes, where somebody knows that better than the rate tells.
    """

    def __init__(
        self, what: str, total: float | None = None, unit: str = "", expected: Expected = None, weight: float = 0
    ) -> None:
        self.name, self.what, self.total, self.unit = what, what, total, unit
        self.done = 0.0
        self.seconds_left: float | None = None
        self.begun = time.monotonic()
        self._expected, self.weight = expected, weight

    def advance(self, amount: float = 1, what: str | None = None) -> None:
        """Say that more is done; also what runs now, if it changed."""
        self.done += amount
        self.what = what or self.what

    def fraction(self, inner: Sequence[Task] = ()) -> float:
        """How much of it is done, with a part of what the tasks in it, from the outer to the inner, have done."""
        if not self.total:
            return 0.0
        part = inner[0].weight * inner[0].fraction(inner[1:]) if inner else 0.0
        return min(1.0, (self.done + part) / self.total)

    def left(self, inner: Sequence[Task] = ()) -> float | None:
        """Seconds that it still takes; None where nobody knows."""
        if self.seconds_left is not None:
            return self.seconds_left
        done, elapsed = self.fraction(inner), time.monotonic() - self.begun
        expected = _seconds(self._expected)
        if done >= _RATE_FROM or (done > 0 and expected is None):
            return elapsed * (1 - done) / done
        return None if expected is None else max(0.0, expected - elapsed)

    def text(self) -> str:
        if not self.total or not self.unit:
            return self.what
        return f"{self.what}, {self.done:,.0f} of {self.total:,.0f} {self.unit}"


class _Reporter:
    """The tasks of this process, from the outer to the inner, and how they are shown."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self.tasks: list[Task] = []
        self.plan: dict[str, Expected] = {}
        self.took: dict[str, float] = {}
        self.begun = self.logged = time.monotonic()
        self.ended = -math.inf
        self.fresh_line: Callable[[], object] = lambda: None
        self.lock = threading.RLock()
        self.bar: Any = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # Tasks

    def enter(self, task: Task) -> None:
        with self.lock:
            self.tasks.append(task)
            if len(self.tasks) > 1:
                return
            if not self.plan and task.begun - self.ended > LOGGED_EVERY:  # phases that follow each other are one run
                self.begun = self.logged = task.begun
            if self.silent:
                return
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._watch, args=(self._stop, sys.stderr), daemon=True)
            self._thread.start()

    def leave(self, task: Task) -> None:
        with self.lock:
            self.tasks.remove(task)
            if self.tasks:
                self.tasks[-1].done += task.weight
                return
            self.plan.pop(task.name, None)
            self.ended = time.monotonic()
            self.took[task.name] = self.ended - task.begun
            self._stop.set()
            if self.bar is not None:
                self.bar.close()
                self.bar = None
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def _later(self) -> list[str]:
        """The phases after the one that runs."""
        return [name for name in self.plan if not self.tasks or name != self.tasks[0].name]

    def left(self) -> tuple[float, bool]:
        """Seconds that everything still takes, as far as that is known, and whether it is known of all parts."""
        parts = [self.tasks[0].left(self.tasks[1:])] if self.tasks else []
        parts += [_seconds(self.plan[name]) for name in self._later()]
        return sum(p for p in parts if p is not None), None not in parts

    # Showing

    def text(self, width: int | None = None) -> str:
        """`about 3 min left in all; training: fc1 epoch 1/1, 40 of 80 images; then measuring the machine`.

        In so many characters, if a width is given: then phases to come are counted or left out, for the time is that of
        all of them, the inner task stands alone, and what still does not fit is cut.
        """
        left, later = self._left_text(), self._later()
        outer, inner = self.tasks[0].text(), self.tasks[-1].text()
        nows = [outer if outer.startswith(inner) else f"{outer}: {inner}", inner]
        thens = [f"then {', '.join(later)}"] if later else [""]
        if len(later) > 1:
            thens += [f"then {later[0]} and {len(later) - 1} more", f"then {len(later)} more phases"]
        brief = left.removesuffix(" in all")
        parts = [(left, now, then) for now in nows for then in thens]
        parts += [(about, now, "") for now in nows for about in (left, brief)]
        texts = ["; ".join(filter(None, own)) for own in parts]
        if width is None:
            return texts[0]
        return next((text for text in texts if len(text) <= width), f"{texts[-1][: width - 3]}...")

    def _left_text(self) -> str:
        seconds, known = self.left()
        if not known and seconds < 1:
            return ""
        return f"{'about' if known else 'more than'} {duration(seconds)} left{' in all' if self.plan else ''}"

    def _watch(self, stop: threading.Event, stream: IO[str]) -> None:
        live = is_live(stream)
        while not stop.wait(0.5 if live else 1.0):
            with self.lock, contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                if stop.is_set() or not self.tasks:
                    return
                if live:
                    self._draw(stream)
                else:
                    self._log(stream)

    def _log(self, stream: IO[str]) -> None:
        now = time.monotonic()
        if now - self.logged >= LOGGED_EVERY and now - self.tasks[0].begun >= SHOWN_AFTER:
            self.fresh_line()
            self.logged = now
            minutes, seconds = divmod(round(now - self.begun), 60)
            print(f"[{minutes}:{seconds:02}] {self.text()}", file=stream, flush=True)

    def _draw(self, stream: IO[str]) -> None:
        now = time.monotonic()
        if self.bar is None:
            if now - self.tasks[0].begun < SHOWN_AFTER:
                return
            from tqdm import tqdm  # here, because it takes time, and most commands show nothing

            self.fresh_line()
            tqdm.monitor_interval = 0  # this thread does what tqdm's own would do
            tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a terminated process leaves behind
            self.bar = tqdm(
                total=1, file=stream, leave=False, dynamic_ncols=True, bar_format=f"{{bar:{_BAR}}} {{desc}}"
            )
        (seconds, known), gone = self.left(), now - self.begun
        self.bar.n = gone / (gone + seconds) if known else min(0.5, self.tasks[0].fraction(self.tasks[1:]))
        room = os.get_terminal_size(stream.fileno()).columns - _BAR - 2  # a space, and the last column stays free
        self.bar.set_description_str(self.text(room))


_reporter = _Reporter()


def begin() -> None:
    """A command begins: what ran before in this process is none of its phases."""
    _reporter.ended = -math.inf


def be_silent() -> None:
    """Show nothing from now on, as a process does whose parent shows what it does."""
    global _reporter
    _reporter = _Reporter(silent=True)


if hasattr(os, "register_at_fork"):  # a fork has neither the thread nor, perhaps, a lock that is free
    os.register_at_fork(after_in_child=be_silent)


@contextlib.contextmanager
def task(
    what: str, total: float | None = None, unit: str = "", *, seconds: Expected = None, weight: float = 0
) -> Iterator[Task]:
    """Show what runs inside, where it takes long.

    Args:
        what: what runs, in a few words. The name of a phase of the plan makes it that phase.
        total: how much there is to do.
        unit: of `total`, as in `12 of 40 images`; without it no numbers are shown.
        seconds: that it may take; without it the plan's.
        weight: how much of the task around it this one is.
    """
    if seconds is None and not _reporter.tasks:
        seconds = _reporter.plan.get(what)
    with shown(Task(what, total, unit, seconds, weight)) as found:
        yield found


@contextlib.contextmanager
def shown(task: Task) -> Iterator[Task]:
    """Show a task that was made before, while it runs inside."""
    reporter = _reporter
    task.begun = time.monotonic()
    reporter.enter(task)
    try:
        yield task
    finally:
        reporter.leave(task)


def each(values: Sequence[_T], what: str, unit: str = "", *, weight: float = 0) -> Iterator[_T]:
    """The values, one after the other, as a task."""
    with task(what, len(values), unit, weight=weight) as running:
        for value in values:
            yield value
            running.advance()


def plan(phases: Mapping[str, Expected], fresh_line: Callable[[], object] = lambda: None) -> None:
    """Announce the phases of a session, in their order, in place of what was announced before.

    Args:
        phases: {name: seconds that it may take}.
        fresh_line: called before anything is shown, so that it begins at the start of a line.
    """
    _reporter.plan, _reporter.took, _reporter.fresh_line = dict(phases), {}, fresh_line
    _reporter.begun = _reporter.logged = time.monotonic()


def whole(phase: str) -> float | None:
    """Seconds of a phase in all, also while it runs; None where nobody knows yet."""
    if phase in _reporter.took:
        return _reporter.took[phase]
    tasks = _reporter.tasks
    if tasks and tasks[0].name == phase:
        done = tasks[0].fraction(tasks[1:])
        return (time.monotonic() - tasks[0].begun) / done if done else None
    expected = _reporter.plan.get(phase)
    return expected if isinstance(expected, int | float) else None


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Inside, something else may print: the line on the terminal is away and comes back afterwards."""
    with _reporter.lock:
        if _reporter.bar is not None:
            _reporter.bar.clear()
        yield


def is_live(stream: Any) -> bool:
    """Whether a line may change in place: on terminals that are not too simple and say how large they are."""
    try:
        if not stream.isatty() or os.environ.get("TERM") == "dumb":
            return False
        size = os.get_terminal_size(stream.fileno())
        return size.columns > 0 and size.lines > 1  # in fewer lines tqdm shows nothing
    except (OSError, ValueError):  # it is none, or is closed
        return False


def _seconds(expected: Expected) -> float | None:
    return expected() if callable(expected) else expected
