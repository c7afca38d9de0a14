"""Arrays that stay in the node's memory: received by name, handed on by name, and read only where somebody needs the values.

The gateway passes guidance and key pictures of megabytes from one worker to the next without looking at them. Read and
written again, each would cost two passes more, and hold up the event loop for as long. A `Held` stands for such an array:
it knows its shape, parts of it are cheap, and numpy reads it like any sequence of arrays.

The segment is ours while anything stands for it, and is removed with the last of that. What stands for long (a world that
pauses) moves into the memory of this process: shared memory is for what is under way.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from teleworld.world.errors import InvalidInput

Read = Callable[[Sequence[int], int], NDArray[np.uint8]]
"""(offsets, bytes of each part) -> the parts, one after the other."""


def read_parts(segment: int, offsets: Sequence[int], size: int, field: str) -> NDArray[np.uint8]:
    """`size` bytes of a file from each offset on, one after the other, in one new array. Raises InvalidInput naming `field`."""
    data = np.empty(len(offsets) * size, np.uint8)
    for row, offset in enumerate(offsets):
        rest = data[row * size : (row + 1) * size].data
        while len(rest):
            count = os.preadv(segment, [rest], offset)
            if not count:
                raise InvalidInput(f"{field}.length", "the segment shrank while it was read")
            rest, offset = rest[count:], offset + count
    return data


class Kept:
    """A segment of ours that stays until nobody refers to it. `read` gives its bytes, `remove` unlinks its file.

    `pin` and `unpin` enclose a call to which its name was told.
    """

    def __init__(self, name: str, length: int, read: Read, remove: Callable[[str], None]) -> None:
        self.name = name
        self.length = length
        self.since = time.monotonic()
        self._read = read
        self._pins = 0
        self._values: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()
        self._removed = weakref.finalize(self, remove, name)

    def pin(self) -> bool:
        """Leave the file where it is, for one who was told its name. False if it is gone from there already."""
        with self._lock:
            if self._values is not None:
                return False
            self._pins += 1
            return True

    def unpin(self) -> None:
        """The call is over."""
        with self._lock:
            self._pins -= 1

    def parts(self, offsets: Sequence[int], size: int) -> NDArray[np.uint8]:
        """Copies of the `size` bytes from each offset on, one after the other. Raises Unavailable if the file is gone."""
        with self._lock:
            if self._values is None:
                return self._read(offsets, size)
            return np.concatenate([self._values[offset : offset + size] for offset in offsets])

    def retire(self) -> bool:
        """Move the values into this process and remove the file, unless somebody is about to read it. Whether it did."""
        with self._lock:
            if self._values is not None or self._pins:
                return False
            self._values = self._read((0,), self.length)
        self._removed()
        return True


class Held:
    """An array that is kept, of any dtype: rows [n, ...], or one row by itself. Rows are taken out of it, by number, slice or
    list, without being read; `[None]` makes a row rows again. Where numpy wants an array, it gets a copy of the values.
    """

    def __init__(
        self, kept: Kept, dtype: np.dtype[Any], row: tuple[int, ...], offsets: Sequence[int], *, alone: bool = False
    ) -> None:
        self.kept = kept
        self.dtype = dtype
        self.offsets = tuple(offsets)
        self._row = row
        self._alone = alone
        self._size = math.prod(row) * dtype.itemsize

    @classmethod
    def whole(cls, kept: Kept, dtype: np.dtype[Any], shape: Sequence[int]) -> Held:
        """All rows of a segment that holds an array of `shape`, of one axis or more."""
        return cls(kept, dtype, tuple(shape[1:]), range(0, kept.length, kept.length // shape[0]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents, outermost first."""
        return self._row if self._alone else (len(self.offsets), *self._row)

    @property
    def nbytes(self) -> int:
        """Of the values."""
        return len(self.offsets) * self._size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice | Sequence[int] | None) -> Held:
        if rows is None and self._alone:
            return Held(self.kept, self.dtype, self._row, self.offsets)
        if rows is None or self._alone:
            raise TypeError("rows can be taken out, nothing else: make it an array first")
        if isinstance(rows, int):
            return Held(self.kept, self.dtype, self._row, (self.offsets[rows],), alone=True)
        chosen = self.offsets[rows] if isinstance(rows, slice) else [self.offsets[row] for row in rows]
        return Held(self.kept, self.dtype, self._row, chosen)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the values are not in this process: they can only be copied")
        if not self.offsets:
            return np.empty(self.shape, dtype or self.dtype)
        values = self.kept.parts(self.offsets, self._size).view(self.dtype).reshape(self.shape)
        return values if dtype is None else values.astype(dtype, copy=False)
