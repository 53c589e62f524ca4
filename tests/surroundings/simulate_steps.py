"""How often `resnet_bench.analysis.steps` finds steps, where there are none and where there is one.

    python tests/surroundings/simulate_steps.py [--trials 500] [--output FILE.json]

prints Markdown tables, and writes their shares. Sessions of the same code scatter by 3 % on the logarithmic scale; each
follows on the one before it with a given correlation. A busy session takes 60 % longer. The last table asks after every
session, from the sixth on, as a nightly job does.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnet_bench.analysis.steps import LEAST_SESSIONS, steps

Floats = NDArray[np.float64]

LENGTHS = (6, 8, 12, 24, 60)
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8)
NIGHTLY, LOOKED_AT = (0.0, 0.3, 0.5), (30, 60)
NOISE, STEP, BUSY = 0.03, math.log(1.12), math.log(1.6)


def sessions(trials: int, length: int, correlation: float) -> Floats:
    """Logarithms of times of the same code, one series a row."""
    random = np.random.default_rng([length, round(100 * correlation)])
    found: Floats = NOISE * random.standard_normal((trials, length))
    for i in range(1, length):
        found[:, i] = correlation * found[:, i - 1] + math.sqrt(1 - correlation**2) * found[:, i]
    return found


def share_with_steps(series: Floats) -> float:
    return float(np.mean([bool(steps(np.exp(logs))) for logs in series]))


def first_regression(logs: Floats) -> int | None:
    """After how many sessions `--fail-on-step` would first fail for this line alone; None for never."""
    for length in range(LEAST_SESSIONS, len(logs) + 1):
        found = steps(np.exp(logs[:length]).tolist())
        if found:
            ends = [0, *(step.first for step in found), length]
            before, after = (logs[a:b].mean() for a, b in zip(ends[-3:-1], ends[-2:], strict=True))
            if after > before:
                return length
    return None


class Tables:
    """Tables of shares, printed as they come and kept for the file."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, dict[str, float]]] = {}

    def add(self, title: str, rows: dict[str, dict[str, float]]) -> None:
        self.kept[title] = rows
        heads = list(next(iter(rows.values())))
        print(f"{title}:\n")
        for cells in (
            ["", *heads],
            ["---"] * (1 + len(heads)),
            *([name, *map("{:.1%}".format, row.values())] for name, row in rows.items()),
        ):
            print(f"| {' | '.join(cells)} |")
        print(flush=True)


def found_at(series: Floats, place: int) -> dict[str, float]:
    """Shares of the series that have a step, and of these, those that have it at the place or one session beside it."""
    found = [[step.first for step in steps(np.exp(logs))] for logs in series]
    some = [own for own in found if own]
    near = [float(np.mean([any(abs(at - place) <= by for at in own) for own in some])) for by in (0, 1)]
    return {"with a step": len(some) / len(found), "of these at its place": near[0], "or one beside it": near[1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    trials, tables = asked.trials, Tables()

    tables.add(
        "The same code, lines with a step, by the correlation of neighbours",
        {f"{n} sessions": {str(c): share_with_steps(sessions(trials, n, c)) for c in CORRELATIONS} for n in LENGTHS},
    )
    rows = {}
    for n in LENGTHS:
        half, newest = sessions(trials, n, 0.0), sessions(trials, n, 0.0)
        half[:, n // 2 :] += STEP
        newest[:, -3:] += STEP
        rows[f"{n} sessions"] = {
            "the second half": share_with_steps(half),
            "the newest three": share_with_steps(newest),
        }
    tables.add("12 % slower, lines with a step", rows)

    rows = {}
    for step, scatter in ((math.log(1.05), 0.01), (STEP, NOISE)):
        series = sessions(trials, 20, 0.0) * scatter / NOISE
        series[:, 10:] += step
        busy = series.copy()
        busy[np.arange(trials), np.random.default_rng(20).integers(0, 20, trials)] += BUSY
        for name, own in (("none busy", series), ("one busy", busy)):
            rows[f"{math.expm1(step):.0%} slower, scatter {scatter:.0%}, {name}"] = found_at(own, 10)
    tables.add("20 sessions, the second half slower", rows)

    rows = {}
    for c in NIGHTLY:
        first = [first_regression(logs) for logs in sessions(trials, max(LOOKED_AT), c)]
        rows[f"correlation {c}"] = {
            f"in {n} sessions": float(np.mean([f is not None and f <= n for f in first])) for n in LOOKED_AT
        }
    tables.add("The same code, asked after every session, lines that failed at some time", rows)

    if asked.output:
        asked.output.write_text(
            json.dumps({"trials": trials, "shares": tables.kept}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
