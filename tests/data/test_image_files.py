"""Image files: every mode, depth and orientation with its exact pixels, or refused by name."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resnet_bench.data import datasets, image_files
from resnet_bench.data.image_files import OTHER_MODE, SEVERAL, TRANSPARENT, UNREADABLE, ImageFileError
from resnet_bench.errors import UserError

Array = NDArray[np.generic]

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
GREYS = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
BITS = GREYS // 128
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (32, 32), dtype=np.uint16)
WIDE[0, :4] = 0, 128, 129, 65535
WIDE_COLOURS = RNG.integers(0, 65536, (32, 32, 3), dtype=np.uint16)
OPAQUE = Image.new("L", (32, 32), 255)
HOLE = OPAQUE.copy()
HOLE.putpixel((31, 31), 254)


def grey(values: Array) -> Array:
    return np.repeat(values[..., None], 3, axis=2)


def palette_image(mode: str = "P") -> Image.Image:
    image = Image.fromarray(GREYS)
    image.putpalette(PALETTE.tobytes())  # now the greys are indices
    return image.convert(mode)


def with_alpha(mode: str, alpha: Image.Image) -> Image.Image:
    if mode == "PA":
        image = palette_image("PA")
        image.putalpha(alpha)
        return image
    bands = [Image.fromarray(GREYS)] if mode[0] == "L" else list(Image.fromarray(COLOURS).split())
    return Image.merge(mode.upper(), [*bands, alpha]).convert(mode)


def one_bit() -> Image.Image:
    return Image.fromarray(BITS * 255).convert("1")


READ: dict[str, tuple[Callable[[], Image.Image], Array]] = {
    "1": (one_bit, grey(BITS * 255)),
    "L": (lambda: Image.fromarray(GREYS), grey(GREYS)),
    "LA": (lambda: with_alpha("LA", OPAQUE), grey(GREYS)),
    "La": (lambda: with_alpha("La", OPAQUE), grey(GREYS)),
    "P": (palette_image, PALETTE[GREYS]),
    "PA": (lambda: with_alpha("PA", OPAQUE), PALETTE[GREYS]),
    "RGB": (lambda: Image.fromarray(COLOURS), COLOURS),
    "RGBA": (lambda: with_alpha("RGBA", OPAQUE), COLOURS),
    "RGBa": (lambda: with_alpha("RGBa", OPAQUE), COLOURS),
    "RGBX": (lambda: Image.fromarray(COLOURS).convert("RGBX"), COLOURS),
}
REFUSED = ("CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # in memory: of no known range


def problem(path: Path) -> tuple[str, str]:
    with pytest.raises(ImageFileError) as error:
        image_files.read(str(path))
    return error.value.problem, error.value.detail


def png(depth: int, colour_type: int, rows: list[bytes], **chunks: bytes) -> bytes:
    """A PNG of the depths and colours that Pillow reads but does not write."""

    def chunk(name: str, data: bytes) -> bytes:
        content = name.encode() + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    header = chunk("IHDR", struct.pack(">IIBBBBB", 32, 32, depth, colour_type, 0, 0, 0))
    pixels = chunk("IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    extra = b"".join(chunk(name, data) for name, data in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + header + extra + pixels + chunk("IEND", b"")


def big_endian(values: Array) -> list[bytes]:
    return [row.astype(">u2").tobytes() for row in values]


def packed(values: Array, bits: int) -> list[bytes]:
    """Rows of numbers of so many bits each."""
    digits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(32, 32, 2), axis=2)[:, :, 16 - bits :]
    return [np.packbits(row).tobytes() for row in digits]


def tiff(bits: int, photometric: int, data: bytes) -> bytes:
    """A TIFF of one channel; `photometric` 0 is white as 0, 1 is black as 0."""
    tags = [(256, 32), (257, 32), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 32)]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (279, len(data))]]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


# --- modes ---


def test_every_mode_of_pillow_is_decided() -> None:
    assert set(Image.MODES) <= READ.keys() | set(REFUSED)


@pytest.mark.parametrize("mode", READ)
def test_greys_palettes_and_rgb_are_taken_as_they_are(mode: str) -> None:
    make, expected = READ[mode]
    image = make()
    assert image.mode == mode
    pixels = image_files.rgb(image)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("mode", REFUSED)
def test_other_modes_are_refused_by_name(mode: str) -> None:
    with pytest.raises(ImageFileError) as error:
        image_files.rgb(Image.new(mode, (32, 32)))
    assert error.value.problem == OTHER_MODE
    assert error.value.detail.endswith(f"with mode {mode}")


@pytest.mark.parametrize(
    ("format_", "mode"),
    [(f, m) for f, modes in {
        "PNG": ["1", "L", "LA", "P", "RGB", "RGBA"], "TIFF": ["1", "L", "LA", "P", "PA", "RGB", "RGBA"],
        "GIF": ["1", "L", "P"], "BMP": ["1", "L", "RGB"], "PPM": ["1", "L", "RGB"], "WEBP": ["RGB", "RGBA"],
    }.items() for m in modes],
)  # fmt: skip
def test_the_same_pixels_come_out_of_a_file_of_every_lossless_format(tmp_path: Path, format_: str, mode: str) -> None:
    make, expected = READ[mode]
    path = tmp_path / "image"
    make().save(path, format_, **({"lossless": True} if format_ == "WEBP" else {}))
    np.testing.assert_array_equal(image_files.read(str(path)), expected)


@pytest.mark.parametrize(
    ("mode", "format_"), [("CMYK", "TIFF"), ("CMYK", "JPEG"), ("LAB", "TIFF"), ("I", "TIFF"), ("F", "TIFF")]
)
def test_a_file_of_another_mode_is_refused_with_its_format_and_mode(tmp_path: Path, mode: str, format_: str) -> None:
    path = tmp_path / "image"
    Image.new(mode, (32, 32)).save(path, format_)
    assert problem(path) == (OTHER_MODE, f"{format_} with mode {mode}")


# --- depths ---


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_greys_of_less_than_8_bits_reach_from_black_to_white(tmp_path: Path, bits: int) -> None:
    values = GREYS >> (8 - bits)
    (tmp_path / "image.png").write_bytes(png(bits, 0, packed(values, bits)))
    expected = grey(values * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(image_files.read(str(tmp_path / "image.png")), expected)


def wide_greys(tmp_path: Path, format_: str) -> Path:
    path = tmp_path / "image"
    if format_ == "PGM":  # which only newer Pillows write
        path.write_bytes(b"P5 32 32 65535 " + WIDE.astype(">u2").tobytes())
    else:
        values, _, name = WIDE.astype(">u2" if "big" in format_ else "<u2"), *format_.rpartition(" ")[1:]
        Image.fromarray(values).save(path, name, **({"irreversible": False} if name == "JPEG2000" else {}))
    return path


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "big-endian TIFF", "JPEG2000", "PGM"])
def test_16_bit_greys_are_divided_by_257_and_rounded(tmp_path: Path, format_: str) -> None:
    pixels = image_files.read(str(wide_greys(tmp_path, format_)))
    np.testing.assert_array_equal(pixels, grey(np.round(WIDE / 257).astype(np.uint8)))
    assert pixels[0, :4, 0].tolist() == [0, 0, 1, 255]


def test_8_bit_greys_saved_as_16_bits_come_back_unchanged(tmp_path: Path) -> None:
    Image.fromarray(GREYS.astype(np.uint16) * 257).save(tmp_path / "image.png")
    np.testing.assert_array_equal(image_files.read(str(tmp_path / "image.png")), grey(GREYS))


def test_of_16_bit_colours_the_upper_byte_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(png(16, 2, big_endian(WIDE_COLOURS)))
    np.testing.assert_array_equal(image_files.read(str(path)), WIDE_COLOURS >> 8)
    opaque = np.concatenate([WIDE_COLOURS, np.full((32, 32, 1), 65535, np.uint16)], axis=2)
    path.write_bytes(png(16, 6, big_endian(opaque)))
    np.testing.assert_array_equal(image_files.read(str(path)), WIDE_COLOURS >> 8)


def test_tiffs_whose_mode_says_16_bits_of_other_greys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(tiff(16, 1, WIDE.astype("<u2").tobytes()))
    np.testing.assert_array_equal(image_files.read(str(path))[..., 0], np.round(WIDE / 257))
    path.write_bytes(tiff(16, 0, WIDE.astype("<u2").tobytes()))  # white is 0
    assert problem(path) == (OTHER_MODE, "TIFF with mode I;16")
    path.write_bytes(tiff(12, 1, b"".join(packed(WIDE >> 4, 12))))
    assert problem(path) == (OTHER_MODE, "TIFF with mode I;16")


# --- transparency ---


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_a_pixel_that_is_not_opaque_is_refused(mode: str) -> None:
    with pytest.raises(ImageFileError) as error:
        image_files.rgb(with_alpha(mode, HOLE))
    assert error.value.problem == TRANSPARENT


def test_a_palette_with_a_transparent_colour_is_refused_where_a_pixel_has_it(tmp_path: Path) -> None:
    image, path = palette_image(), tmp_path / "image"
    image.save(path, "PNG", transparency=bytes([255] * 256))
    np.testing.assert_array_equal(image_files.read(str(path)), PALETTE[GREYS])
    image.save(path, "PNG", transparency=bytes([255] * int(GREYS[5, 5]) + [254]))
    assert problem(path) == (TRANSPARENT, "")
    image.save(path, "GIF", transparency=int(GREYS[5, 5]))
    assert problem(path) == (TRANSPARENT, "")
    two = Image.fromarray(BITS)
    two.putpalette(PALETTE[:3].tobytes())
    two.save(path, "GIF", transparency=2, optimize=False)
    np.testing.assert_array_equal(image_files.read(str(path)), PALETTE[BITS])


@pytest.mark.parametrize(
    ("depth", "colour_type", "rows", "key"),
    [
        (1, 0, packed(BITS, 1), (int(BITS[0, 0]),)),
        (2, 0, packed(GREYS >> 6, 2), (int(GREYS[0, 0] >> 6),)),
        (8, 0, [row.tobytes() for row in GREYS], (int(GREYS[0, 0]),)),
        (16, 0, big_endian(WIDE), (int(WIDE[5, 5]),)),
        (8, 2, [row.tobytes() for row in COLOURS], COLOURS[0, 0].tolist()),
        (16, 2, big_endian(WIDE_COLOURS), WIDE_COLOURS[0, 0].tolist()),
    ],
)
def test_a_png_in_which_one_colour_is_transparent_is_refused(
    tmp_path: Path, depth: int, colour_type: int, rows: list[bytes], key: list[int]
) -> None:
    (tmp_path / "image.png").write_bytes(png(depth, colour_type, rows, tRNS=struct.pack(f">{len(key)}H", *key)))
    assert problem(tmp_path / "image.png") == (TRANSPARENT, "")


# --- orientation, frames ---

ORIENTATIONS: dict[int, Callable[[Array], Array]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def saved_with_orientation(image: Image.Image, path: Path, format_: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    image.save(path, format_, exif=exif, **({"lossless": True} if format_ == "WEBP" else {}))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_a_picture_is_turned_as_its_exif_orientation_says(tmp_path: Path, format_: str, orientation: int) -> None:
    path = tmp_path / "image"
    saved_with_orientation(Image.fromarray(COLOURS), path, format_, orientation)
    np.testing.assert_array_equal(image_files.read(str(path)), ORIENTATIONS[orientation](COLOURS))


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_16_bit_greys_are_turned_too(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "image"
    saved_with_orientation(Image.fromarray(WIDE), path, format_, 6)
    np.testing.assert_array_equal(image_files.read(str(path))[..., 0], np.rot90(np.round(WIDE / 257), -1))


@pytest.mark.parametrize("format_", ["GIF", "PNG", "TIFF", "WEBP"])
def test_a_file_of_several_frames_or_pages_is_refused_with_their_number(tmp_path: Path, format_: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "image", format_, save_all=True, append_images=frames[1:])
    assert problem(tmp_path / "image") == (SEVERAL, "3")


# --- no image ---


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    """A pipe would be waited for, for ever."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    assert problem(tmp_path / "pipe.png") == (UNREADABLE, "a pipe, a socket or a device")
    assert problem(tmp_path / "link.png") == (UNREADABLE, "a link that leads nowhere")
    assert problem(tmp_path / "circle.png") == (UNREADABLE, "Too many levels of symbolic links")
    assert problem(tmp_path / "gone.png") == (UNREADABLE, "it is gone")


