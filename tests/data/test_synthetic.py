"""The synthetic data set: one data set on every machine, balanced, learnable but not at once."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from resnet_bench import architectures, networks
from resnet_bench.data import synthetic


def test_it_has_the_sizes_of_cifar100_and_100_distinct_balanced_classes() -> None:
    assert synthetic.SIZES == {"train": 50_000, "test": 10_000}
    assert len(set(synthetic.CLASSES)) == len(synthetic.CLASSES) == 100
    for split, count in synthetic.SIZES.items():
        assert (np.bincount(synthetic.labels(split)) == count // 100).all()


def test_images_are_the_same_on_every_machine() -> None:
    images = synthetic.draw("train", np.arange(300))
    assert images.shape == (300, 3, 32, 32)
    assert images.dtype == np.uint8
    assert (
        hashlib.sha256(images.tobytes()).hexdigest()
        == "a22bf456a3cb837fd3af6ff6ab4eebc260920f7727b4221f1ac22c0aec41f25a"
    )


def test_an_image_does_not_depend_on_which_others_are_drawn() -> None:
    together = synthetic.draw("test", np.arange(600))
    some = np.array([0, 7, 249, 250, 599])
    assert (synthetic.draw("test", some) == together[some]).all()


def test_an_image_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = synthetic.draw("train", np.arange(1100))
    for count in (1, 7):
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        assert (synthetic.draw("train", np.arange(1100)) == expected).all()


def test_all_images_differ_within_and_between_the_splits() -> None:
    images = np.concatenate([synthetic.draw(split, np.arange(1000)) for split in ("train", "test")])
    assert len({image.tobytes() for image in images}) == 2000


def test_images_of_the_last_index_can_be_drawn() -> None:
    assert synthetic.draw("train", np.array([49_999])).shape == (1, 3, 32, 32)


@pytest.fixture(scope="module")
def learning_data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """1,500 training and 500 test images, float32 around 0, with their labels."""
    arrays = []
    for split, count in (("train", 1500), ("test", 500)):
        images = torch.from_numpy(synthetic.draw(split, np.arange(count)))
        arrays += [(images.float() - 103) / 58, torch.from_numpy(synthetic.labels(split)[:count])]
    return tuple(arrays)  # type: ignore[return-value]


def test_a_few_epochs_on_1500_images_reach_several_times_chance(learning_data) -> None:
    images, labels, test_images, test_labels = learning_data
    network = networks.build(architectures.get("fc1"), 100, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for batch in torch.randperm(len(labels), generator=generator).split(16):
            optimizer.zero_grad()
            F.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        accuracy = (network(test_images).argmax(1) == test_labels).double().mean().item()
    assert accuracy > 0.06  # chance is 0.01


def test_the_nearest_class_mean_is_a_poor_classifier(learning_data) -> None:
    images, labels, test_images, test_labels = learning_data
    means = torch.stack([images[labels == c].mean(0) for c in range(100)]).flatten(1)
    nearest = torch.cdist(test_images.flatten(1), means).argmin(1)
    assert (nearest == test_labels).double().mean().item() < 0.3
