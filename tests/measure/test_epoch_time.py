import math
import os
from pathlib import Path

import pytest
from scipy import stats
from tqdm import tqdm

from resnet_bench.architectures import Architecture
from resnet_bench.clock import PHASES
from resnet_bench.engines import reference
from resnet_bench.errors import UserError
from resnet_bench.intervals import positive_mean_interval
from resnet_bench.measure import epoch_time as measurement
from resnet_bench.measure.epoch_time import EpochTimer, Plan, measure_both, measure_interleaved
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Block, PhaseSeconds
from resnet_bench.training.training import Training

SMALL = Architecture("small", "", "", widths=(16,), strides=(2,), hidden=())


def build(dataset, pipeline="vectorized", batch_size=1):
    return lambda: Training(SMALL, dataset, Recipe(batch_size=batch_size), pipeline=pipeline)


@pytest.mark.parametrize("pipeline", ["vectorized", "loader"])
def test_sampled_extrapolates_blocks(dataset, pipeline):
    """What a block says: start-up and the epoch's steps at the block's mean step time."""
    measured = EpochTimer(build(dataset, pipeline), Plan())
    block = measured.measure(0)
    assert 1 <= block.steps <= 42
    expected = measured.startup_seconds + 42 * block.seconds / block.steps
    assert measured.epoch_seconds() == [pytest.approx(expected)]
    assert measured.interval() is None
    assert sum(getattr(block.phases, p) for p in PHASES) <= block.seconds
    assert measured.startup_seconds > 0


@pytest.mark.parametrize(("pipeline", "cores", "warned"), [("loader", 1, 1), ("loader", 2, 0), ("vectorized", 1, 0)])
def test_workers_that_share_a_core_are_a_reason_to_doubt(dataset, monkeypatch, pipeline, cores, warned):
    monkeypatch.setattr("resnet_bench.machine.usable_cores", lambda: cores)
    warnings = EpochTimer(build(dataset, pipeline), Plan()).result("rounds", ["Another."]).warnings
    assert len(warnings) == 1 + warned
    assert warnings[0] == "Another."
    assert all(w.startswith("2 loader workers and the training share 1 usable core:") for w in warnings[1:])


def test_interval_of_two_blocks_that_lie_far_apart_is_of_times(dataset):
    """2 steps at 1 s each and 2 at 20 s: Student's own interval, 441 ± 5070 s, would reach below 0."""
    measured = EpochTimer(build(dataset), Plan())
    measured.startup_seconds = 0.0
    phases = PhaseSeconds(data=0, forward=0, backward=0, optimizer=0)
    measured.blocks = [Block(round=i, steps=2, seconds=s, phases=phases, page_faults=0) for i, s in enumerate((2, 40))]
    interval = measured.result("rounds").epoch_seconds
    factor = math.exp(stats.t.ppf(0.975, 1) * 9.5 / 10.5)
    assert interval.method == "log-t"
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((441, 441 / factor, 441 * factor))


class Settling(reference.Engine):
    """Updates 7 parameters in its first steps and 3 after them."""

    def __init__(self, network, recipe):
        super().__init__(network, recipe)
        self.settling_steps, self.steps = 50, 0

    def step(self, images, labels, clock):
        self.steps += 1
        self.read_parameters, self.updated_parameters = 10, 7 if self.steps <= self.settling_steps else 3
        return super().step(images, labels, clock)


@pytest.mark.parametrize("mode", ["sampled", "full"])
def test_an_engines_first_steps_are_not_timed(dataset, mode):
    """They go on over the end of an epoch of 42 steps."""
    plan = Plan(mode, min_rounds=2, max_rounds=2, precision=0)
    measured = EpochTimer(
        lambda: Training(SMALL, dataset, Recipe(batch_size=1), engine=Settling, pipeline="vectorized"), plan
    )
    assert measured.training.engine.steps == measured.warmup_steps >= 50
    assert (measured.training.epoch, measured.training.step) != (1, 50)
    measure_interleaved([measured], plan)
    result = measured.result("rounds")
    assert (result.read_parameters, result.updated_parameters) == (10, 3)
    assert result.warmup_steps + sum(b.steps for b in result.blocks) == measured.training.engine.steps


@pytest.mark.parametrize(("epochs", "settles"), [(2, False), (3, True)])
def test_first_steps_that_are_most_of_the_training_are_timed(dataset, epochs, settles):
    """50 are more than half of 2 epochs of 42 steps, and less than half of 3."""
    recipe = Recipe(batch_size=1, epochs=epochs)
    measured = EpochTimer(lambda: Training(SMALL, dataset, recipe, engine=Settling, pipeline="vectorized"), Plan())
    assert (measured.warmup_steps >= 50) == settles
    measured.measure(0)
    assert (measured.parameters_per_step()[1] == 3) == settles


def test_reference_reads_and_updates_every_parameter(dataset):
    measured = EpochTimer(build(dataset), Plan())
    measured.measure(0)
    assert measured.parameters_per_step() == (measured.training.parameters,) * 2


