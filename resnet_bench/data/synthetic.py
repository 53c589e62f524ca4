"""The `synthetic` data set: 100 classes of procedurally drawn 32×32 images, for machines with neither data nor network.

A class is a shape, a texture and a hue (5 × 5 × 4). Within a class these vary: position, size, rotation, brightness,
stripe width, hue (so much that neighbouring hues overlap), the background's colours, two distractor patches, and noise.

Image i of a split is a pure function of (`DRAWING_SEED`, split, i). Its random numbers are the raw output of the
counter-based generator Philox, in a stream of its own, and all drawing is integer arithmetic. So the pixels do not
depend on the machine, the thread count, the versions of numpy and torch, or on which other images are drawn.
"""

from __future__ import annotations

import colorsys
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

DRAWING_SEED = 20240  # fixed, because another seed would make another data set
SIZES = {"train": 50_000, "test": 10_000}  # the same as CIFAR-100's

SHAPES = ("disc", "square", "triangle", "ring", "cross")
TEXTURES = ("plain", "striped", "checked", "dotted", "ridged")
HUES = ("red", "green", "blue", "purple")
CLASSES = tuple(f"{hue} {texture} {shape}" for shape in SHAPES for texture in TEXTURES for hue in HUES)

_SIZE = 32  # pixels
_CHUNK = 250  # images drawn at once: their intermediate arrays (1 MB each) stay in the CPU's caches
_PARAMETERS = 32  # random 16-bit numbers per image, before those of the pixel noise
_WORDS = (_PARAMETERS * 2 + 3 * _SIZE * _SIZE) // 8  # 64-bit random words per image

# Fixed point: coordinates in 1/16 pixel from the image's centre, sines in 1/4096, a turn in 1024 steps, 6·256 hues.
_Y, _X = (c * 32 - (_SIZE - 1) * 16 for c in np.mgrid[0:_SIZE, 0:_SIZE].astype(np.int32)[:, None])  # in 1/32 pixel
_SIN = np.rint(np.sin(np.arange(1024 + 256) * (2 * np.pi / 1024)) * 4096).astype(np.int32)
_HUE_RGB = np.array([[round(255 * c) for c in colorsys.hsv_to_rgb(h / 1536, 1, 1)] for h in range(1536)], np.int32)


def labels(split: str) -> Array:
    """int64 [n]: the labels of the whole split; every class has equally many images."""
    classes: Array = np.arange(SIZES[split], dtype=np.int64) % len(CLASSES)
    return classes


def draw(split: str, indices: Array) -> Array:
    """Draw images of `train` or `test`.

    Args:
        split: `train` or `test`.
        indices: int64 [n], each below `SIZES[split]`.

    Returns:
        uint8 [n, 3, 32, 32].
    """
    images = np.empty((len(indices), 3, _SIZE, _SIZE), np.uint8)

    def fill(start: int) -> None:
        images[start : start + _CHUNK] = _draw_chunk(split, indices[start : start + _CHUNK])

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, len(indices), _CHUNK)))
    return images


def _random(split: str, indices: Array) -> tuple[Array, Array]:
    """Each image's own random numbers: int32 [parameters, n, 1, 1] in [0, 65536) and uint8 noise [n, 3, 32, 32]."""
    key = (DRAWING_SEED, tuple(SIZES).index(split))
    # The upper half of the counter is the index, so the streams of two images never overlap.
    words = np.stack([np.random.Philox(key=key, counter=(0, 0, int(i), 0)).random_raw(_WORDS) for i in indices])
    data = words.astype("<u8", copy=False).view(np.uint8)
    parameters = data[:, : 2 * _PARAMETERS].copy().view("<u2").T.astype(np.int32)[..., None, None]
    return parameters, data[:, 2 * _PARAMETERS :].reshape(-1, 3, _SIZE, _SIZE)


