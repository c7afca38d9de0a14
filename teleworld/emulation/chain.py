"""The chain of checksums: what an emulated tensor says about itself, and how the next worker holds it to that.

Every emulated latent and picture begins with a stamp: who it is (seed, segment, latent, what made it), a digest of the
clean content that it was made from, and a digest of all that went into it. The rest is noise that the last digest
chooses. A worker reads the stamps of all its inputs and compares them with what its task must have been given, so a
swapped, missing, stale or damaged input is an InvalidInput that names the field, at once and at the place where it
went wrong; and equal worlds give equal bits, on whatever workers, because nothing else goes in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teleworld.world.errors import InvalidInput
from teleworld.world.work import Bytes, Float

GUIDANCE, PICTURE = 255, 254
NOBODY = b"\0" * 16
_MAGIC = b"TWE1"
_STAMP = struct.Struct("<4sBQqiiI16s16s")
_SPREAD = 1 << 16
"""How many places the noise may start at."""


@dataclass(frozen=True)
class Stamp:
    """What an emulated tensor is.

    made_by: the group that made a latent (0 for a prefix), GUIDANCE or PICTURE. seed, segment, index: whose it is. origin:
    the newest segment in the memory that guided it, -1 for the start picture alone. ended: of a prefix and its picture, the
    latent that the segment before ended with, 0 for a start picture. sees: digest of the clean content that it was made
    from. content: digest of all that it was made from, and its name.
    """

    made_by: int
    seed: int
    segment: int
    index: int
    origin: int
    ended: int
    sees: bytes
    content: bytes

    def packed(self) -> bytes:
        """The bytes at the beginning of the tensor."""
        numbers = (self.made_by, self.seed & (2**64 - 1), self.segment, self.index, self.origin, self.ended)
        return _STAMP.pack(_MAGIC, *numbers, self.sees, self.content)


def digest(*parts: int | str | bytes | NDArray[Any]) -> bytes:
    """16 bytes over a sequence of whole numbers, texts, bytes and arrays; the boundaries between them count.

    A number counts by its value, whether it came as an enumeration by hand or as an integer over the wire.
    """
    hasher = blake2b(digest_size=16)
    for part in parts:
        match part:
            case np.ndarray():
                data = memoryview(np.ascontiguousarray(part).view(np.uint8).reshape(-1))  # type: ignore[arg-type]
            case bytes():
                data = memoryview(part)
            case str():
                data = memoryview(part.encode())
            case _:
                data = memoryview(str(int(part)).encode())
        hasher.update(struct.pack("<Q", data.nbytes))
        hasher.update(data)
    return hasher.digest()


def fraction(*parts: int | str) -> float:
    """A number in [0, 1) that a sequence of parts chooses."""
    return int.from_bytes(digest(*parts)[:6], "little") / 2**48


def write_latent(stamp: Stamp, shape: tuple[int, ...]) -> Float:
    """A latent float32 of `shape` that carries a stamp, one byte a number, before noise."""
    packed = np.frombuffer(stamp.packed(), np.uint8)
    latent = _noise(stamp.content, shape).copy()
    latent.reshape(-1)[: len(packed)] = packed
    return latent


def read_latent(latent: Float, field: str) -> Stamp:
    """The stamp of a latent. Raises InvalidInput naming `field` for what no emulated worker made, or for damaged noise."""
    flat = np.ascontiguousarray(latent).reshape(-1)
    head = flat[: _STAMP.size]
    data = head.astype(np.uint8)
    if len(data) < _STAMP.size or (data != head).any():
        raise InvalidInput(field, "is not the work of an emulated device")
    stamp = _unpack(data.tobytes(), field)
    if not np.array_equal(flat[_STAMP.size :], _noise(stamp.content, latent.shape).reshape(-1)[_STAMP.size :]):
        raise InvalidInput(field, "is damaged: its noise does not belong to its checksum")
    return stamp


def write_picture(stamp: Stamp, height: int, width: int) -> Bytes:
    """A picture uint8 [H, W, 3] that carries a stamp."""
    packed = np.frombuffer(stamp.packed(), np.uint8)
    picture = grain(stamp.content, (height, width, 3)).copy()
    picture.reshape(-1)[: len(packed)] = packed
    return picture


def read_picture(picture: Bytes, field: str) -> Stamp:
    """The stamp of a picture; raises as `read_latent`."""
    flat = np.ascontiguousarray(picture).reshape(-1)
    stamp = _unpack(flat[: _STAMP.size].tobytes(), field)
    if not np.array_equal(flat[_STAMP.size :], grain(stamp.content, picture.shape).reshape(-1)[_STAMP.size :]):
        raise InvalidInput(field, "is damaged: its pixels do not belong to its checksum")
    return stamp


def expect(stamp: Stamp, field: str, **wanted: object) -> None:
    """Raise InvalidInput naming `field` unless the stamp says what is wanted."""
    for name, value in wanted.items():
        said = getattr(stamp, name)
        if said != value:
            raise InvalidInput(field, f"its {name} is {_show(said)}; the task needs {_show(value)}")


def _show(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _unpack(data: bytes, field: str) -> Stamp:
    if len(data) < _STAMP.size or not data.startswith(_MAGIC):
        raise InvalidInput(field, "is not the work of an emulated device")
    return Stamp(*_STAMP.unpack(data)[1:])


def _noise(content: bytes, shape: tuple[int, ...]) -> Float:
    size = int(np.prod(shape))
    start = int.from_bytes(content[:2], "little")
    return _normal(size)[start : start + size].reshape(shape)


def grain(content: bytes, shape: tuple[int, ...]) -> Bytes:
    """Noise uint8 of any shape that a digest chooses; a view that must not be written to."""
    size = int(np.prod(shape))
    start = int.from_bytes(content[:2], "little")
    return _uniform(size)[start : start + size].reshape(shape)


@lru_cache(maxsize=8)
def _normal(size: int) -> Float:
    generator = np.random.Generator(np.random.Philox(key=np.array([0x7E1E, size], np.uint64)))
    return generator.standard_normal(size + _SPREAD, dtype=np.float32)


@lru_cache(maxsize=8)
def _uniform(size: int) -> NDArray[np.uint8]:
    generator = np.random.Generator(np.random.Philox(key=np.array([0x7E1F, size], np.uint64)))
    return generator.integers(0, 256, size + _SPREAD, np.uint8)
