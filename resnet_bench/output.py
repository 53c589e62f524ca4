"""What is printed can be read whatever the encoding of the output.

Tables have ×, ±, → and – in them, which many an output cannot show: on Windows, under `PYTHONIOENCODING`, in the C
locale. There they become what one would type instead.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any

COUNTERPARTS = {
    "×": "x", "±": "+/-", "≤": "<=", "≥": ">=", "→": "->", "–": "-", "…": "...", "†": "+",
    "“": "'", "”": "'", "«": "'", "»": "'",  # not double ones, which would end a cell of CSV
}  # fmt: skip
"""ASCII for the characters that the suite itself prints. Any other, as of a file's name, is written as its code."""

_HANDLER = "resnet_bench.output"


def _counterparts(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    return "".join(COUNTERPARTS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in characters), error.end


codecs.register_error(_HANDLER, _counterparts)


def make_readable(*streams: Any) -> None:
    """Have streams like `sys.stdout` write counterparts of what their encoding lacks.

    What the user asked for instead, as with `PYTHONIOENCODING=ascii:xmlcharrefreplace`, stays.
    """
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape", "backslashreplace"):
            stream.reconfigure(errors=_HANDLER)


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Have what the command line prints readable, click's own messages included."""
    make_readable(sys.stdout, sys.stderr)
    with contextlib.redirect_stdout(_Text(sys.stdout)), contextlib.redirect_stderr(_Text(sys.stderr)):
        yield


class _Text:
    """A stream without its `buffer`: click takes one in ASCII for misconfigured and writes UTF-8 into its buffer."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":
            raise AttributeError(name)
        return getattr(self._stream, name)
