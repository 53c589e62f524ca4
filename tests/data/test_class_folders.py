"""Class folders: what is read, every sentence about what cannot be, and the cache of decoded images."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_bench.data import class_folders, datasets, image_files, storage
from resnet_bench.data.sources import SPLITS
from resnet_bench.errors import UserError


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
    monkeypatch.setattr(class_folders, "CACHE_FROM_IMAGES", 1)
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
    for split in SPLITS:
        (path / split / "class3").symlink_to("class3")
        os.mkfifo(path / split / "class4")
    with pytest.raises(
        UserError, match=r"class3 \(Too many levels of symbolic links\), class4 \(a pipe, a socket or a device\); mend"
    ):
        datasets.load(f"folder:{path}")


def test_a_class_folder_that_leads_back_to_its_split_is_named(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    for split in SPLITS:
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
    for split in SPLITS:
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


# --- the cache ---


@pytest.fixture
def cached(image_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> tuple[Path, Path]:
    """A folder that was loaded once, and its cache entry."""
    monkeypatch.setattr(class_folders, "CACHE_FROM_IMAGES", 1)
    path = image_folder()
    datasets.load(f"folder:{path}")
    (entry,) = (data_folder / "folders").iterdir()
    return path, entry


def test_the_second_load_decodes_nothing(cached: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, entry = cached
    os.rename(entry, entry.with_suffix(".aside"))
    fresh = datasets.load(f"folder:{path}").sha256
    os.replace(entry.with_suffix(".aside"), entry)
    monkeypatch.setattr(class_folders, "_decode", None)
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
    monkeypatch.setattr(class_folders, "_decode", lambda paths: np.full((len(paths), 3, 32, 32), 7, np.uint8))
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
    monkeypatch.setattr(storage, "cache_folder", lambda: None)
    assert len(datasets.load(f"folder:{images}").train) == 24


def test_small_folders_leave_nothing_in_the_cache(image_folder: Callable[..., Path], data_folder: Path) -> None:
    datasets.load(f"folder:{image_folder()}")
    assert not data_folder.exists()
