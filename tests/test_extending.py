"""docs/architecture.md says what a new network and a new table take: here is each, in as few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from resnet_bench import architectures, files, identity
from resnet_bench.analysis.series import Group
from resnet_bench.architectures import Architecture
from resnet_bench.cli import cli
from resnet_bench.data.datasets import Dataset
from resnet_bench.recipe import Recipe
from resnet_bench.render import paper_tables
from resnet_bench.render.table import Table
from resnet_bench.training.training import Training
from tests.handmade import epoch_time, save


def reported(capsys: Any, *arguments: str | Path) -> str:
    cli.main(["report", *map(str, arguments)], standalone_mode=False)
    return str(capsys.readouterr().out)


def test_a_network_is_one_entry(dataset: Dataset, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """It is trained, counted and reported like the others."""
    tiny = Architecture("tiny", "", "", widths=(16, 16), strides=(2, 2), hidden=(8,))
    monkeypatch.setitem(architectures.CONTROLS, "tiny", tiny)
    training = Training(architectures.get("tiny"), dataset, Recipe(epochs=1), pipeline="vectorized")
    list(training.epochs(progress=False))
    path = tmp_path / "tiny.json"
    files.write_json(path, training.result(identity.describe()).model_dump(mode="json"))
    (row,) = [line for line in reported(capsys, path).splitlines() if line.startswith("tiny ")]
    assert f"{architectures.parameter_count(tiny, dataset.num_classes):,}" in row


def test_a_table_is_a_function_and_its_entry(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def memory(group: Group) -> Table | None:
        rows = [[s.architecture, str(r.peak_memory_bytes)] for s in group.series for r in s.times]
        return Table("Memory", ["Network", "Bytes"], rows) if rows else None

    monkeypatch.setattr(paper_tables, "TABLES", [*paper_tables.TABLES, memory])
    text = reported(capsys, save(tmp_path / "a.json", [epoch_time("fc1")]))
    assert text.rstrip().endswith("fc1        500000000")


@pytest.mark.parametrize(
    "path", ["architectures.py", "render/paper_tables.py", "render/figures.py", "engines/__init__.py"]
)
def test_the_document_names_files_that_exist(path: str) -> None:
    document = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text()
    assert f"`{path}`" in document
    assert (Path(architectures.__file__).parent / path).exists()
