"""One measuring process, called in this one, and several real ones."""

import contextlib
import json
import subprocess
import sys
import threading
import time

import pytest

from resnet_bench import architectures, engines, identity, machine
from resnet_bench.data import datasets
from resnet_bench.errors import UserError
from resnet_bench.machine import calibration
from resnet_bench.measure import process, processes, states
from resnet_bench.measure.places import Place, prepared_places
from resnet_bench.measure.points import training_points
from resnet_bench.measure.process import Case, Data, Order
from resnet_bench.measure.processes import Plan, events, joined, measure
from resnet_bench.recipe import Recipe
from resnet_bench.schema import Point

RECIPE = Recipe(epochs=2, batch_size=4)
IMAGES = {"train_images": 40, "test_images": 20}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The places of `fc1` and `conv5x5` in a training of 2 epochs of 10 steps: steps 0, 10 and 20."""
    dataset = datasets.load("synthetic", **IMAGES)
    folder = tmp_path_factory.mktemp("states")
    points = training_points(RECIPE.epochs, 10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(states.STATES_VARIABLE, str(folder))
        places = prepared_places(
            ["fc1", "conv5x5"], dataset, RECIPE, points, how="aged", seed=0, threads=1, say=lambda sentence: None
        )
    return dataset, places


def order(prepared, modes=("sampled",), networks=("fc1", "conv5x5"), **changes):
    dataset, places = prepared
    return Order(
        **{
            "dataset": Data(name="synthetic", sha256=dataset.sha256, **IMAGES),
            "recipe": RECIPE.as_dict(),
            "seed": 0,
            "pipeline": "vectorized",
            "workers": 0,
            "threads": 1,
            "cases": tuple(Case(architecture=n, engine="reference", mode=m) for n in networks for m in modes),
            "places": places,
            "rounds": 2,
            "seconds": 1.0,
            "process": 0,
            "epochs": 1,
            "draw": 1,
            **changes,
        }
    )


def run(order):
    sent = []
    report = process.measure(order, sent.append, time.perf_counter())
    return report, [event for event in sent if event["event"] != "waiting"]  # others may use the cores


def test_every_network_has_as_many_blocks_at_every_point(prepared):
    report, sent = run(order(prepared))
    for case in report.cases:
        assert sorted((b.point, b.round) for b in case.blocks) == [(p, r) for p in range(3) for r in range(2)]
    assert [e["done"] for e in sent] == list(range(1, 13))
    assert {e["total"] for e in sent} == {12}


def test_networks_take_turns_in_an_order_drawn_anew(prepared, monkeypatch):
    taken = []
    measured = process.EpochTimer.measure

    def note(self, round_, point=0, **options):
        taken.append((point, round_, self.training.architecture.id))
        return measured(self, round_, point, **options)

    monkeypatch.setattr(process.EpochTimer, "measure", note)
    run(order(prepared, rounds=6))
    rounds = [tuple(name for _, _, name in taken[i : i + 2]) for i in range(0, len(taken), 2)]
    assert {frozenset(r) for r in rounds} == {frozenset({"fc1", "conv5x5"})}
    assert len(set(rounds)) == 2
    assert [(p, r) for p, r, _ in taken[::2]] == [(p, r) for p, r, _ in taken[1::2]]


def test_another_draw_visits_the_points_in_another_order(prepared):
    visited = set()
    for draw in range(6):
        report, _ = run(order(prepared, networks=("fc1",), rounds=1, draw=draw))
        visited.add(tuple(b.point for b in report.cases[0].blocks))
    assert len(visited) > 1


def test_blocks_of_a_point_begin_in_its_state(prepared, monkeypatch):
    """The block at step 10 begins in the second epoch, that at step 20 in the third, the first one in the first."""
    begun = {}
    measured = process.EpochTimer.measure

    def note(self, round_, point=0, **options):
        begun[point] = (self.training.epoch, self.training.step)
        return measured(self, round_, point, **options)

    monkeypatch.setattr(process.EpochTimer, "measure", note)
    run(order(prepared, networks=("fc1",), rounds=1))
    assert begun == {0: (1, 0), 1: (2, 0), 2: (3, 0)}


@pytest.mark.parametrize(("step_seconds", "seconds", "rounds"), [(0.1, 100.0, 16), (0.1, 0.5, 1), (1e-3, 100.0, 20)])
def test_rounds_follow_from_the_time_of_a_step_alone(step_seconds, seconds, rounds, monkeypatch):
    """Two networks at 3 points: a round has 60 steps."""
    now = [0.0]
    monkeypatch.setattr(process.time, "perf_counter", lambda: now[0])

    point = Point(step=25, weight=1, state="trained", live_share=None, denormal_exp_avg=None, denormal_exp_avg_sq=None)

    class Timer:
        steps_per_block = 10

        def run(self, steps):
            now[0] += steps * step_seconds

    places = [(Place(point=point, path=None),) * 3] * 2
    assert process._rounds_that_fit([Timer(), Timer()], places, seconds) == rounds


def test_synthetic_images_get_as_many_classes_as_the_order_says(prepared):
    dataset = datasets.with_classes(prepared[0], 7)
    told = Data(name="synthetic", classes=7, sha256=dataset.sha256, **IMAGES)
    place = prepared[1]["fc1"][0]
    report, _ = run(order(prepared, networks=("fc1",), rounds=1, dataset=told, places={"fc1": (place,)}))
    assert report.cases[0].info["dataset"].classes == 7
    with pytest.raises(UserError, match="changed during the measurement"):
        run(order(prepared, networks=("fc1",), dataset=told.model_copy(update={"classes": 8})))


def test_the_pilot_of_the_rounds_is_not_among_the_blocks(prepared):
    report, _ = run(order(prepared, networks=("fc1",), rounds=None, seconds=0.0))
    assert report.rounds == 1
    assert len(report.cases[0].blocks) == 3


@pytest.mark.parametrize(("step_seconds", "seconds", "steps"), [(0.1, 100.0, None), (0.1, 15.9, 79), (0.1, 0.5, 8)])
def test_first_steps_of_an_epoch_follow_from_the_time_of_a_step_alone(step_seconds, seconds, steps, monkeypatch):
    """Two networks, an epoch of 80 steps each."""
    now, kept = [0.0], []
    monkeypatch.setattr(process.time, "perf_counter", lambda: now[0])

    class Training:
        steps_per_epoch = 80

        @contextlib.contextmanager
        def undone(self):
            yield
            kept.append(self)

    class Timer:
        training = Training()

        def run(self, steps):
            now[0] += steps * step_seconds

    timers = [Timer(), Timer()]
    assert process._steps_that_fit(timers, 1, seconds) == steps
    assert kept == [timer.training for timer in timers]


def test_an_epoch_is_cut_to_the_first_steps_that_fit_which_the_pilot_does_not_change(prepared, monkeypatch):
    begun = []
    measured = process.EpochTimer.measure

    def note(self, round_, *rest, **options):
        begun.append((self.training.epoch, self.training.step, digest(self.training)))
        return measured(self, round_, *rest, **options)

    def digest(training):
        return [p.sum().item() for p in training.engine.network.parameters()]

    monkeypatch.setattr(process.EpochTimer, "measure", note)
    whole, _ = run(order(prepared, ["full"], places={}))
    cut, _ = run(order(prepared, ["full"], places={}, cut=True, seconds=0.0))
    again, _ = run(order(prepared, ["full"], places={}, steps=cut.steps))
    assert (whole.steps, cut.steps, again.steps) == (None, process.PILOT_STEPS, process.PILOT_STEPS)
    assert [b.steps for case in cut.cases for b in case.blocks] == [8, 8]
    assert begun[:2] == begun[2:4] == begun[4:]
    result = joined([cut], 0, order(prepared, ["full"], places={}), complete=True, origin=identity.origin("now"))
    (block,) = result.blocks
    assert result.measured == "first 8 of 10 steps"
    assert result.epoch_times == {0: pytest.approx(block.seconds * 10 / 8)}
    assert "the time limit allowed only the first 8 of 10 steps of an epoch" in result.warnings


def test_the_first_process_decides_on_the_steps_of_all(prepared):
    plan = Plan("full", processes=2, time_limit=1e-3, cut=True)
    reports = measure(order(prepared, ["full"], networks=("fc1",), places={}), plan, 0)
    assert [r.steps for r in reports] == [8, 8]


def test_images_that_changed_are_refused(prepared):
    changed = Data(name="synthetic", sha256="0" * 64, **IMAGES)
    with pytest.raises(UserError, match="images of synthetic changed during the measurement"):
        run(order(prepared, dataset=changed))


def test_full_times_whole_epochs_in_turn(prepared):
    report, _ = run(order(prepared, ["full"], epochs=2, places={}))
    assert [[(b.round, b.steps) for b in c.blocks] for c in report.cases] == [[(0, 10), (1, 10)]] * 2


def test_both_times_sampled_blocks_in_the_course_of_whole_epochs(prepared):
    """12 blocks after the only piece of an epoch of 10 steps, at the points in turn."""
    report, sent = run(order(prepared, ["full", "sampled"], networks=("fc1",)))
    full, sampled = report.cases
    assert [b.steps for b in full.blocks] == [10]
    assert [(b.point, b.round) for b in sampled.blocks] == [(i % 3, i // 3) for i in range(12)]
    assert (sent[-1]["done"], sent[-1]["total"]) == (12, 12)


# The machine's rates between the blocks -----------------------------------------------------------------------------


@pytest.fixture
def quick_rates(monkeypatch):
    """Three samples, as short as can be."""
    monkeypatch.setattr(calibration, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(calibration, "MIN_ROUNDS", 3)


@pytest.mark.parametrize(("modes", "places"), [(("sampled",), None), (("full",), {}), (("full", "sampled"), None)])
def test_rates_are_measured_between_the_blocks(prepared, quick_rates, monkeypatch, modes, places):
    """In every mode; the blocks are those of a process that measures no rates."""
    samples, during = [], []
    sample, block = calibration.Sampler.sample, process.EpochTimer.measure
    monkeypatch.setattr(calibration, "SHARE", 1e9)
    monkeypatch.setattr(calibration.Sampler, "sample", lambda self: (samples.append(len(during)), sample(self)))
    monkeypatch.setattr(
        process.EpochTimer, "measure", lambda self, *a, **o: (during.append(self), block(self, *a, **o))[1]
    )
    changes = {} if places is None else {"places": places}
    report, _ = run(order(prepared, modes, networks=("fc1",), calibrate=True, **changes))
    assert samples[: len(during)] == sorted(samples)[: len(during)]
    assert len(set(samples)) > (1 if modes == ("sampled",) else 0)
    assert report.calibration.threads == 1
    assert all(m.samples == len(samples) >= 3 for m in report.calibration.measurements.values())
    plain, _ = run(order(prepared, modes, networks=("fc1",), **changes))
    assert plain.calibration is None
    assert [[(b.point, b.round, b.steps) for b in c.blocks] for c in report.cases] == [
        [(b.point, b.round, b.steps) for b in c.blocks] for c in plain.cases
    ]


def test_each_process_has_the_least_time_by_its_own_rates(prepared, quick_rates):
    """One process finds the machine twice as fast as the other: its model is half as long; the result has the mean."""
    asked = order(prepared, ["full"], networks=("fc1",), places={}, calibrate=True)
    slow, _ = run(asked)
    twice = {name: m.model_copy(update={"median": 2 * m.median}) for name, m in slow.calibration.measurements.items()}
    fast = slow.model_copy(update={"calibration": slow.calibration.model_copy(update={"measurements": twice})})
    result = joined([slow, fast], 0, asked, complete=True, origin=identity.origin("now"))
    bound = machine.step_bound(architectures.get("fc1"), 4, slow.calibration, result.dataset.classes).seconds
    assert [p.step_bound_seconds for p in result.processes] == pytest.approx([bound, bound / 2])
    assert result.step_bound_seconds == pytest.approx(0.75 * bound)


def test_no_least_time_without_rates_of_every_process_or_for_another_number_format(prepared, quick_rates, monkeypatch):
    asked = order(prepared, ["full"], networks=("fc1",), places={}, calibrate=True)
    report, _ = run(asked)
    without = report.model_copy(update={"calibration": None})
    result = joined([report, without], 0, asked, complete=True, origin=identity.origin("now"))
    assert (result.step_bound_seconds, [p.step_bound_seconds for p in result.processes]) == (None, [None, None])
    monkeypatch.setattr(engines.get("reference"), "float32_equivalent", False)
    assert joined([report], 0, asked, complete=True, origin=identity.origin("now")).step_bound_seconds is None


# Real processes -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(prepared):
    """Of three real processes."""
    asked = order(prepared, networks=("fc1",), rounds=1)
    seen = []
    return asked, measure(asked, Plan(processes=3, time_limit=0.1), 0, lambda r: seen.append(len(r))), seen


def test_processes_are_fresh_and_of_this_session(reports):
    _, made, seen = reports
    assert seen == [1, 2, 3]
    assert len({r.process for r in made} | {identity.PROCESS}) == 4
    assert {r.machine["session"] for r in made} == {identity.session()}


def test_reports_are_joined_to_one_result(reports):
    asked, made, _ = reports
    result = joined(made, 0, asked, complete=True, origin=identity.origin(identity.now()))
    assert [p.process for p in result.processes] == [r.process for r in made]
    assert [(b.process, b.point) for b in result.blocks] == [
        (i, b.point) for i, r in enumerate(made) for b in r.cases[0].blocks
    ]
    for i, r in enumerate(made):
        step = sum(
            place.point.weight * next(b.seconds / b.steps for b in r.cases[0].blocks if b.point == n)
            for n, place in enumerate(asked.places["fc1"])
        )
        assert result.epoch_times[i] == pytest.approx(r.cases[0].startup_seconds + 10 * step)
    interval = result.epoch_seconds
    assert interval.estimate == pytest.approx(sum(result.epoch_times.values()) / 3)
    assert interval.low < interval.estimate < interval.high
    assert (result.read_parameters, result.updated_parameters) == (result.parameters,) * 2
    assert (result.complete, result.stopped_by) == (True, "plan")


def test_two_processes_have_no_interval(reports):
    asked, made, _ = reports
    result = joined(made[:2], 0, asked, complete=False, origin=identity.origin(identity.now()))
    assert result.epoch_seconds is None
    assert (result.complete, result.stopped_by) == (False, None)
    assert len(result.epoch_times) == 2


def test_a_process_that_takes_turns_works_only_when_it_is_asked_to(prepared):
    """It stops before the way to each point and before each block."""
    asked = order(prepared, networks=("fc1",), rounds=2, turns=True)
    told = [event["event"] for event in events(asked.model_dump(mode="json")) if event["event"] != "waiting"]
    points = len(asked.places["fc1"])
    assert told == ["turn", *["turn", "progress"] * 2] * points + ["report"]


def test_a_process_that_tells_says_when_it_goes_on(prepared):
    asked = order(prepared, networks=("fc1",), rounds=1, turns=True, tells=True)
    told = [e["event"] for e in events(asked.model_dump(mode="json")) if e["event"] not in ("waiting", "now")]
    assert told == ["turn", "going", "turn", "going", "progress"] * 3 + ["report"]


def test_a_process_whose_turn_never_comes_ends_with_its_parent(prepared):
    asked = order(prepared, networks=("fc1",), rounds=1, turns=True).model_dump_json() + "\n"
    done = subprocess.run(processes.COMMAND, input=asked, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ['{"event": "turn"}']


def test_a_mistake_that_the_process_finds_is_told_in_its_sentence(prepared):
    asked = order(prepared, dataset=Data(name="folder:/nowhere", sha256="0" * 64, train_images=1, test_images=1))
    with pytest.raises(UserError, match="/nowhere"):
        list(events(asked.model_dump(mode="json")))


def test_a_process_that_dies_is_told_with_its_last_line():
    command = (sys.executable, "-c", "import sys; print('one\\nout of luck', file=sys.stderr); sys.exit(3)")
    with pytest.raises(UserError, match="ended with status 3; its last lines:\n  one\n  out of luck"):
        list(events({}, command))


def test_a_process_that_is_killed_is_told():
    command = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(UserError, match="was ended by signal 9, as happens where memory runs out"):
        list(events({}, command))


def test_output_that_is_no_event_is_told():
    with pytest.raises(UserError, match="wrote no event: hello"):
        list(events({}, (sys.executable, "-c", "print('hello')")))


def test_a_report_of_another_version_is_told():
    with pytest.raises(UserError, match="not of this version"):
        processes.report({"event": "report", "process": "a"})


def test_the_process_ends_when_nobody_listens_any_more():
    command = (sys.executable, "-c", 'import time; print(\'{"event": "progress"}\', flush=True); time.sleep(60)')
    begun = time.perf_counter()
    listening = events({}, command)
    next(listening)
    listening.close()
    assert time.perf_counter() - begun < 30


def test_what_the_process_still_prints_when_nobody_listens_any_more_raises_nothing(monkeypatch):
    raised = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    loud = "import sys\nprint('{\"event\": \"progress\"}', flush=True)\nwhile True: sys.stderr.write('w\\n' * 30_000)"
    for _ in range(10):  # how far the listener is when the process is killed differs
        listening = events({}, (sys.executable, "-c", loud))
        next(listening)
        time.sleep(0.1)
        listening.close()
    assert not [thread for thread in threading.enumerate() if "listen" in thread.name]
    assert raised == []


def test_what_a_library_prints_is_no_event(prepared):
    asked = json.dumps(order(prepared, networks=("fc1",), rounds=1).model_dump(mode="json"))
    script = (
        "import os, sys, resnet_bench.measure.process as p\n"
        "measure = p.measure\n"
        "def loud(*a):\n    print('a library speaks', flush=True); os.system('echo another'); return measure(*a)\n"
        "p.measure = loud\nsys.exit(p.main())"
    )
    done = subprocess.run([sys.executable, "-c", script], input=asked, capture_output=True, text=True, timeout=120)
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} - {"waiting"} == {"progress", "report"}
    assert "a library speaks" in done.stderr
    assert "another" in done.stderr


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"epochs": 0}, "--rounds is 0"),
        ({"processes": 0}, "--processes is 0"),
        ({"time_limit": 0.0}, "--time-limit is 0"),
        ({"time_limit": float("nan")}, "--time-limit is nan"),
    ],
)
def test_plans_that_make_no_sense(bad, message):
    with pytest.raises(UserError, match=message):
        Plan(**bad)
