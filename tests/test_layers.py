"""Data flows one way: no module imports from a later stage."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import resnet_bench

PACKAGE = Path(resnet_bench.__file__).parent

STAGES = (
    ("errors", "wording", "output", "folders", "signals", "progress"),
    ("files", "locks", "paper", "schedules", "recipe", "options", "schema", "clock"),
    ("intervals",),
    ("attention", "architectures", "networks", "reconstruction"),
    ("compiler", "child"),
    ("machine",),
    ("identity",),
    ("compiled_functions",),
    ("data",),
    ("engines",),
    ("training",),
    ("measure",),
    ("results",),
    ("study",),
    ("scale",),
    ("analysis",),
    ("render",),
    ("duel",),
    ("session", "pytest_options", "pytest_plugin", "cli"),
)
"""Folders and root modules in the order in which data passes them; those of one stage may import one another."""

STAGE = {name: number for number, names in enumerate(STAGES) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path: Path) -> Iterator[str]:
    """The stages that a module imports from, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "resnet_bench" else [f"resnet_bench.{a.name}" for a in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            if first == "resnet_bench" and rest and not rest.startswith("__"):
                yield rest.partition(".")[0]


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_no_import_points_backwards(path: Path) -> None:
    later = [name for name in imported(path) if STAGE[name] > STAGE[stage_of(path)]]
    assert not later


def test_every_stage_exists() -> None:
    there = {stage_of(path) for path in MODULES}
    assert there <= set(STAGE)


def test_every_module_of_the_analysis_is_on_its_page_of_the_documentation() -> None:
    page = (PACKAGE.parent / "docs" / "api" / "analysis.md").read_text()
    there = {path.stem for path in (PACKAGE / "analysis").iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert there - set(re.findall(r"automodule:: resnet_bench\.analysis\.(\w+)", page)) == set()
