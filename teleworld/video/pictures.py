"""A client's start picture: from untrusted bytes to pixels of the model's size.

A PNG of a few hundred bytes can claim 100 megapixels, and a decoder believes it. So the container is recognised by its
first bytes and the size is read from its header before any decoder runs; Pillow, limited to the two formats, then does
the work with its own limits in place as a second line. Colour profiles are ignored: pixels are taken as sRGB.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from teleworld.world.errors import InvalidInput

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Markers that carry a frame header: SOF0..SOF15 without DHT, JPG and DAC.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_JPEG_SCAN = 0xDA


@dataclass(frozen=True)
class PictureLimits:
    """The most that is accepted: bytes of input, and pixels (width x height) by the header."""

    nbytes: int = 16 * 2**20
    pixels: int = 16 * 10**6


def load_picture(
    data: bytes, width: int, height: int, field: str = "image", limits: PictureLimits | None = None
) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG to uint8 [height, width, 3] in RGB.

    Turned upright by its EXIF orientation, laid over black where it is transparent, cut from the centre to the shape
    width : height, then averaged down (or interpolated up) to the size.
    Raises InvalidInput naming `field` for any other format, damaged or cut-off data, or data beyond `limits`.
    """
    limits = limits or PictureLimits()
    if len(data) > limits.nbytes:
        raise InvalidInput(field, f"has {len(data)} bytes; at most {limits.nbytes} are read")
    _check_size(*picture_size(data, field), limits, field)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            # A JPEG may carry a second frame header, which our own reading of the first does not see.
            _check_size(*image.size, limits, field)
            upright = ImageOps.exif_transpose(image)
            return _fit(_over_black(upright), width, height)
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error, zlib.error) as error:
        raise InvalidInput(field, "the picture is damaged or cut off") from error
    except Image.DecompressionBombError as error:
        raise InvalidInput(field, "the picture is too large") from error


def picture_size(data: bytes, field: str = "image") -> tuple[int, int]:
    """(width, height) that the header of a PNG or JPEG claims, without decoding.

    Raises InvalidInput naming `field` if the bytes are neither, or end before the size.
    """
    if data.startswith(_PNG):
        if len(data) < 24 or data[12:16] != b"IHDR":
            raise InvalidInput(field, "the PNG header is damaged or cut off")
        return struct.unpack_from(">II", data, 16)
    if data.startswith(_JPEG):
        return _jpeg_size(data, field)
    raise InvalidInput(field, "must be a PNG or JPEG picture")


def _check_size(width: int, height: int, limits: PictureLimits, field: str) -> None:
    if width < 1 or height < 1:
        raise InvalidInput(field, f"the picture is {width} x {height}: it is empty")
    if width * height > limits.pixels:
        raise InvalidInput(field, f"the picture is {width} x {height}; at most {limits.pixels} pixels are decoded")


def _jpeg_size(data: bytes, field: str) -> tuple[int, int]:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_FRAMES and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        elif marker == _JPEG_SCAN:
            break
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise InvalidInput(field, "the JPEG header is damaged or cut off")


def _over_black(image: Image.Image) -> Image.Image:
    """RGB, 8 bits a channel."""
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 8 instead of scaling
        grey = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, picture).convert("RGB")


def _fit(image: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    scale = min(image.width / width, image.height / height)
    across, down = scale * width, scale * height
    left, top = (image.width - across) / 2, (image.height - down) / 2
    box = (left, top, min(left + across, image.width), min(top + down, image.height))
    how = Image.Resampling.BOX if scale >= 1 else Image.Resampling.BICUBIC
    return np.asarray(image.resize((width, height), how, box=box)).copy()
