"""`resnet-bench scale`: the order of its processes, what it writes, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from resnet_bench import machine
from resnet_bench.cli import main
from resnet_bench.engines import reference
from resnet_bench.errors import UserError
from resnet_bench.measure import processes, states
from resnet_bench.measure.places import Place
from resnet_bench.measure.process import Case, CaseReport, Order, Report
from resnet_bench.measure.processes import Plan
from resnet_bench.results import reading
from resnet_bench.scale import running
from resnet_bench.scale.plan import Over, Settings
from resnet_bench.schema import Block, PhaseSeconds, Point, ScaleResult
from tests.handmade import scaled
from tests.scale.test_plan import CASES, OPTIONS

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 4.0)


@pytest.fixture
def run(
    image_folder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Runs the command in this process: status, standard output, standard error."""
    monkeypatch.setenv(states.STATES_VARIABLE, str(tmp_path / "states"))
    options = ["--dataset", f"folder:{image_folder()}", "--architectures", "conv5x5", "--engine", "reference"]
    options += ["--workers", "0", "--time-limit", "0.1", "--processes", "1", "--output", str(tmp_path / "out.json")]

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["scale", *options, *arguments])
        return (int(exit_.value.code or 0), *capsys.readouterr())

    return call


# In what order ------------------------------------------------------------------------------------------------------


def _report(order: Order, milliseconds: float = 10.0, blocks: int = 5) -> Report:
    """Of a process that finds room for `blocks` blocks, unless it is told how many."""
    blocks = order.rounds or blocks
    known = scaled("fc1", "reference", "batch-size", order.recipe["batch_size"])
    names = ("parameters", "engine", "pipeline", "dataset", "seed", "threads", "workers", "compile_seconds")
    info = {"architecture": "fc1", "compile_seconds": 0.0, **{k: known[k] for k in names if k in known}}
    phases = PhaseSeconds(data=0, forward=0, backward=0, optimizer=0)
    timed = [Block(round=i, steps=2, seconds=2e-3 * milliseconds, phases=phases, page_faults=0) for i in range(blocks)]
    case = CaseReport(
        info={**info, "recipe": order.recipe}, steps_per_epoch=10, startup_seconds=0.1, peak_memory_bytes=None,
        warmup_steps=7, blocks=tuple(timed),
    )  # fmt: skip
    return Report(
        process=f"{order.draw:016x}", started_at="2026-01-02T03:04:05+00:00", machine={}, rounds=blocks, seconds=1.0,
        cases=(case,),
    )  # fmt: skip


BEGINNING = Point(
    step=0, weight=1, state="trained", live_share=None, denormal_exp_avg=None, denormal_exp_avg_sq=None
)  # fmt: skip


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """The orders that processes get, which carry out none."""
    place = Place(point=BEGINNING, path=None)
    monkeypatch.setattr(
        running, "prepared", lambda orders, folder: {
            value: order.model_copy(update={"places": {"fc1": (place,)}}) for value, order in orders.items()
        }
    )  # fmt: skip
    orders: list[Order] = []

    def reported(order: Order, hear: Callable[[dict[str, Any]], None]) -> Report:
        orders.append(order)
        return _report(order)

    monkeypatch.setattr(processes, "reported", reported)
    return orders


def _settings(over: str, rounds: int = 3, **options: Any) -> Settings:
    return Settings(Over.parse(over), CASES, {**OPTIONS, **options}, Plan(processes=rounds, time_limit=90))


def _say(line: str) -> None:
    pass


def test_every_round_has_all_values_in_an_order_drawn_anew(told: list[Order], tmp_path: Path) -> None:
    running.run(_settings("batch-size=1,2,4,8", rounds=6), tmp_path / "out.json", _say)
    sizes = [order.recipe["batch_size"] for order in told]
    rounds = [tuple(sizes[i : i + 4]) for i in range(0, 24, 4)]
    assert {frozenset(own) for own in rounds} == {frozenset({1, 2, 4, 8})}
    assert len(set(rounds)) > 2
    assert len({order.draw for order in told}) == 24


def test_the_first_process_of_a_value_finds_out_how_many_blocks_all_time(told: list[Order], tmp_path: Path) -> None:
    found = running.run(_settings("batch-size=2,4"), tmp_path / "out.json", _say)
    assert [order.rounds for order in told] == [None, None, 5, 5, 5, 5]
    assert {order.seconds for order in told} == {90 / 3 / 2}
    assert all([b.process for b in r.blocks] == [0] * 5 + [1] * 5 + [2] * 5 for r in found)


