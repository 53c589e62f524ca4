"""States of a training at given steps: what is in them, and that they are prepared once, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from resnet_bench import identity
from resnet_bench.architectures import Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.engines import fast
from resnet_bench.errors import UserError
from resnet_bench.measure import aging, states
from resnet_bench.measure.states import Missing, State
from resnet_bench.recipe import Recipe
from resnet_bench.training.training import Training, weights_sha256
from tests.conftest import needs_compiler

SMALL = Architecture("small", "", "", widths=(16,), strides=(2,), hidden=(32,))
PLAIN = replace(SMALL, id="plain", hidden=())
RECIPE = Recipe()
STEPS = (0, 3, 11, 14, 27)  # of epochs of 11 steps: within one, at the end of one, across two


@pytest.fixture
def trained_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the step, counted over epochs, of every training step that begins."""
    steps: list[int] = []
    original = Training.train_step

    def train_step(self: Training) -> float | None:
        steps.append((self.epoch - 1) * self.steps_per_epoch + self.step)
        return original(self)

    monkeypatch.setattr(Training, "train_step", train_step)
    return steps


def test_a_temporary_folder_is_gone_at_the_end_and_what_a_killed_process_left_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(states.STATES_VARIABLE, str(tmp_path))
    (tmp_path / "fc1").mkdir()
    (tmp_path / "temporary-left").mkdir()
    (tmp_path / "temporary-left" / "lock").touch()
    with states.temporary_folder() as folder:
        (folder / "state").touch()
        with states.temporary_folder() as other:
            assert {p.name for p in tmp_path.iterdir()} == {"fc1", folder.name, other.name}
        assert (folder / "state").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["fc1"]


def test_no_temporary_folder_in_a_file_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(states.STATES_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"Cannot make the folder .*file"), states.temporary_folder():
        pass


