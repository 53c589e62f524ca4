import math
import os
from pathlib import Path

import pytest

from resnet_bench.architectures import Architecture
from resnet_bench.clock import PHASES
from resnet_bench.engines import reference
from resnet_bench.measure import epoch_time as measurement
from resnet_bench.measure.epoch_time import EpochTimer, measure_in_turn
from resnet_bench.recipe import Recipe
from resnet_bench.training.training import Training

SMALL = Architecture("small", "", "", widths=(16,), strides=(2,), hidden=())


def build(dataset, pipeline="vectorized", batch_size=1, engine="reference"):
    return lambda: Training(SMALL, dataset, Recipe(batch_size=batch_size), pipeline=pipeline, engine=engine)


@pytest.mark.parametrize("pipeline", ["vectorized", "loader"])
def test_a_block_is_consecutive_steps(dataset, pipeline):
    measured = EpochTimer(build(dataset, pipeline), process=3)
    block = measured.measure(7, point=2)
    assert (block.process, block.point, block.round) == (3, 2, 7)
    assert 1 <= block.steps == measured.block_steps <= 42
    assert sum(getattr(block.phases, p) for p in PHASES) <= block.seconds
    assert measured.startup_seconds > 0
    assert measured.blocks == [block]


class Counting(reference.Engine):
    """Counts its steps, and reads and updates as many parameters as the step's number."""

    def step(self, images, labels, clock):
        loss = super().step(images, labels, clock)
        self.read_parameters, self.updated_parameters = 10 * self.steps, self.steps
        return loss


def test_every_step_is_timed_or_counted_as_not_timed(dataset):
    measured = EpochTimer(build(dataset, engine=Counting))
    for round_ in range(5):
        measured.measure(round_)
    assert measured.warmup_steps + sum(b.steps for b in measured.blocks) == measured.training.engine.steps


def test_a_block_has_the_parameters_of_its_mean_step(dataset):
    measured = EpochTimer(build(dataset, engine=Counting))
    block = measured.measure(0)
    last = measured.training.engine.steps
    mean = last - (block.steps - 1) / 2
    assert (block.read_parameters, block.updated_parameters) == pytest.approx((10 * mean, mean))
    assert measured.parameters_per_step() == pytest.approx((10 * mean, mean))


def test_reference_reads_and_updates_every_parameter(dataset):
    measured = EpochTimer(build(dataset))
    measured.measure(0)
    assert measured.parameters_per_step() == (measured.training.parameters,) * 2


@pytest.mark.parametrize("batch_size", [1, 4, 42])
def test_full_times_whole_epochs_from_the_first_on(dataset, batch_size):
    """Each block is all batches of an epoch, the smaller last one too, even where an epoch is a single step."""
    measured = EpochTimer(build(dataset, batch_size=batch_size, engine=Counting), "full")
    assert measured.training.engine.steps == 0
    for round_ in range(2):
        measured.measure(round_)
    assert [b.steps for b in measured.blocks] == [math.ceil(42 / batch_size)] * 2
    assert measured.training.engine.steps == 2 * math.ceil(42 / batch_size)


def test_a_whole_epoch_leaves_out_what_comes_between_its_pieces(dataset):
    measured = EpochTimer(build(dataset), "full")
    begun, slept = measurement.time.perf_counter(), []

    def between():
        slept.append(0.05)
        measurement.time.sleep(0.05)

    block = measured.measure(0, pieces=5, between=between)
    total = measurement.time.perf_counter() - begun
    assert len(slept) == 4
    assert block.steps == 42
    assert block.seconds <= total - sum(slept)


@pytest.mark.parametrize("batch_size", [1, 4, 42])
def test_sampled_works_on_any_size(dataset, batch_size):
    """Blocks never reach beyond an epoch, however short."""
    measured = EpochTimer(build(dataset, batch_size=batch_size))
    for round_ in range(3):
        measured.measure(round_)
    assert all(1 <= b.steps <= math.ceil(42 / batch_size) for b in measured.blocks)


