"""The training augmentation: crop, flip, rotate, normalise.

The random numbers of an image are a pure function of (seed, epoch, image index): one output of the counter-based
generator Philox, with the seed as its key. They do not depend on worker count, batch size, or the step at which a
training is resumed. Two implementations turn them into pixels, and give the same pixels bit for bit:

- `augment_image`: torchvision's own functional transforms on one PIL image, as the paper's code did;
- `augment_images`: whole chunks on tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from resnet_bench.architectures import IMAGE_SIZE
from resnet_bench.recipe import Recipe

Uint32 = npt.NDArray[np.uint32]

_AUGMENT, _SHUFFLE = 0, 1  # the fourth word of the counter, so that augmentation and order have streams of their own


def philox(seed: int, counter: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]) -> Uint32:
    """Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

    Args:
        seed: the 64-bit key.
        counter: four 32-bit words, each a number or an array; they broadcast to a shape [...].

    Returns:
        uint32 [4, ...]: four independent uniform words for each counter.
    """
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in counter))
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & low, (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def epoch_order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """The order of `count` images in `epoch` (from 1): a random permutation of their indices, int64 [count]."""
    words = philox(seed, (np.arange(count), epoch, 0, _SHUFFLE))
    keys = (words[0].astype(np.uint64) << np.uint64(32)) | words[1]
    return np.argsort(keys, kind="stable")


class Draw(NamedTuple):
    """Random numbers for one image; `Draws` explains them."""

    top: int
    left: int
    flip: bool
    angle: float


@dataclass(frozen=True)
class Draws:
    """Random numbers for n images.

    Attributes:
        top, left: int64 [n], the corner of the crop in the padded image, in pixels from 0 to 2·padding.
        flip: bool [n], whether the image is flipped horizontally.
        angle: float64 [n], of the rotation, in degrees counter-clockwise.
    """

    top: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    flip: npt.NDArray[np.bool_]
    angle: npt.NDArray[np.float64]

    def __getitem__(self, i: int) -> Draw:
        return Draw(int(self.top[i]), int(self.left[i]), bool(self.flip[i]), float(self.angle[i]))


def draw(recipe: Recipe, seed: int, epoch: int, indices: npt.NDArray[np.int64]) -> Draws:
    """Draw for images of the training set.

    Args:
        recipe: padding, flip probability and largest angle.
        seed: the 64-bit key.
        epoch: from 1.
        indices: int64 [n], positions in the training set.
    """
    words = philox(seed, (indices, epoch, 0, _AUGMENT))
    positions = np.uint64(2 * recipe.padding + 1)
    top, left = ((words[:2].astype(np.uint64) * positions) >> np.uint64(32)).astype(np.int64)
    uniform = (words[2:].astype(np.float64) + 0.5) / 2**32  # in the open interval (0, 1)
    return Draws(top, left, uniform[0] < recipe.flip_probability, (2 * uniform[1] - 1) * recipe.rotation_degrees)


def augment_image(image: Tensor, draw: Draw, recipe: Recipe, mean: list[float], std: list[float]) -> Tensor:
    """Augment one image, uint8 [3, 32, 32] → float32 [3, 32, 32], with torchvision's transforms on a PIL image.

    `mean` and `std` have one number a channel, for pixel values in [0, 1].
    """
    # Imported here, because it takes seconds and only this function needs it.
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    pil = Image.fromarray(image.permute(1, 2, 0).numpy())
    pil = F.crop(F.pad(pil, recipe.padding), draw.top, draw.left, IMAGE_SIZE, IMAGE_SIZE)
    if draw.flip:
        pil = F.hflip(pil)
    pil = F.rotate(pil, draw.angle, InterpolationMode.NEAREST)
    augmented: Tensor = F.normalize(F.to_tensor(pil), mean, std)
    return augmented


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 [n, 3, 32, 32] → float32, by the operations of torchvision's `ToTensor` and `Normalize` in that order.

    `mean` and `std`, float32 [3], are for pixel values in [0, 1].
    """
    return images.to(torch.float32).div_(255).sub_(mean.view(3, 1, 1)).div_(std.view(3, 1, 1))


def augment_images(images: Tensor, draws: Draws, recipe: Recipe, mean: Tensor, std: Tensor) -> Tensor:
    """Augment n images at once, uint8 [n, 3, 32, 32] → float32 [n, 3, 32, 32], as `augment_image` does with each.

    Each output pixel is traced back to the pixel of the raw image that it comes from, so one gather does crop, flip and
    rotation. The rotation is Pillow's nearest-neighbour affine transform, which computes in 16.16 fixed point
    (`affine_fixed` in its Geometry.c). Integers give the same result on every machine.
    """
    x, y = _rotated_coordinates(draws.angle)  # in the cropped, flipped image
    outside = x | y  # has a bit outside 0…31 where either coordinate is negative or ≥ 32
    x ^= _column(draws.flip * (IMAGE_SIZE - 1))  # 31 - x where flipped; a coordinate outside stays outside
    x += _column(draws.left - recipe.padding)
    y += _column(draws.top - recipe.padding)
    outside |= x | y
    inside = (outside & -IMAGE_SIZE) == 0
    source = torch.where(inside, y * IMAGE_SIZE + x, 0)

    flat = images.reshape(len(images), 3, IMAGE_SIZE**2)
    index = source.to(torch.int64).view(-1, 1, IMAGE_SIZE**2).expand_as(flat)
    pixels = flat.gather(2, index).mul_(inside.view(-1, 1, IMAGE_SIZE**2))  # black outside
    return normalize(pixels.view(-1, 3, IMAGE_SIZE, IMAGE_SIZE), mean, std)


def _column(values: npt.NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(values.astype(np.int32)).view(-1, 1, 1)


def _rotated_coordinates(angles: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Where each output pixel of a rotation comes from: x and y, int32 [n, 32, 32], possibly outside the image.

    The result equals that of Pillow's `Image.rotate` to the last bit: sine and cosine are Python's, rounded, as there.
    """
    radians = [-math.radians(angle % 360.0) for angle in angles.tolist()]
    cos = np.array([round(math.cos(r), 15) for r in radians])
    sin = np.array([round(math.sin(r), 15) for r in radians])
    center = IMAGE_SIZE / 2
    x0 = (cos * -center + sin * -center) + center
    y0 = (-sin * -center + cos * -center) + center

    def fixed(values: npt.NDArray[np.float64]) -> Tensor:
        return _column(np.floor(values * 65536.0 + 0.5).astype(np.int64))

    step = torch.arange(IMAGE_SIZE, dtype=torch.int32)
    right, down = step.view(1, 1, -1), step.view(1, -1, 1)
    x = (fixed(x0 + cos * 0.5 + sin * 0.5) + down * fixed(sin)) + right * fixed(cos)
    y = (fixed(y0 - sin * 0.5 + cos * 0.5) + down * fixed(cos)) + right * fixed(-sin)
    return x.bitwise_right_shift_(16), y.bitwise_right_shift_(16)
