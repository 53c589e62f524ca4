"""Child processes that keep denormal numbers or flush them, and how a process ended."""

import multiprocessing
import os
import signal
import sys

import pytest
import torch

from resnet_bench import child
from resnet_bench.child import DenormalChild
from resnet_bench.errors import UserError

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
NUMBERS = 1 << 20  # large enough that both threads work on them


def end(how):
    if how == 1:
        sys.exit(how)
    if how != signal.SIGKILL:
        signal.signal(how, signal.SIG_DFL)  # pytest's handler would print where it came from
    os.kill(os.getpid(), how)


@needs_fork
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (signal.SIGKILL, "was ended by SIGKILL, as happens where memory runs out"),
        (signal.SIGBUS, "was ended by SIGBUS, as happens where /dev/shm is full"),
        (signal.SIGTERM, "was ended by SIGTERM"),
        (1, "ended with status 1"),
    ],
)
def test_how_a_process_ended(how, said):
    process = multiprocessing.get_context("fork").Process(target=end, args=(how,))
    process.start()
    process.join()
    assert child.how_it_ended(process) == said


def survivors(threads):
    """Prepares a child that says how many of `NUMBERS` denormal numbers a multiplication by `question` leaves."""
    torch.set_num_threads(threads)

    def answer(question):
        if question < 0:
            raise UserError("The factor is negative.")
        return int((torch.full((NUMBERS,), 1e-40) * question != 0).sum())

    return answer


@pytest.fixture
def started():
    """Starts children, and closes them."""
    children = []

    def start(flush):
        one = DenormalChild(flush, "use a smaller factor")
        children.append(one)
        one.prepare(survivors, 2)
        return one

    yield start
    for one in children:
        one.close()


@pytest.mark.parametrize("flush", [False, True])
def test_flushing_reaches_every_thread(flush, started):
    """Set before the first operation of a process, it holds in the threads that torch starts later."""
    one = started(flush)
    if not one.ready():
        pytest.skip("this CPU cannot flush denormals")
    one.ask(1.0)
    assert one.answer() == (0 if flush else NUMBERS)


def test_a_mistake_of_the_users_that_a_child_finds_is_raised_in_the_parent(started):
    one = started(False)
    assert one.ready()
    one.ask(-1.0)
    with pytest.raises(UserError, match="factor is negative"):
        one.answer()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_child_that_was_killed_is_one_sentence(started):
    one = started(False)
    one._process.kill()
    one._process.join()
    with pytest.raises(UserError) as error:
        one.answer()
    assert str(error.value) == (
        "The process that measures denormal numbers was ended by SIGKILL, as happens where memory runs out; use a "
        "smaller factor."
    )
    with pytest.raises(UserError):
        one.ask(bytes(1_000_000))