@pytest.mark.usefixtures("permissions_hold")
def test_a_file_that_may_not_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(COLOURS).save(path)
    path.chmod(0)
    assert problem(path) == (UNREADABLE, "Permission denied")


# --- in a folder ---


def test_16_bit_greys_in_a_folder_are_trained_on_as_the_8_bit_ones_are(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    file = path / "train/class0/000.png"
    Image.fromarray(GREYS).save(file)
    expected = datasets.load(f"folder:{path}").sha256
    Image.fromarray(GREYS.astype(np.uint16) * 257).save(file)
    assert datasets.load(f"folder:{path}").sha256 == expected


def test_one_sentence_names_each_file_that_cannot_be_used_with_its_reason(image_folder: Callable[..., Path]) -> None:
    path = image_folder()
    folder = path / "train/class0"
    Image.new("CMYK", (32, 32)).save(folder / "a.jpg")
    with_alpha("RGBA", HOLE).save(folder / "b.png")
    Image.new("RGB", (33, 32)).save(folder / "c.png")
    (folder / "d.png").write_text("no image")
    frames = [Image.new("L", (32, 32), value) for value in (0, 255)]
    frames[0].save(folder / "e.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError) as error:
        datasets.load(f"folder:{path}")
    assert str(error.value) == (
        f"These files cannot be read as images: {folder}/d.png; these are not 32×32 pixels: {folder}/c.png (33×32); "
        f"these hold more than one picture: {folder}/e.gif (2); these have a mode without fixed RGB values: "
        f"{folder}/a.jpg (JPEG with mode CMYK); these have transparent pixels: {folder}/b.png; repair them, save them "
        "as opaque 8-bit RGB of 32×32 pixels, or remove them."
    )
