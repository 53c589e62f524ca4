"""What engines there are, and what each says it can do."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnet_bench import engines
from resnet_bench.architectures import ARCHITECTURES, Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.engines import fast, reference
from resnet_bench.errors import UserError
from resnet_bench.recipe import Recipe
from resnet_bench.training.training import Training


def test_every_file_of_an_engine_is_registered_and_no_other() -> None:
    folder = Path(engines.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if path.stem != "base" and not path.stem.startswith("_")}
    assert set(engines.ENGINES.values()) == files


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_engine_has_the_name_it_is_registered_under(name: str) -> None:
    assert engines.get(name).name == name


def test_an_unknown_engine_is_a_sentence_with_the_known_ones() -> None:
    with pytest.raises(UserError) as raised:
        engines.get("slow")
    assert str(raised.value) == f"There is no engine 'slow'; choose one of {', '.join(engines.ENGINES)}."


def test_engines_say_what_they_compute_and_need() -> None:
    """Those that the suite has; there may be others, as docs/extending.md adds one."""
    expected = {"reference": (True, False), "fast": (True, True), "fast-bf16": (False, True)}
    said = {name: (engines.get(name).float32_equivalent, engines.get(name).needs_compiler) for name in expected}
    assert said == expected


def test_what_an_engine_does_not_support_is_refused_before_anything_runs(dataset: Dataset) -> None:
    class Picky(reference.Engine):
        @classmethod
        def supports(cls, architecture: Architecture, recipe: Recipe) -> str | None:
            return None if recipe.batch_size < 8 else "The engine picky takes batches below 8; give --batch-size 4."

    Training(ARCHITECTURES["conv5x5"], dataset, Recipe(), engine=Picky)
    with pytest.raises(UserError, match="takes batches below 8"):
        Training(ARCHITECTURES["conv5x5"], dataset, Recipe(batch_size=8), engine=Picky)


def test_fast_says_where_it_leaves_no_idle_units_out() -> None:
    assert fast.Engine.note(Recipe(batch_size=16)) is None
    assert fast.Engine.note(Recipe(batch_size=17)) == (
        "fast leaves no idle units out at batches above 16 images; `resnet-bench scale --over batch-size=...` tells "
        "whether it is still worth it here."
    )
    assert reference.Engine.note(Recipe(batch_size=256)) is None
