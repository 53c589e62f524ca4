"""What runs is said on a terminal, in a log now and then, and not at all where it is short."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_bench import progress


class Clock:
    now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still, and a reporter without a thread."""
    own = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: own.now))
    monkeypatch.setattr(progress, "_reporter", progress._Reporter(silent=True))
    return own


def text() -> str:
    return progress._reporter.text()


def test_one_estimate_for_the_whole_session(clock: Clock) -> None:
    progress.plan({"reading": 10.0, "timing": None, "training": lambda: 2 * (progress.whole("timing") or 0) or None})
    with progress.task("reading"):
        clock.now = 4
        assert text() == "more than 6 s left in all; reading; then timing, training"
    with progress.task("timing", 4, "blocks") as running:
        clock.now += 10
        assert text() == "timing, 0 of 4 blocks; then training"
        running.advance()
        assert text() == "about 2 min left in all; timing, 1 of 4 blocks; then training"  # 3 × 10 s and 2 × 40 s
        running.advance(3)
    with progress.task("training", 2):
        assert text() == "about 20 s left in all; training"


def test_a_narrow_terminal_says_what_runs_and_how_long_all_takes(clock: Clock) -> None:
    progress.plan({"timing": 60.0, "training": 60.0, "measuring the machine again": 10.0})
    with progress.task("timing", 3, "rounds"), progress.task("fc1 of the engine fast", 15, "blocks"):
        told = {width: progress._reporter.text(width) for width in (140, 120, 98, 72, 60, 30)}
    now, later = (
        "timing, 0 of 3 rounds: fc1 of the engine fast, 0 of 15 blocks",
        "then training, measuring the machine again",
    )
    assert told == {
        140: f"about 2 min left in all; {now}; {later}",
        120: f"about 2 min left in all; {now}; then training and 1 more",
        98: "about 2 min left in all; fc1 of the engine fast, 0 of 15 blocks; then training and 1 more",
        72: "about 2 min left in all; fc1 of the engine fast, 0 of 15 blocks",
        60: "about 2 min left; fc1 of the engine fast, 0 of 15 blocks",
        30: "about 2 min left; fc1 of th...",
    }


@given(st.text("abc d", min_size=1), st.text("abc d", min_size=1), st.integers(80, 200))
def test_the_line_is_no_wider_than_the_terminal(outer: str, inner: str, width: int) -> None:
    reporter = progress._Reporter(silent=True)
    reporter.plan = {"first": 5.0, "second": None, "third": 60.0}
    reporter.tasks = [progress.Task(outer, 3, "rounds"), progress.Task(inner, 7, "blocks")]
    text = reporter.text(width)
    assert len(text) <= width
    assert text.startswith("more than 1 min left")


def test_short_phases_that_follow_each_other_show_in_a_log(clock: Clock) -> None:
    """Each takes less than the time between two lines; after a long rest the next line is not early."""
    log = io.StringIO()
    for number in range(3):
        with progress.task(f"phase {number}"):
            clock.now += 10
            progress._reporter._log(log)
    assert log.getvalue() == "[0:20] phase 1\n"
    clock.now += 100
    with progress.task("much later"):
        clock.now += 10
        progress._reporter._log(log)
    assert "much later" not in log.getvalue()


def test_tasks_in_tasks_count(clock: Clock) -> None:
    with progress.task("training", 3) as outer:
        with progress.task("fc1", 4, "images", weight=2) as inner:
            clock.now = 10
            inner.advance(2)
            assert text() == "about 20 s left; training: fc1, 2 of 4 images"
        assert outer.done == 2
        outer.seconds_left = 7
        assert text() == "about 7 s left; training"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=5), st.floats(0, 2), st.floats(0, 1e6))
def test_an_estimate_is_never_negative(totals: list[float], share: float, elapsed: float) -> None:
    tasks = [progress.Task("x", total, "", expected=5.0, weight=1) for total in totals]
    for task in tasks:
        task.done, task.begun = share * (task.total or 0), time.monotonic() - elapsed
    left = tasks[0].left(tasks[1:])
    assert left is not None
    assert left >= 0
    assert 0 <= tasks[0].fraction(tasks[1:]) <= 1


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_reporter", progress._Reporter())
    with progress.task("short"):
        time.sleep(0.05)
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "LOGGED_EVERY", 0.5)
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.1)
    with progress.task("long", 10, "steps") as running:
        running.advance()
        time.sleep(2.3)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 3
    assert all("long, 1 of 10 steps" in line and line.startswith("[") and line.isprintable() for line in lines)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_is_silent() -> None:
    with progress.task("outer"):
        child = os.fork()
        if not child:
            with progress.task("inner"):
                os._exit(0 if progress._reporter.silent and len(progress._reporter.tasks) == 1 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """The other end of a terminal of 80 columns, and the terminal."""
    termios = pytest.importorskip("termios")
    controller, end = os.openpty()
    os.set_blocking(controller, False)
    termios.tcsetwinsize(end, (24, 80)) if hasattr(termios, "tcsetwinsize") else pytest.skip("needs Python 3.11")
    with open(end, "w", encoding="ascii", errors="replace") as stream:
        yield controller, stream
    os.close(controller)


def test_on_a_terminal_the_line_goes_away(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.1)
    monkeypatch.setattr(progress, "_reporter", progress._Reporter())
    controller, stream = terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with progress.task("long", 10, "steps"):
        time.sleep(1.8)
        with progress.paused():
            stream.write("said\n")
    stream.flush()
    shown = os.read(controller, 65536).decode()
    assert "long, 0 of 10 steps" in shown
    assert max(map(len, shown.replace("\n", "\r").split("\r"))) <= 80
    assert "\rsaid" in shown  # on a line of its own
    assert not shown.replace("\n", "\r").rpartition("said\r")[2].strip()  # and nothing stays


def test_a_simple_terminal_is_a_log(terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert progress.is_live(terminal[1])
    monkeypatch.setenv("TERM", "dumb")
    assert not progress.is_live(terminal[1])
    monkeypatch.setenv("TERM", "xterm")
    termios = pytest.importorskip("termios")
    termios.tcsetwinsize(terminal[1].fileno(), (0, 80))
    assert not progress.is_live(terminal[1])
    closed = io.StringIO()
    assert not progress.is_live(closed)
    closed.close()
    assert not progress.is_live(closed)
