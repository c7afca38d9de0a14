"""Writing and reading the payload of a block: packed numbers and raw arrays, one after the other."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from teleworld.world.errors import InvalidInput


class Writer:
    """Collects the parts of a payload."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def pack(self, layout: struct.Struct, *values: int) -> None:
        """Append numbers."""
        self._parts.append(layout.pack(*values))

    def array(self, values: NDArray[Any]) -> None:
        """Append an array's elements in C order, without its shape."""
        self._parts.append(values.tobytes())

    def bytes(self) -> bytes:
        """The payload."""
        return b"".join(self._parts)


class Reader:
    """Takes a payload apart. Nothing is allocated beyond the bytes that are there; a short payload is an InvalidInput."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = 0

    def _take(self, size: int) -> int:
        """Step over `size` bytes, if they are there; returns where they start."""
        if size > len(self._payload) - self._at:
            raise InvalidInput("block", "ends too early")
        start = self._at
        self._at += size
        return start

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        """Numbers."""
        return layout.unpack_from(self._payload, self._take(layout.size))

    def array(self, dtype: DTypeLike, count: int) -> NDArray[Any]:
        """A read-only view of `count` elements."""
        kind = np.dtype(dtype)
        return np.frombuffer(self._payload, kind, count, self._take(kind.itemsize * count))

    def finish(self) -> None:
        """Raise InvalidInput if bytes are left over."""
        if self._at != len(self._payload):
            raise InvalidInput("block", "has bytes left over")
