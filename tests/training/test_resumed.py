"""What a resumed training says of itself: under which settings, on what, each epoch was trained."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from resnet_bench import files, identity
from resnet_bench.architectures import Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.recipe import Recipe
from resnet_bench.results import reading
from resnet_bench.schema import AccuracyResult
from resnet_bench.training.training import Training

SMALL = Architecture("small", "", "", widths=(16, 16), strides=(2, 2), hidden=(8,))
FIRST = {"pipeline": "loader", "workers": 0, "threads": 1}


def train(
    dataset: Dataset,
    folder: Path,
    monkeypatch: Any,
    process: str,
    stop_at: tuple[int, int] | None = None,
    **options: Any,
) -> AccuracyResult:
    """Train as a process of this id does, to the end or until it is interrupted at (epoch, step)."""
    monkeypatch.setattr(identity.origin, "__defaults__", (process,))
    run = Training(SMALL, dataset, Recipe(epochs=3), checkpoint=folder, **{**FIRST, **options})
    if stop_at is not None:
        while run.epoch < stop_at[0]:
            run.run_epoch()
        for _ in range(stop_at[1]):
            run.train_step()
        run._save()
        return run.result()
    for _ in run.epochs():
        pass
    return run.result()


def resumed(
    dataset: Dataset, folder: Path, monkeypatch: Any, stop_at: tuple[int, int], **options: Any
) -> AccuracyResult:
    train(dataset, folder, monkeypatch, "a" * 16, stop_at)
    return train(dataset, folder, monkeypatch, "b" * 16, **options)


def test_an_undisturbed_training_is_one_stretch(dataset: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    result = train(dataset, tmp_path, monkeypatch, "a" * 16)
    (stretch,) = result.stretches or ()
    assert (stretch.process, stretch.pipeline, stretch.workers, stretch.threads) == ("a" * 16, "loader", 0, 1)
    assert stretch.machine["code"]["sha256"] == identity.code()["sha256"]
    assert [e.stretches for e in result.epochs] == [(0,), (0,), (0,)]
    assert (result.mixed, result.same_bits, len(result.epoch_times)) == (False, True, 3)


def test_resumed_under_the_same_settings_it_is_one_training(dataset: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    """Each epoch says which processes trained it; its times compare; the process that began it is the training's."""
    result = resumed(dataset, tmp_path, monkeypatch, (2, 3))
    assert [s.process for s in result.stretches or ()] == ["a" * 16, "b" * 16]
    assert [e.stretches for e in result.epochs] == [(0,), (0, 1), (1,)]
    assert (result.process, result.mixed, result.same_bits) == ("a" * 16, False, True)
    assert list(result.epoch_times) == [1, 2, 3]


def test_an_epoch_that_began_after_the_resume_is_of_the_later_process(
    dataset: Dataset, tmp_path: Path, monkeypatch: Any
) -> None:
    result = resumed(dataset, tmp_path, monkeypatch, (2, 0))
    assert [e.stretches for e in result.epochs] == [(0,), (1,), (1,)]


@pytest.mark.parametrize(
    ("change", "same_bits"),
    [({"workers": 1}, True), ({"pipeline": "vectorized"}, True), ({"threads": 2}, False)],
    ids=["workers", "pipeline", "threads"],
)
def test_resumed_under_other_settings_its_times_are_used_by_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: Any, change: dict[str, Any], same_bits: bool
) -> None:
    result = resumed(dataset, tmp_path, monkeypatch, (2, 3), **change)
    assert (result.mixed, result.same_bits) == (True, same_bits)
    assert result.epoch_times == {}


@pytest.mark.parametrize("key", ["cpu.stepping", "torch.version", "code.sha256", "memory_bytes"])
def test_resumed_on_another_machine_software_or_code_nothing_is_promised(
    dataset: Dataset, tmp_path: Path, monkeypatch: Any, key: str
) -> None:
    train(dataset, tmp_path, monkeypatch, "a" * 16, (2, 3))
    elsewhere = copy.deepcopy(identity.describe())
    *path, last = key.split(".")
    where = elsewhere[path[0]] if path else elsewhere
    where[last] = 2**40 if last == "memory_bytes" else "another"
    monkeypatch.setattr(identity, "describe", lambda: elsewhere)
    result = train(dataset, tmp_path, monkeypatch, "b" * 16)
    assert (result.mixed, result.same_bits) == (True, False)
    assert result.epoch_times == {}


def test_a_saved_result_is_read_back_whole(dataset: Dataset, tmp_path: Path, monkeypatch: Any) -> None:
    result = resumed(dataset, tmp_path / "checkpoint", monkeypatch, (2, 3), workers=1)
    path = tmp_path / "result.json"
    saved = result.model_copy(update={"machine": identity.describe()})
    files.write_json(path, saved.model_dump(mode="json"))
    (read,) = reading.read(path).results
    assert read.model_dump(mode="json") == saved.model_dump(mode="json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": None}, "unknown only in version 1"),
        ({"stretches": None}, "every epoch says in which stretches"),
        ({"stretches": []}, "trained in no stretch"),
    ],
)
def test_a_result_of_version_2_that_hides_where_it_comes_from_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: Any, change: dict[str, Any], message: str
) -> None:
    result = train(dataset, tmp_path, monkeypatch, "a" * 16)
    with pytest.raises(ValueError, match=message):
        AccuracyResult(**{**result.model_dump(), **change})