def test_processes_side_by_side_know_how_many_blocks_from_one_alone(
    told: list[Order], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside: list[tuple[int, int | None]] = []

    def side_by_side(order: Order, jobs: int, hear: object) -> list[Report]:
        beside.append((jobs, order.rounds))
        return [_report(order, milliseconds=10 * jobs)] * jobs

    monkeypatch.setattr(running, "side_by_side", side_by_side)
    found = running.run(_settings("processes=1,4", rounds=2), tmp_path / "out.json", _say)
    assert [order.rounds for order in told] == [None]
    assert sorted(beside) == [(1, 5), (1, 5), (4, 5), (4, 5)]
    assert [(r.value, len(r.processes)) for r in found] == [(1, 2), (4, 8)]
    assert found[1].step_times == pytest.approx((0.04, 0.04))
    assert found[1].rates == pytest.approx((100, 100))


def test_an_interruption_keeps_the_complete_rounds(
    told: list[Order], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"

    def reported(order: Order, hear: object) -> Report:
        if len(told) == 5:
            raise KeyboardInterrupt
        told.append(order)
        return _report(order)

    monkeypatch.setattr(processes, "reported", reported)
    with pytest.raises(KeyboardInterrupt, match=r"2 of 3 rounds are kept in .*out\.json"):
        running.run(_settings("batch-size=2,4"), path, _say)
    results = reading.read(path).of_kind(ScaleResult)
    assert [(r.value, r.complete, len(r.step_times)) for r in results] == [(2, False, 2), (4, False, 2)]


def test_side_by_side_each_block_begins_when_all_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process goes on before the others have ended their block."""
    log: list[tuple[int, str]] = []
    numbers = iter(range(3))
    order = _settings("processes=3").orders()[3].model_copy(update={"rounds": 2})

    def events(told: dict[str, Any], environment: dict[str, str]) -> Iterator[dict[str, Any]]:
        assert told["turns"]
        me = next(numbers)
        yield {"event": "now", "what": "starts"}
        for _ in range(3):
            log.append((me, "ready"))
            yield {"event": "turn"}
            log.append((me, "goes"))
            yield {"event": "going"}
            yield {"event": "progress", "done": 1, "total": 2}
        yield _report(order).model_dump(mode="json")

    monkeypatch.setattr(processes, "events", events)
    heard: list[dict[str, Any]] = []
    assert len(running.side_by_side(order, 3, heard.append)) == 3
    assert [what for _, what in log] == (["ready"] * 3 + ["goes"] * 3) * 3
    assert {event["event"] for event in heard} == {"now", "progress"}


def test_side_by_side_all_end_where_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    numbers = iter(range(2))
    order = _settings("processes=2").orders()[2].model_copy(update={"rounds": 1})

    def events(told: object, environment: object) -> Iterator[dict[str, Any]]:
        me = next(numbers)
        try:
            yield {"event": "now", "what": "starts"}
            if me == 1:
                raise UserError("No memory is left.")
            yield {"event": "turn"}
        finally:
            ended.append(me)

    monkeypatch.setattr(processes, "events", events)
    with pytest.raises(UserError, match="No memory is left"):
        running.side_by_side(order, 2, lambda event: None)
    assert sorted(ended) == [0, 1]


# From which state ---------------------------------------------------------------------------------------------------


@pytest.fixture
def steps_trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Filled with (network, steps) of each preparation. The engine `reference` leaves units of `baseline` out."""
    trained: list[tuple[str, int]] = []
    prepare = states.prepare

    def noted(architecture: Any, dataset: Any, recipe: Any, steps: Any, **options: Any) -> Any:
        trained.append((architecture.id, *steps))
        return prepare(architecture, dataset, recipe, steps, **options)

    monkeypatch.setattr(states, "prepare", noted)
    monkeypatch.setattr(running, "FIRST_STEPS", 3)
    monkeypatch.setattr(states, "fastest_engine", lambda *_: "reference")
    monkeypatch.setattr(
        reference.Engine, "leaves_idle_units_out", lambda architecture, recipe: bool(architecture.hidden)
    )
    return trained


def _orders(over: str, **options: Any) -> dict[int, Order]:
    cases = tuple(Case(architecture=name, engine="reference", mode="sampled") for name in ("fc1", "conv5x5"))
    settings = Settings(Over.parse(over), cases, {**OPTIONS, **options}, Plan(processes=3, time_limit=1))
    return settings.orders()


def test_states_are_made_once_for_each_recipe_where_units_die(
    steps_trained: list[tuple[str, int]], tmp_path: Path
) -> None:
    orders = running.prepared(_orders("batch-size=4,20"), tmp_path)
    assert sorted(steps_trained) == [("conv5x5", 3), ("conv5x5", 3), ("fc1", 0), ("fc1", 0)]
    for order in orders.values():
        (dying,), (other,) = order.places["conv5x5"], order.places["fc1"]
        assert (dying.point.step, other.point.step, other.path) == (3, 0, None)
        assert dying.path
        assert Path(dying.path).is_relative_to(tmp_path)
    assert orders[4].places["conv5x5"] != orders[20].places["conv5x5"]


def test_values_that_change_no_bits_share_their_states(steps_trained: list[tuple[str, int]], tmp_path: Path) -> None:
    orders = running.prepared(_orders("processes=1,2"), tmp_path)
    assert sorted(steps_trained) == [("conv5x5", 3), ("fc1", 0)]
    assert orders[1].places == orders[2].places


def test_a_training_shorter_than_that_is_trained_to_its_end(
    steps_trained: list[tuple[str, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15 epochs of two steps."""
    monkeypatch.setattr(running, "FIRST_STEPS", 99)
    running.prepared(_orders("batch-size=8", train_images=10), tmp_path)
    assert ("conv5x5", 30) in steps_trained


# Real processes -----------------------------------------------------------------------------------------------------


def test_batch_sizes_end_to_end(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table on standard output, clean in a pipe; the file, which pytest-benchmark and `report` read."""
    status, out, err = run("--over", "batch-size=2,6")
    assert status == 0, err
    assert out.startswith("Time of a step by batch size\n")
    assert "Early steps, their data included: all are among the first" in out
    assert "1 round: no interval." in out
    assert "\r" not in out + err
    data = json.loads((tmp_path / "out.json").read_text())
    assert [b["name"] for b in data["benchmarks"]] == [
        "resnet-bench scale[conv5x5-reference-batch-size=2]",
        "resnet-bench scale[conv5x5-reference-batch-size=6]",
    ]
    results = reading.read(tmp_path / "out.json").of_kind(ScaleResult)
    assert [(r.value, r.steps_per_epoch, r.complete) for r in results] == [(2, 12, True), (6, 4, True)]
    for r, b in zip(results, data["benchmarks"], strict=True):
        assert b["stats"]["data"] == pytest.approx(list(r.step_times))
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "out.json")])
    shown = capsys.readouterr().out
    assert "as long with a batch of 6 as with a batch of 2." in " ".join(shown.split())
    assert "Table 1" not in shown


def test_processes_end_to_end(run: Run, tmp_path: Path) -> None:
    status, out, err = run("--over", "processes=1,2")
    assert status == 0, err
    assert "together" in out
    one, two = reading.read(tmp_path / "out.json").of_kind(ScaleResult)
    assert [len(one.processes), len(two.processes), two.threads] == [1, 2, 1]
    assert len({p.process for r in (one, two) for p in r.processes}) == 3
    assert not list((tmp_path / "states").iterdir())
    assert {(b.process, b.round) for b in two.blocks} == {(p, b.round) for p in (0, 1) for b in one.blocks}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--over", "depth=1"], "--over is 'depth=1'; give one of threads,"),
        (["--over", "threads="], "--over threads has no values"),
        (["--over", "threads=1,1"], "--over threads has 1 more than once"),
        (["--over", "threads=1,64"], "64 threads need more than the 4 cores here"),
        (["--over", "batch-size=4,32"], "A batch of 32 needs as many training images, and there are 24"),
        (["--over", "images=8,25"], "--over images=25: --train-images is 25; give a number from 1 to 24"),
        (["--over", "classes=3,10"], "--over classes needs --dataset synthetic"),
        (["--over", "threads=1", "--architectures", "vgg"], "There is no architecture 'vgg'"),
        (["--over", "threads=1", "--architectures", ","], "--architectures names none"),
        (["--over", "threads=1", "--engine", "quantum"], "There is no engine 'quantum'"),
        (["--over", "threads=1", "--pipeline", "oil"], "There is no pipeline 'oil'"),
        (["--over", "threads=1", "--processes", "0"], "--processes is 0"),
        (["--over", "threads=1", "--time-limit", "0"], "--time-limit is 0"),
        (["--over", "threads=1", "--output", "/nowhere/out.json"], "There is no folder /nowhere"),
        (["--over", "threads=1", "--dataset", "imagenet"], "imagenet"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out.json").exists()


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it has ended
        return []


def test_ctrl_c_ends_the_processes_that_measure(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Exit status 130, one line, no process left."""
    command = [sys.executable, "-m", "resnet_bench.cli", "scale", "--over", "batch-size=1,2", "--engine", "reference"]
    command += ["--dataset", f"folder:{image_folder()}", "--architectures", "conv5x5", "--workers", "0"]
    command += ["--time-limit", "1000", "--output", str(tmp_path / "out.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        parent = psutil.Process(process.pid)
        children: list[psutil.Process] = []
        started: list[list[str]] = []
        while process.poll() is None and not any("resnet_bench.measure.process" in " ".join(c) for c in started):
            time.sleep(0.05)
            children = parent.children(recursive=True)
            started = [_command_of(child) for child in children]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "resnet-bench: interrupted; nothing is kept"
    assert "Traceback" not in err
    assert children
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
