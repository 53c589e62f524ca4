"""What `--over` takes, what is refused, and what the processes of each value are told."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_bench import machine
from resnet_bench.data import datasets
from resnet_bench.errors import UserError
from resnet_bench.measure.process import Case
from resnet_bench.measure.processes import Plan
from resnet_bench.scale.plan import IMAGES, Over, Settings

OPTIONS: dict[str, Any] = {
    "dataset": "synthetic",
    "train_images": 40,
    "batch_size": None,
    "lr": None,
    "seed": 0,
    "workers": 0,
    "threads": None,
    "pipeline": None,
}
CASES = (Case(architecture="fc1", engine="reference", mode="sampled"),)


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 4.0)


def settings(over: str, **options: Any) -> Settings:
    return Settings(Over.parse(over), CASES, {**OPTIONS, **options}, Plan(processes=3, time_limit=1))


def test_values_are_measured_in_rising_order() -> None:
    assert Over.parse("batch-size=16, 4,1") == Over("batch-size", (1, 4, 16))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth=1,2", "--over is 'depth=1,2'; give one of threads, batch-size, images, classes, processes, such as"),
        ("", "--over is ''; give one of threads"),
        ("threads", "--over threads has no values; give some, such as threads=1,2."),
        ("threads=,", "--over threads has no values"),
        ("threads=1,two", "--over threads has the value 'two'; give whole numbers from 1"),
        ("images=0", "--over images has the value '0'"),
        ("images=-4", "--over images has the value '-4'"),
        ("images=1.5", "--over images has the value '1.5'"),
        ("images=1000001", "--over images has the value '1000001'; give whole numbers from 1 to 1,000,000."),
        ("threads=1,2,1", "--over threads has 1 more than once; give each value once."),
        ("classes=1,10", "give at least 2 classes"),
    ],
)
def test_values_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Over.parse(text)


@given(st.text(max_size=30) | st.from_regex(r"(threads|images|classes)=[0-9,. ]*"))
def test_any_text_is_values_or_one_sentence(text: str) -> None:
    said = ""
    try:
        values = list(Over.parse(text).values)
        assert values == sorted(set(values))
    except UserError as error:
        said = str(error)
    assert "\n" not in said
    assert said == "" or said.endswith(".")


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        ("threads=1,2", {"threads": 1}, "--threads is what --over threads varies; leave out one of them."),
        ("batch-size=1,4", {"batch_size": 4}, "--batch-size is what --over batch-size varies"),
        ("images=8", {}, "--train-images is what --over images varies"),
        ("classes=10", {"dataset": "cifar10"}, "--over classes needs --dataset synthetic"),
        ("threads=1,8", {}, "8 threads need more than the 4 cores here; give fewer."),
        ("processes=1,3", {"threads": 2}, "3 side by side with 2 threads each need more than the 4 cores here"),
        ("batch-size=4", {"threads": 5}, "5 threads need more than the 4 cores here"),
        ("batch-size=4", {"threads": 0}, "--threads is 0; give at least 1."),
    ],
)
def test_what_contradicts_itself_or_cannot_be_done_here(over: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        settings(over, **options)


def test_a_batch_larger_than_the_images_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UserError, match="A batch of 64 needs as many training images, and there are 40; give a small"):
        settings("batch-size=4,64").orders()
    with pytest.raises(UserError, match="A batch of 4 needs as many training images, and there are 2;"):
        settings("images=2,8", train_images=None).orders()


def test_more_images_than_there_are() -> None:
    with pytest.raises(UserError, match="--over images=50001: --train-images is 50001; give a number from 1 to 50000"):
        settings("images=50001", train_images=None).orders()


def test_batch_sizes() -> None:
    orders = settings("batch-size=2,8").orders()
    assert {value: order.recipe["batch_size"] for value, order in orders.items()} == {2: 2, 8: 8}
    assert {(order.threads, order.dataset.train_images) for order in orders.values()} == {(None, 40)}


def test_threads() -> None:
    assert {value: o.threads for value, o in settings("threads=1,2").orders().items()} == {1: 1, 2: 2}


def test_processes_have_one_thread_each_unless_it_is_said() -> None:
    asked = settings("processes=1,4")
    assert [asked.jobs(4), asked.threads(4), asked.threads(1)] == [4, 1, 1]
    assert settings("processes=1,2", threads=2).threads(2) == 2


def test_images_and_their_digests() -> None:
    orders = settings("images=8,12", train_images=None).orders()
    assert {value: order.dataset.train_images for value, order in orders.items()} == {8: 8, 12: 12}
    assert orders[8].dataset.sha256 == datasets.load("synthetic", train_images=8, test_images=1).sha256


def test_classes_have_labels_in_turn() -> None:
    orders = settings("classes=10,200").orders()
    dataset = datasets.with_classes(datasets.load("synthetic", train_images=40, test_images=1), 10)
    assert orders[10].dataset.sha256 == dataset.sha256 != orders[200].dataset.sha256
    assert (orders[10].dataset.classes, orders[200].dataset.classes) == (10, 200)
    assert (dataset.num_classes, dataset.train.labels[:11].tolist()) == (10, [*range(10), 0])


def test_no_more_images_are_loaded_than_a_step_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(spec: str, **options: Any) -> Any:
        asked.update(options)
        raise UserError("enough.")

    monkeypatch.setattr(datasets, "load", load)
    with pytest.raises(UserError, match="enough"):
        settings("batch-size=4", train_images=None).orders()
    assert (asked["train_images"], asked["test_images"], asked["at_most"]) == (IMAGES, 1, ("train",))
