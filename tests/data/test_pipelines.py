import subprocess
import sys
from pathlib import Path

import pytest
import torch

from resnet_bench.data import pipelines
from resnet_bench.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent
RECIPE = Recipe()


def collect(dataset, pipeline, recipe=RECIPE, **options):
    return list(pipelines.batches(pipeline, dataset, recipe, 5, 2, **options))


def assert_same(a, b):
    assert len(a) == len(b)
    for (images, labels), (other_images, other_labels) in zip(a, b, strict=True):
        assert torch.equal(images, other_images)
        assert torch.equal(labels, other_labels)


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_same_batches_for_any_pipeline_and_worker_count(dataset, workers):
    """Bit for bit, with the smaller last batch."""
    expected = collect(dataset, "vectorized")
    assert [len(labels) for _, labels in expected] == [4] * 10 + [2]
    assert_same(collect(dataset, "loader", workers=workers), expected)


@pytest.mark.parametrize("pipeline", pipelines.PIPELINES)
@pytest.mark.parametrize("start", [1, 7, 10, 11])
def test_an_epoch_taken_up_in_the_middle(dataset, pipeline, start):
    """Starting at a step gives what a run from the beginning gives from there on."""
    assert_same(collect(dataset, pipeline, start=start), collect(dataset, pipeline)[start:])


@pytest.mark.parametrize("batch_size", [1, 3, 42])
def test_images_do_not_depend_on_the_batch_size(dataset, batch_size):
    """Another batch size cuts the same sequence of augmented images elsewhere."""
    ours = collect(dataset, "vectorized", Recipe(batch_size=batch_size))
    assert torch.equal(
        torch.cat([images for images, _ in ours]), torch.cat([i for i, _ in collect(dataset, "vectorized")])
    )


def test_chunks_do_not_show(dataset, monkeypatch):
    """However many images are augmented at once, the batches are the same."""
    expected = collect(dataset, "vectorized")
    monkeypatch.setattr(pipelines, "CHUNK_IMAGES", 1)
    assert_same(collect(dataset, "vectorized"), expected)


@pytest.mark.parametrize("pipeline", pipelines.PIPELINES)
def test_the_global_generator_is_not_touched(dataset, pipeline):
    before = torch.random.get_rng_state()
    collect(dataset, pipeline)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_image_is_seen_once_an_epoch(dataset):
    labels = torch.cat([labels for _, labels in collect(dataset, "vectorized")])
    assert labels.bincount().tolist() == dataset.train.labels.bincount().tolist()


IMPORTS = """
import sys
sys.path[:0] = [{root!r}]
from tests.conftest import image_set
from resnet_bench.architectures import Architecture
from resnet_bench.data.datasets import Dataset
from resnet_bench.recipe import Recipe
from resnet_bench.training.training import Training
images = Dataset("random", image_set(8, 5, 0), image_set(4, 5, 1), tuple("abcde"), synthetic=True, subset=False)
small = Architecture("small", "", "", widths=(8,), strides=(2,), hidden=())
for pipeline in ("vectorized", "loader"):
    Training(small, images, Recipe(), pipeline=pipeline)
    print(pipeline, "torchvision" in sys.modules)
"""


def test_what_takes_seconds_to_import_is_there_before_a_clock_runs():
    """In a fresh process: torchvision comes with a training on the loader, not with its first epoch, and only then."""
    code = IMPORTS.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split("\n")[:2] == ["vectorized False", "loader True"]
