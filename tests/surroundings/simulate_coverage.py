"""How often the intervals of epoch times cover, and how often `compare` and `duel` find differences that there are not.

    python tests/surroundings/simulate_coverage.py [--trials 5000] [--json FILE]

prints Markdown tables. Block b of process p of a network takes exp(a_p + s + e_pb). a_p is what the process keeps for
its life: normal, or the two modes of default Adam, which takes 17 or 40 ms of a step whose other parts take 21 ms. s
is the machine's speed at that time. e_pb scatters by 3 % and follows on the block before it with a given correlation.
Five networks are measured by each process and share half of the variance of a_p.

All functions of the package are used in a form that computes many trials at once; `tests/analysis/test_coverage.py`
holds that form to the functions themselves.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Effect = Literal["0 %", "3 %", "30 %", "two modes", "two modes, 1 of 5"]

EFFECTS: tuple[Effect, ...] = ("0 %", "3 %", "30 %", "two modes", "two modes, 1 of 5")
SHARE_SLOW = {"two modes": 0.5, "two modes, 1 of 5": 0.2}
"""How many processes have the slow mode."""

CORRELATIONS = (0.0, 0.3, 0.6)
PROCESSES = (3, 5, 8, 10)
MORE_PROCESSES = (3, 4, 5, 8, 10, 15, 20, 30)  # to see from how many on both modes are seen
PAIRS = 8  # of a duel, unless it is told otherwise
NETWORKS = 5
BLOCKS = 10  # of a process
BLOCK_NOISE = 0.03
CALIBRATION_NOISE = 0.02
MEMORY_PROBES, SUM_PROBES = 4, 20  # of a calibration


class Ends(NamedTuple):
    """Many intervals."""

    low: Floats
    high: Floats

    def hold(self, value: float) -> NDArray[np.bool_]:
        return (self.low <= value) & (value <= self.high)


# ---------------------------------------------------------------------------------------------------------------------
# The package's functions for many trials at once; the last axis is that of the processes


def over_processes(values: Floats) -> Ends:
    """`resnet_bench.intervals.over_processes`."""
    n, mean = values.shape[-1], values.mean(-1)
    factor = np.exp(stats.t.ppf(0.975, n - 1) * values.std(-1, ddof=1) / np.sqrt(n) / mean)
    return Ends(mean / factor, mean * factor)


def paired_ratio(base: Floats, other: Floats, together: int = 1) -> Ends:
    """`resnet_bench.analysis.ratios.paired_ratio`."""
    logs = np.log(other / base)
    n = logs.shape[-1]
    return _ends(logs.mean(-1), logs.var(-1, ddof=1) / n, np.float64(n - 1), together)


def independent_ratio(base: Floats, other: Floats, together: int = 1) -> Ends:
    """`resnet_bench.analysis.ratios.independent_ratio`."""
    sides = [np.log(base), np.log(other)]
    squares = [logs.var(-1, ddof=1) / logs.shape[-1] for logs in sides]
    freedom = (squares[0] + squares[1]) ** 2 / sum(
        s**2 / (logs.shape[-1] - 1) for s, logs in zip(squares, sides, strict=True)
    )
    return _ends(sides[1].mean(-1) - sides[0].mean(-1), squares[0] + squares[1], freedom, together)


def speed_factor(rates: Floats) -> Floats:
    """The factor of `resnet_bench.analysis.drift.speed_range`.

    Args:
        rates: their logarithms, [..., resource, calibration, measurement].
    """
    own = rates - rates.mean(-2, keepdims=True)
    found: Floats = np.exp(np.ptp(np.median(own, axis=-1), axis=-1).max(-1))
    return found


def widened(ends: Ends, factor: Floats) -> Ends:
    """`resnet_bench.analysis.ratios.widened`."""
    return Ends(ends.low / factor, ends.high * factor)


def _ends(estimate: Floats, squared_error: Floats, freedom: Floats | np.float64, together: int) -> Ends:
    half = stats.t.ppf(1 - 0.025 / together, freedom) * np.sqrt(squared_error)
    return Ends(np.exp(estimate - half), np.exp(estimate + half))


# ---------------------------------------------------------------------------------------------------------------------
# The model


def process_times(
    random: np.random.Generator, effect: Effect, correlation: float, shape: tuple[int, ...], networks: int = 1
) -> Floats:
    """The mean of its blocks for each process: [..., networks, processes] for a shape of [..., processes]."""
    *trials, processes = shape
    whole = (*trials, networks, processes)
    e = random.standard_normal((*whole, BLOCKS))
    for b in range(1, BLOCKS):
        e[..., b] = correlation * e[..., b - 1] + np.sqrt(1 - correlation**2) * e[..., b]
    times: Floats = _kept(random, effect, whole) * np.exp(BLOCK_NOISE * e).mean(-1)
    return times


def _kept(random: np.random.Generator, effect: Effect, shape: tuple[int, ...]) -> Floats:
    """The factor that a process keeps for its life."""
    if effect in SHARE_SLOW:
        shared = random.random((*shape[:-2], 1, shape[-1]))
        own = random.random(shape)
        draw = np.where(random.random(shape) < 0.5, shared, own)  # each network has the shared mode half of the time
        return np.where(draw < SHARE_SLOW[effect], 61.0, 38.0)
    deviation = float(effect.split()[0]) / 100
    shared, own = random.standard_normal((*shape[:-2], 1, shape[-1])), random.standard_normal(shape)
    kept: Floats = np.exp(deviation * np.sqrt(0.5) * (shared + own))
    return kept


def true_mean(effect: Effect) -> float:
    """The mean of all processes that there could be."""
    if effect in SHARE_SLOW:
        kept = 61.0 * SHARE_SLOW[effect] + 38.0 * (1 - SHARE_SLOW[effect])
    else:
        kept = float(np.exp((float(effect.split()[0]) / 100) ** 2 / 2))
    return kept * float(np.exp(BLOCK_NOISE**2 / 2))


class Drift(NamedTuple):
    """How the machine's speed moves, as standard deviations of its logarithm.

    Attributes:
        between: from one run to the next, which then stays.
        trend: from the start of a run to its end, evenly.
        wander: the same, as a random walk, which may leave the range between start and end.
    """

    between: float = 0.0
    trend: float = 0.0
    wander: float = 0.0

    def __str__(self) -> str:
        names = ("between runs", "trend", "wander")
        return ", ".join(f"{100 * d:.0f} % {name}" for name, d in zip(names, self, strict=True) if d) or "none"


DRIFTS = (
    Drift(),
    Drift(between=0.1),
    Drift(between=0.3),
    Drift(trend=0.2),
    Drift(between=0.1, trend=0.1),
    Drift(between=0.1, wander=0.1),
)


def speeds(random: np.random.Generator, drift: Drift, trials: int, places: int) -> Floats:
    """Logarithm of the machine's slowness in one run, [trial, place]; the first is its start, the last its end."""
    at = np.linspace(0, 1, places)
    steps = random.standard_normal((trials, places)) / np.sqrt(places - 1)
    steps[:, 0] = 0
    return (
        drift.between * random.standard_normal((trials, 1))
        + drift.trend * random.standard_normal((trials, 1)) * at
        + drift.wander * np.cumsum(steps, axis=1)
    )


