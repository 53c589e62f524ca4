"""How many hidden units are dead, from the first steps on, and whether dead ones come back.

    python reports/dead-units/measure.py folder:IMAGES/cifar10-images [NETWORK...] > reports/dead-units/counts.jsonl

Trains with the study's recipe on all training images, with the engine `fast` and one thread, and stops at some steps. A
unit is live there if its activation behind the ReLU is above 0 for at least one of the 10,000 test images. A line for
each network, seed and step: `live`, the live units of each hidden layer; `came_back`, those of them that were dead at
step 1,000 (null before).
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from resnet_bench import architectures, identity, progress
from resnet_bench.data import datasets
from resnet_bench.data.augmentation import normalize
from resnet_bench.recipe import Recipe
from resnet_bench.training.training import Training

EARLY = (1, 10, 50, 200, 1000, 3000)
STEPS = {"baseline": (*EARLY, 12_500), "fc3": EARLY, "blocks2": EARLY, "conv5x5": EARLY}
SEEDS = (0, 1, 2)
REFERENCE_STEP = 1000


def live_units(training: Training, images: Tensor) -> list[Tensor]:
    """For each hidden layer which units answer an image: bool [units]."""
    with training._live_units() as live:
        for part in images.split(500):
            training.engine.logits(part)
    return list(live.values())


def main() -> None:
    dataset = datasets.load(sys.argv[1])
    images = normalize(dataset.test.images, torch.tensor(dataset.mean), torch.tensor(dataset.std))
    told = {"torch": torch.__version__, "code": identity.code()["sha256"][:12], "images": dataset.sha256[:12]}
    trainings = [(name, seed) for seed in SEEDS for name in sys.argv[2:] or STEPS]
    for name, seed in progress.each(trainings, "counting live units", "trainings"):
        training = Training(architectures.get(name), dataset, Recipe(), engine="fast", seed=seed, threads=1)
        done, before = 0, None
        for step in STEPS[name]:
            while done < step:
                training.train_step()
                done += 1
            live = live_units(training, images)
            if step == REFERENCE_STEP:
                before = live
            came_back = before and [int((now & ~then).sum()) for now, then in zip(live, before, strict=True)]
            counts = [int(layer.sum()) for layer in live]
            line = {"network": name, "seed": seed, "step": step, "live": counts, "came_back": came_back, **told}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
