"""Augmentation of a chunk of images on one core: torchvision's transforms one image at a time, or tensors at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from resnet_bench.data.augmentation import augment_image, augment_images, draw
from resnet_bench.data.pipelines import CHUNK_IMAGES, prepare
from resnet_bench.session.suite import Suite


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.benchmark(group="augmentation", min_rounds=20, max_time=0.5, warmup=True, warmup_iterations=2)
@pytest.mark.parametrize("how", ["loader", "vectorized"])
@pytest.mark.usefixtures("one_thread")
def test_augmentation(how: str, suite: Suite, benchmark: Any) -> None:
    """A round augments `CHUNK_IMAGES` images (or all, of fewer), draws included."""
    dataset, recipe = suite.dataset, suite.recipe
    prepare(how, recipe, 0, len(dataset.train))
    indices = np.arange(min(CHUNK_IMAGES, len(dataset.train)))
    images = dataset.train.images[: len(indices)]
    mean, std = list(dataset.mean), list(dataset.std)
    mean_tensor, std_tensor = torch.tensor(mean), torch.tensor(std)

    def one_by_one() -> torch.Tensor:
        draws = draw(recipe, 0, 1, indices)
        return torch.stack([augment_image(im, draws[i], recipe, mean, std) for i, im in enumerate(images)])

    def at_once() -> torch.Tensor:
        return augment_images(images, draw(recipe, 0, 1, indices), recipe, mean_tensor, std_tensor)

    functions: dict[str, Callable[[], torch.Tensor]] = {"loader": one_by_one, "vectorized": at_once}
    assert benchmark(functions[how]).shape == (len(indices), 3, 32, 32)
