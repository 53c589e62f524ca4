"""Accuracy of the engines, on hand-made results."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from resnet_bench.analysis.agreement import MARGIN, equivalence
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
    half = stats.t.ppf(0.95, 2) / 3**0.5  # two one-sided tests of 5 % each
    assert control == ["fc1", "reference", "3", "40.0 [30.0, 50.0]", "–", "–"]
    assert fast[:5] == ["fc1", "fast", "3", "42.0 [31.0, 53.0]", f"+2.0 [{2 - half:+.1f}, {2 + half:+.1f}]"]


def test_trainings_under_two_schedules_are_told_apart(tmp_path):
    entries = []
    for schedule in ("constant", "cosine"):
        for engine in ("reference", "fast"):
            entry = run(engine, 0.3)
            entry["recipe"] |= {"schedule": schedule}
            entries.append(entry)
    rows = table(tmp_path / "a.json", entries).rows
    assert [tuple(row[:2]) for row in rows] == [
        (f"fc1 ({schedule} schedule)", engine)
        for schedule in ("constant", "cosine")
        for engine in ("reference", "fast")
    ]


@pytest.mark.parametrize(
    ("points", "verdict"),
    [
        ((0.1, -0.2, 0.3), "equivalent within ±1 point"),
        ((0.8, 0.8, 0.8), "equivalent within ±1 point"),
        ((-2.5, -2.2, -2.3), "different by more than 1 point"),
        ((1.2, 1.2, 1.2), "different by more than 1 point"),
        ((0.5, 1.0, 1.5), "cannot tell, even with 1,000 seeds"),
        ((-1.0, 0.0, 1.0), "cannot tell: about 2 more seeds"),
        ((0.0, 0.0), "cannot tell: about 1 more seed"),
        ((0.0,), "cannot tell: about 11 more seeds"),
    ],
)
def test_engines_are_equivalent_different_or_not_told_apart(tmp_path, points, verdict):
    """What is not significant is not equivalent: -1, 0 and 1 points have an interval that holds 0 and ±1."""
    entries = [run("reference", 0.40, seed) for seed in range(len(points))]
    entries += [run("fast", 0.40 + p / 100, seed) for seed, p in enumerate(points)]
    assert table(tmp_path / "a.json", entries).rows[1][-1] == verdict


@pytest.mark.parametrize("wrong", ["equivalent", "different"])
def test_a_difference_of_just_the_margin_is_told_wrong_in_at_most_5_percent(wrong):
    """4,000 times five seeds that scatter by 0.4 points; a share of 5 % has a standard error of 0.35 % there."""
    random = np.random.default_rng(7)
    told = [equivalence(list(random.normal(MARGIN, 0.004, 5))).verdict for _ in range(4000)]
    assert told.count(wrong) / len(told) == pytest.approx(0.05, abs=0.012)


def test_the_readme_states_the_margin():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    assert f"±{100 * MARGIN:g} point»" in " ".join(readme.split())


def test_fewer_than_three_seeds_have_no_interval(tmp_path):
    _, fast = table(tmp_path / "a.json", [run("reference", 0.30), run("fast", 0.28)]).rows
    assert fast[-2] == "-2.0"
    entries = [run(e, f, s) for e, f in (("reference", 0.30), ("fast", 0.28)) for s in range(2)]
    _, fast = table(tmp_path / "b.json", entries).rows
    assert fast[-2] == "-2.0, -2.0"


def test_a_seed_that_one_engine_lacks_is_left_out(tmp_path):
    entries = [run("reference", 0.30), run("fast", 0.28), run("fast", 0.90, 1)]
    _, fast = table(tmp_path / "a.json", entries).rows
    assert fast[2:5] == ["1", "28.0 [28.0, 28.0]", "-2.0"]


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
