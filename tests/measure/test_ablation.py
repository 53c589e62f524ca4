import itertools
import math

import pytest
import torch

from resnet_bench.architectures import Architecture
from resnet_bench.clock import NoClock
from resnet_bench.data import pipelines
from resnet_bench.machine.denormals import STUCK_FIRST, STUCK_SECOND
from resnet_bench.measure import ablation as explain
from resnet_bench.measure.epoch_time import EpochTimer
from resnet_bench.networks import build
from resnet_bench.recipe import Recipe
from resnet_bench.render import ablation_table as explanation
from resnet_bench.schema import COUNTED_APART, Block, DenormalState, ExplainResult, Interval, PhaseSeconds, Variant
from resnet_bench.training.training import Training
from tests.conftest import needs_compiler

SMALL = Architecture("small", "", "", widths=(16,), strides=(2,), hidden=(32,))


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


def state(name, kept, second, flushed=20, only=()):
    """Milliseconds of a step kept, flushed, and with only the first and only the second moments denormal."""
    found = dict(zip(("only_exp_avg", "only_exp_avg_sq"), only, strict=False))
    return DenormalState(
        name=name,
        idle_steps=1200 if name == "early" else 187_500,
        dead_share=0.95,
        denormal_share=(0.8 + second) / 2,
        denormal_exp_avg=0.8,
        zero_exp_avg=0.1,
        denormal_exp_avg_sq=second,
        zero_exp_avg_sq=0.1,
        kept=variant("baseline", f"{name}: denormals kept", kept),
        flushed=variant("baseline", f"{name}: denormals flushed", flushed) if flushed else None,
        **{key: variant("baseline", f"{name}: {key}", ms) for key, ms in found.items()},
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
        states=(state("early", 30, second=0.0), state("late", 60, second=0.8, only=(22, 56))),
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


def test_sentences_say_what_is_denormal_early_and_late_and_which_of_both_moments_costs(dataset):
    assert explanation.denormal_sentences(result(dataset)) == [
        "Early: 95% of the first hidden layer's units are dead, 1,200 steps after their last gradient. Denormal are "
        "80% of Adam's first moments (10% are 0) and 0% of its second moments (10% are 0); a step that keeps them "
        "takes 1.50 [1.50, 1.50] times as long as one that flushes them to 0.",
        "Late: 95% of the first hidden layer's units are dead, 187,500 steps after their last gradient. Denormal are "
        "80% of Adam's first moments (10% are 0) and 80% of its second moments (10% are 0); a step that keeps them "
        "takes 3.00 [3.00, 3.00] times as long as one that flushes them to 0; 1.10 [1.10, 1.10] times with only the "
        "first moments denormal and 2.80 [2.80, 2.80] times with only the second moments denormal.",
    ]


def test_a_cost_of_denormals_that_may_be_none_is_said_to_be(dataset):
    """Worked out by hand: ratios 1.2 and 0.9 have mean 1.05 and standard error 0.15; 12.71 × 0.15 / 1.05 = 1.815."""
    kept = variant("baseline", "early: denormals kept", 10).model_copy(update={"block_seconds": (0.012, 0.018)})
    flushed = variant("baseline", "early: denormals flushed", 10).model_copy(update={"block_seconds": (0.010, 0.020)})
    early = state("early", 10, 0.0).model_copy(update={"kept": kept, "flushed": flushed})
    (text,) = explanation.denormal_sentences(result(dataset).model_copy(update={"states": (early,)}))
    assert "takes 1.05 [0.17, 6.45] times as long" in text
    assert text.endswith("which does not tell the two apart.")


def test_a_cpu_that_cannot_flush_has_shares_and_no_ratio(dataset):
    found = result(dataset).model_copy(update={"states": (state("late", 60, 0.8, flushed=None, only=(22, 56)),)})
    assert explanation.denormal_sentences(found)[0].endswith("(10% are 0); this CPU cannot flush them to 0.")
    assert [row[-1] for row in explanation.tables(found)[1].rows] == ["", "", ""]


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
    table, _ = explanation.tables(result(dataset), "a machine")
    assert len(table.rows) == 12
    assert table.rows[2][:4] == ["baseline", "fused Adam", "20.00 [18.00, 22.00]", "+30.00"]
    assert table.rows[0][3] == ""
    assert "a machine" in table.caption


def test_denormals_have_a_table_of_their_own_with_first_and_second_moments_apart(dataset):
    _, table = explanation.tables(result(dataset), "a machine")
    assert [row[:7] for row in table.rows] == [
        ["early", "80%", "10%", "0%", "10%", "denormals kept", "30.00 [27.00, 33.00]"],
        ["early", "80%", "10%", "0%", "10%", "denormals flushed", "20.00 [18.00, 22.00]"],
        ["late", "80%", "10%", "80%", "10%", "denormals kept", "60.00 [54.00, 66.00]"],
        ["late", "80%", "10%", "80%", "10%", "denormals flushed", "20.00 [18.00, 22.00]"],
        ["late", "80%", "10%", "80%", "10%", "only_exp_avg", "22.00 [19.80, 24.20]"],
        ["late", "80%", "10%", "80%", "10%", "only_exp_avg_sq", "56.00 [50.40, 61.60]"],
    ]
    assert [row[-1] for row in table.rows][:3] == ["1.50 [1.50, 1.50]", "", "3.00 [3.00, 3.00]"]
    assert "a machine" in table.caption


def test_a_state_of_an_older_file_is_told_without_what_it_does_not_have(dataset):
    unknown = dict.fromkeys(COUNTED_APART)
    old = result(dataset).model_copy(update={"states": (state("early", 30, 0.0).model_copy(update=unknown),)})
    assert explanation.denormal_sentences(old) == [
        "Early: 95% of the first hidden layer's units are dead. 40% of Adam's moments are denormal numbers; a step "
        "that keeps them takes 1.50 [1.50, 1.50] times as long as one that flushes them to 0."
    ]
    assert explanation.tables(old)[1].rows[0][1:5] == ["–"] * 4


def test_a_newer_file_says_what_is_denormal(dataset):
    entry = result(dataset).model_dump(mode="json")
    entry["states"][1]["zero_exp_avg_sq"] = None
    with pytest.raises(ValueError, match="shares"):
        ExplainResult.model_validate(entry)


def test_states_survive_json(dataset):
    found = result(dataset)
    assert ExplainResult.model_validate_json(found.model_dump_json()) == found


def test_a_network_without_hidden_units_has_no_table_of_denormals(dataset):
    assert len(explanation.tables(result(dataset).model_copy(update={"states": ()}))) == 1
    no_hidden = Architecture("none", "", "", widths=(16,), strides=(2,), hidden=())
    assert explain._denormal_states(no_hidden, dataset, Recipe(), 0, 1, 2, 60) == ()


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


@pytest.mark.parametrize(("seconds", "steps"), [(1000.0, 512), (20.0, 192), (0.1, 128)])
def test_the_first_steps_end_with_their_time(seconds, steps, monkeypatch):
    """A step takes 0.1 s; only the second engine leaves idle units out."""
    now, trained = [0.0], [0, 0]
    monkeypatch.setattr(explain.time, "perf_counter", lambda: now[0])

    class Timer:
        def __init__(self, i, leaves):
            self.i = i
            engine = type("Engine", (), {"leaves_idle_units_out": staticmethod(lambda architecture, recipe: leaves)})
            self.training = type("Training", (), {"engine": engine, "architecture": None, "recipe": None})

        def run(self, steps):
            now[0] += 0.1 * steps
            trained[self.i] += steps

    assert explain._train_first_steps([Timer(0, False), Timer(1, True)], seconds) == steps
    assert trained == [0, steps]
    assert now[0] <= max(seconds, 12.9)


# --- states with denormals


def repeated(moments, beta, steps):
    moments = moments.clone()
    for _ in range(steps):
        moments.mul_(beta)
    return moments


def test_where_moments_get_stuck():
    """As `resnet-bench machine` takes them; a tie rounds to the even number."""
    assert (explain.stuck_at(0.9), explain.stuck_at(0.999)) == (STUCK_FIRST, STUCK_SECOND)
    assert (explain.stuck_at(0.5), explain.stuck_at(0.75), explain.stuck_at(0.0)) == (0, 2, 0)


def test_moments_carried_on_end_where_as_many_multiplications_end():
    units = torch.arange(0, 1200, dtype=torch.int32).view(torch.float32)
    numbers = torch.cat([units, -units, torch.tensor([1e-40, -1e-40, 1e-39, 0.0])])
    first, second = explain.carried_on(numbers, numbers, (0.9, 0.999), 10_000)
    assert torch.equal(first, repeated(numbers, 0.9, 10_000))
    assert torch.equal(second, repeated(numbers, 0.999, 10_000))
    assert second.view(torch.int32)[[300, 1199]].tolist() == [300, STUCK_SECOND]


def test_moments_that_stay_ordinary_are_carried_on_up_to_rounding():
    numbers = torch.logspace(-12, -3, 50) * torch.tensor([1.0, -1.0]).repeat(25)
    first, second = explain.carried_on(numbers, numbers, (0.9, 0.999), 300)
    torch.testing.assert_close(first, repeated(numbers, 0.9, 300), rtol=1e-5, atol=0)
    torch.testing.assert_close(second, repeated(numbers, 0.999, 300), rtol=1e-5, atol=0)


def test_no_step_leaves_moments_as_they_are():
    numbers = torch.tensor([1.0, 1e-40, -1e-45, 0.0])
    for carried in explain.carried_on(numbers, numbers, (0.9, 0.999), 0):
        assert torch.equal(carried, numbers)


@pytest.fixture
def dead_units(dataset):
    batches = list(itertools.islice(pipelines.batches("vectorized", dataset, Recipe(), 0, 1), 8))
    return explain._DeadUnits(SMALL, dataset.num_classes, Recipe(), 0, torch.get_num_threads(), batches)


def test_early_the_first_moments_of_dead_units_are_denormal_and_late_both(dead_units):
    """But for those that are 0, which never had a gradient."""
    dead_units.set(explain._Idle(explain.EARLY_STEPS))
    early = dead_units.shares()
    dead_units.set(explain._Idle(187_500))
    late = dead_units.shares()
    assert 0.5 < early["exp_avg"].denormal < explain.DEAD_SHARE
    assert early["exp_avg_sq"].denormal == 0
    assert early["exp_avg"] == late["exp_avg"]
    assert late["exp_avg_sq"].denormal == pytest.approx(late["exp_avg"].denormal, rel=0.05)
    dead_units.set(explain._Idle(187_500, zero="exp_avg"))
    only_second = dead_units.shares()
    assert only_second["exp_avg"].denormal == 0
    assert only_second["exp_avg_sq"] == late["exp_avg_sq"]
    dead_units.set(explain._Idle(187_500, zero="exp_avg_sq"))
    only_first = dead_units.shares()
    assert only_first["exp_avg_sq"].denormal == 0
    assert only_first["exp_avg"] == late["exp_avg"]


def test_steps_leave_a_late_state_as_it_is(dead_units):
    """Real steps train on it: the gradients of dead units are exactly 0, in and out, and rounding keeps the moments."""
    late = explain._Idle(187_500)
    dead_units.set(late)
    before = [(first.clone(), second.clone()) for first, second in dead_units._moments]
    block, shares = dead_units((late, 3))
    assert (block.round, block.steps) == (3, explain.BLOCK_STEPS)
    assert dead_units.shares()["exp_avg_sq"].denormal == pytest.approx(shares["exp_avg_sq"].denormal)
    for kept, now in zip(before, dead_units._moments, strict=True):
        assert torch.equal(kept[0], now[0])
        assert torch.equal(kept[1], now[1])


def test_states_are_measured_in_pairs_of_processes(dataset):
    early, late = explain._denormal_states(SMALL, dataset, Recipe(), 0, 1, 2, 60)
    assert (early.name, early.idle_steps, late.name, late.idle_steps) == ("early", 1200, "late", 15 * 12_500)
    assert early.dead_share == late.dead_share == 30 / 32
    assert (early.only_exp_avg, early.only_exp_avg_sq) == (None, None)
    assert late.only_exp_avg
    assert late.only_exp_avg_sq
    assert [v.name for v in late.steps if "flushed" not in v.name] == [
        "late: denormals kept",
        "late: only first moments denormal",
        "late: only second moments denormal",
    ]
    assert {len(v.block_seconds) for v in (*early.steps, *late.steps)} == {2}
    assert early.denormal_exp_avg_sq == 0 < late.denormal_exp_avg_sq


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
    measured = EpochTimer(lambda: Training(SMALL, dataset, Recipe(), engine=explain.FusedAdam, pipeline="vectorized"))
    assert measured.measure(0).steps > 0
    network = build(SMALL, 5, 0)
    engine = explain.FusedAdam(network, Recipe())
    engine.step(torch.zeros(2, 3, 32, 32), torch.tensor([0, 1]), NoClock())
    assert engine.optimizer.defaults["fused"] is True
