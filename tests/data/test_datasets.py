"""Data sets: what is loaded, what is fetched and checked, subsets, and every sentence about bad input."""

from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import re
import resource
import shutil
import tarfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resnet_bench.data import datasets, image_files, synthetic
from resnet_bench.data.datasets import Dataset, ImageSet
from resnet_bench.errors import UserError

ARCHIVE = "cifar-100-python.tar.gz"
FOLDER = "cifar-100-python"


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder, so that no test sees the user's."""
    monkeypatch.setenv("RESNET_BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


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
    st.sampled_from(datasets.SPLITS),
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
    keys = [(seed, split) for seed in (0, 1, -1, -2, 2**63 + 1) for split in datasets.SPLITS]
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


# --- folder ---


def test_a_folder_is_read_sorted_and_as_rgb(image_folder: Callable[..., Path]) -> None:
    path = image_folder(train=3, test=2, classes=2)
    dataset = datasets.load(f"folder:{path}")
    assert dataset.classes == ("class0", "class1")
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    files = sorted((path / "train").glob("*/*.png"))
    expected = np.stack([np.asarray(Image.open(f)).transpose(2, 0, 1) for f in files])
    assert (dataset.train.images.numpy() == expected).all()
    assert dataset.train.images.is_contiguous()
    assert (dataset.train.images.dtype, dataset.train.labels.dtype) == (torch.uint8, torch.int64)
    assert not dataset.subset
    assert not dataset.synthetic


def test_grey_and_palette_images_are_turned_into_rgb(image_folder: Callable[..., Path]) -> None:
    path = image_folder(classes=2)
    Image.new("L", (32, 32), 200).save(path / "train/class0/000.png")
    Image.new("RGB", (32, 32), (10, 20, 30)).quantize(4).save(path / "train/class0/001.png")
    images = datasets.load(f"folder:{path}").train.images
    assert (images[0] == 200).all()
    assert images[1, :, 5, 5].tolist() == [10, 20, 30]


def test_hidden_files_and_files_beside_the_class_folders_are_passed_over(
    image_folder: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the latter a line says so: they may be images, or an archive of a class."""
    path = image_folder()
    before = datasets.load(f"folder:{path}").sha256
    for name in ("train/class0/.DS_Store", "train/.hidden", "train/labels.txt"):
        (path / name).write_text("no image")
    (path / "test/.ipynb_checkpoints").mkdir()
    assert datasets.load(f"folder:{path}").sha256 == before
    assert capfd.readouterr().err == f"Passed over beside the class folders of {path}/train: labels.txt\n"


def test_only_the_last_component_of_the_path_becomes_the_name(
    image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image_folder(name="pets")
    monkeypatch.chdir(path)
    names = [datasets.load(spec).name for spec in (f"folder:{path}", f"folder:{path}/", "folder:.")]
    assert names == ["folder:pets"] * 3


def test_an_image_of_another_size_is_named_with_its_size(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    wrong = path / "test/class1/002.png"
    Image.new("RGB", (64, 48)).save(wrong)
    with pytest.raises(UserError, match=re.escape(f"are not 32×32 pixels: {wrong} (64×48); ")):
        datasets.load(f"folder:{path}")


def test_of_many_images_of_another_size_twenty_are_named_and_the_rest_counted(
    image_folder: Callable[..., Path],
) -> None:
    path = image_folder(train=12, test=1, classes=2)
    for file in path.glob("train/*/*"):
        Image.new("RGB", (33, 32)).save(file)
    with pytest.raises(UserError, match="and 4 more") as error:
        datasets.load(f"folder:{path}")
    assert str(error.value).count("(33×32)") == 20


def test_of_many_files_with_the_same_fault_twenty_are_named_and_the_rest_counted(
    image_folder: Callable[..., Path],
) -> None:
    path = image_folder(train=12, test=1, classes=2)
    for file in path.glob("train/*/*"):
        file.write_text("no image")
    with pytest.raises(UserError, match="and 4 more") as error:
        datasets.load(f"folder:{path}")
    assert str(error.value).count(".png") == 20


def test_unreadable_files_are_named_all_of_them(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    bad = [path / name for name in ("train/class0/003.png", "train/class2/notes.txt", "test/class1/000.png")]
    bad[0].write_bytes(bad[0].read_bytes()[:300])  # cut off
    bad[1].write_text("no image")
    bad[2].write_bytes(b"")
    wrong_size = path / "test/class0/001.png"
    Image.new("RGB", (1, 2)).save(wrong_size)
    with pytest.raises(UserError, match=", ".join(re.escape(str(b)) for b in bad)) as error:
        datasets.load(f"folder:{path}")
    assert f"{wrong_size} (1×2)" in str(error.value)
    assert str(error.value).count(str(path)) == 4  # and no file that is fine


def test_a_dangling_link_is_named(image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "CACHE_FROM_IMAGES", 1)
    path = image_folder()
    (path / "train/class0/link.png").symlink_to(path / "nowhere.png")
    with pytest.raises(UserError, match=r"cannot be read as images: .*link\.png \(a link that leads nowhere\); "):
        datasets.load(f"folder:{path}")
    (path / "train/class0/link.png").unlink()
    (path / "train/class0/circle.png").symlink_to("circle.png")
    with pytest.raises(UserError, match=r"cannot be read as images: .*circle\.png \(Too many levels of symbolic links"):
        datasets.load(f"folder:{path}")


@pytest.mark.parametrize("splits", [["train", "test"], ["train"], ["test"]])
def test_a_class_folder_that_is_a_link_to_nowhere_is_named(
    image_folder: Callable[..., Path], splits: list[str]
) -> None:
    """A share that is not mounted must not make a set of fewer classes."""
    path = image_folder()
    for split in splits:
        shutil.move(path / split / "class1", path / f"{split} on a share")
        (path / split / "class1").symlink_to(path / "not mounted")
    with pytest.raises(UserError) as error:
        datasets.load(f"folder:{path}")
    assert str(error.value) == (
        f"{path / splits[0]} holds what is neither a class folder nor a file: class1 (a link that leads nowhere); "
        "mend or remove it."
    )


def test_a_class_folder_may_be_a_link(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    before = datasets.load(f"folder:{path}").sha256
    shutil.move(path / "train/class1", path / "elsewhere")
    (path / "train/class1").symlink_to("../elsewhere")
    assert datasets.load(f"folder:{path}").sha256 == before


def test_links_in_a_circle_and_pipes_beside_the_class_folders_are_named(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    for split in datasets.SPLITS:
        (path / split / "class3").symlink_to("class3")
        os.mkfifo(path / split / "class4")
    with pytest.raises(
        UserError, match=r"class3 \(Too many levels of symbolic links\), class4 \(a pipe, a socket or a device\); mend"
    ):
        datasets.load(f"folder:{path}")


def test_a_class_folder_that_leads_back_to_its_split_is_named(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    for split in datasets.SPLITS:
        (path / split / "class3").symlink_to(".")
    with pytest.raises(UserError, match=r"Class folders hold images only; move these folders away: .*class3/class0,"):
        datasets.load(f"folder:{path}")


def test_a_pipe_in_a_class_folder_is_named_not_waited_for(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    os.mkfifo(path / "train/class0/pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png \(a pipe, a socket or a device\); repair"):
        datasets.load(f"folder:{path}")


@pytest.mark.usefixtures("permissions_hold")
@pytest.mark.parametrize("name", [".", "train", "test/class1"])
def test_a_folder_that_may_not_be_read_is_named(image_folder: Callable[..., Path], name: str) -> None:
    path = image_folder()
    (path / name).chmod(0)
    with pytest.raises(
        UserError, match=rf"^Cannot read the folder {re.escape(str(path / name))}.*: Permission denied;"
    ):
        datasets.load(f"folder:{path}")
    (path / name).chmod(0o755)


def test_a_folder_that_is_a_file_is_named(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    with pytest.raises(UserError, match=r"^Cannot read the folder .*000\.png: Not a directory;"):
        datasets.load(f"folder:{path / 'train/class0/000.png'}")


def test_one_folder_in_two_places_is_an_error(image_folder: Callable[..., Path]) -> None:
    """Accuracy would be of the images that were trained on, or of images with two labels."""
    path = image_folder()
    shutil.rmtree(path / "test/class2")
    (path / "test/class2").symlink_to("../train/class2")
    with pytest.raises(UserError, match=r"these are one folder: train/class2 and test/class2; give each class"):
        datasets.load(f"folder:{path}")
    (path / "test/class2").unlink()
    shutil.rmtree(path / "train/class2")
    for split in datasets.SPLITS:
        (path / split / "class2").symlink_to("class0")
    with pytest.raises(
        UserError, match=r"one folder: train/class0 and train/class2, test/class0 and test/class2; give"
    ):
        datasets.load(f"folder:{path}")
    shutil.rmtree(path / "test")
    (path / "test").symlink_to("train")
    with pytest.raises(UserError, match=r"one folder: train/class0 and train/class2 and test/class0 and test/"):
        datasets.load(f"folder:{path}")


def test_a_name_that_is_not_utf_8_can_be_printed_and_saved(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9"
    try:
        os.rename(image_folder(), path)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    assert datasets.load(f"folder:{os.fsdecode(path)}").name == r"folder:caf\xe9"


def test_classes_in_only_one_of_the_splits_are_named(image_folder: Callable[..., Path]) -> None:
    path = image_folder(classes=4)
    shutil.rmtree(path / "test/class1")
    shutil.rmtree(path / "test/class3")
    with pytest.raises(UserError, match=r"has classes only in train: class1, class3; "):
        datasets.load(f"folder:{path}")
    shutil.rmtree(path / "train/class0")
    with pytest.raises(UserError, match=r"only in train: class1, class3 and only in test: class0; "):
        datasets.load(f"folder:{path}")


def test_a_class_folder_without_images_is_named(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    for file in (path / "test/class1").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"test has classes without images: class1; "):
        datasets.load(f"folder:{path}")


def test_a_single_class_is_an_error(image_folder: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="has only the class class0; give at least two classes"):
        datasets.load(f"folder:{image_folder(classes=1)}")


def test_folders_inside_class_folders_are_named_rather_than_passed_over(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    (path / "train/class0/more").mkdir()
    with pytest.raises(UserError, match=r"move these folders away: .*train/class0/more\."):
        datasets.load(f"folder:{path}")


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"Cannot read the folder {re.escape(str(tmp_path))}/none: No such file"):
        datasets.load(f"folder:{tmp_path}/none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"Cannot read the folder .*/empty/train: No such file"):
        datasets.load(f"folder:{tmp_path}/empty")
    (tmp_path / "empty/train").mkdir()
    with pytest.raises(UserError, match="/empty/train holds no class folders"):
        datasets.load(f"folder:{tmp_path}/empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot read the folder .*/file: Not a directory"):
        datasets.load(f"folder:{tmp_path}/file")


# --- the cache of decoded folders ---


@pytest.fixture
def cached(image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> tuple[Path, Path]:
    """A folder that was loaded once, and its cache entry."""
    monkeypatch.setattr(datasets, "CACHE_FROM_IMAGES", 1)
    path = image_folder()
    datasets.load(f"folder:{path}")
    (entry,) = (data_folder / "folders").iterdir()
    return path, entry


def test_the_second_load_decodes_nothing(cached: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, entry = cached
    os.rename(entry, entry.with_suffix(".aside"))
    fresh = datasets.load(f"folder:{path}").sha256
    os.replace(entry.with_suffix(".aside"), entry)
    monkeypatch.setattr(datasets, "_decode", None)
    assert datasets.load(f"folder:{path}").sha256 == fresh


def test_a_changed_folder_is_decoded_anew_into_the_same_entry(cached: tuple[Path, Path]) -> None:
    path, entry = cached
    Image.new("RGB", (32, 32), "red").save(path / "train/class0/000.png")
    dataset = datasets.load(f"folder:{path}")
    assert dataset.train.images[0, :, 0, 0].tolist() == [255, 0, 0]
    (path / "train/class1/000.png").unlink()
    assert len(datasets.load(f"folder:{path}").train) == 23
    assert list(entry.parent.iterdir()) == [entry]


def test_a_file_replaced_by_one_of_equal_size_and_time_is_decoded_anew(cached: tuple[Path, Path]) -> None:
    """What unpacks an archive gives all files the archive's times."""
    path, _ = cached
    file = path / "train/class0/000.bmp"
    for colour in ("red", "blue"):
        Image.new("RGB", (32, 32), colour).save(file)
        os.utime(file, (0, 0))
        first = datasets.load(f"folder:{path}").train.images[0, :, 0, 0].tolist()
    assert first == [0, 0, 255]


def test_what_another_version_decoded_is_decoded_anew(
    cached: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = cached
    monkeypatch.setattr(image_files, "VERSION", 0)
    monkeypatch.setattr(datasets, "_decode", lambda paths: np.full((len(paths), 3, 32, 32), 7, np.uint8))
    assert (datasets.load(f"folder:{path}").train.images == 7).all()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "array", "pickle"])
def test_a_damaged_cache_entry_is_ignored_and_rewritten(cached: tuple[Path, Path], damage: str) -> None:
    path, entry = cached
    good = entry.read_bytes()
    expected = datasets.load(f"folder:{path}").sha256
    middle = len(good) // 2
    entry.write_bytes({
        "empty": b"",
        "cut": good[:middle],
        "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "foreign": b"something else",
        "array": b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }".ljust(127) + b"\n1",
        "pickle": pickle.dumps({"key": 1}),
    }[damage])  # fmt: skip
    assert datasets.load(f"folder:{path}").sha256 == expected
    with np.load(entry, allow_pickle=False) as rewritten:
        assert rewritten["images"].shape == (36, 3, 32, 32)


