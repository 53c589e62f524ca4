"""Child processes: how they start and how they ended, and one that keeps denormal numbers or flushes them to 0."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from resnet_bench import progress
from resnet_bench.errors import UserError

SHARED_MEMORY = Path("/dev/shm")
"""Where Linux keeps memory that processes share; containers often have 64 MB of it."""


def ignore_interrupt(*_: object) -> None:
    """Let Ctrl-C, which reaches child processes too, be answered by their parent alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def starting_processes(method: str | None) -> Iterator[None]:
    """Around the start of child processes by `method`, one of multiprocessing's; None is Python's choice.

    - Ctrl-C waits, and does not reach the children: they inherit that, so that none is hit while it still imports.
    - torch's handler for the death of a child does not stay. It raises an error wherever the parent is, in the middle
      of a step too, which would leave a network half updated. A dead worker is found where its batch is waited for.
    - No warning about the number of workers, as `crowded` says it in a sentence, nor one about forks beside threads.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") and main else None
    mask = None
    if hasattr(signal, "pthread_sigmask"):
        if method != "fork":
            resource_tracker.ensure_running()  # a process that others need, whose start would unblock the signal
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")
            warnings.filterwarnings("ignore", r".*use of fork\(\) may lead", DeprecationWarning)
            yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGCHLD, handler)
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def how_it_ended(process: BaseProcess) -> str:
    """`was ended by SIGKILL, as happens where memory runs out`, or `ended with status 1`."""
    status = process.exitcode or 0
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    reasons = {"SIGKILL": "memory runs out", "SIGBUS": f"{SHARED_MEMORY} is full"}
    return f"was ended by {name}" + (f", as happens where {reasons[name]}" if name in reasons else "")


class DenormalChild:
    """A child process that answers questions, with denormal numbers kept or flushed to 0.

    Flushing needs a process of its own: threads inherit the setting when they start, so that it has to be made before
    a process's first operation. Parent and child talk over a pipe, which leaves nothing behind however the parent ends.
    The pipe carries pickles: what multiprocessing itself sends has its tensors in shared memory, of which containers
    have little.
    """

    def __init__(self, flush: bool, remedy: str = "free memory") -> None:
        """Start the process, without waiting for it.

        Args:
            flush: whether it flushes denormal numbers.
            remedy: what the user can do where memory runs out, for the message.
        """
        context = multiprocessing.get_context("spawn")
        self._remedy = remedy
        self._pipe, childs_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(childs_end, flush), daemon=True)
        with starting_processes("spawn"):
            self._process.start()
        childs_end.close()  # then the pipe ends when the process does

    def prepare(self, work: Callable[..., Callable[[Any], Any]], *arguments: Any) -> None:
        """Have the child call `work`, which returns what answers its questions; both are pickled."""
        self.ask((work, arguments))

    def ready(self) -> bool:
        """Wait until it is prepared; false where this CPU cannot flush denormal numbers, as it was told to."""
        return bool(self.answer())

    def ask(self, question: Any) -> None:
        """Send a question; `answer` returns the answers in the order of the questions."""
        self._talk(lambda: self._pipe.send_bytes(pickle.dumps(question)))

    def answer(self) -> Any:
        """The next answer; raises it where it is a `UserError`, and one where the process has died."""
        answer = pickle.loads(self._talk(self._pipe.recv_bytes))
        if isinstance(answer, UserError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        self._process.terminate()
        self._process.join()

    def _talk(self, exchange: Callable[[], Any]) -> Any:
        try:
            return exchange()
        except (EOFError, ConnectionError):
            self._process.join(timeout=10)
            raise UserError(
                f"The process that measures denormal numbers {how_it_ended(self._process)}; {self._remedy}."
            ) from None


def _serve(pipe: Connection, flush: bool) -> None:
    """Answer until the parent ends."""
    import torch  # takes seconds, which no parent needs that starts other processes

    ignore_interrupt()
    progress.be_silent()
    can = torch.set_flush_denormal(flush)  # before the first operation

    def send(answer: Any) -> None:
        pipe.send_bytes(pickle.dumps(answer))

    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        try:
            work, arguments = pickle.loads(pipe.recv_bytes())
            answer = work(*arguments)
            send(can or not flush)
            while True:
                send(answer(pickle.loads(pipe.recv_bytes())))
        except UserError as error:
            send(error)