def prepare(
    dataset: Dataset, folder: Path, steps: Sequence[int] = STEPS, engine: str | None = "reference", **options: Any
) -> list[State]:
    """With an engine that has nothing to compile; with None, the one that is chosen."""
    arguments = {"how": "trained", "seed": 0, "threads": 1, **options}
    network, recipe = arguments.pop("architecture", SMALL), arguments.pop("recipe", RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        if engine:
            patch.setattr(states, "fastest_engine", lambda architecture, recipe: engine)
        return states.prepare(network, dataset, recipe, steps, folder=folder, **arguments)


def training(dataset: Dataset, **options: Any) -> Training:
    arguments = {"engine": "reference", "pipeline": "vectorized", "seed": 0, "threads": 1, **options}
    return Training(arguments.pop("architecture", SMALL), dataset, arguments.pop("recipe", RECIPE), **arguments)


def step_on(run: Training, count: int) -> None:
    """Train so many steps, across the ends of epochs."""
    for _ in range(count):
        if run.train_step() is None:
            run.close_epoch()
            run.train_step()


def undisturbed(dataset: Dataset, step: int, **options: Any) -> Training:
    run = training(dataset, **options)
    step_on(run, step)
    return run


def contents(run: Training) -> list[Tensor]:
    """Weights, buffers and moments."""
    entries = run.engine.optimizer_state()["state"].values()
    moments = [entry[name] for entry in entries for name in ("exp_avg", "exp_avg_sq")]
    return [tensor.clone() for tensor in (*run.engine.network.state_dict().values(), *moments)]


def assert_same(one: Training, other: Training) -> None:
    for a, b in zip(contents(one), contents(other), strict=True):
        assert torch.equal(a, b)


# What is in a state ---------------------------------------------------------------------------------------------------


def test_states_are_those_of_an_undisturbed_training(dataset: Dataset, tmp_path: Path) -> None:
    """Also what follows: the next steps have the same batches."""
    prepared = prepare(dataset, tmp_path)
    assert [s.step for s in prepared] == list(STEPS)
    assert {s.how for s in prepared} == {"trained"}
    for state in prepared:
        expected, run = undisturbed(dataset, state.step), training(dataset)
        states.load(run, state)
        if state.step:
            assert_same(run, expected)
        step_on(run, 15)
        step_on(expected, 15)
        assert_same(run, expected)


def test_the_next_step_after_a_state_is_the_trainings_next(dataset: Dataset, tmp_path: Path) -> None:
    run = training(dataset)
    places = []
    for state in prepare(dataset, tmp_path):
        states.load(run, state)
        places.append((run.epoch, run.step))
    assert places == [(1, 0), (1, 3), (2, 0), (2, 3), (3, 5)]


@pytest.mark.parametrize("pipeline", ["vectorized", "loader"])
@pytest.mark.parametrize("engine", ["reference", pytest.param("fast", marks=needs_compiler)])
def test_loading_keeps_every_tensor_where_it_is(dataset: Dataset, tmp_path: Path, engine: str, pipeline: str) -> None:
    """In the middle of an epoch, whose batches are then no longer used; back to the beginning too."""
    prepared = prepare(dataset, tmp_path)
    run = training(dataset, engine=engine, pipeline=pipeline, workers=1 if pipeline == "loader" else 0)
    step_on(run, 2)

    def places() -> list[int]:
        engine = run.engine
        if hasattr(engine, "optimizer"):
            moments = [e[n] for e in engine.optimizer.state.values() for n in ("exp_avg", "exp_avg_sq")]
        else:
            moments = [*engine.exp_avgs, *engine.exp_avg_sqs]  # type: ignore[attr-defined]
        return [t.data_ptr() for t in (*engine.network.state_dict().values(), *moments)]

    before = places()
    for state in (prepared[3], prepared[0], prepared[1]):
        states.load(run, state)
        assert places() == before
        step_on(run, 2)
        assert places() == before
        expected = undisturbed(dataset, state.step + 2)
        for one, other in zip(contents(run), contents(expected), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)
        if engine == "reference":
            assert_same(run, expected)


@needs_compiler
def test_the_fastest_engine_prepares_and_every_engine_reads(dataset: Dataset, tmp_path: Path) -> None:
    prepared = prepare(dataset, tmp_path, (5, 14), engine=None)
    assert states.fastest_engine(SMALL, RECIPE) == "fast"
    for state in prepared:
        expected = undisturbed(dataset, state.step, engine="fast")
        for engine in ("fast", "reference"):
            run = training(dataset, engine=engine)
            states.load(run, state)
            assert_same(run, expected)


def test_where_fast_cannot_run_the_reference_prepares(monkeypatch: pytest.MonkeyPatch) -> None:
    def require() -> None:
        raise UserError("There is no compiler.")

    monkeypatch.setattr(fast.Engine, "require", require)
    assert states.fastest_engine(SMALL, RECIPE) == "reference"


def test_shares_are_those_of_the_state(dataset: Dataset, tmp_path: Path) -> None:
    """At the beginning there are no moments; without a hidden layer there are no units."""
    first, later = prepare(dataset, tmp_path, (0, 5))
    assert (first.path, first.denormal_exp_avg, first.denormal_exp_avg_sq) == (None, None, None)
    run = undisturbed(dataset, 5)
    (live,) = aging.live_units(run.engine.network, dataset, RECIPE, 0)
    assert later.live_share == float(live.double().mean())
    assert 0 < later.live_share <= 1
    assert (later.denormal_exp_avg, later.denormal_exp_avg_sq) == (0.0, 0.0)
    (plain,) = prepare(dataset, tmp_path, (5,), architecture=PLAIN)
    assert plain.live_share is None


def test_denormal_numbers_are_counted_over_all_moments_of_the_network() -> None:
    """By hand: 3 of 8 first moments; of the second ones only the largest denormal number, not the smallest normal."""
    tiny = torch.finfo(torch.float32).tiny
    first = [torch.tensor([1e-40, -1e-45, 0.0, 1.0]), torch.tensor([[-1.0, 1e-42], [0.5, 0.0]])]
    second = [torch.tensor([tiny, tiny * (1 - 2**-23), 0.0, 1.0]), torch.ones(2, 2)]
    state = {i: {"exp_avg": m, "exp_avg_sq": v} for i, (m, v) in enumerate(zip(first, second, strict=True))}
    assert states.denormal_share({"state": state}, "exp_avg") == 3 / 8
    assert states.denormal_share({"state": state}, "exp_avg_sq") == 1 / 8
    assert states.denormal_share({"state": {}}, "exp_avg") is None


# Aged states ----------------------------------------------------------------------------------------------------------


def test_late_states_are_aged_from_the_last_early_one(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_steps: list[int]
) -> None:
    """Dead units as `aged` carries them on, all else as it was; the training goes on at the late step."""
    live = [torch.arange(32) >= 20]
    monkeypatch.setattr(states, "EARLY_STEPS", 12)
    monkeypatch.setattr(states, "live_units", lambda *arguments: live)
    early, first, second = prepare(dataset, tmp_path, (11, 50, 150_000), how="aged")
    assert [(s.step, s.how) for s in (early, first, second)] == [(11, "trained"), (50, "aged"), (150_000, "aged")]
    assert trained_steps == list(range(11))
    run, expected = training(dataset), undisturbed(dataset, 11)
    for state in (first, second):
        states.load(run, state)
        assert (run.epoch, run.step) == (state.step // 11 + 1, state.step % 11)
        old = aging.aged(
            expected.state(), expected.engine.network, live, state.step - 11, RECIPE, RECIPE.learning_rates()
        )
        for name, tensor in run.engine.network.state_dict().items():
            assert torch.equal(tensor, old.network[name])
        for i, entry in run.engine.optimizer_state()["state"].items():
            assert entry["step"] == state.step
            assert all(torch.equal(tensor, old.optimizer["state"][i][name]) for name, tensor in entry.items())
        step_on(run, 1)
    parameters = sum(p.numel() for p in run.engine.network.parameters())
    of_dead = 20 * (1024 + 1 + 5)
    assert early.denormal_exp_avg == early.denormal_exp_avg_sq == first.denormal_exp_avg == 0
    assert early.live_share == first.live_share == 12 / 32
    assert of_dead * 0.9 < (second.denormal_exp_avg_sq or 0) * parameters <= of_dead
    assert of_dead * 0.9 < (second.denormal_exp_avg or 0) * parameters <= of_dead


def test_where_only_late_states_are_asked_for_they_are_aged_from_the_end_of_the_early_steps(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_steps: list[int]
) -> None:
    monkeypatch.setattr(states, "EARLY_STEPS", 6)
    (state,) = prepare(dataset, tmp_path, (40,), how="aged")
    assert (state.step, state.how, trained_steps) == (40, "aged", list(range(6)))


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "highest"),
    [("constant", 0, 0), ("constant", 9, 9), ("cosine", 9, 9), ("onecycle", 0, 19)],
)
def test_no_state_is_aged_before_the_learning_rate_was_at_its_highest(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_steps: list[int], schedule: str,
    warmup_steps: int, highest: int,
) -> None:  # fmt: skip
    """Of 66 steps in all: while the rate rises many units are still to die, so that no state stands for a later one."""
    monkeypatch.setattr(states, "EARLY_STEPS", 6)
    recipe = Recipe(epochs=6, schedule=schedule, warmup_steps=warmup_steps)
    first = highest + 7
    made = prepare(dataset, tmp_path, (highest, first, 66), how="aged", recipe=recipe)
    assert [(s.step, s.how) for s in made] == [(highest, "trained"), (first, "aged"), (66, "aged")]
    assert trained_steps == list(range(highest + 6))
    assert {p.stem for p in tmp_path.rglob("aged-*.json")} == {f"aged-{s}-from-{highest + 6}" for s in (first, 66)}


