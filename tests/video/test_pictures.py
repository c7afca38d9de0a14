"""Start pictures from strangers: what is right comes out upright and in size, what is wrong is named."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from teleworld.video import PictureLimits, load_picture
from teleworld.video.pictures import picture_size
from teleworld.world.errors import InvalidInput


def quarters(width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 [H, W, 3]: red, green, blue and white quarters, in reading order."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2, 0] = 255
    picture[: height // 2, width // 2 :, 1] = 255
    picture[height // 2 :, : width // 2, 2] = 255
    picture[height // 2 :, width // 2 :] = 255
    return picture


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def giant_png(width: int, height: int) -> bytes:
    """A valid PNG header of a few bytes that claims width x height, with a little data behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\x00" * 1000)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def test_a_picture_of_the_right_size_is_untouched() -> None:
    picture = quarters()
    assert np.array_equal(load_picture(saved(picture), 64, 48), picture)
    assert (
        np.abs(load_picture(saved(picture, "JPEG", quality=100, subsampling=0), 64, 48).astype(int) - picture).max() < 6
    )


def test_reduction_averages() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    mean = picture.reshape(24, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(load_picture(saved(picture), 32, 24) - mean).max() <= 1


def test_other_shapes_are_cut_from_the_centre() -> None:
    wide = np.zeros((48, 128, 3), np.uint8)
    wide[:, 32:96] = quarters()
    assert np.array_equal(load_picture(saved(wide), 64, 48), quarters())
    tall = np.zeros((100, 64, 3), np.uint8)
    tall[26:74] = quarters()
    assert np.array_equal(load_picture(saved(tall), 64, 48), quarters())


def test_small_pictures_are_enlarged() -> None:
    assert load_picture(saved(quarters(4, 2)), 160, 96).shape == (96, 160, 3)
    assert load_picture(saved(np.full((1, 1, 3), 77, np.uint8)), 16, 8).tolist() == [[[77] * 3] * 16] * 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_orientation_is_obeyed(kind: str) -> None:
    sideways = Image.fromarray(np.rot90(quarters(), 1).copy())  # 90 degrees counter-clockwise
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise to show"
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    shown = load_picture(saved(sideways, kind, exif=exif, **options), 64, 48)
    assert np.abs(shown.astype(int) - quarters()).mean() < 3


def test_transparency_lies_over_black() -> None:
    picture = np.dstack([quarters(), np.full((48, 64), 128, np.uint8)])
    picture[:24, :, 3] = 0
    shown = load_picture(saved(picture), 64, 48)
    assert shown[:24].max() == 0
    assert np.abs(shown[24:].astype(int) - quarters()[24:] * (128 / 255)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_png_mode_is_read(mode: str) -> None:
    grey = np.repeat(quarters().max(axis=2) // 2, 1, axis=0)
    image = Image.fromarray(grey.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    shown = load_picture(saved(image), 64, 48)
    assert shown.shape == (48, 64, 3)
    assert mode == "1" or np.abs(shown.astype(int) - grey[..., None]).max() <= 2


def test_cmyk_jpeg_is_read() -> None:
    shown = load_picture(saved(Image.fromarray(quarters()).convert("CMYK"), "JPEG", quality=95), 64, 48)
    assert np.abs(shown.astype(int) - quarters()).mean() < 8


@pytest.mark.parametrize(("width", "height"), [(10_000, 10_000), (2**31 - 1, 2**31 - 1), (16_000_001, 1)])
def test_a_giant_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(InvalidInput, match=f"start.image: the picture is {width} x {height}"):
        load_picture(giant_png(width, height), 160, 96, field="start.image")


def test_a_giant_jpeg_is_refused_by_its_header() -> None:
    data = bytearray(saved(quarters(), "JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    assert picture_size(bytes(data)) == (65_000, 65_000)
    with pytest.raises(InvalidInput, match="65000 x 65000"):
        load_picture(bytes(data), 160, 96)


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 100 are read"):
        load_picture(saved(quarters()), 64, 48, limits=PictureLimits(nbytes=100))


@pytest.mark.parametrize("data", [b"", b"hello", b"GIF89a" + bytes(50), b"\x89PNG", b"\xff\xd8\xff", b"BM" + bytes(60)])
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match="image"):
        load_picture(data, 64, 48)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_cut_off_pictures_are_refused(kind: str) -> None:
    data = saved(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8), kind)
    for cut in (12, 20, 40, len(data) // 2, len(data) - 30):
        with pytest.raises(InvalidInput, match="image"):
            load_picture(data[:cut], 64, 48)


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(InvalidInput, match="empty"):
        load_picture(giant_png(0, 5), 64, 48)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # damaged EXIF
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_nothing_but_invalid_input_escapes(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(quarters(), kind, exif=exif)
    random = np.random.default_rng(1)
    for _ in range(200):
        spoiled = bytearray(data)
        for at in random.integers(len(data), size=3):
            spoiled[at] = random.integers(256)
        try:
            shown = load_picture(bytes(spoiled), 64, 48)
        except InvalidInput:
            continue
        assert shown.shape == (48, 64, 3) and shown.dtype == np.uint8
