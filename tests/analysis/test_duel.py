"""Accuracies of two arms: equivalent within a margin, different, or nobody can tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from resnet_bench.analysis.comparison import compare
from resnet_bench.analysis.duel import Accuracies, analyse
from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe
from resnet_bench.render import duel_tables
from resnet_bench.results.samples import Samples, read_all
from tests import handmade

OLD = [0.30, 0.31, 0.32, 0.30]


def equivalence(tmp_path: Path, first: Sequence[float], other: Sequence[float]) -> tuple[Accuracies, str]:
    """What is found where both arms trained as many seeds for one epoch, and the table that says it."""
    recipe = Recipe(epochs=1).as_dict()
    files = {}
    for name, accuracies in (("old", first), ("new", other)):
        told: dict[str, Any] = {
            "id": "d" * 16, "arm": name, "arms": ["old", "new"], "pairs": [[i, i] for i in range(5)]
        }  # fmt: skip
        results = [handmade.in_processes("fc1", process=name.ljust(16, "0"))]
        results += [handmade.accuracy("fc1", [a], seed=i, recipe=recipe) for i, a in enumerate(accuracies)]
        files[name] = handmade.save(tmp_path / f"{name}.json", results, handmade.machine(duel=told))
    duel = analyse(files)
    found = duel.opponents[0].networks[0].accuracy
    assert found
    return found, duel_tables.render(duel, "text")


def test_small_differences_of_the_same_seeds_are_equivalent(tmp_path: Path) -> None:
    found, text = equivalence(tmp_path, OLD, [0.301, 0.309, 0.321, 0.299])
    assert found.equivalence.verdict == "equivalent"
    assert found.difference == pytest.approx(0.0, abs=1e-9)
    interval = found.equivalence.interval
    assert interval
    assert interval.high == pytest.approx(0.00136, abs=1e-5)  # t(0.95, 3) = 2.353 times 0.001155 / 2
    assert "30.8 → 30.8 %" in text
    assert "[-0.1, +0.1] points: equivalent" in text


def test_a_difference_beyond_the_margin_is_different(tmp_path: Path) -> None:
    found, _ = equivalence(tmp_path, OLD, [0.35, 0.355, 0.37, 0.345])
    assert found.equivalence.verdict == "different"


def test_a_wide_interval_decides_nothing(tmp_path: Path) -> None:
    found, _ = equivalence(tmp_path, OLD, [0.25, 0.36, 0.32, 0.30])
    assert found.equivalence.verdict == "cannot tell"


def test_two_seeds_decide_nothing(tmp_path: Path) -> None:
    found, text = equivalence(tmp_path, OLD[:2], OLD[:2])
    assert (found.equivalence.verdict, found.equivalence.interval) == ("cannot tell", None)
    assert "cannot tell from 2 seeds" in text


def test_without_trainings_the_table_says_that_accuracy_was_not_measured(tmp_path: Path) -> None:
    told = {"id": "d" * 16, "arms": ["old", "new"], "pairs": [[i, i] for i in range(5)]}
    files = {
        name: handmade.save(
            tmp_path / f"{name}.json",
            [handmade.in_processes("fc1", process=name.ljust(16, "0"))],
            handmade.machine(duel={**told, "arm": name}),
        )
        for name in ("old", "new")
    }
    assert "Accuracy was not measured: --accuracy-epochs N" in duel_tables.render(analyse(files), "text")


def test_files_whose_seeds_drew_their_own_subsets_are_compared(tmp_path: Path) -> None:
    def file(name: str, *seeds_and_draws: tuple[int, str]) -> Samples:
        results = [
            handmade.accuracy(
                "fc1",
                [0.3],
                seed=seed,
                recipe=Recipe(epochs=1).as_dict(),
                dataset=handmade.dataset(subset=True, sha256=handmade.digest(draw)),
            )
            for seed, draw in seeds_and_draws
        ]
        return read_all([handmade.save(tmp_path / f"{name}.json", results)])

    base, other = file("base", (0, "a"), (1, "b")), file("other", (0, "a"), (1, "b"))
    assert compare(base, other).rows[0].refused == ()
    with pytest.raises(UserError, match="other mixes runs on several data sets"):
        compare(base, file("other", (0, "a"), (0, "c"), (1, "b")))
