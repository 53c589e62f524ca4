import math
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from resnet_bench.architectures import Architecture, build
from resnet_bench.clock import NoClock
from resnet_bench.errors import UserError
from resnet_bench.measure import ablation as explain
from resnet_bench.measure.epoch_time import EpochTimer, Plan
from resnet_bench.recipe import Recipe
from resnet_bench.render import ablation_table as explanation
from resnet_bench.schema import Block, ExplainResult, Interval, PhaseSeconds, Variant
from resnet_bench.training.training import Training

SMALL = Architecture("small", "", "", widths=(16,), strides=(2,), hidden=(32,))
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no compiler")


def variant(architecture, name, milliseconds, optimizer=1.0, optimizer_bytes=1_000_000):
    seconds = milliseconds / 1e3
    return Variant(
        architecture=architecture,
        name=name,
        change=f"change to {name}",
        step_seconds=Interval(estimate=seconds, low=seconds * 0.9, high=seconds * 1.1, method="student-t"),
        block_seconds=(seconds, seconds),
        phases=PhaseSeconds(data=0, forward=0, backward=0, optimizer=optimizer / 1e3),
        page_faults=12,
        optimizer_bytes=optimizer_bytes,
    )


def result(dataset):
    names = [c.name for c in explain.CHANGES]
    rows = [
        variant("baseline", n, ms, 30, 2_000_000 if n == "plain" else 1_000_000)
        for n, ms in zip(names, (60, 50, 20, 12, 11, 10), strict=True)
    ]
    others = [variant("fc1", n, ms) for n, ms in zip(names, (15, 12, 10, 8, 8, 5), strict=True)]
    return ExplainResult(
        process="0123456789abcdef",
        started_at="2026-01-02T03:04:05+00:00",
        architecture="baseline",
        counterpart="fc1",
        dataset=dataset.info(),
        recipe=Recipe().as_dict(),
        seed=0,
        threads=2,
        workers=2,
        variants=(*rows, *others),
        dead_share=0.5,
        denormal_share=0.25,
        denormals=(variant("baseline", "denormals kept", 30), variant("baseline", "denormals flushed", 20)),
        warnings=(),
    )


def test_the_change_that_saves_most_dominates(dataset):
    assert explanation.dominating(result(dataset)).name == "fused Adam"


def test_sentences_answer_the_studys_question(dataset):
    """Worked out by hand: 60/15 = 4, 50/12 = 4.17, 20/10 = 2, 12/8 = 1.5, 11/8 = 1.38, 10/5 = 2; 57/7.5 = 7.6."""
    text = " ".join(explanation.sentences(result(dataset)))
    assert "a step of baseline gets 6.0 times faster and saves 50.0 ms; fused Adam" in text
    assert "saves the most, 30.0 ms" in text
    assert "the optimiser takes 50% of the time" in text
    assert "The plain optimiser reads and writes 2 MB a step, that of fast 1 MB" in text
    assert "takes 4.00 times as long as one of fc1 (published: 57 against 7.5 minutes, 7.60 times" in text
    assert (
        "(vectorized data 0.96, fused Adam 2.08, gradient never stored 1.33, idle units left out 1.09, fast 0.69)"
        in text
    )
    assert "and 2.00, which is left in the fastest step" in text
    assert "takes 1.50 [1.50, 1.50] times as long as one that flushes them to 0." in text


def test_a_cost_of_denormals_that_may_be_none_is_said_to_be(dataset):
    """Worked out by hand: ratios 1.2 and 0.9 have mean 1.05 and standard error 0.15; 12.71 × 0.15 / 1.05 = 1.815."""
    kept = variant("baseline", "denormals kept", 10).model_copy(update={"block_seconds": (0.012, 0.018)})
    flushed = variant("baseline", "denormals flushed", 10).model_copy(update={"block_seconds": (0.010, 0.020)})
    text = explanation.sentences(result(dataset).model_copy(update={"denormals": (kept, flushed)}))[-1]
    assert "takes 1.05 [0.17, 6.45] times as long" in text
    assert text.endswith("which does not tell the two apart.")


def test_interval_of_a_step_is_of_a_positive_time():
    """Blocks of 1 and 19 ms a step: mean 10, standard error 9."""
    phases = PhaseSeconds(data=0, forward=0, backward=0, optimizer=0)
    blocks = [Block(round=i, steps=1, seconds=s, phases=phases, page_faults=0) for i, s in enumerate((0.001, 0.019))]
    seconds = explain._variant(SMALL, "plain", "", blocks, 0).step_seconds
    assert (seconds.method, seconds.estimate) == ("log-t", pytest.approx(0.01))
    assert seconds.low == pytest.approx(0.01 * math.exp(-12.706 * 0.9), rel=1e-3)


