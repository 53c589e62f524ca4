"""Tables as GitHub's Markdown, in which a parser finds what was put in, and as text that fits a terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from resnet_bench import output
from resnet_bench.cli import main
from resnet_bench.render.table import Table
from tests.handmade import accuracy, in_processes, machine, parameters, save

ROOT = Path(__file__).parents[2]
GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
STEP_SUMMARY_LIMIT = 2**20
"""Bytes that GitHub takes for the summary of a step."""


def shown(token: Token) -> str:
    """What a reader sees of a line; a link, HTML or an emphasis leaves out characters, which is what tests look for."""
    return "".join("\n" if child.type == "softbreak" else child.content for child in token.children or [])


def parsed(markdown: str) -> tuple[list[str], list[list[list[str]]]]:
    """The paragraphs, and the tables as rows of cells, the heads first; nothing else may be there."""
    paragraphs: list[str] = []
    tables: list[list[list[str]]] = []
    rows: list[list[str]] | None = None
    for token in GITHUB.parse(markdown):
        if token.type == "table_open":
            tables.append(rows := [])
        elif token.type == "table_close":
            rows = None
        elif token.type == "tr_open" and rows is not None:
            rows.append([])
        elif token.type == "inline":
            (paragraphs if rows is None else rows[-1]).append(shown(token))
        else:
            assert token.type.split("_")[0] in ("paragraph", "table", "thead", "tbody", "tr", "th", "td"), token.type
    return paragraphs, tables


def words(text: str) -> str:
    return " ".join(text.split())


TEXTS = st.text(st.sampled_from("ab1 _*`|\\<>[]()!&#;+-=.~$:/\n\r\u2028×†–é"), max_size=12) | st.sampled_from(
    [
        "- a",
        "+5 %",
        "# a",
        "> a",
        "1. a",
        "12) a",
        "***",
        "a | b",
        "<b>",
        "&amp;",
        "[a](b)",
        "![a](b)",
        "__a__",
        "~~a~~",
    ]
)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(TEXTS, min_size=n, max_size=n), min_size=1, max_size=4)))
def test_every_cell_is_shown_as_it_is(rows: list[list[str]]) -> None:
    """All rows have as many cells as there are heads."""
    _, (found,) = parsed(Table("Title", rows[0], rows[1:]).render("markdown"))
    assert [list(map(words, row)) for row in found] == [list(map(words, row)) for row in rows]


@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=3))
def test_title_caption_and_notes_are_shown_as_they_are(title: str, caption: str, notes: list[str]) -> None:
    made = Table(f"T{title}t", ["a"], [["1"]], f"C{caption}", notes)
    paragraphs, tables = parsed(made.render("markdown"))
    assert tables == [[["a"], ["1"]]]
    expected = [f"T{title}t C{caption}", *notes]
    assert list(map(words, paragraphs)) == [words(text) for text in expected if words(text)]


@pytest.fixture
def markdown(capsys: pytest.CaptureFixture[str]):
    """What a command prints with `--format markdown`, parsed; it fits into a step's summary."""

    def run(*arguments: str | Path) -> tuple[list[str], list[list[list[str]]]]:
        with pytest.raises(SystemExit):
            main([*map(str, arguments), "--format", "markdown"])
        printed = capsys.readouterr().out
        assert len(printed.encode()) < STEP_SUMMARY_LIMIT / 4
        return parsed(printed)

    return run


def test_a_comparison_is_tables_for_a_step_summary(markdown, tmp_path: Path) -> None:
    """Of every network, with names that Markdown would take for its own, and what differs between the machines."""
    names = ["baseline", "fc1", "fc3", "blocks2", "conv5x5", "a_|_b", "*x*"]
    paths = [tmp_path / "base_|_.json", tmp_path / "<other>.json"]
    for path, seconds, model in zip(paths, (60, 90), ("A | B", "<C>"), strict=True):
        entries = [in_processes(n, seconds) for n in names] + [accuracy(n, [0.3] * 15) for n in names]
        save(path, entries, machine(cpu={"model": model}, environment={"A": "`x` | *y*"}))
    paragraphs, tables = markdown("compare", *paths, "--fail-if", "epoch_seconds:5%")
    assert paragraphs[0].startswith("<other>.json against base_|_.json base: base_|_.json (A | B,")
    assert [row[0] for row in tables[0]] == ["network", *names, "geometric mean"]
    assert all(len(row) == len(table[0]) for table in tables for row in table)
    assert ["A | B", "<C>"] in [row[1:] for table in tables for row in table]


@pytest.mark.parametrize(
    "path", ["study-cifar100-subset", "epoch-time-cifar10-zen4.json", "quick-cifar100-subset.json"]
)
def test_a_report_is_tables_for_a_step_summary(markdown, path: str) -> None:
    _, tables = markdown("report", ROOT / "reports" / path, "--claims")
    assert len(tables) >= 4
    assert all(len(row) == len(table[0]) for table in tables for row in table)


def test_a_table_without_rows_has_its_heads(markdown, tmp_path: Path) -> None:
    assert parsed(Table("T", ["a", "b|c"], []).render("markdown"))[1] == [[["a", "b|c"]]]
    assert markdown("report", save(tmp_path / "a.json", [parameters("fc1")]))[1]


def on_a_terminal(table: Table, columns: int | None) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "line_width", lambda: columns)
        return table.render("text").splitlines()


INTERVALS = Table("Times", ["network", "step (ms)", "what is to be said"], [["fc1", "1.50 [1.40, 1.60]", "a b " * 30]])


def test_a_wide_table_follows_the_terminal_and_keeps_intervals_whole() -> None:
    lines = on_a_terminal(INTERVALS, 60)
    assert max(map(len, lines)) <= 60
    assert any("1.50 [1.40, 1.60]" in line for line in lines)


def test_a_table_with_many_columns_lies_on_its_side() -> None:
    wide = Table("Wide", [f"column{i}" for i in range(12)], [[f"value{i}" for i in range(12)]])
    lines = on_a_terminal(wide, 60)
    assert [line.split() for line in lines[2:3] + lines[4:]] == [[f"column{i}", f"value{i}"] for i in range(12)]


def test_in_a_file_each_row_is_a_line() -> None:
    lines = on_a_terminal(INTERVALS, None)
    assert [line for line in lines if line.startswith("fc1")] == [
        "fc1        1.50 [1.40, 1.60]  " + ("a b " * 30).strip()
    ]


WORDS = st.lists(st.text("abc[],", max_size=9), max_size=6).map(" ".join)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(WORDS, min_size=n, max_size=n), min_size=2, max_size=5)))
def test_nothing_is_lost_on_a_narrow_terminal(rows: list[list[str]]) -> None:
    lines = on_a_terminal(Table("Title", rows[0], rows[1:]), 90)
    assert max(map(len, lines)) <= 90
    shown = Counter(word for line in lines[2:] for word in line.split() if set(word) != {"-"})
    assert shown == Counter(word for row in rows for cell in row for word in cell.split())
