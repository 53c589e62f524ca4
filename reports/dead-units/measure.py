"""How many hidden units are live, from the first steps on.

    python reports/dead-units/measure.py folder:IMAGES/cifar10-images > reports/dead-units/counts.jsonl

Trains with the study's recipe on all training images, with the engine `fast` and one thread, and stops at some steps. A
unit is live there if its activation behind the ReLU is above 0 for at least one of the test images. A line for each
network, seed and step: `live`, the live units of each hidden layer.
"""

from __future__ import annotations

import json
import sys

import torch

from resnet_bench import architectures, identity, progress
from resnet_bench.data import datasets
from resnet_bench.recipe import Recipe
from resnet_bench.training.training import Training

NETWORKS = ("baseline", "fc3", "blocks2", "conv5x5")  # one of each size of the first hidden layer
SEEDS = (0, 1, 2)
STEPS = (1, 10, 50, 200, 1000, 3000)


def main() -> None:
    dataset = datasets.load(sys.argv[1])
    told = {"torch": torch.__version__, "code": identity.code()["sha256"][:12], "images": dataset.sha256[:12]}
    trainings = [(name, seed) for seed in SEEDS for name in NETWORKS]
    for name, seed in progress.each(trainings, "counting live units", "trainings"):
        training = Training(architectures.get(name), dataset, Recipe(), engine="fast", seed=seed, threads=1)
        done = 0
        for step in STEPS:
            while done < step:
                training.train_step()
                done += 1
            live = training.evaluate().live_units
            print(json.dumps({"network": name, "seed": seed, "step": step, "live": live, **told}), flush=True)


if __name__ == "__main__":
    main()
