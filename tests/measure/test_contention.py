"""Threads that wait for a core: what is said, and what one thread would give."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from resnet_bench.architectures import Architecture
from resnet_bench.engines import reference
from resnet_bench.machine import system
from resnet_bench.machine.availability import BusyProcess
from resnet_bench.measure import contention, processes
from resnet_bench.measure.contention import Lookout, one_thread_ratio, reasons
from resnet_bench.measure.epoch_time import EpochTimer
from resnet_bench.measure.process import Case, Data, Order
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Block
from resnet_bench.training.training import Training, weights_sha256
from tests.conftest import needs_compiler

SMALL = Architecture("small", "", "", widths=(16,), strides=(2,), hidden=())


class Compiled(reference.Engine):
    name = "compiled"
    threads_compiled_in = True


@pytest.fixture
def two_threads(threads):
    torch.set_num_threads(2)


def build(dataset, **options):
    return lambda: Training(SMALL, dataset, Recipe(batch_size=8), **{"pipeline": "vectorized", **options})


def block(waiting=0.0, stolen=0.0, seconds=1.0, process=0, point=0):
    phases = dict.fromkeys(("data", "forward", "backward", "optimizer"), 0.0)
    return Block(
        process=process, point=point, round=0, steps=10, seconds=seconds, phases=phases, page_faults=0,
        waiting_share=waiting, stolen_share=stolen,
    )  # fmt: skip


# What one thread would give -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(
    ("engine", "pipeline", "mode"),
    [
        ("reference", "vectorized", "sampled"),
        ("reference", "loader", "sampled"),
        ("reference", "loader", "full"),
        pytest.param("fast", "vectorized", "sampled", marks=needs_compiler),
    ],
)
def test_comparing_with_one_thread_leaves_the_training_as_it_was(dataset, engine, pipeline, mode):
    """The blocks after it train from the same state on the same batches, and nothing of it counts as a step."""
    timers = [
        EpochTimer(build(dataset, engine=engine, pipeline=pipeline, workers=1, threads=2), mode) for _ in range(2)
    ]
    for i, timer in enumerate(timers):
        timer.measure(0)
        if i:
            ratio = one_thread_ratio(timer.training, seconds=0.0)
            assert ratio > 0
            assert torch.get_num_threads() == 2
        timer.measure(1)
    assert len({weights_sha256(t.training.engine.network) for t in timers}) == 1
    assert len({(t.training.epoch, t.training.step, t.warmup_steps, len(t.training.stretches)) for t in timers}) == 1


@pytest.mark.usefixtures("two_threads")
def test_the_ratio_is_that_of_times_in_turn(dataset, monkeypatch):
    training = EpochTimer(build(dataset, threads=2)).training
    order = []

    def step(training):
        order.append(torch.get_num_threads())
        return 0.3 if torch.get_num_threads() == 1 else 0.5

    monkeypatch.setattr(contention, "_step", step)
    assert one_thread_ratio(training, seconds=0.0) == pytest.approx(0.6)
    assert order == [2, 2, 1, 1, 2, 2, 1]  # the first one does not count


@pytest.mark.usefixtures("two_threads")
def test_a_failure_leaves_the_threads_as_they_were(dataset, monkeypatch):
    training = EpochTimer(build(dataset, threads=2)).training
    before = weights_sha256(training.engine.network)
    steps = iter([0.1, 0.1])
    monkeypatch.setattr(contention, "_step", lambda training: next(steps))
    with pytest.raises(StopIteration):
        one_thread_ratio(training, seconds=0.0)
    assert torch.get_num_threads() == 2
    assert weights_sha256(training.engine.network) == before


def test_nothing_is_compared_where_there_is_one_thread(dataset):
    assert one_thread_ratio(EpochTimer(build(dataset, threads=1)).training) is None


@pytest.mark.usefixtures("two_threads")
def test_nothing_is_compared_where_an_engine_would_have_to_compile(dataset):
    assert one_thread_ratio(EpochTimer(build(dataset, threads=2, engine=Compiled)).training) is None


# What is said ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(dataset, monkeypatch):
    """Tells what is said of a block that follows others, with so many threads and such a ratio."""

    def tell(now, *earlier, threads=2, ratio=0.6, busiest=(), cores=2.0, **options):
        monkeypatch.setattr(contention.availability, "busiest", lambda seconds: list(busiest))
        monkeypatch.setattr(contention.machine, "usable_cores", lambda: cores)
        monkeypatch.setattr(contention, "one_thread_ratio", lambda training: ratio)
        timer, sent = EpochTimer(build(dataset, **options)), []
        timer.training.threads = threads
        timer.blocks = [*earlier, now]
        lookout = Lookout(sent.append)
        lookout.after(timer, now)
        lookout.after(timer, now)  # at once again: nothing is said twice
        assert len(sent) < 2
        return sent[0]["message"] if sent else None

    return tell


def test_who_has_the_cores_how_much_longer_and_the_remedy_are_one_sentence(told):
    said = told(block(0.41, seconds=2.0), block(0.01, seconds=1.0), busiest=[BusyProcess("yes", 7, 1.0)])
    assert said == (
        "small: a thread waits 41 % of the time for a core (cores in use by others: yes (7) 1.0), and a step takes 2.0 "
        "times as long as in undisturbed blocks; with --threads 1 a step takes 0.60 of the time here (measured)."
    )


def test_undisturbed_blocks_are_of_the_same_point(told):
    assert "undisturbed" not in told(block(0.41, seconds=2.0), block(0.01, point=1))


def test_own_threads_and_workers_are_named_where_they_are_too_many(told):
    said = told(block(0.5), cores=1.0, pipeline="loader", workers=1)
    assert "(2 threads and 1 loader worker share 1 usable core);" in said


def test_a_remedy_that_does_not_help_is_none(told):
    assert told(block(0.5), ratio=1.25).endswith(
        "--threads 1 does not help here: a step takes 1.25 times as long (measured)."
    )


def test_with_one_thread_nothing_is_promised(told):
    assert told(block(0.5), threads=1, ratio=None).endswith("end what need not run, or measure later.")


def test_an_engine_that_would_compile_has_a_remedy_without_a_number(told):
    assert "is not measured, because compiled would have to compile" in told(block(0.5), engine=Compiled, ratio=None)


def test_a_host_that_takes_the_cores_is_said(told):
    assert told(block(0.0, stolen=0.3)).startswith("small: the host of this virtual machine takes 30 % of the cores'")
    assert "(the host takes 30 % of their time)" in told(block(0.2, stolen=0.3))


@pytest.mark.parametrize(
    "quiet", [block(0.09, 0.09), block(None, None), block(0.9, seconds=0.01)], ids=["little", "untold", "too short"]
)
def test_little_waiting_is_not_said(told, quiet):
    assert told(quiet) is None


def test_it_is_said_again_after_a_while_without_comparing_again(dataset, monkeypatch):
    now, compared, sent = [0.0], [], []
    monkeypatch.setattr(contention.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(contention.availability, "busiest", lambda seconds: [])
    monkeypatch.setattr(contention, "one_thread_ratio", compared.append)
    timer, lookout = EpochTimer(build(dataset, threads=1)), Lookout(sent.append)
    for now[0] in (0.0, 59.0, 61.0, 62.0):
        lookout.after(timer, block(0.5))
    assert (len(sent), len(compared)) == (2, 1)


# What is saved --------------------------------------------------------------------------------------------------------


def test_reasons_say_in_how_many_processes_and_name_no_process():
    blocks = [block(0.4), block(0.2, process=1), block(0.6, process=1, seconds=3.0), block(0.0, process=2)]
    assert reasons(blocks, 3, [0.6, None, 0.7]) == [
        "A thread waited for a core 40 to 50 % of the time in 2 of 3 processes, and steps took longer than on a free "
        "machine; with --threads 1 a step took 0.60 to 0.70 of the time (measured)."
    ]
    assert reasons([block(0.0, stolen=0.2)]) == ["The host of this virtual machine took 20 % of the cores' time."]
    assert reasons([block(0.09, 0.09), block(None, None, process=1)], 2) == []


BUSY = "while True: pass"


@pytest.mark.skipif(not shutil.which("taskset"), reason="no taskset")
@pytest.mark.skipif(not (system.PROC / "self/schedstat").exists(), reason="this kernel does not count")
def test_a_process_that_shares_its_core_says_so_and_its_times_are_doubtful(dataset):
    """Real processes: one that measures, with two threads, and one that is busy on the same core."""
    from resnet_bench.data import datasets

    images = {"train_images": 40, "test_images": 20}
    order = Order(
        dataset=Data(name="synthetic", sha256=datasets.load("synthetic", **images).sha256, **images),
        recipe=Recipe(epochs=1).as_dict(), seed=0, pipeline="vectorized", workers=0, threads=2,
        cases=(Case(architecture="fc1", engine="reference", mode="full"),), places={}, rounds=1,
    )  # fmt: skip
    pin = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    busy = subprocess.Popen([*pin, sys.executable, "-c", BUSY])
    try:
        found = list(processes.events(order.model_dump(mode="json"), [*pin, *processes.COMMAND]))
    finally:
        busy.kill()
        busy.wait()
    said = [event["message"] for event in found if event["event"] == "waiting"]
    assert len(said) == 1
    assert said[0].startswith("fc1: a thread waits ")
    assert "2 threads share 1 usable core" in said[0]
    assert "--threads 1" in said[0]
    assert "(measured)" in said[0]
    report = processes.report(found[-1])
    result = processes.joined([report], 0, order, complete=True, origin={"process": "a" * 16, "started_at": "now"})
    assert min(b.waiting_share for b in result.blocks) >= 0.1
    assert result.processes[0].one_thread_ratio > 0
    assert any(w.startswith("A thread waited for a core ") for w in result.warnings)
