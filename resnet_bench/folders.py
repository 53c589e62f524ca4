"""Folders of the user: the platform's cache folder, `~`, and where saved runs lie."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from resnet_bench.errors import UserError

STORAGE = Path(".benchmarks")
"""Where pytest-benchmark saves runs by default, in the working folder."""


def cache_folder() -> Path | None:
    """The suite's folder for what can be made again; None for a user without a home folder, as in some containers."""
    try:
        folder = platformdirs.user_cache_path("resnet_bench")
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # older versions of platformdirs return `~/…` unexpanded


def expanded(path: str) -> Path:
    """`path` with `~` or `~user` replaced by the home folder.

    Raises:
        UserError: where the home folder is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"Nobody knows the home folder that {Path(path).parts[0]} stands for in {path}; give the path in full."
        ) from None
