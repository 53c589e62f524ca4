"""Accuracy of the engines, on hand-made results."""

import pytest
from scipy import stats

from resnet_bench.analysis.series import groups
from resnet_bench.render.agreement_table import agreement
from resnet_bench.results import reading
from tests.handmade import accuracy, save, together

RECIPE = {"epochs": 2}


def table(path, entries):
    (group,) = groups(together([reading.read(save(path, entries))]))
    return agreement(group)


def run(engine, final, seed=0, **overrides):
    """A training of two epochs; the engines run on pipelines of their own."""
    own = {} if engine == "reference" else {"pipeline": "vectorized", "workers": 0}
    entry = accuracy("fc1", [0.1, final], seed, engine=engine, **own, **overrides)
    entry["recipe"] = {**entry["recipe"], **RECIPE}
    entry["complete"] = overrides.get("complete", True)
    return entry


def test_differences_are_taken_seed_by_seed(tmp_path):
    """+1, +2 and +3 points: mean 2, and Student's t on 2 degrees of freedom; the order of the file does not matter."""
    entries = [run("reference", f, s) for s, f in enumerate((0.30, 0.40, 0.50))]
    entries += [run("fast", f, s) for s, f in ((2, 0.53), (0, 0.31), (1, 0.42))]
    control, fast = table(tmp_path / "a.json", entries).rows
    half = stats.t.ppf(0.975, 2) / 3**0.5
    assert control == ["fc1", "reference", "3", "40.0 [30.0, 50.0]", "–"]
    assert fast == ["fc1", "fast", "3", "42.0 [31.0, 53.0]", f"+2.0 [{2 - half:+.1f}, {2 + half:+.1f}]"]


def test_one_seed_has_no_interval(tmp_path):
    _, fast = table(tmp_path / "a.json", [run("reference", 0.30), run("fast", 0.28)]).rows
    assert fast[-1] == "-2.0"


def test_a_seed_that_one_engine_lacks_is_left_out(tmp_path):
    entries = [run("reference", 0.30), run("fast", 0.28), run("fast", 0.90, 1)]
    _, fast = table(tmp_path / "a.json", entries).rows
    assert fast[2:] == ["1", "28.0 [28.0, 28.0]", "-2.0"]


@pytest.mark.parametrize(
    "entries",
    [
        [run("reference", 0.3)],
        [run("fast", 0.3)],
        [run("reference", 0.3), run("fast", 0.3, seed=1)],
        [run("reference", 0.3), run("fast", 0.3, complete=False)],
        [run("reference", 0.3), run("fast", 0.3, threads=1)],
    ],
    ids=["reference alone", "fast alone", "no seed in common", "cut off", "another thread count"],
)
def test_nothing_to_compare_is_no_table(tmp_path, entries):
    assert table(tmp_path / "a.json", entries) is None
