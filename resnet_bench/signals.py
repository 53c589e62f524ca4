"""SIGTERM, which a cluster sends before it takes a machine away, answered as Ctrl-C is, with a status of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTED, BROKEN_PIPE, TERMINATED = 130, 141, 143
"""Exit statuses after Ctrl-C and after SIGTERM: those that a shell gives."""


class Terminated(KeyboardInterrupt):
    """This process was asked to end by SIGTERM."""


def interruption(signum: int) -> KeyboardInterrupt:
    """The exception that stands for a signal."""
    return Terminated() if signum == signal.SIGTERM else KeyboardInterrupt()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM raise `Terminated` inside, so that what is open is closed and what is measured is written."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return

    def terminate(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def end_with_input() -> None:
    """Have this process terminated when its standard input ends: when the process that holds the other end is gone."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(sys.stdin.fileno(), 1024):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end with input", daemon=True).start()
