"""The end of a session: pytest-benchmark saves the results, and the journal is removed if nothing was lost."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.storage.file import FileStorage
from pytest_benchmark.utils import safe_dumps

from resnet_bench.errors import UserError, without_credentials
from resnet_bench.files import atomic_write
from resnet_bench.schema import ParametersResult
from resnet_bench.session.suite import Suite


@contextlib.contextmanager
def journal_kept_if_needed(suite: Suite, session: pytest.Session, passed: bool) -> Iterator[None]:
    """Around the saving: say afterwards what could not be saved, and remove the journal if everything was.

    Args:
        passed: whether all tests have passed.
    """
    pytest_benchmark_session = session.config.pluginmanager.getplugin("pytest-benchmark")
    errors = _collect_errors(pytest_benchmark_session, suite)
    try:
        yield
    finally:
        written = suite.journal.names if "journal" in vars(suite) else set()
        taken = {benchmark.fullname for benchmark in pytest_benchmark_session.benchmarks if not benchmark.has_error}
        if passed and written and not taken:  # a plugin has switched it off
            errors.append("pytest-benchmark has none of them")
        if errors:
            session.exitstatus = 2
            suite.say(f"resnet_bench: error: cannot save the results: {errors[0].rstrip('.')}.")
        if written:
            all_saved = not errors and passed and written <= taken
            quick_to_repeat = all(isinstance(result, ParametersResult) for result in suite.journal.results)
            if all_saved or (not errors and quick_to_repeat):
                suite.journal.remove()
                if all_saved and "checkpoints" in vars(suite):
                    suite.checkpoints.remove()
            else:
                suite.journal.close()
                suite.say(f"resnet_bench: what was measured is kept in {suite.journal.path}")


def _collect_errors(session: Any, suite: Suite) -> list[str]:
    """Change the saving of `session`, pytest-benchmark's own: its error goes into the list that is returned.

    What it has saved goes into `suite.saved`.

    Raised, the error would keep pytest from printing what failed, and what other plugins have to say. The JSON file
    becomes atomic as well: pytest-benchmark would cut off an old file before it writes the new one.
    """
    errors = ["it was interrupted"]  # until it has succeeded or failed
    handle_saving = session.handle_saving

    def handle_saving_or_tell() -> None:
        before = _saved_files(session.storage)
        try:
            handle_saving()
            errors.clear()
            if saved := sorted(_saved_files(session.storage) - before) or [Path(p) for p in [session.json] if p]:
                suite.saved = saved[0]
        except Exception as error:
            errors[:] = [_reason(error)]
            for path in _saved_files(session.storage) - before:
                if not _is_json(path):
                    path.unlink()  # an unfinished file would count as a saved run

    def save_json_atomically(output: dict[str, Any]) -> None:
        with atomic_write(session.json) as file:
            file.write(safe_dumps(output, ensure_ascii=True, indent=4))  # type: ignore[no-untyped-call]
        session.logger.info(f"Wrote benchmark data in: {session.json}", purple=True)

    if not isinstance(session.storage, FileStorage):
        info = session.logger.info  # prints the database's address, with parts of a password that has an @
        session.logger.info = lambda text, **style: info(without_credentials(text), **style)
    session.handle_saving, session.save_json = handle_saving_or_tell, save_json_atomically
    return errors


def _saved_files(storage: Any) -> set[Path]:
    return set(storage.query()) if isinstance(storage, FileStorage) else set()  # type: ignore[no-untyped-call]


def _is_json(path: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):
        json.loads(path.read_bytes())
        return True
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    # Of other errors only the name: a database's client may put parts of a password into the message.
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
