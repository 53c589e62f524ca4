"""Where this suite keeps what it may lose: the platform's cache folder."""

from __future__ import annotations

from pathlib import Path

import platformdirs

from resnet_bench.errors import UserError


def cache_folder() -> Path | None:
    """The suite's folder in the platform's cache folder; None for a user without a home, as in some containers."""
    try:
        folder = platformdirs.user_cache_path("resnet_bench")
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # older versions of platformdirs leave the `~` in it


def expanded(path: str) -> Path:
    """`path` with the home folder in place of `~` or `~user`; `UserError` where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"Nobody knows the home folder that {Path(path).parts[0]} stands for in {path}; give the path in full."
        ) from None