def test_an_unwritable_cache_is_no_reason_to_fail(cached: tuple[Path, Path], data_folder: Path) -> None:
    path, _ = cached
    shutil.rmtree(data_folder)
    data_folder.write_text("a file where the folder should be")
    assert len(datasets.load(f"folder:{path}").train) == 24


def test_a_folder_is_read_without_a_cache_where_there_is_no_place_for_one(
    cached: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _ = cached
    monkeypatch.delenv("RESNET_BENCH_DATA")
    monkeypatch.setattr(datasets, "cache_folder", lambda: None)
    assert len(datasets.load(f"folder:{images}").train) == 24


def test_small_folders_leave_nothing_in_the_cache(image_folder: Callable[..., Path], data_folder: Path) -> None:
    datasets.load(f"folder:{image_folder()}")
    assert not data_folder.exists()


# --- CIFAR, with small files in the official layout ---


@dataclass
class Server:
    """Serves one file on 127.0.0.1 and notes what was asked for."""

    content: bytes
    requests: list[str] = field(default_factory=list)
    cut: int | None = None  # breaks off after so many bytes
    hang: float = 0  # seconds before an answer
    url: str = ""


@pytest.fixture
def cifar(small_cifar100: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """torchvision's CIFAR-100 is the small one, and a server has its archive."""
    server = Server((official(tmp_path) / ARCHIVE).read_bytes())

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            server.requests.append(self.command)
            time.sleep(server.hang)
            self.send_response(200)
            self.send_header("Content-Length", str(len(server.content)))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(server.content[: server.cut])

        def log_message(self, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    server.url = f"http://127.0.0.1:{httpd.server_port}/{ARCHIVE}"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name, value in {**small_cifar100, "url": server.url}.items():
        monkeypatch.setattr(torchvision.datasets.CIFAR100, name, value)
    yield server
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def offline(cifar: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where the archive should be."""
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "url", "http://127.0.0.1:1/" + ARCHIVE)


def official(tmp_path: Path) -> Path:
    return tmp_path / "official"


def unpickled(path: Path, marker: Path) -> None:
    """Replace a file by a pickle that leaves a mark when it is loaded."""

    class Mark:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(marker),))

    path.write_bytes(pickle.dumps(Mark()))


def test_cifar100_is_downloaded_once_and_read_as_torchvision_reads_it(
    cifar: Server, tmp_path: Path, data_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = datasets.load("cifar100")
    assert datasets.load("cifar100").sha256 == dataset.sha256
    assert cifar.requests == ["GET"]
    assert (dataset.name, dataset.synthetic, dataset.subset) == ("cifar100", False, False)
    assert dataset.classes == tuple(f"class{i}" for i in range(100))
    expected = torchvision.datasets.CIFAR100(official(tmp_path), train=False)
    assert (dataset.test.images.permute(0, 2, 3, 1).numpy() == expected.data).all()
    assert dataset.test.labels.tolist() == expected.targets
    assert dataset.train.images.is_contiguous()
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"Downloading {cifar.url} to {data_folder}\n"  # no bar, no control characters in a pipe


def test_cifar10_is_read_with_its_ten_classes(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    source = torchvision.datasets.CIFAR10
    folder = data_folder / source.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5(pickle.dumps(content)).hexdigest()

    names = [f"data_batch_{i}" for i in range(1, 6)]
    batches = {n: {"data": np.full((10, 3072), i, np.uint8), "labels": list(range(10))} for i, n in enumerate(names)}
    test = {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}
    monkeypatch.setattr(source, "train_list", [[n, write(n, b)] for n, b in batches.items()])
    monkeypatch.setattr(source, "test_list", [["test_batch", write("test_batch", test)]])
    meta = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": meta})
    dataset = datasets.load("cifar10", train_images=30)
    assert (dataset.name, len(dataset.train), len(dataset.test), dataset.subset) == ("cifar10", 30, 10, True)
    assert dataset.classes == tuple("abcdefghij")


@pytest.mark.usefixtures("offline")
def test_the_archive_placed_by_hand_is_enough(tmp_path: Path, data_folder: Path) -> None:
    data_folder.mkdir()
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    assert len(datasets.load("cifar100").train) == 200
    assert [p.name for p in data_folder.iterdir()] == [ARCHIVE]  # it is read in memory


@pytest.mark.usefixtures("offline", "permissions_hold")
@pytest.mark.parametrize("spec", ["cifar100", "auto"])
def test_the_archive_is_read_in_a_data_folder_that_cannot_be_written(
    tmp_path: Path, data_folder: Path, spec: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    expected = datasets.load("cifar100")
    shutil.rmtree(data_folder / FOLDER)
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    data_folder.chmod(0o555)
    with pytest.raises(PermissionError):
        (data_folder / "x").touch()
    dataset = datasets.load(spec)
    assert (dataset.name, dataset.sha256, dataset.classes) == ("cifar100", expected.sha256, expected.classes)
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("permissions_hold")
@pytest.mark.parametrize("spec", ["cifar100", "cifar10", "auto"])
def test_a_data_folder_that_cannot_be_read_is_named(cifar: Server, data_folder: Path, spec: str) -> None:
    """`auto` too: what it cannot see may be the official files."""
    data_folder.mkdir()
    data_folder.chmod(0)
    with pytest.raises(
        UserError,
        match=rf"Cannot read {re.escape(str(data_folder))}/.*: Permission denied; make it readable, or name another "
        r"data folder in RESNET_BENCH_DATA\.$",
    ):
        datasets.load(spec)
    data_folder.chmod(0o755)
    assert cifar.requests == []


@pytest.mark.usefixtures("permissions_hold")
@pytest.mark.parametrize("name", [ARCHIVE, f"{FOLDER}/test", FOLDER])
def test_an_official_file_that_cannot_be_read_is_named(
    cifar: Server, tmp_path: Path, data_folder: Path, name: str
) -> None:
    shutil.copytree(official(tmp_path), data_folder)
    if name == ARCHIVE:
        shutil.rmtree(data_folder / FOLDER)
    (data_folder / name).chmod(0)
    for spec in ("cifar100", "auto"):
        with pytest.raises(UserError, match=rf"Cannot read {re.escape(str(data_folder / name))}.*: Permission denied;"):
            datasets.load(spec)
    (data_folder / name).chmod(0o755)
    assert cifar.requests == []


@pytest.mark.parametrize("name", [ARCHIVE, FOLDER, f"{FOLDER}/train", "."])
def test_a_link_that_leads_nowhere_is_named_and_kept(cifar: Server, data_folder: Path, name: str) -> None:
    """What it leads to may be on a share that is not mounted."""
    link = data_folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/nowhere/at/all")
    for spec in ("cifar100", "auto"):
        with pytest.raises(UserError, match=rf"^{re.escape(str(link))} leads nowhere; mount what this link leads to"):
            datasets.load(spec)
    assert link.is_symlink()
    assert cifar.requests == []


@pytest.mark.usefixtures("offline")
def test_a_folder_in_the_archives_place_is_named(data_folder: Path) -> None:
    (data_folder / ARCHIVE).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"Cannot read {re.escape(str(data_folder / ARCHIVE))}: Is a directory;"):
        datasets.load("cifar100")


@pytest.mark.usefixtures("offline")
def test_the_extracted_folder_placed_by_hand_is_enough(tmp_path: Path, data_folder: Path) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    assert len(datasets.load("cifar100").train) == 200
    assert [p.name for p in data_folder.iterdir()] == [FOLDER]  # it may be a folder that cannot be written


@pytest.mark.usefixtures("offline")
def test_where_an_extraction_was_cut_off_the_archive_is_read(tmp_path: Path, data_folder: Path) -> None:
    data_folder.mkdir()
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    (data_folder / FOLDER).mkdir()
    shutil.copy(official(tmp_path) / FOLDER / "train", data_folder / FOLDER)
    (data_folder / FOLDER / ".test.x1y2").write_bytes(b"half a file")
    assert len(datasets.load("cifar100").test) == 100


@pytest.mark.usefixtures("offline")
def test_missing_and_not_to_be_fetched_says_what_to_put_where(data_folder: Path) -> None:
    with pytest.raises(UserError) as error:
        datasets.load("cifar100")
    message = str(error.value)
    for part in (
        str(data_folder),
        ARCHIVE,
        f"{FOLDER}/",
        "refused",
        "--dataset synthetic",
        "folder:PATH",
        "no network",
    ):
        assert part in message
    assert not (data_folder / ARCHIVE).exists()


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_file_of_the_wrong_hash_is_named_kept_and_never_unpickled(
    cifar: Server, tmp_path: Path, data_folder: Path, name: str
) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    bad = data_folder / FOLDER / name
    unpickled(bad, tmp_path / "marker")
    content = bad.read_bytes()
    for spec in ("cifar100", "auto"):  # a file the user has is not passed over in silence
        with pytest.raises(UserError, match=rf"{re.escape(str(bad))} is damaged or not the official file .* remove it"):
            datasets.load(spec)
    assert bad.read_bytes() == content
    assert not (tmp_path / "marker").exists()
    assert cifar.requests == []


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_an_archive_of_the_wrong_hash_is_named_and_kept(cifar: Server, data_folder: Path, content: bytes) -> None:
    data_folder.mkdir()
    (data_folder / ARCHIVE).write_bytes(content)
    with pytest.raises(UserError, match=rf"{re.escape(ARCHIVE)} is damaged or not the official file"):
        datasets.load("cifar100")
    assert (data_folder / ARCHIVE).read_bytes() == content
    assert not (data_folder / FOLDER).exists()
    assert cifar.requests == []


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", [f"{FOLDER}/train", "train"])
def test_an_archive_without_the_official_files_is_named(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data_folder.mkdir()
    with tarfile.open(data_folder / ARCHIVE, "w:gz") as tar:
        tar.add(official(tmp_path) / FOLDER / "test", name)
    digest = hashlib.md5((data_folder / ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "tgz_md5", digest)
    with pytest.raises(UserError, match="holds no official train"):
        datasets.load("cifar100")


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(cifar: Server, data_folder: Path) -> None:
    cifar.cut = len(cifar.content) // 2
    with pytest.raises(UserError, match="what arrived is incomplete or not the official file"):
        datasets.load("cifar100")
    assert [p.name for p in data_folder.iterdir() if p.suffix != ".lock"] == []
    cifar.cut = None
    assert len(datasets.load("cifar100").train) == 200


def test_an_interrupted_download_leaves_nothing(
    cifar: Server, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(datasets.tqdm, "update", interrupt)
        with pytest.raises(KeyboardInterrupt):
            datasets.load("cifar100")
    assert [p.name for p in data_folder.iterdir() if p.suffix != ".lock"] == []
    assert len(datasets.load("cifar100").train) == 200


def test_what_a_killed_download_left_is_cleared_away_and_never_used(cifar: Server, data_folder: Path) -> None:
    data_folder.mkdir()
    leftover = data_folder / f".{ARCHIVE}.k1ll3d"
    leftover.write_bytes(cifar.content[:100])
    assert len(datasets.load("cifar100").train) == 200
    assert not leftover.exists()


def test_two_at_once_download_once(cifar: Server) -> None:
    cifar.hang = 0.2
    loaded: list[Dataset] = []
    threads = [threading.Thread(target=lambda: loaded.append(datasets.load("cifar100"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({dataset.sha256 for dataset in loaded}) == 1
    assert len(loaded) == 3
    assert cifar.requests == ["GET"]


@pytest.mark.usefixtures("cifar")
def test_a_data_folder_that_cannot_be_made_is_named(data_folder: Path) -> None:
    data_folder.write_text("a file")
    with pytest.raises(UserError, match=rf"{re.escape(str(data_folder))} .*the folder cannot be written: it is a file"):
        datasets.load("cifar100")


@pytest.mark.usefixtures("permissions_hold")
def test_a_download_into_a_data_folder_that_cannot_be_written_is_not_begun(cifar: Server, data_folder: Path) -> None:
    data_folder.mkdir(mode=0o555)
    with pytest.raises(
        UserError, match=rf"{re.escape(str(data_folder))} .*the folder cannot be written: Permission denied"
    ):
        datasets.load("cifar100")
    assert cifar.requests == []


def test_a_lock_file_that_cannot_be_made_is_an_error_only_for_a_download(
    cifar: Server, tmp_path: Path, data_folder: Path
) -> None:
    (data_folder / f"{FOLDER}.lock").mkdir(parents=True)
    with pytest.raises(UserError, match="the folder cannot be written: Is a directory"):
        datasets.load("cifar100")
    assert cifar.requests == []
    shutil.copy(official(tmp_path) / ARCHIVE, data_folder)
    assert len(datasets.load("cifar100").train) == 200


def test_a_leftover_that_cannot_be_removed_does_not_stop_a_download(cifar: Server, data_folder: Path) -> None:
    (data_folder / f".{ARCHIVE}.folder").mkdir(parents=True)
    assert len(datasets.load("cifar100").train) == 200


@pytest.fixture
def little_space() -> Iterator[None]:
    """No file grows beyond 1000 bytes: to the writer it is as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("cifar", "little_space")
def test_a_disk_without_space_for_the_archive_is_named(data_folder: Path) -> None:
    with pytest.raises(UserError) as error:
        datasets.load("cifar100")
    assert f"(Cannot write {data_folder / ARCHIVE}: File too large); put " in str(error.value)
    assert [p.name for p in data_folder.iterdir() if p.suffix != ".lock"] == []


def test_who_waits_for_another_process_that_downloads_is_told_so(
    cifar: Server, data_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data_folder.mkdir()
    taken = threading.Event()

    def hold() -> None:
        with FileLock(data_folder / f"{FOLDER}.lock"):
            taken.set()
            time.sleep(1.3)

    threading.Thread(target=hold).start()
    assert taken.wait(60)
    assert len(datasets.load("cifar100").train) == 200
    assert capfd.readouterr().err.startswith(f"Waiting for another process, which is downloading {ARCHIVE}\n")


@pytest.mark.parametrize("address", ["http:/user:secret@proxy", "http://proxy:secret"])
@pytest.mark.parametrize("spec", ["cifar100", "auto"])
@pytest.mark.usefixtures("cifar")
def test_a_proxy_without_a_valid_address_is_the_reason_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], address: str, spec: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of its first use
    message = ""
    try:
        datasets.load(spec, train_images=100, test_images=100)
    except UserError as error:
        message = str(error)
    message += capfd.readouterr().err
    assert "(a proxy that the environment names has no valid address)" in message
    assert "sec" not in message


def test_the_data_folder_is_the_platforms_cache_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESNET_BENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert datasets.data_folder().name == "resnet_bench"


# --- auto ---


@pytest.mark.usefixtures("offline")
def test_auto_takes_cifar100_that_is_there(tmp_path: Path, data_folder: Path) -> None:
    shutil.copytree(official(tmp_path) / FOLDER, data_folder / FOLDER)
    assert datasets.load("auto").name == "cifar100"


def test_auto_fetches_cifar100_where_the_server_answers(cifar: Server) -> None:
    assert datasets.load("auto").name == "cifar100"
    assert cifar.requests == ["HEAD", "GET"]


def assert_auto_is_synthetic(capfd: pytest.CaptureFixture[str], reason: str) -> None:
    dataset = datasets.load("auto", train_images=100, test_images=100)
    assert (dataset.name, dataset.synthetic) == ("synthetic", True)
    lines = [line for line in capfd.readouterr().err.splitlines() if "SYNTHETIC" in line]
    assert len(lines) == 1
    assert reason in lines[0]


@pytest.mark.usefixtures("offline")
def test_auto_without_network_says_that_it_takes_the_synthetic_set(capfd: pytest.CaptureFixture[str]) -> None:
    assert_auto_is_synthetic(capfd, "refused")


def test_auto_waits_only_a_stated_time_for_an_answer(
    cifar: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cifar.hang = 2
    monkeypatch.setattr(datasets, "AUTO_TIMEOUT_SECONDS", 0.1)
    assert_auto_is_synthetic(capfd, "no answer within 0.1 s")
    assert cifar.requests == ["HEAD"]


def test_auto_gives_a_slow_download_up(
    cifar: Server, data_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "AUTO_DOWNLOAD_SECONDS", 0)
    assert_auto_is_synthetic(capfd, "the download takes longer than 0 s")
    assert not (data_folder / ARCHIVE).exists()


@pytest.mark.usefixtures("cifar", "little_space")
def test_auto_falls_back_where_the_disk_has_no_space(capfd: pytest.CaptureFixture[str]) -> None:
    assert_auto_is_synthetic(capfd, "File too large")


def test_auto_does_not_wait_long_for_another_process_that_downloads(
    cifar: Server, data_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "AUTO_DOWNLOAD_SECONDS", 0.1)
    data_folder.mkdir()
    with FileLock(data_folder / f"{FOLDER}.lock"):
        assert_auto_is_synthetic(capfd, "another process has been downloading it for more than 0.1 s")
    assert cifar.requests == []


@pytest.mark.usefixtures("cifar")
def test_auto_falls_back_where_the_data_folder_cannot_be_written(
    data_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data_folder.write_text("a file")
    assert_auto_is_synthetic(capfd, "the folder cannot be written")
