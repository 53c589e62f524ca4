"""What a session tells its user, in spite of pytest's capturing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from resnet_bench import progress
from resnet_bench.errors import UserError


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn a `UserError` into one sentence and exit status 2, as the command line does."""
    try:
        yield
    except UserError as error:
        pytest.exit(f"resnet_bench: error: {error}", returncode=2)


@contextlib.contextmanager
def shown(config: pytest.Config) -> Iterator[None]:
    """Let through to the terminal what is printed, such as progress. Pytest captures it otherwise."""
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        yield


def say(config: pytest.Config, line: str) -> None:
    """Print a line of its own. Does nothing with `-p no:terminal`."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        return
    with shown(config), progress.paused():
        reporter.ensure_newline()
        reporter.write_line(line)
