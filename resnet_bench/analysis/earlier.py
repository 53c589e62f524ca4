"""The last saved session of the same folder that may be compared with the results at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_bench.analysis.comparison import Comparison, compare
from resnet_bench.errors import UserError
from resnet_bench.results.samples import Samples, read_one

MOST = 10
"""Files that are read at most, the newest first: each takes time."""

_SAVED = re.compile(r"(\d{4,})_.*\.json")  # as pytest-benchmark's storage names its files


OTHERWISE = {"measured": "other parts of an epoch were timed"}
"""How a difference of settings is told, where «other» and its name do not say it."""


@dataclass(frozen=True)
class Earlier:
    """What was found among earlier sessions.

    Attributes:
        comparison: the results at hand as OTHER against the newest session that was measured like them as BASE; None
            where there is none.
        looked_at: the number of files that were read, or could not be.
        reason: why the newest of them is not comparable; empty where it is, and where there is no file.
    """

    comparison: Comparison | None
    looked_at: int = 0
    reason: str = ""


def saved_before(folder: Path, name: str | None = None) -> list[Path]:
    """The sessions saved in a folder, the newest first; with the name of one of them only those before it.

    Empty where the name is none that pytest-benchmark's storage gives, because then nothing tells what is earlier.
    """
    numbered = {path: int(match[1]) for path in folder.glob("*.json") if (match := _SAVED.fullmatch(path.name))}
    if name is None:
        return sorted(numbered, key=lambda path: numbered[path], reverse=True)
    own = _SAVED.fullmatch(name)
    older = [path for path, number in numbered.items() if own and number < int(own[1])]
    return sorted(older, key=lambda path: numbered[path], reverse=True)


def last_alike(samples: Samples, candidates: Sequence[Path]) -> Earlier:
    """Compare results of one file with the first of these files that was measured on such a machine in such a setting.

    Args:
        samples: of one file, or of a session whose results are not saved yet.
        candidates: files, the newest first. Those that cannot be read are passed over, as are copies of the results.
    """
    sessions = {str(run.session) for run in samples.runs if run.session}
    reason, looked_at = "", 0
    for path in candidates[:MOST]:
        try:
            base = read_one(path)
            if sessions & {str(run.session) for run in base.runs}:
                continue
            found = compare(base, samples)
            why = "" if found.same_machine else "another machine"
            why = why or ", ".join(OTHERWISE.get(key, f"other {key}") for key in found.other_settings)
        except UserError as error:
            why = str(error).removeprefix(f"{samples.files[0].path} cannot be compared with {path}: ")
            why = why.partition("; give ")[0]
        looked_at += 1
        if not why:
            return Earlier(found, looked_at)
        reason = reason or f"{path.name}: {why}"
    return Earlier(None, looked_at, reason)
