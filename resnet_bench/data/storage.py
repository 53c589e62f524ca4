"""The folder in which archives of data sets and decoded images are kept."""

from __future__ import annotations

import os
from pathlib import Path

from resnet_bench.errors import UserError
from resnet_bench.folders import cache_folder, expanded

DATA_VARIABLE = "RESNET_BENCH_DATA"  # the environment variable that names the folder


class NoDataFolderError(UserError):
    """The environment names no data folder, and the user has no cache folder."""


def data_folder() -> Path:
    """`$RESNET_BENCH_DATA`, or the suite's folder in the platform's cache folder. It need not exist yet.

    Raises:
        NoDataFolderError: where there is neither.
    """
    named = os.environ.get(DATA_VARIABLE)
    folder = expanded(named) if named else cache_folder()
    if folder is None:
        raise NoDataFolderError(
            f"This user has no home folder to keep CIFAR-10 and CIFAR-100 in; name a folder in {DATA_VARIABLE}, or "
            "take --dataset synthetic or folder:PATH."
        )
    return folder
