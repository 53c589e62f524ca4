"""How much sooner a study ends with `--jobs auto`, on 2, 16 and 64 cores, from a measured packing table.

    python reports/packing/simulate.py reports/packing/packing.json

The table is what `resnet-bench study --jobs auto` measured and keeps in the cache folder (`packing.json`). Measured, on
two cores: how long a step of each network takes alone on one and on two threads, and beside another one.
Simulated: everything about more than two cores. It is assumed that trainings side by side slow one another down no more
than the two that were measured did, and that one training alone is no faster on more than two threads. The first is
too good where many trainings share a cache or a memory channel; the second is for `--jobs 1`, and near the truth for
steps on four images.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from pydantic import TypeAdapter
from tabulate import tabulate

from resnet_bench.study.packing import Packing, makespan

SEEDS = 5
STEPS = 15 * 12_500  # of one training of the study
TEST_IMAGES = 15 * 10_000

packings = list(TypeAdapter(dict[str, Packing]).validate_json(Path(sys.argv[1]).read_bytes()).values())


def seconds(packing: Packing) -> list[float]:
    """Of all trainings, each network in turn."""
    one = [STEPS * rate.step_seconds + TEST_IMAGES * rate.test_seconds for rate in packing.rates]
    return list(itertools.chain.from_iterable([one] * SEEDS))


measured = [[p.jobs, p.threads, round(p.steps_per_second, 1)] for p in packings]
print(tabulate(measured, ["trainings", "threads of each", "steps a second, together"], tablefmt="github"), end="\n\n")

alone = min(makespan(seconds(p), 1) for p in packings if p.jobs == 1)
full = {p.threads: p for p in packings if p.jobs * p.threads == 2}
rows = []
for cores in (2, 16, 64):
    best = min((makespan(seconds(p), cores // t), t) for t, p in full.items())
    rows.append([cores, f"{cores // best[1]} × {best[1]}", round(best[0] / 3600, 2), round(best[0] / alone, 3)])
head = ["cores", "trainings × threads", "hours", "time, as a part of that with --jobs 1"]
print(tabulate(rows, head, tablefmt="github"))
