"""What is printed can be read in any encoding."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_bench.output import COUNTERPARTS, make_readable

ROOT = Path(__file__).parent.parent
SOURCES = [*(ROOT / "resnet_bench").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]


def written(text, encoding, errors="strict"):
    """The bytes that a readable stream of this encoding makes of the text."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, newline="\n")
    make_readable(stream)
    stream.write(text)
    stream.flush()
    return stream.buffer.getvalue()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"3x3 -> 5x5, +/-3 %, 7-10, 'faster', ..."),
        ("latin-1", b"3\xd73 -> 5\xd75, \xb13 %, 7-10, \xabfaster\xbb, ..."),
        ("cp1252", b"3\xd73 -> 5\xd75, \xb13 %, 7\x9610, \xabfaster\xbb, \x85"),
        ("utf-8", "3×3 → 5×5, ±3 %, 7–10, «faster», …".encode()),
    ],
)
def test_only_what_the_encoding_lacks_is_replaced(encoding, expected):
    assert written("3×3 → 5×5, ±3 %, 7–10, «faster», …", encoding) == expected


def test_names_are_written_as_codes_not_as_other_names():
    """Also a file's name that is no text, which even UTF-8 cannot show."""
    assert written("Müller/猫", "ascii") == rb"M\xfcller/\u732b"
    assert written("a\udcff", "utf-8") == rb"a\udcff"


def test_what_the_user_asked_for_stays():
    assert written("3×3", "ascii", "xmlcharrefreplace") == b"3&#215;3"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_character_that_is_printed_has_a_counterpart(path):
    """All in strings but docstrings; those of the command line are its help."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and path.name != "cli.py"}
    printed = {
        character
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        for character in node.value
    }
    assert {c for c in printed if not c.isascii()} <= {*COUNTERPARTS, "\ufffd"}  # the last is drawn, not printed


def test_counterparts_break_no_format():
    """JSON, a quoted cell of CSV and an attribute in HTML end with a double quote."""
    assert all(text.isascii() and text.isprintable() and '"' not in text for text in COUNTERPARTS.values())


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


@pytest.mark.parametrize(
    ("environment", "arguments", "status", "expected"),
    [
        (C_LOCALE, ["architectures"], 0, b"MACs: multiply-accumulates"),
        ({"PYTHONIOENCODING": "ascii"}, ["compare", "--help"], 0, b"A ratio is 'faster' or 'slower' only where"),
        ({"PYTHONIOENCODING": "ascii"}, ["compare", "-", "→"], 2, b"There is no file -;"),
        ({"PYTHONIOENCODING": "ascii"}, ["→"], 2, b"No such command '->'."),
        ({"PYTHONIOENCODING": "cp1252"}, ["compare", "--help"], 0, b"A ratio is \xabfaster\xbb or \xabslower\xbb"),
        ({"PYTHONIOENCODING": "cp1252"}, ["→"], 2, b"No such command '->'."),
        ({"PYTHONIOENCODING": "utf-8"}, ["→"], 2, "No such command '→'.".encode()),
    ],
)
def test_processes(environment, arguments, status, expected):
    """Results, help and errors; click would write UTF-8 where it finds ASCII."""
    done = subprocess.run(
        [sys.executable, "-m", "resnet_bench.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == status
    assert expected in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_table_on_standard_output_has_the_bytes_of_the_file(tmp_path, encoding):
    """`export` without --output, as a user pipes it, whatever the terminal's encoding is."""
    source, out = ROOT / "reports" / "threads-1.json", tmp_path / "table.csv"
    command = [sys.executable, "-m", "resnet_bench.cli", "export", str(source), "--format", "csv"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    printed = subprocess.run(command, capture_output=True, env=environment, check=True).stdout
    subprocess.run([*command, "--output", str(out)], env=environment, check=True)
    assert printed == out.read_bytes()
    assert printed.startswith(b"kind,")


@pytest.mark.parametrize(
    "command",
    [
        ["report", "quick-cifar100-subset.json"],
        ["compare", "threads-1.json", "threads-2.json"],
        ["history", "same-code"],
    ],
    ids=lambda command: command[0],
)
def test_what_only_reads_files_needs_no_torch(command):
    """Whose import takes seconds: the better part of what a report takes."""
    code = (
        "import sys\n"
        "from resnet_bench.cli import cli\n"
        "cli.main(sys.argv[1:], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    asked = [sys.executable, "-c", code, *command]
    printed = subprocess.run(asked, cwd=ROOT / "reports", capture_output=True, text=True, check=True).stdout
    assert len(printed.splitlines()) > 5
    assert printed.splitlines()[-1] == "False"
