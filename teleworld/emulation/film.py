"""Video of the right size and length that costs nothing to make: encoded once, and stamped for each chunk.

The pictures are always the same, a textured card. What a chunk stands for is told by a stamp in a user-data SEI message
(ITU-T H.264, D.1.7), which players skip and `read_film_stamp` finds: clients can check that every chunk is the one that its
latents and their whole history lead to.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from teleworld.video.annexb import IDR_SLICE, SEI, START, nal_units
from teleworld.video.h264 import encode_chunk
from teleworld.world.errors import InvalidInput
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT

_UNREGISTERED = 5
_UUID = b"teleworld-stamp!"
_END = b"\x80"
TEXTURE = 24.0


@dataclass(frozen=True)
class FilmStamp:
    """What a chunk shows. seed, segment, latent: whose it is. stream: a digest, in hexadecimal, of the latents of its segment
    up to this one and of their guidance."""

    seed: int
    segment: int
    latent: int
    stream: str


def film(width: int, height: int, frames: int, fps: float, stamp: FilmStamp) -> bytes:
    """Annex B H.264 of so many pictures that starts with an IDR and carries `stamp`."""
    before, after = _card(width, height, frames, fps)
    text = json.dumps(asdict(stamp)).encode()
    size = len(_UUID) + len(text)
    # The text holds no zero byte, so nothing in it can look like a start code and nothing needs escaping.
    message = bytes([SEI, _UNREGISTERED]) + b"\xff" * (size // 255) + bytes([size % 255]) + _UUID + text + _END
    return before + START + message + after


def warm_up(width: int, height: int, fps: float) -> None:
    """Encode what `film` will need: a second of work for large pictures, once a process."""
    for frames in (1, PIXEL_FRAMES_PER_LATENT):
        _card(width, height, frames, fps)


def read_film_stamp(video: bytes, field: str = "video") -> FilmStamp:
    """The stamp of a chunk. Raises InvalidInput naming `field` if it has none."""
    for nal in nal_units(video):
        if nal.kind == SEI and _UUID in nal.payload:
            text = nal.payload.partition(_UUID)[2].removesuffix(_END)
            try:
                return FilmStamp(**json.loads(text))
            except (ValueError, TypeError) as error:
                raise InvalidInput(field, "its stamp is damaged") from error
    raise InvalidInput(field, "is not the work of an emulated decoder")


@lru_cache(maxsize=8)
def _card(width: int, height: int, frames: int, fps: float) -> tuple[bytes, bytes]:
    """An encoded chunk, cut where a stamp goes: before its first slice."""
    random = np.random.Generator(np.random.Philox(key=np.array([0x7E20, 0], np.uint64)))
    coarse = random.normal(0.0, TEXTURE, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)
    ramp = np.linspace(64, 192, width)[None, :, None]
    picture = np.clip(ramp + coarse[:height, :width], 0, 255).astype(np.uint8)
    video = encode_chunk(np.repeat(picture[None], frames, axis=0), fps)
    nals = list(nal_units(video))
    first = next(row for row, nal in enumerate(nals) if nal.kind == IDR_SLICE)
    parts = [START + nal.payload for nal in nals]
    return b"".join(parts[:first]), b"".join(parts[first:])