def test_sentences_where_nothing_is_saved(dataset):
    """Neither a division by zero nor a share of nothing."""
    rows = [variant(a, c.name, 10) for a in ("baseline", "fc1") for c in explain.CHANGES]
    text = " ".join(explanation.sentences(result(dataset).model_copy(update={"variants": tuple(rows)})))
    assert "gets 1.0 times faster and saves 0.0 ms" in text


def test_table_has_a_row_for_every_variant(dataset):
    table = explanation.table(result(dataset), "a machine")
    assert len(table.rows) == 14
    assert table.rows[2][:4] == ["baseline", "fused Adam", "20.00 [18.00, 22.00]", "+30.00"]
    assert table.rows[0][3] == ""
    assert "a machine" in table.caption


def test_counterpart():
    from resnet_bench.architectures import ARCHITECTURES

    assert explain.counterpart(ARCHITECTURES["baseline"]).id == "fc1"
    assert explain.counterpart(ARCHITECTURES["fc3"]).id == "baseline"


@pytest.mark.parametrize("change", explain.CHANGES, ids=lambda c: c.name)
@needs_compiler
def test_every_variant_computes_the_same_step(dataset, change):
    """The same losses from the same start, to a few units in the last place of float32 sums."""

    def losses(engine, pipeline):
        training = Training(SMALL, dataset, Recipe(), engine=engine, pipeline=pipeline, workers=0)
        return [training.train_step() for _ in range(5)]

    expected = losses("reference", "vectorized")
    assert losses(change.engine, change.pipeline) == pytest.approx(expected, rel=1e-4)


def test_dead_units_leave_denormals_that_stay(dataset):
    """The state has them, real steps train on it, and afterwards they are still there."""
    training = Training(SMALL, dataset, Recipe(), engine=explain.FusedAdam, pipeline="vectorized")
    for _ in range(5):
        training.train_step()
    share = explain.kill_units(training.engine)
    assert 0.1 < share <= 0.25  # half of the first FC layer's first moments, less the zeros
    for _ in range(5):
        assert training.train_step() is not None
    moments = training.engine.optimizer.state[training.engine.network.fc[0].weight]["exp_avg"]
    tiny = torch.finfo(torch.float32).tiny
    assert int(((moments != 0) & (moments.abs() < tiny)).sum()) > 0.9 * share * sum(
        2 * p.numel() for p in training.engine.network.parameters()
    )


def _flush(flush):
    torch.set_flush_denormal(flush)
    torch.set_num_threads(2)


def _surviving_denormals():
    x = torch.full((1 << 20,), 1e-40)  # large enough that both threads work on it
    return int((x * 1.0 != 0).sum())


@pytest.mark.parametrize("flush", [False, True])
def test_flushing_reaches_every_thread(flush):
    """Set before the first operation of a process, it holds in the threads that torch starts later."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_flush, initargs=(flush,)) as pool:
        survivors = pool.submit(_surviving_denormals).result()
    if flush and survivors == 1 << 20:
        pytest.skip("this CPU cannot flush denormals")
    assert survivors == (0 if flush else 1 << 20)


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_child_that_was_killed_is_one_sentence():
    child = explain._Child(flush=False)
    child._process.kill()
    with pytest.raises(UserError) as error:
        child.answer()
    assert str(error.value) == (
        "The process that measures denormal numbers was ended by SIGKILL, as happens where memory runs out; explain a "
        "smaller network or free memory."
    )
    with pytest.raises(UserError):
        child.begin(bytes(1_000_000))
    child.close()


def test_optimizer_traffic_is_counted_by_array():
    """An independent count of the floats that each update reads and writes, per parameter."""
    default = [
        ("grad", 1),
        ("lerp", 3),
        ("mul", 2),
        ("addcmul", 3),
        ("sqrt", 2),
        ("div", 2),
        ("add", 2),
        ("addcdiv", 4),
    ]
    assert [c.bytes_per_parameter for c in explain.CHANGES] == [
        4 * sum(floats for _, floats in default),
        4 * sum(floats for _, floats in default),
        4 * (1 + 4 + 3),
        4 * (3 + 3),
        4 * (3 + 3),
        4 * (3 + 3),
    ]


def test_variants_are_engines_of_the_suite(dataset):
    """Each runs in the harness and in the epoch-time measurement."""
    measured = EpochTimer(
        lambda: Training(SMALL, dataset, Recipe(), engine=explain.FusedAdam, pipeline="vectorized"), Plan()
    )
    assert measured.measure(0).steps > 0
    network = build(SMALL, 5, 0)
    engine = explain.FusedAdam(network, Recipe())
    engine.step(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]), NoClock())
    assert engine.optimizer.defaults["fused"] is True