@pytest.mark.parametrize(
    ("seconds", "rounds", "steps"),
    # a step takes 0.1 s, so the two pilots take 1.6 s and a round of 66 steps each 13.2 s
    [(1000.0, 50, 64), (70.0, 5, 64), (68.0, 5, 64), (40.0, 5, 37), (10.0, 3, 13), (0.1, 3, 12)],
)
def test_networks_take_turns_for_as_long_as_the_time_allows(seconds, rounds, steps, monkeypatch):
    """Round by round, each network once; with shorter blocks where five rounds of whole ones do not fit."""
    now = [0.0]
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: now[0])
    order = []

    class Known:
        block_steps = 64

        def __init__(self, i):
            self.i = i

        @property
        def steps_per_block(self):
            return self.block_steps + 2

        def run(self, steps):
            now[0] += steps * 0.1

        def measure(self, round_):
            order.append((round_, self.i))
            self.run(self.steps_per_block)

    timers = [Known(0), Known(1)]
    share = measure_in_turn(timers, seconds)
    assert order == [(round_, i) for round_ in range(rounds) for i in range(2)]
    assert [t.block_steps for t in timers] == [steps] * 2
    assert (share < 1) == (steps < 64)
    if steps > 12:
        assert now[0] < seconds + 2.0


def test_peak_memory_is_what_was_added():
    """Memory allocated and freed within counts; Linux only."""
    with measurement._PeakMemory() as peak:
        block = bytearray(64 << 20)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert peak.bytes is None or 60 << 20 <= peak.bytes <= 80 << 20


def test_peak_memory_that_is_measured_in_parts_leaves_out_what_others_added_meanwhile():
    peak = measurement._PeakMemory()
    kept = []
    for _ in range(2):
        with peak:
            kept.append(b"x" * (32 << 20))
            passing = b"x" * (16 << 20)
            del passing
        others = b"x" * (64 << 20)
    assert peak.bytes is None or 65 << 20 <= peak.bytes <= 100 << 20  # 2 × 32 + 16 MiB; the system counts by batches
    assert len(others) == 64 << 20


@pytest.mark.parametrize("mode", ["full", "sampled"])
def test_peak_memory_has_gradients_and_moments(dataset, mode):
    """Each parameter has three numbers of four bytes beside its own; in both modes alike."""
    wide = Architecture("wide", "", "", widths=(16,), strides=(2,), hidden=(4000, 4000))
    measured = EpochTimer(lambda: Training(wide, dataset, Recipe(batch_size=1), pipeline="vectorized"), mode)
    measurement.step_seconds(measured, 1)
    parameters = sum(p.numel() for p in measured.training.engine.network.parameters())
    assert parameters > 10e6
    assert measured.peak_memory_bytes is None or measured.peak_memory_bytes > 15 * parameters


def test_peak_memory_where_the_process_has_a_name_that_is_no_text():
    """Linux keeps 15 bytes of a name, which may end within a letter."""
    name = Path("/proc/self/comm")
    if not os.access(name, os.W_OK):
        pytest.skip("a process's name cannot be set here")
    before = name.read_bytes()
    name.write_bytes("ä".encode()[:1])
    try:
        with measurement._PeakMemory() as peak:
            pass
    finally:
        name.write_bytes(before)
    assert peak.bytes is None or peak.bytes >= 0


def test_peak_memory_is_unknown_where_the_system_does_not_tell(monkeypatch):
    def refuse(self, text):
        raise PermissionError

    monkeypatch.setattr(measurement.Path, "write_text", refuse)
    with measurement._PeakMemory() as peak:
        pass
    assert peak.bytes is None


def test_peak_memory_is_unknown_where_psutil_cannot_ask(monkeypatch):
    """As under a /proc that shows a process nothing, not even of itself."""
    monkeypatch.setattr(measurement.psutil, "Process", lambda: {}["rss"])
    with measurement._PeakMemory() as peak:
        pass
    assert peak.bytes is None
