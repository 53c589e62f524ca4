"""A process that measures, beside others, how fast the networks of a study train: `packing` starts it.

It reads an order (JSON, one line) and prints a line when it is ready. At the next line that it reads it begins, and in
the end it prints seconds of a step and of a test image for each network.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

import torch

from resnet_bench import architectures, progress
from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.data import datasets
from resnet_bench.errors import UserError
from resnet_bench.options import recipe
from resnet_bench.training.training import Training

IMAGES = 2000
"""At most so many training images are loaded: enough for the seconds that are measured."""

TESTED = 100
"""Images whose evaluation is timed."""


def main() -> None:
    progress.be_silent()
    order = json.loads(sys.stdin.readline())
    trainings = _trainings(order)
    images = torch.zeros(TESTED, 3, IMAGE_SIZE, IMAGE_SIZE)
    for training in trainings:
        training.warm_up()
        training.train_step()
        training.engine.logits(images)
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()
    found: list[tuple[float, float]] = [(0.0, 0.0)] * len(trainings)
    for i in range(len(trainings)):  # each process begins with another network, so that unlike ones run side by side
        at = (order["first"] + i) % len(trainings)
        found[at] = _timed(trainings[at], images, order["seconds"])
    print(json.dumps(found), flush=True)


def _trainings(order: dict[str, Any]) -> list[Training]:
    dataset = datasets.load(order["dataset"], train_images=IMAGES, test_images=1, at_most=("train", "test"))
    return [
        Training(
            architectures.get(architecture),
            dataset,
            # a warm-up may be longer than these few images allow, and no rate changes the time of a step
            replace(recipe({**order["options"], **timed}), schedule="constant", warmup_steps=0),
            engine=engine,
            threads=order["threads"],
            **{name: timed[name] for name in ("pipeline", "workers")},
        )
        for architecture, engine, timed in order["networks"]
    ]


def _timed(training: Training, images: torch.Tensor, seconds: float) -> tuple[float, float]:
    """Seconds of a step and of a test image."""
    begun, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds or not steps:
        if training.train_step() is None:
            training.close_epoch()
        else:
            steps += 1
    evaluated = time.perf_counter()
    training.engine.logits(images)
    return elapsed / steps, (time.perf_counter() - evaluated) / len(images)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