@pytest.mark.parametrize("batch_size", [1, 4, 42])
def test_full_times_whole_epochs(dataset, batch_size):
    """Each block is all batches of an epoch, the smaller last one too, even where an epoch is a single step."""
    measured = EpochTimer(build(dataset, batch_size=batch_size), Plan("full", max_rounds=2))
    assert measure_interleaved([measured], measured.plan) == "rounds"
    assert [b.steps for b in measured.blocks] == [math.ceil(42 / batch_size)] * 2
    assert measured.epoch_seconds() == [b.seconds for b in measured.blocks]
    result = measured.result("rounds")
    assert result.complete
    assert result.mode == "full"
    assert result.epoch_seconds.low <= result.epoch_seconds.estimate <= result.epoch_seconds.high


@pytest.mark.parametrize("batch_size", [1, 42])
@pytest.mark.parametrize("pipeline", ["vectorized", "loader"])
def test_sampled_blocks_in_the_course_of_whole_epochs(dataset, monkeypatch, batch_size, pipeline):
    """Whole epochs are complete and leave the sampled blocks' time out; every piece is followed by a block.

    With the last one the progress is complete.
    """
    monkeypatch.setattr(measurement, "PIECES", 5)
    bars = []

    class Bar(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options | {"disable": False})
            bars.append(self)

    monkeypatch.setattr(measurement, "tqdm", Bar)
    steps = math.ceil(42 / batch_size)
    full = EpochTimer(build(dataset, pipeline, batch_size), Plan("full", max_rounds=2))
    sampled = EpochTimer(build(dataset, pipeline, batch_size), Plan())
    begun = measurement.time.perf_counter()
    rounds = []
    assert measure_both([(full, sampled)], 2, lambda: rounds.append(len(sampled.blocks))) == "rounds"
    total = measurement.time.perf_counter() - begun
    assert [(bar.n, bar.total) for bar in bars if bar.unit == " pieces"] == [(2 * min(5, steps),) * 2]
    assert [b.steps for b in full.blocks] == [steps, steps]
    assert rounds == [min(5, steps), 2 * min(5, steps)]
    assert [b.round for b in sampled.blocks] == list(range(rounds[-1]))
    assert sum(b.seconds for b in (*full.blocks, *sampled.blocks)) < total
    for block in full.blocks:
        assert sum(getattr(block.phases, p) for p in PHASES) <= block.seconds


@pytest.mark.parametrize("batch_size", [1, 4, 42])
def test_sampled_works_on_any_size(dataset, batch_size):
    """Blocks never reach beyond an epoch, however short."""
    measured = EpochTimer(build(dataset, batch_size=batch_size), Plan(min_rounds=2, max_rounds=3, precision=0))
    assert measure_interleaved([measured], measured.plan) == "rounds"
    assert [b.round for b in measured.blocks] == [0, 1, 2]
    assert all(1 <= b.steps <= math.ceil(42 / batch_size) for b in measured.blocks)


def test_networks_take_turns(dataset, monkeypatch):
    """Round by round, each network once; the callback runs after every round."""
    plan = Plan("full", max_rounds=3)
    order = []
    measurements = [EpochTimer(build(dataset, batch_size=42), plan) for _ in range(2)]
    for i, m in enumerate(measurements):
        monkeypatch.setattr(m, "measure", lambda round_, i=i: order.append((round_, i)))
    measure_interleaved(measurements, plan, lambda: order.append("round"))
    assert order == [(0, 0), (0, 1), "round", (1, 0), (1, 1), "round", (2, 0), (2, 1), "round"]


class Known:
    """A measurement whose blocks are given."""

    def __init__(self, values, plan):
        self.values, self.plan, self.count = values, plan, 0

    def measure(self, round_):
        self.count += 1

    def interval(self):
        return positive_mean_interval(self.values[: self.count]) if self.count > 1 else None

    precise = EpochTimer.precise

    @property
    def blocks(self):
        return self.values[: self.count]


def test_stops_when_every_network_is_precise():
    """A noisy network keeps the quiet ones being measured, so that all stay interleaved."""
    plan = Plan(precision=0.03, min_rounds=3, time_limit=60)
    quiet = Known([1.0, 1.001] * 50, plan)
    noisy = Known([1.0, 1.2] * 50, plan)
    assert measure_interleaved([quiet, noisy], plan) == "precision"
    assert quiet.count == noisy.count > 3
    assert positive_mean_interval(noisy.values[: noisy.count]).relative <= 0.03
    assert positive_mean_interval(noisy.values[: noisy.count - 1]).relative > 0.03


def test_stops_at_the_time_limit(monkeypatch):
    now = iter(range(1000))
    monkeypatch.setattr(measurement.time, "perf_counter", lambda: next(now))
    plan = Plan(precision=1e-9, time_limit=5)
    noisy = Known([1.0, 2.0] * 50, plan)
    assert measure_interleaved([noisy], plan) == "time-limit"
    assert noisy.count == 6


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"max_rounds": 0}, "--rounds is 0"),
        ({"time_limit": 0}, "--time-limit is 0"),
        ({"time_limit": math.nan}, "--time-limit is nan"),
        ({"precision": -0.01}, "--precision is -1;"),
        ({"precision": math.nan}, "--precision is nan"),
    ],
)
def test_plans_that_make_no_sense(bad, message):
    with pytest.raises(UserError, match=message):
        Plan(**bad)


def test_peak_memory_is_what_was_added():
    """Memory allocated and freed within counts; Linux only."""
    with measurement._PeakMemory() as peak:
        block = bytearray(64 << 20)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert peak.bytes is None or 60 << 20 <= peak.bytes <= 80 << 20


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