def test_without_a_hidden_layer_an_aged_state_is_the_early_one(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "EARLY_STEPS", 6)
    early, late = prepare(dataset, tmp_path, (6, 40), how="aged", architecture=PLAIN)
    runs = [training(dataset, architecture=PLAIN) for _ in range(2)]
    for run, state in zip(runs, (early, late), strict=True):
        states.load(run, state)
    assert_same(*runs)
    assert [(run.epoch, run.step) for run in runs] == [(1, 6), (4, 7)]


# Kept -----------------------------------------------------------------------------------------------------------------


def test_states_that_are_there_are_not_prepared_again(
    dataset: Dataset, tmp_path: Path, trained_steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever order and number they are asked for, with whatever number of epochs and threads."""
    first = prepare(dataset, tmp_path)
    assert trained_steps == list(range(27))
    trained_steps.clear()
    assert prepare(dataset, tmp_path, STEPS[::-1], recipe=Recipe(epochs=2), threads=2) == first[::-1]
    assert prepare(dataset, tmp_path, (11, 3, 11)) == [first[2], first[1], first[2]]
    assert trained_steps == []


def test_only_what_is_missing_is_trained(dataset: Dataset, tmp_path: Path, trained_steps: list[int]) -> None:
    """From the nearest state before it, with the weights of a training that never stopped."""
    prepare(dataset, tmp_path, (3, 20))
    trained_steps.clear()
    _, seven, _, last = prepare(dataset, tmp_path, (3, 7, 20, 24))
    assert trained_steps == [3, 4, 5, 6, 20, 21, 22, 23]
    for state in (seven, last):
        run = training(dataset)
        states.load(run, state)
        assert_same(run, undisturbed(dataset, state.step))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"recipe": Recipe(lr=1e-3)},
        {"recipe": Recipe(batch_size=2)},
        {"architecture": replace(SMALL, hidden=(24,))},
        {"dataset": "other"},
        {"code": "other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_states_of_other_trainings_are_not_mixed_up(
    dataset: Dataset, tmp_path: Path, trained_steps: list[int], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    prepare(dataset, tmp_path, (3,))
    trained_steps.clear()
    options, used = dict(change), dataset
    if options.pop("dataset", None):
        images = dataset.train.images.clone()
        images[0, 0, 0, 0] ^= 1
        used = replace(dataset, train=replace(dataset.train, images=images))
    if options.pop("code", None):
        monkeypatch.setattr(states, "code_sha256", lambda: "other")
    (state,) = prepare(used, tmp_path, (3,), **options)
    assert trained_steps == [0, 1, 2]
    run = training(used, **options)
    states.load(run, state)
    assert_same(run, undisturbed(used, 3, **options))
    trained_steps.clear()
    prepare(used, tmp_path, (3,), **options)
    assert trained_steps == []


def test_the_digest_of_the_code_is_that_of_what_decides_the_bits(tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(identity.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    assert identity.sources_sha256(package, states.DECIDES_BITS) == states.code_sha256()

    def changed(name: str) -> bool:
        path = package / name
        text = path.read_text()
        path.write_text(f"{text}# more\n")
        different = identity.sources_sha256(package, states.DECIDES_BITS) != states.code_sha256()
        path.write_text(text)
        return different

    decide = ("architectures.py", "networks.py", "attention/se.py", "recipe.py", "schedules/cosine.py", "compiler.py")
    decide += ("data/augmentation.py", "engines/fast.py", "engines/_layer.cpp", "training/training.py")
    assert all(changed(name) for name in (*decide, "compiled_functions.py", "measure/aging.py"))
    assert not any(changed(name) for name in ("cli.py", "measure/states.py", "render/page.py"))


@pytest.mark.parametrize("damage", ["cut", "one bit", "gone", "no description", "empty description"])
def test_a_damaged_state_is_found_and_made_again(
    dataset: Dataset, tmp_path: Path, trained_steps: list[int], damage: str
) -> None:
    state = prepare(dataset, tmp_path, (3, 7))[1]
    assert state.path is not None
    good, description = state.path.read_bytes(), state.path.with_suffix(".json")
    if damage == "cut":
        state.path.write_bytes(good[: len(good) // 2])
    elif damage == "one bit":
        middle = len(good) // 2
        state.path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    elif damage == "gone":
        state.path.unlink()
    elif damage == "no description":
        description.unlink()
    else:
        description.write_text("")
    trained_steps.clear()
    again = prepare(dataset, tmp_path, (3, 7))[1]
    assert trained_steps == [3, 4, 5, 6]
    assert again == state
    run = training(dataset)
    states.load(run, again)
    assert_same(run, undisturbed(dataset, 7))


@pytest.mark.parametrize("damage", ["cut", "gone", "other training"])
def test_a_state_that_cannot_be_loaded_is_named(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    (state,) = prepare(dataset, tmp_path, (3,))
    assert state.path is not None
    if damage == "cut":
        state.path.write_bytes(state.path.read_bytes()[:1000])
    elif damage == "gone":
        state.path.unlink()
    run = training(dataset, seed=1 if damage == "other training" else 0)
    before = weights_sha256(run.engine.network)
    with pytest.raises(UserError, match="is gone, damaged or of another training; remove it and run again") as raised:
        states.load(run, state)
    assert str(state.path) in str(raised.value)
    assert weights_sha256(run.engine.network) == before


# Interrupted ----------------------------------------------------------------------------------------------------------

CHILD = """
    import sys
    from pathlib import Path
    from tests.conftest import image_set
    from resnet_bench.data.datasets import Dataset
    from resnet_bench.measure import states
    from tests.measure.test_states import RECIPE, SMALL, prepare

    states.RESUME_SECONDS = {seconds}
    dataset = Dataset("random", image_set(42, 5, 0), image_set(20, 5, 1), tuple("abcde"), synthetic=True, subset=False)
    prepare(dataset, Path({folder!r}), {steps})
"""


def start(folder: Path, steps: Sequence[int], seconds: float = 0.0) -> subprocess.Popen[str]:
    code = textwrap.dedent(CHILD).format(folder=str(folder), steps=tuple(steps), seconds=seconds)
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, text=True)


def wait_for(folder: Path, kind: str, step: int, process: subprocess.Popen[str]) -> int:
    """Wait until there is a state of this kind at this step or later; its step."""
    for _ in range(6000):
        found = [int(path.stem.split("-")[1]) for path in folder.rglob(f"{kind}-*.json")]
        if max(found, default=0) >= step:
            return max(found)
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    raise AssertionError(f"no {kind} state at {step}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_preparation_that_ended_early_is_taken_up(
    dataset: Dataset, tmp_path: Path, trained_steps: list[int], how: signal.Signals
) -> None:
    """It has the bits of one that never stopped, and leaves nothing behind."""
    with start(tmp_path, (3, 100_000)) as process:
        seen = wait_for(tmp_path, "resume", 4, process)
        process.send_signal(how)
        process.wait(60)
    assert process.returncode != 0
    kept = max(int(path.stem.split("-")[1]) for path in tmp_path.rglob("resume-*.json"))
    assert kept >= seen
    folder = next(tmp_path.rglob("resume-*.json")).parent
    (folder / ".trained-9.pt.abc").write_bytes(b"what a killed process was writing")
    last = prepare(dataset, tmp_path, (3, kept + 20))[-1]
    assert trained_steps == list(range(kept, kept + 20))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["rate.json", *(f"trained-{step}.{end}" for step in (3, kept + 20) for end in ("json", "pt"))]
    )
    run = training(dataset)
    states.load(run, last)
    assert_same(run, undisturbed(dataset, kept + 20))


def test_ctrl_c_completes_the_step_and_keeps_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_steps: list[int]
) -> None:
    original = Training.train_step

    def interrupted(self: Training) -> float | None:
        if self.step == 5:
            signal.raise_signal(signal.SIGINT)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(dataset, tmp_path, (3, 9))
    trained_steps.clear()
    last = prepare(dataset, tmp_path, (3, 9))[1]
    assert trained_steps == [6, 7, 8]
    run = training(dataset)
    states.load(run, last)
    assert_same(run, undisturbed(dataset, 9))


def test_a_preparation_waits_for_one_in_another_process(
    dataset: Dataset, tmp_path: Path, trained_steps: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    with start(tmp_path, (20, 200), seconds=1e9) as process:
        wait_for(tmp_path, "trained", 20, process)
        assert [s.step for s in prepare(dataset, tmp_path, (20, 200))] == [20, 200]
        assert process.wait(60) == 0
    assert trained_steps == []
    assert "Another process prepares states in" in capfd.readouterr().err


# Cost -----------------------------------------------------------------------------------------------------------------


def missing(dataset: Dataset, folder: Path, steps: Sequence[int], how: Any = "trained") -> Missing:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "fastest_engine", lambda architecture, recipe: "reference")
        return states.missing_steps(SMALL, dataset, RECIPE, steps, how=how, seed=0, threads=1, folder=folder)


def test_the_cost_is_that_of_what_is_missing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_steps: list[int]
) -> None:
    """Room for the missing states and two more; the time of a step is that of the last preparation."""
    parameters = sum(p.numel() for p in training(dataset).engine.network.parameters())
    before = missing(dataset, tmp_path, (3, 20))
    assert (before.trained_steps, before.idle_steps, before.bytes) == (20, 0, 4 * 12 * parameters)
    assert before.seconds > 0
    assert not list(tmp_path.iterdir())
    prepare(dataset, tmp_path, (3, 20))
    nothing = missing(dataset, tmp_path, (3, 20))
    assert (nothing.trained_steps, nothing.idle_steps, nothing.bytes, nothing.seconds) == (0, 0, 0, 0)
    trained_steps.clear()
    (tmp_path / "small" / nothing.folder.name / "rate.json").write_text("0.5")
    monkeypatch.setattr(states, "EARLY_STEPS", 20)
    some = missing(dataset, tmp_path, (3, 10, 20, 50, 1020), "aged")
    assert (some.trained_steps, some.idle_steps) == (7, 30 + 1000)
    assert some.seconds == 3.5 + 2 * parameters * states.AGING_SECONDS_PER_PARAMETER
    assert trained_steps == []
    assert str(some) == (
        f"preparing states: small, 7 steps to train and 1,030 idle steps to carry, about 4 s; kept in {some.folder}"
    )


def test_a_disk_without_room_is_found_before_anything_is_trained(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_steps: list[int]
) -> None:
    prepare(dataset, tmp_path, (3,))
    trained_steps.clear()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    prepare(dataset, tmp_path, (3,))
    with pytest.raises(UserError) as raised:
        prepare(dataset, tmp_path, (3, 9))
    assert str(raised.value).startswith("The states of small take 0.0015 GB in ")
    assert str(raised.value).endswith(
        "where 0.001 GB are free; free space or name another folder in RESNET_BENCH_STATES."
    )
    assert trained_steps == []


# The folder -----------------------------------------------------------------------------------------------------------


def test_the_folder_is_named_by_the_environment_or_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_BENCH_STATES", str(tmp_path))
    assert states.states_folder() == tmp_path
    monkeypatch.delenv("RESNET_BENCH_STATES")
    monkeypatch.setattr(states, "cache_folder", lambda: tmp_path / "cache")
    assert states.states_folder() == tmp_path / "cache" / "states"
    monkeypatch.setattr(states, "cache_folder", lambda: None)
    with pytest.raises(UserError, match="no home folder to keep states in; name a folder in RESNET_BENCH_STATES"):
        states.states_folder()


def test_a_folder_that_cannot_be_made_is_named(dataset: Dataset, tmp_path: Path, trained_steps: list[int]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="give another RESNET_BENCH_STATES"):
        prepare(dataset, tmp_path / "file")
    assert trained_steps == []


def test_a_folder_that_may_not_be_written_is_named(
    dataset: Dataset, tmp_path: Path, trained_steps: list[int], permissions_hold: None
) -> None:
    (state,) = prepare(dataset, tmp_path, (3,))
    assert state.path is not None
    state.path.parent.with_suffix(".lock").unlink(missing_ok=True)
    network = state.path.parent.parent
    network.chmod(0o555)
    try:
        with pytest.raises(UserError, match="Permission denied; name another one in RESNET_BENCH_STATES"):
            prepare(dataset, tmp_path, (3, 5))
    finally:
        network.chmod(0o755)


def test_a_network_keeps_the_states_of_a_few_trainings(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained_steps: list[int]
) -> None:
    """Those used last. A folder that another process uses stays, and so does another network's."""
    monkeypatch.setattr(states, "KEPT", 2)
    plain = prepare(dataset, tmp_path, (2,), architecture=PLAIN)
    folders = [prepare(dataset, tmp_path, (2,), seed=seed)[0].path.parent for seed in (0, 1)]  # type: ignore[union-attr]
    for age, folder in enumerate(reversed(folders)):
        os.utime(folder, (1000 - age, 1000 - age))
    prepare(dataset, tmp_path, (2,), seed=0)  # used: now the other is the older one
    third = prepare(dataset, tmp_path, (2,), seed=2)[0].path.parent  # type: ignore[union-attr]
    assert [folder.exists() for folder in (*folders, third)] == [True, False, True]
    assert plain[0].path is not None
    assert plain[0].path.exists()
    os.utime(folders[0], (1000, 1000))
    with FileLock(folders[0].with_suffix(".lock")):
        process = start(tmp_path, (2,))  # seed 0, which waits
        prepare(dataset, tmp_path, (2,), seed=3)
        assert folders[0].exists()
        process.kill()
        process.communicate()
