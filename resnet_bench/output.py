"""Printing in any encoding: characters that the output cannot show are replaced by ASCII.

Tables contain ×, ±, → and –. Many encodings lack them: on Windows, in the C locale, under `PYTHONIOENCODING`. There x,
+/-, -> and - are printed.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

COUNTERPARTS = {
    "×": "x", "±": "+/-", "≤": "<=", "≥": ">=", "→": "->", "–": "-", "…": "...", "†": "+", "·": "-",
    "▁": "_", "▂": ".", "▃": "-", "▄": "~", "▅": "=", "▆": "+", "▇": "*", "█": "#", "▒": "=", "│": "|",
    "“": "'", "”": "'", "«": "'", "»": "'",  # not double ones, which would end a cell of CSV
}  # fmt: skip
"""ASCII for the characters that the suite itself prints. Others, as in file names, become escapes such as \\u03b1."""

_HANDLER = "resnet_bench.output"


def _counterparts(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(COUNTERPARTS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters), error.end


codecs.register_error(_HANDLER, _counterparts)


def make_readable(*streams: Any) -> None:
    """Have streams like `sys.stdout` print `COUNTERPARTS` of the characters that their encoding lacks.

    An error handler that the user chose, as with `PYTHONIOENCODING=ascii:xmlcharrefreplace`, stays.
    """
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors=_HANDLER)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Inside, everything that the command line prints is readable, also the messages of click itself."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before the start
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (open as long as the process runs)
    make_readable(sys.stdout, sys.stderr)
    with contextlib.redirect_stdout(_Text(sys.stdout)), contextlib.redirect_stderr(_Text(sys.stderr)):
        yield


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are, such as a table in UTF-8 or Parquet."""
    stream: Any = sys.stdout._stream if isinstance(sys.stdout, _Text) else sys.stdout
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


def terminal_width() -> int:
    """Columns of the terminal or, as where output goes into a file, 100; `COLUMNS` in the environment decides."""
    return shutil.get_terminal_size((100, 24)).columns


def line_width() -> int | None:
    """Columns of the terminal that standard output is; None for a file or a pipe, where no row is broken."""
    return terminal_width() if sys.stdout.isatty() else None


def has_colours(stream: Any) -> bool:
    """Whether a stream is a terminal that shows colours and whose user wants them (https://no-color.org)."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and bool(stream.isatty())


class _Text:
    """A stream that hides its `buffer`: click would write UTF-8 into it where the encoding is ASCII."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)
