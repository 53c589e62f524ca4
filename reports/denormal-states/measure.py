"""Time of a plain step of `baseline` in trained and aged states, one thread; prints a JSON object for each block.

    python measure.py IMAGES CHECKPOINTS keep|flush

IMAGES is the folder of CIFAR-10, CHECKPOINTS has `epoch-1.pt` and `epoch-6.pt`, the checkpoints after these epochs of
`resnet-bench train baseline --engine fast --threads 1 --dataset folder:IMAGES`. Start it several times, keep and flush
in turn: each run is one process.
"""

import json
import random
import sys
from functools import partial
from pathlib import Path

import torch

torch.set_flush_denormal(sys.argv[3] == "flush")  # before the first operation: threads inherit it

from resnet_bench import architectures, identity  # noqa: E402
from resnet_bench.data import datasets  # noqa: E402
from resnet_bench.measure import states  # noqa: E402
from resnet_bench.measure.epoch_time import EpochTimer  # noqa: E402
from resnet_bench.measure.states import State  # noqa: E402
from resnet_bench.recipe import Recipe  # noqa: E402
from resnet_bench.training.training import Training  # noqa: E402

BLOCK_STEPS, ROUNDS = 24, 2

dataset, recipe = datasets.load(f"folder:{sys.argv[1]}"), Recipe()
baseline, fc1 = map(architectures.get, ("baseline", "fc1"))
checkpoints = Path(sys.argv[2])
files = {f"trained, epoch {e}": (12_500 * e, checkpoints / f"epoch-{e}.pt") for e in (1, 6)}
for state in states.prepare(baseline, dataset, recipe, [1000, 12_500, 75_000], how="aged", seed=0, threads=1):
    if state.how == "aged":
        files[f"aged, epoch {state.step // 12_500}"] = (state.step, state.path)


def timer(architecture):
    build = partial(
        Training, architecture, dataset, recipe, engine="reference", pipeline="vectorized", seed=0, threads=1
    )
    made = EpochTimer(build)
    made.block_steps = BLOCK_STEPS
    return made


def show(state, block, exp_avg=0.0, exp_avg_sq=0.0):
    shown = {"flush": sys.argv[3] == "flush", "process": identity.PROCESS, "state": state}
    shown |= {"ms": 1000 * block.seconds / block.steps, "m": exp_avg, "v": exp_avg_sq}
    print(json.dumps({**shown, "optimizer_ms": 1000 * block.phases.optimizer / block.steps}), flush=True)


timers = timer(baseline), timer(fc1)
order = random.Random(identity.PROCESS)
for round_ in range(ROUNDS):
    for name in order.sample(list(files), len(files)):
        states.load(timers[0].training, State(*files[name], "trained", None, None, None))
        block = timers[0].measure(round_)
        moments = timers[0].training.engine.optimizer_state()
        show(name, block, *(states.denormal_share(moments, kind) for kind in ("exp_avg", "exp_avg_sq")))
    show("fc1", timers[1].measure(round_))