def _draw_chunk(split: str, indices: Array) -> Array:
    parameters, noise = _random(split, indices)
    numbers = iter(parameters)

    def uniform(low: int, high: int) -> Array:
        """One integer in [low, high) per image, [n, 1, 1]."""
        number: Array = low + (next(numbers) * (high - low) >> 16)
        return number

    label = labels(split)[indices]
    shape, texture, hue = np.unravel_index(label, (len(SHAPES), len(TEXTURES), len(HUES)))

    # Coordinates of the moved and rotated object: u and v in 1/16 pixel.
    radius = uniform(9 * 16, 14 * 16)
    dx, dy = _X - 2 * uniform(-3 * 16, 3 * 16), _Y - 2 * uniform(-3 * 16, 3 * 16)
    angle = uniform(-57, 58) % 1024  # within ±20°, in 1/1024 turn
    sin, cos = _SIN[angle], _SIN[angle + 256]
    u, v = (dx * cos + dy * sin) >> 13, (dy * cos - dx * sin) >> 13

    inside = _by_kind(_SHAPE_RULES, shape, u, v, radius)
    period, phase = uniform(6 * 16, 8 * 16), uniform(0, 8 * 16)
    dark = _by_kind(_TEXTURE_RULES, texture, u + phase, v, period)

    # Colours, [n, 3]. The hue is that of the class plus a jitter, the sum of two uniform draws, that can reach beyond
    # the hue of the next class.
    jitter = (uniform(-160, 161) + uniform(-160, 161))[:, 0, 0]
    brightness, whiteness, contrast = uniform(150, 256), uniform(0, 100), uniform(20, 130)
    light = _colour(hue * 384 + jitter, whiteness, brightness)
    shade = light * contrast[..., 0] >> 8
    ground = [_colour(uniform(0, 1536)[:, 0, 0], uniform(160, 256), uniform(30, 220)) for _ in range(2)]

    # The background runs from one colour to the other across the image, in a random direction.
    angle = uniform(0, 1024)
    ramp = np.clip(128 + ((_X * _SIN[angle + 256] + _Y * _SIN[angle]) >> 14), 0, 255)  # [n, 32, 32]
    images = ground[0][:, :, None, None] * (255 - ramp[:, None]) + ground[1][:, :, None, None] * ramp[:, None] >> 8
    images = np.where(inside[:, None], np.where(dark[:, None], _pixel(shade), _pixel(light)), images)

    # Distractors: two small patches of any colour, over the object too.
    for _ in range(2):
        half = uniform(1 * 32, 4 * 32)
        centre_x, centre_y = uniform(-16 * 32, 16 * 32), uniform(-16 * 32, 16 * 32)
        patch = (np.abs(_X - centre_x) < half) & (np.abs(_Y - centre_y) < half)
        colour = _colour(uniform(0, 1536)[:, 0, 0], uniform(0, 256), uniform(30, 256))
        images = np.where(patch[:, None], _pixel(colour), images)

    amplitude = uniform(10, 80)[:, None]
    images += (noise.astype(np.int32) - 128) * amplitude >> 8
    return np.clip(images, 0, 255).astype(np.uint8)


def _colour(hue: Array, whiteness: Array, brightness: Array) -> Array:
    """Hue [n] in 1/1536 turn, whiteness and brightness [n, 1, 1] in [0, 256) → RGB int32 [n, 3] in [0, 255]."""
    pure = _HUE_RGB[hue % 1536]
    colour: Array = (pure * (256 - whiteness[..., 0]) + 255 * whiteness[..., 0] >> 8) * brightness[..., 0] >> 8
    return colour


def _pixel(colour: Array) -> Array:
    """RGB [n, 3] → [n, 3, 1, 1], to be spread over the image."""
    return colour[:, :, None, None]


def _by_kind(rules: tuple[Any, ...], kind: Array, u: Array, v: Array, scale: Array) -> Array:
    """Apply to each image the rule of its kind; bool [n, 32, 32]."""
    out = np.empty(u.shape, bool)
    for k, rule in enumerate(rules):
        (which,) = np.nonzero(kind == k)
        out[which] = rule(u[which], v[which], scale[which])
    return out


# Which points (u, v) belong to the object of radius r, in the order of SHAPES.
_SHAPE_RULES = (
    lambda u, v, r: u * u + v * v < r * r,
    lambda u, v, r: np.maximum(np.abs(u), np.abs(v)) * 10 < 9 * r,
    lambda u, v, r: (v * 10 < 7 * r) & (2 * np.abs(u) < v + r),
    lambda u, v, r: (u * u + v * v < r * r) & (4 * (u * u + v * v) > r * r),
    lambda u, v, r: (np.minimum(np.abs(u), np.abs(v)) * 3 < r) & (np.maximum(np.abs(u), np.abs(v)) < r),
)

# Which points are in the texture's darker colour, for period p, in the order of TEXTURES.
_TEXTURE_RULES = (
    lambda u, v, p: np.zeros(u.shape, bool),
    lambda u, v, p: u % p * 2 < p,
    lambda u, v, p: (u % p * 2 < p) ^ (v % p * 2 < p),
    lambda u, v, p: (u % p - p // 2) ** 2 + (v % p - p // 2) ** 2 < p * p // 8,
    lambda u, v, p: v % p * 2 < p,
)