def calibrations(random: np.random.Generator, slowness: Floats) -> Floats:
    """What calibrations find at these slownesses [..., calibration]: rates [..., resource, calibration, probe].

    Half of the variance of a calibration's noise is in all its measurements, the other half in each.
    """
    shape = (*slowness.shape[:-1], 2, slowness.shape[-1], SUM_PROBES)
    shared = random.standard_normal((*slowness.shape[:-1], 1, slowness.shape[-1], 1))
    noise = CALIBRATION_NOISE * np.sqrt(0.5) * (shared + random.standard_normal(shape))
    rates: Floats = noise - slowness[..., None, :, None]
    # Fewer measurements are of the memory; repeated, so that their median stays.
    rates[..., 0, :, :] = np.repeat(rates[..., 0, :, :MEMORY_PROBES], SUM_PROBES // MEMORY_PROBES, axis=-1)
    return rates


# ---------------------------------------------------------------------------------------------------------------------
# What is counted


class Found(NamedTuple):
    """Shares of the trials.

    Attributes:
        any: with the verdict `faster` or `slower` for at least one of the networks.
        mean: with that verdict for the geometric mean.
        each: with `slower` for a network, the mean over the networks.
        every: with `slower` for all networks.
    """

    any: float
    mean: float
    each: float
    every: float


def coverage(random: np.random.Generator, effect: Effect, correlation: float, processes: int, trials: int) -> float:
    """How often the interval over processes holds the mean of all processes that there could be."""
    times = process_times(random, effect, correlation, (trials, processes))[:, 0]
    return float(over_processes(times).hold(true_mean(effect)).mean())


def ratio_coverage(
    random: np.random.Generator, effect: Effect, correlation: float, processes: int, trials: int, *, paired: bool
) -> float:
    """How often the interval of a ratio holds the true one, 1.1."""
    base, other = (process_times(random, effect, correlation, (trials, processes))[:, 0] for _ in range(2))
    ratio = paired_ratio if paired else independent_ratio
    return float(ratio(base, 1.1 * other).hold(1.1).mean())


def compared(
    random: np.random.Generator,
    effect: Effect,
    processes: int,
    trials: int,
    *,
    slowdown: float = 1.0,
    drift: Drift = DRIFTS[0],
    widen: bool = True,
) -> Found:
    """Two runs one after the other, as `resnet-bench compare` judges them."""
    sides, slowness = [], []
    for factor in (1.0, slowdown):
        speed = speeds(random, drift, trials, processes + 2)
        times = process_times(random, effect, 0.3, (trials, processes), NETWORKS)
        sides.append(factor * times * np.exp(speed[:, None, 1:-1]))
        slowness.append(speed[:, [0, -1]])
    width = speed_factor(calibrations(random, np.concatenate(slowness, axis=-1))) if widen else np.ones(trials)
    return _found(independent_ratio, sides[0], sides[1], width)


def dueled(
    random: np.random.Generator,
    effect: Effect,
    pairs: int,
    trials: int,
    *,
    slowdown: float = 1.0,
    drift: Drift = DRIFTS[0],
) -> Found:
    """Two arms in turn, as `resnet-bench duel` judges them: A B B A or B A A B, drawn for each four."""
    speed = speeds(random, drift, trials, 2 * pairs).reshape(trials, pairs, 2)
    first = np.repeat(random.integers(0, 2, (trials, (pairs + 1) // 2)), 2, axis=1)[:, :pairs]
    first[:, 1::2] ^= 1
    speed = np.take_along_axis(speed, np.stack([first, 1 - first], axis=-1), -1)
    base, other = (
        factor * process_times(random, effect, 0.3, (trials, pairs), NETWORKS) * np.exp(speed[:, None, :, i])
        for i, factor in enumerate((1.0, slowdown))
    )
    return _found(paired_ratio, base, other, np.ones(trials))


def _found(ratio: Callable[[Floats, Floats, int], Ends], base: Floats, other: Floats, width: Floats) -> Found:
    networks = widened(ratio(base, other, NETWORKS), width[:, None])
    mean = widened(ratio(np.exp(np.log(base).mean(1)), np.exp(np.log(other).mean(1)), 1), width)
    return Found(
        any=float((~networks.hold(1.0)).any(1).mean()),
        mean=float((~mean.hold(1.0)).mean()),
        each=float((networks.low > 1).mean()),
        every=float((networks.low > 1).all(1).mean()),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The report


def report(trials: int, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """All tables, as lists of rows."""
    random = np.random.default_rng(seed)
    settings = [
        (effect, n, correlation)
        for effect in EFFECTS
        for n in (MORE_PROCESSES if effect in SHARE_SLOW else PROCESSES)
        for correlation in CORRELATIONS
    ]
    intervals = [
        {
            "process effect": effect,
            "processes": n,
            "correlation of blocks": correlation,
            "mean": coverage(random, effect, correlation, n, trials),
            "ratio of pairs": ratio_coverage(random, effect, correlation, n, trials, paired=True),
            "ratio of two files": ratio_coverage(random, effect, correlation, n, trials, paired=False),
        }
        for effect, n, correlation in settings
    ]
    compared_files = []
    for effect in EFFECTS:
        for n in PROCESSES:
            for drift in DRIFTS if effect == "3 %" else DRIFTS[:2]:
                found = compared(random, effect, n, trials, drift=drift)
                without = compared(random, effect, n, trials, drift=drift, widen=False)
                slower = compared(random, effect, n, trials, drift=drift, slowdown=1.1)
                compared_files.append(
                    {
                        "process effect": effect,
                        "processes": n,
                        "drift": str(drift),
                        "same: any of five": found.any,
                        "same: geometric mean": found.mean,
                        "same, not widened: any of five": without.any,
                        "10 % slower: each of five": slower.each,
                    }
                )
    duels = []
    for effect in EFFECTS:
        for pairs in (3, 5, PAIRS, 10):
            for drift in (DRIFTS[0], Drift(trend=0.2), Drift(wander=0.2)):
                found = dueled(random, effect, pairs, trials, drift=drift)
                slower = dueled(random, effect, pairs, trials, slowdown=1.1, drift=drift)
                duels.append(
                    {
                        "process effect": effect,
                        "pairs": pairs,
                        "drift": str(drift),
                        "same: any of five": found.any,
                        "same: geometric mean": found.mean,
                        "10 % slower: each of five": slower.each,
                        "10 % slower: all of five": slower.every,
                        "10 % slower: geometric mean": slower.mean,
                    }
                )
    return {
        "How often 95 % intervals cover": intervals,
        "compare: verdicts «faster» or «slower»": compared_files,
        "duel: verdicts «faster» or «slower»": duels,
    }


def markdown(tables: dict[str, list[dict[str, Any]]]) -> Iterable[str]:
    for title, rows in tables.items():
        yield f"\n**{title}**\n"
        yield f"| {' | '.join(rows[0])} |"
        yield f"|{' --- |' * len(rows[0])}"
        for row in rows:
            shares = {k: isinstance(v, float) and "correlation" not in k for k, v in row.items()}
            yield f"| {' | '.join(f'{100 * v:.1f} %' if shares[k] else str(v) for k, v in row.items())} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start = time.perf_counter()
    tables = report(options.trials)
    print("\n".join(markdown(tables)))
    print(f"\n{options.trials:,} trials each; {time.perf_counter() - start:.0f} s.")
    if options.json:
        options.json.write_text(json.dumps({"trials": options.trials, "tables": tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
