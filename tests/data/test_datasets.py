"""Data sets in memory: moments, digests, subsets, and which kinds there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resnet_bench.data import datasets, synthetic
from resnet_bench.data.datasets import Dataset, ImageSet
from resnet_bench.data.sources import SPLITS
from resnet_bench.errors import UserError


@pytest.mark.parametrize("user", ["~", "~no-such-user"])
def test_a_home_folder_that_nobody_knows_is_named(user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder's path and in that of the data folder."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    said = f"Nobody knows the home folder that {user} stands for in {user}/x; give the path in full."
    monkeypatch.setenv("RESNET_BENCH_DATA", f"{user}/x")
    for spec in (f"folder:{user}/x", "cifar100", "auto"):
        with pytest.raises(UserError) as error:
            datasets.load(spec)
        assert str(error.value) == said


# --- Dataset ---


def make(train: np.ndarray, labels: list[int], classes: int = 3) -> Dataset:
    split = ImageSet(torch.from_numpy(train), torch.tensor(labels))
    return Dataset("made", split, split, tuple(map(str, range(classes))), synthetic=False, subset=False)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.integers(1, 255))
def test_mean_and_std_equal_float64_numpy(count: int, seed: int, top: int) -> None:
    images = np.random.default_rng(seed).integers(0, top + 1, (count, 3, 32, 32), dtype=np.uint8)
    dataset = make(images, [0] * count)
    pixels = images.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean(1), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std(1), rtol=1e-12)


def test_std_of_a_channel_that_never_varies_is_1_so_that_it_can_be_divided_by() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    images[:, 1] = 77
    assert make(images, [0, 1]).std[1] == 1
    assert make(images, [0, 1]).mean[1] == 77 / 255


def test_mean_and_std_are_of_the_training_images_in_use(image_folder: Callable[..., Path]) -> None:
    part = datasets.load(f"folder:{image_folder()}", train_images=5)
    np.testing.assert_allclose(part.mean, part.train.images.double().mean((0, 2, 3)) / 255, rtol=1e-12)


def test_sha256_changes_with_any_pixel_label_or_class_count() -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 3, 32, 32), dtype=np.uint8)
    digest = make(images, [0, 1, 2]).sha256
    assert make(images.copy(), [0, 1, 2]).sha256 == digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    others = {make(images, [0, 1, 1]).sha256, make(images, [0, 1, 2], classes=4).sha256}
    for place in ((0, 0, 0, 0), (2, 2, 31, 31), (1, 1, 5, 9)):
        changed = images.copy()
        changed[place] += 1
        others.add(make(changed, [0, 1, 2]).sha256)
    assert len(others) == 5
    assert digest not in others


def test_sha256_tells_training_from_test_images() -> None:
    rng = np.random.default_rng(0)
    a, b = (
        ImageSet(torch.from_numpy(rng.integers(0, 256, (2, 3, 32, 32), np.uint8)), torch.tensor([0, 1])) for _ in "ab"
    )
    one, other = (Dataset("x", *sets, ("p", "q"), synthetic=False, subset=False) for sets in ((a, b), (b, a)))
    assert one.sha256 != other.sha256


def test_info_says_which_images_were_used(image_folder: Callable[..., Path]) -> None:
    dataset = datasets.load(f"folder:{image_folder()}", train_images=10)
    info = dataset.info()
    assert (info.name, info.synthetic, info.subset) == ("folder:images", False, True)
    assert (info.train_images, info.test_images, info.classes) == (10, 12, 3)
    assert (info.sha256, info.mean, info.std) == (dataset.sha256, dataset.mean, dataset.std)


# --- subsets ---


@given(
    st.lists(st.integers(0, 7), min_size=1, max_size=120),
    st.floats(0, 1),
    st.integers(-(2**63), 2**64),
    st.sampled_from(SPLITS),
)
def test_stratified_takes_classes_equally_as_far_as_they_reach(
    labels: list[int], share: float, seed: int, split: str
) -> None:
    array = np.array(labels)
    count = max(1, round(share * len(labels)))
    chosen = datasets.stratified(array, count, seed, split)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()  # ascending, none twice
    assert chosen[0] >= 0
    assert chosen[-1] < len(labels)
    taken, there = np.bincount(array[chosen], minlength=8), np.bincount(array, minlength=8)
    unfinished = taken[taken < there]  # classes with images left: none may have fewer than another has beyond one more
    assert unfinished.size == 0 or taken.max() <= unfinished.min() + 1
    assert (datasets.stratified(array, count, seed, split) == chosen).all()


@given(st.integers(1, 60), st.integers(0, 9))
def test_a_smaller_subset_is_part_of_a_larger_one(count: int, seed: int) -> None:
    labels = np.arange(61) % 7
    small, large = (datasets.stratified(labels, n, seed, "train") for n in (count, count + 1))
    assert set(small) < set(large)


def test_subsets_differ_between_seeds_and_splits() -> None:
    labels = np.arange(1000) % 10
    keys = [(seed, split) for seed in (0, 1, -1, -2, 2**63 + 1) for split in SPLITS]
    assert len({tuple(datasets.stratified(labels, 100, *key)) for key in keys}) == len(keys)


def test_the_images_of_a_subset_stay_the_same_from_release_to_release() -> None:
    assert datasets.stratified(np.arange(40) % 4, 6, 0, "train").tolist() == [4, 16, 17, 26, 34, 39]


def test_subsets_smaller_than_the_class_count_keep_all_classes_in_the_data_set() -> None:
    dataset = datasets.load("synthetic", train_images=30, test_images=1)
    assert dataset.num_classes == 100
    assert len(set(dataset.train.labels.tolist())) == 30
    assert dataset.subset
    assert len(dataset.test) == 1


def test_a_subset_holds_the_very_images_of_the_whole(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    whole, part = (datasets.load(f"folder:{path}", train_images=n, seed=3) for n in (None, 7))
    rows = datasets.stratified(whole.train.labels.numpy(), 7, 3, "train")
    assert torch.equal(part.train.images, whole.train.images[rows])
    assert torch.equal(part.train.labels, whole.train.labels[rows])
    assert torch.equal(part.test.images, whole.test.images)


def test_as_many_images_as_there_are_is_no_subset(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    whole, same = (datasets.load(f"folder:{path}", train_images=n) for n in (None, 24))
    assert not same.subset
    assert same.sha256 == whole.sha256


@pytest.mark.parametrize("count", [0, -1, 25])
def test_an_impossible_number_of_images_is_an_error(image_folder: Callable[..., Path], count: int) -> None:
    with pytest.raises(UserError, match=rf"--train-images is {count}; give a number from 1 to 24,"):
        datasets.load(f"folder:{image_folder()}", train_images=count)


def test_fewer_images_will_do_where_at_most_so_many_are_asked_for(image_folder: Callable[..., Path]) -> None:
    path = f"folder:{image_folder()}"
    dataset = datasets.load(path, train_images=1000, test_images=10, at_most=["train", "test"])
    assert (len(dataset.train), len(dataset.test)) == (24, 10)
    with pytest.raises(UserError, match="--test-images is 13"):
        datasets.load(path, train_images=1000, test_images=13, at_most=["train"])


def test_an_impossible_number_of_test_images_names_that_option(image_folder: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="--test-images is 13; give a number from 1 to 12,"):
        datasets.load(f"folder:{image_folder()}", test_images=13)


# --- synthetic, unknown ---


def test_the_synthetic_set_is_marked_and_drawn_in_part_only() -> None:
    dataset = datasets.load("synthetic", train_images=200, test_images=100, seed=1)
    assert (dataset.name, dataset.synthetic, dataset.subset) == ("synthetic", True, True)
    rows = datasets.stratified(synthetic.labels("train"), 200, 1, "train")
    assert (dataset.train.images.numpy() == synthetic.draw("train", rows)).all()
    assert (dataset.train.images.dtype, dataset.train.labels.dtype) == (torch.uint8, torch.int64)
    assert dataset.train.images.is_contiguous()


@pytest.mark.parametrize("spec", ["", "imagenet", "folder", "folder:", "CIFAR100", "cifar100:x", "synthetic:1"])
def test_an_unknown_data_set_lists_the_choices(spec: str) -> None:
    with pytest.raises(UserError, match=re.escape("choose one of auto, cifar100, cifar10, synthetic, folder:PATH")):
        datasets.load(spec)
