"""resnet_bench: measure and compare the training of five small residual networks on CPUs.

`load` is the public interface: saved measurements as a pandas data frame, whose columns docs/schema.md documents and
semantic versioning covers. Everything else serves the command line and the benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(paths: str | Path | Iterable[str | Path]) -> pandas.DataFrame:
    """The measurements of saved files as a tidy table: one row a block, an epoch, a count.

    Args:
        paths: files that `pytest benchmarks --benchmark-save` or `resnet-bench train --output` wrote, journals too; a
            folder stands for the results in it.

    Returns:
        A data frame with the columns of docs/schema.md. Each measurement is there once, however many of the files hold
        it, and the rows do not depend on the order of the files.

    Raises:
        resnet_bench.errors.UserError: a file is missing, damaged, of a later version, or not of this suite.
    """
    from resnet_bench.results import frame, samples  # pandas takes a second to import

    return frame.data_frame(samples.read_all([paths] if isinstance(paths, str | Path) else paths))
