import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from torchvision import transforms

from resnet_bench.data import augmentation
from resnet_bench.data.augmentation import Draws, augment_image, augment_images, draw, epoch_order, philox
from resnet_bench.recipe import Recipe

RECIPE = Recipe()
MEAN, STD = [0.507, 0.487, 0.441], [0.267, 0.256, 0.276]
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (512, 3, 32, 32), dtype=np.uint8))


def vectorized(images, draws):
    return augment_images(images, draws, RECIPE, torch.tensor(MEAN), torch.tensor(STD))


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter, key, words):
    """The generator gives the known answers of its authors' test vectors (Random123, kat_vectors)."""
    assert tuple(int(w) for w in philox(key, counter)) == words


def test_same_pixels_as_torchvision_over_thousands_of_draws():
    """For the same draws, chunks on tensors equal torchvision's transforms of single PIL images, bit for bit."""
    for epoch in range(1, 9):
        draws = draw(RECIPE, 7, epoch, np.arange(len(IMAGES)))
        chunk = vectorized(IMAGES, draws)
        for i, image in enumerate(IMAGES):
            assert torch.equal(chunk[i], augment_image(image, draws[i], RECIPE, MEAN, STD)), draws[i]


def test_same_pixels_at_the_extremes():
    """All corner offsets, with and without flip, at the extreme, zero and tiny angles."""
    angles = [-15.0, 15.0, 0.0, -0.0, 1e-9, -1e-9, 14.999999999, 7.5, -7.5]
    grid = [(t, lf, f, a) for t in (0, 4, 8) for lf in (0, 4, 8) for f in (False, True) for a in angles]
    top, left, flip, angle = (np.array(column) for column in zip(*grid, strict=True))
    draws = Draws(top, left, flip, angle)
    images = IMAGES[: len(grid)]
    chunk = vectorized(images, draws)
    for i, image in enumerate(images):
        assert torch.equal(chunk[i], augment_image(image, draws[i], RECIPE, MEAN, STD)), draws[i]


@settings(max_examples=200)
@given(st.integers(0, 8), st.integers(0, 8), st.booleans(), st.floats(-180, 180), st.integers(0, len(IMAGES) - 1))
def test_same_pixels_for_any_draw(top, left, flip, angle, i):
    """Also for angles the recipe never draws, except the quarter turns that Pillow does by transposing."""
    draws = Draws(np.array([top]), np.array([left]), np.array([flip]), np.array([angle]))
    expected = augment_image(IMAGES[i], draws[0], RECIPE, MEAN, STD)
    if angle % 90 != 0:
        assert torch.equal(vectorized(IMAGES[i : i + 1], draws)[0], expected)


def test_augmentation_is_the_random_transforms_of_torchvision(monkeypatch):
    """Given the same random numbers, torchvision's random transforms in the study's order give the same image."""
    drawn = draw(RECIPE, 3, 1, np.arange(50))
    for i in range(50):
        d = drawn[i]
        box = (d.top, d.left, 32, 32)
        monkeypatch.setattr(transforms.RandomCrop, "get_params", lambda *_, box=box: box)
        monkeypatch.setattr(transforms.RandomRotation, "get_params", lambda *_, angle=d.angle: angle)
        pipeline = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(p=1.0 if d.flip else 0.0),
                transforms.RandomRotation(15),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )
        expected = pipeline(Image.fromarray(IMAGES[i].permute(1, 2, 0).numpy()))
        assert torch.equal(augment_image(IMAGES[i], d, RECIPE, MEAN, STD), expected)


def test_normalize_is_torchvisions():
    """uint8 images become what `ToTensor` and `Normalize` give, bit for bit."""
    ours = augmentation.normalize(IMAGES, torch.tensor(MEAN), torch.tensor(STD))
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    for i in range(20):
        assert torch.equal(ours[i], theirs(Image.fromarray(IMAGES[i].permute(1, 2, 0).numpy())))


@given(st.integers(0, 2**63 - 1), st.integers(1, 1000), st.lists(st.integers(0, 60_000), min_size=1, max_size=20))
def test_draws_depend_on_seed_epoch_and_index_only(seed, epoch, indices):
    """Drawn one by one or together, in any order, an image gets the same."""
    together = draw(RECIPE, seed, epoch, np.array(indices))
    for position, index in enumerate(indices):
        assert draw(RECIPE, seed, epoch, np.array([index]))[0] == together[position]


def test_draws_are_distributed_as_the_recipe_says():
    """Uniform offsets, flips with probability 0.5, uniform angles in ±15°, all independent (chi-squared, KS)."""
    d = draw(RECIPE, 0, 1, np.arange(90_000))
    assert stats.chisquare(np.bincount(d.top * 9 + d.left, minlength=81)).pvalue > 1e-4
    assert stats.binomtest(int(d.flip.sum()), 90_000).pvalue > 1e-4
    assert stats.kstest(d.angle, stats.uniform(-15, 30).cdf).pvalue > 1e-4
    assert abs(np.corrcoef([d.top, d.left, d.flip, d.angle]) - np.eye(4)).max() < 0.02
    other = draw(RECIPE, 0, 2, np.arange(90_000))
    assert abs(np.corrcoef(d.angle, other.angle)[0, 1]) < 0.02


@given(st.integers(0, 2**64 - 1), st.integers(1, 100), st.integers(1, 500))
def test_epoch_order_is_a_permutation(seed, epoch, count):
    order = epoch_order(seed, epoch, count)
    assert sorted(order.tolist()) == list(range(count))


def test_epoch_orders_differ():
    """Another epoch or another seed sees the images in another order."""
    a, b, c = epoch_order(0, 1, 1000), epoch_order(0, 2, 1000), epoch_order(1, 1, 1000)
    assert (a != b).mean() > 0.9
    assert (a != c).mean() > 0.9
