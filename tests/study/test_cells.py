"""The plan of a study: its cells, their names, and what is refused."""

from __future__ import annotations

import pytest

from resnet_bench.errors import UserError
from resnet_bench.study import cells

RECIPE = {"epochs": 2, "batch_size": 4, "lr": 0.0004, "schedule": "constant", "warmup_steps": 0}


@pytest.mark.parametrize(
    ("text", "seeds"), [("0-4", (0, 1, 2, 3, 4)), ("7", (7,)), ("3, 0-1,3", (3, 0, 1)), (str(2**64 - 1), (2**64 - 1,))]
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert cells.numbers(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-0", "-1", "0-", str(2**64), "0-99999999999"])
def test_other_seeds_are_refused(text):
    with pytest.raises(UserError, match="--seeds is"):
        cells.numbers(text)


def test_an_option_is_varied_by_its_values_as_numbers():
    assert cells.varied(["lr=0.0004,0.001", "--batch-size=4,8"]) == {"lr": (0.0004, 0.001), "batch_size": (4, 8)}


@pytest.mark.parametrize("text", ["seed=1,2", "dataset=a", "unheard=1", "lr=", "lr", "epochs=two"])
def test_what_cannot_be_varied_is_refused(text):
    with pytest.raises(UserError, match="--vary is"):
        cells.varied([text])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lr=0.1", "batch-size=4", "--lr=0.2"], "--vary has --lr more than once; give all its values in one"),
        (["lr=0.1,0.10"], "--vary is 'lr=0.1,0.10', which has one value twice"),
    ],
)
def test_no_value_is_dropped_and_no_cell_is_there_twice(texts, message):
    with pytest.raises(UserError, match=message):
        cells.varied(texts)


def plan(**changes):
    content = {
        "architectures": ["fc1", "fc3"],
        "engines": ["reference"],
        "seeds": [0, 1],
        "threads": 1,
        "options": {**RECIPE, "workers": 2, "pipeline": None},
        "varied": {},
        "train_images": None,
        "test_images": None,
        "dataset": {
            "name": "cifar100",
            "synthetic": False,
            "subset": False,
            "train_images": 8,
            "test_images": 4,
            "classes": 2,
            "sha256": "0" * 64,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
        },
        "digests": {"0": "0" * 64, "1": "0" * 64},
        "code": "c" * 64,
    }
    return cells.parsed({**content, **changes}, "study.json")


def test_a_warm_up_that_is_as_long_as_the_training_is_refused_before_anything_is_trained():
    """8 images in batches of 4, twice: 4 steps."""
    assert plan(options={**plan().options, "warmup_steps": 3}).cells
    with pytest.raises(UserError, match="--warmup-steps is 4, but the whole training has 4 steps"):
        plan(options={**plan().options, "warmup_steps": 4})


def test_a_plan_from_before_schedules_has_a_constant_rate():
    older = {k: v for k, v in plan().options.items() if k not in ("schedule", "warmup_steps")}
    assert plan(options=older) == plan()


def test_schedules_can_be_varied():
    varied = plan(varied={"schedule": ["constant", "cosine"]}, architectures=["fc1"], seeds=[0])
    assert [(c.name, c.recipe.schedule) for c in varied.cells] == [
        ("fc1-reference-schedule=constant-0", "constant"),
        ("fc1-reference-schedule=cosine-0", "cosine"),
    ]


def test_every_network_comes_once_before_the_next_seed():
    names = [cell.name for cell in plan().cells]
    assert names == ["fc1-reference-0", "fc3-reference-0", "fc1-reference-1", "fc3-reference-1"]


def test_a_varied_option_is_in_the_name_and_in_the_recipe():
    varied = plan(varied={"lr": [0.1, 0.2]}, architectures=["fc1"], seeds=[0])
    assert [(c.name, c.recipe.lr) for c in varied.cells] == [
        ("fc1-reference-lr=0.1-0", 0.1),
        ("fc1-reference-lr=0.2-0", 0.2),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["../../etc/passwd"]},
        {"engines": ["../evil"]},
        {"varied": {"pipeline": ["../../out"]}},
        {"varied": {"pipeline": ["/tmp/out"]}},
        {"varied": {"dataset": ["x"]}},
        {"seeds": [-1]},
        {"unheard": 1},
        {"options": {}},
    ],
)
def test_a_plan_of_a_stranger_names_no_file_outside_of_the_folder(changes):
    with pytest.raises(UserError):
        plan(**changes)


def test_more_cells_than_anyone_trains_are_refused_before_they_are_made():
    with pytest.raises(UserError, match="would have 20,000 cells"):
        plan(seeds=list(range(10_000)))
