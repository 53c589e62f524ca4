"""Reading an image file as 8-bit RGB, the way a viewer shows it, or refusing it with a reason."""

from __future__ import annotations

import os
import stat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from resnet_bench.architectures import IMAGE_SIZE

VERSION = 2  # to be raised whenever `read` gives other pixels for the same file; it makes cached images invalid

UNREADABLE = "cannot be read as images"
OTHER_SIZE = f"are not {IMAGE_SIZE}×{IMAGE_SIZE} pixels"
SEVERAL = "hold more than one picture"
OTHER_MODE = "have a mode without fixed RGB values"
TRANSPARENT = "have transparent pixels"
PROBLEMS = (UNREADABLE, OTHER_SIZE, SEVERAL, OTHER_MODE, TRANSPARENT)

_EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")  # Pillow's modes of greys, palettes, RGB


class ImageFileError(Exception):
    """What is wrong with an image file: one of `PROBLEMS` and, if there is more to say, a detail."""

    def __init__(self, problem: str, detail: str = "") -> None:
        super().__init__(problem, detail)
        self.problem, self.detail = problem, detail


def fault(path: str) -> str | None:
    """Why `path` leads to no regular file; None if it does. Nothing is opened, since a pipe would block for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if os.path.islink(path) else "it is gone"
    except OSError as error:
        return error.strerror
    return None if stat.S_ISREG(mode) else "a pipe, a socket or a device"


def read(path: str) -> NDArray[Any]:
    """The picture in 8-bit RGB, uint8 [32, 32, 3].

    Raises:
        ImageFileError: for a file that is no single opaque image of 32×32 pixels with fixed RGB values.
    """
    if reason := fault(path):
        raise ImageFileError(UNREADABLE, reason)
    try:
        with Image.open(path) as image:
            if image.size != (IMAGE_SIZE, IMAGE_SIZE):
                raise ImageFileError(OTHER_SIZE, f"{image.width}×{image.height}")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise ImageFileError(SEVERAL, str(frames))
            return rgb(image)
    except ImageFileError:
        raise
    except Exception as error:  # PIL's readers raise almost anything on a damaged file
        raise ImageFileError(UNREADABLE, getattr(error, "strerror", None) or "") from None


def rgb(image: Image.Image) -> NDArray[Any]:
    """The picture in 8-bit RGB, uint8 [height, width, 3], turned as its EXIF orientation says.

    Black and white, greys, palettes and RGB keep their values. 16-bit greys are divided by 257 and rounded; Pillow
    keeps the upper byte of 16-bit colours.

    Raises:
        ImageFileError: for transparent pixels, which have no colour of their own, and for modes that can be turned
            into RGB in more than one way (CMYK, YCbCr, LAB, HSV, 32-bit numbers).
    """
    mode, format_ = image.mode, image.format
    if format_ == "PNG" and mode != "P" and "transparency" in image.info:
        # One colour is marked as transparent. In some modes Pillow compares it with pixels of another bit depth.
        raise ImageFileError(TRANSPARENT)
    wide = _has_16_bit_greys(image)
    if not wide and mode not in _EIGHT_BITS:
        raise ImageFileError(OTHER_MODE, f"{format_} with mode {mode}")
    if format_ != "TIFF":  # Pillow turns TIFF itself
        image = ImageOps.exif_transpose(image)
    if wide:
        greys = (np.asarray(image).astype(np.uint32) + 128) // 257
        return np.repeat(greys.astype(np.uint8)[..., None], 3, axis=2)
    if mode == "La":  # the only mode that Pillow cannot convert to RGBA directly
        image = image.convert("LA")
    rgba = np.asarray(image.convert("RGBA"))
    if rgba[..., 3].min() < 255:
        raise ImageFileError(TRANSPARENT)
    return rgba[..., :3]


def _has_16_bit_greys(image: Image.Image) -> bool:
    """Whether the pixels are greys from 0 (black) to 65535 (white); the mode alone does not tell."""
    if image.format == "TIFF":  # mode I;16 also stands for 12 bits, and for greys in which 0 is white
        tags = image.tag_v2  # type: ignore[attr-defined]
        return image.mode in ("I;16", "I;16B") and tags.get(258) == (16,) and tags.get(262) == 1
    # Pillow reads 16 bits of PNG and PPM as I in some versions, as I;16 in others.
    return image.format in ("PNG", "PPM", "JPEG2000") and image.mode in ("I", "I;16", "I;16B")
