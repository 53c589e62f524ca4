"""How often `resnet_bench.analysis.steps` finds steps, where there are none and where there is one.

    python tests/surroundings/simulate_steps.py [--trials 500]

prints Markdown tables. Sessions of the same code scatter by 3 % on the logarithmic scale; each follows on the one
before it with a given correlation. The last table asks after every session, from the sixth on, as a nightly job does.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from numpy.typing import NDArray

from resnet_bench.analysis.steps import LEAST_SESSIONS, steps

Floats = NDArray[np.float64]

LENGTHS = (6, 8, 12, 24, 60)
CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8)
NIGHTLY, LOOKED_AT = (0.0, 0.3, 0.5), (30, 60)
NOISE, STEP = 0.03, math.log(1.12)


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
        found = steps(np.exp(logs[:length]))
        if found:
            ends = [0, *(step.first for step in found), length]
            before, after = (logs[a:b].mean() for a, b in zip(ends[-3:-1], ends[-2:], strict=True))
            if after > before:
                return length
    return None


def table(heads: list[str], rows: list[list[str]]) -> None:
    for row in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    trials = parser.parse_args().trials

    print("The same code, lines with a step:\n")
    rows = [
        [f"{n} sessions"] + [f"{share_with_steps(sessions(trials, n, c)):.1%}" for c in CORRELATIONS] for n in LENGTHS
    ]
    table(["correlation", *map(str, CORRELATIONS)], rows)

    print("12 % slower, lines with a step:\n")
    rows = []
    for n in LENGTHS:
        half, newest = sessions(trials, n, 0.0), sessions(trials, n, 0.0)
        half[:, n // 2 :] += STEP
        newest[:, -3:] += STEP
        rows.append([f"{n} sessions", f"{share_with_steps(half):.0%}", f"{share_with_steps(newest):.0%}"])
    table(["", "the second half", "the newest three"], rows)

    print("The same code, asked after every session, lines that failed at some time:\n")
    rows = []
    for c in NIGHTLY:
        first = [first_regression(logs) for logs in sessions(trials, max(LOOKED_AT), c)]
        rows.append(
            [f"correlation {c}"] + [f"{np.mean([f is not None and f <= n for f in first]):.0%}" for n in LOOKED_AT]
        )
    table(["", *(f"in {n} sessions" for n in LOOKED_AT)], rows)


if __name__ == "__main__":
    main()
