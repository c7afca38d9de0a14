"""Tensors in the memory of the node: POSIX shared memory segments that one process writes and another reads once.

Between two processes of one node a large tensor need not pass through protobuf, HTTP/2 and a socket. The sender writes it
into a file of /dev/shm and sends its name; the receiver copies it out and removes the file. Nothing is trusted on the way:
a name is one fixed pattern, opened without following links, and must be a regular file of our own user with exactly the
announced length; it is read, never mapped, so that a file that shrinks meanwhile is an error and not a SIGBUS.

A receiver that only hands a tensor on takes the file over instead of reading it (`keep`, `teleworld.rpc.held`), and tells
the next receivers which parts of it to read (`peek`); they leave it where it is.

Whoever dies leaves nothing behind. Each process holds a lock on a file of its own beside its segments, which the kernel
lets go when the process ends, however it ends; what belongs to a lock that can be taken is an orphan, and any process
removes it. Locks work across the pid namespaces of a pod's containers, where process ids say nothing. What a receiver
never fetched is removed by its sender after a while.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import re
import secrets
import stat
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from opentelemetry import metrics

from teleworld.rpc.held import Kept, read_parts
from teleworld.world.errors import InvalidInput, Unavailable

PROTOCOL = 2
"""Of references: peers that know another one travel inside of messages. 2: parts of segments that are kept."""
FOLDER = Path("/dev/shm")
BUDGET_BYTES = 512 * 2**20
KEPT_SECONDS = 60.0
SWEEP_SECONDS = 15.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SEGMENT = re.compile(r"teleworld\.([0-9a-f]{16})\.[0-9]{1,18}")
_LOCK = re.compile(r"teleworld\.([0-9a-f]{16})\.lock")
_log = logging.getLogger(__name__)
_swept = metrics.get_meter("teleworld.rpc").create_counter(
    "teleworld.segments.swept", "{segment}", "Shared memory segments that nobody fetched, by why"
)


class Segments:
    """The segments of this process in `folder`. Thread-safe.

    budget: bytes of own segments that may wait to be fetched. kept: seconds that one may wait. Raises OSError when the folder
    cannot be used.
    """

    def __init__(self, folder: Path = FOLDER, *, budget: int = BUDGET_BYTES, kept: float = KEPT_SECONDS) -> None:
        self._budget, self._kept = budget, kept
        self._lock = threading.Lock()
        self._number = self._bytes = 0
        self._waiting: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lent: weakref.WeakSet[Kept] = weakref.WeakSet()
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.namespace = f"{_BOOT_ID.read_text().strip()}:{os.fstat(self._folder).st_dev:x}:{PROTOCOL}"
            self._owner, self._held = self._found()
            size = os.fstatvfs(self._folder)
            self._room = size.f_blocks * size.f_frsize // 2
        except BaseException:
            os.close(self._folder)
            raise
        self.sweep()

    def put(self, array: NDArray[Any]) -> str | None:
        """Write the values of `array` in C order into a new segment; its name, or None when there is no room for it."""
        data = np.ascontiguousarray(array).data.cast("B")
        if (name := self._reserve(len(data), time.monotonic())) is None:
            return None
        try:
            self._write(name, data)
        except OSError as error:
            _log.debug("no room for a segment", extra={"bytes": len(data), "error": str(error)})
            self.discard(name)
            return None
        return name

    def take(self, name: str, length: int, field: str) -> NDArray[np.uint8]:
        """The bytes of a segment of ours or of a peer on this node, which is gone afterwards.

        Raises InvalidInput naming `field` for what is no such segment, Unavailable when it is not there any more.
        """
        with self._opened(name, field) as (segment, size):
            _expect(size, length, field)
            data = read_parts(segment, (0,), length, field)
        self.discard(name)
        return data

    def peek(self, name: str, offsets: Sequence[int], length: int, field: str) -> NDArray[np.uint8]:
        """`length` bytes of a segment that stays: parts of one size that begin at `offsets`. Raises as `take` does."""
        size, rest = divmod(length, len(offsets))
        with self._opened(name, field) as (segment, there):
            if rest or not size:
                raise InvalidInput(f"{field}.length", f"{length} bytes are not {len(offsets)} equal parts")
            if any(offset + size > there for offset in offsets):
                raise InvalidInput(f"{field}.offsets", f"the segment has {there} bytes")
            return read_parts(segment, offsets, size, field)

    def keep(self, name: str, length: int, field: str) -> Kept | None:
        """Take a segment over without reading it. Raises as `take` does.

        None where there is no room for one more: half of the folder's size is left to what is on its way.
        """
        with self._opened(name, field) as (_, size):
            _expect(size, length, field)
        with self._lock:
            room = self._room - sum(kept.length for kept in self._lent)
        if length > room or (ours := self._reserve(length, math.inf)) is None:
            return None
        try:
            os.rename(name, ours, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            self.discard(ours)
            raise Unavailable(f"the segment of {field} is gone") from None
        with self._lock:
            self._forget(name)

        def read(offsets: Sequence[int], size: int) -> NDArray[np.uint8]:
            with self._opened(ours, field) as (segment, _):
                return read_parts(segment, offsets, size, field)

        kept = Kept(ours, length, read, self._unlink)
        with self._lock:
            self._lent.add(kept)
        return kept

    def discard(self, name: str) -> None:
        """Remove a segment, if it is still there."""
        self._unlink(name)
        with self._lock:
            self._forget(name)

    def sweep(self) -> int:
        """Remove own segments that nobody fetched in time, and all that dead processes left; how many files that were.

        What is kept for so long moves into this process.
        """
        late = time.monotonic() - self._kept
        with self._lock:
            held = [kept for kept in self._lent if kept.since < late]
        for kept in held:
            with suppress(Unavailable):
                kept.retire()
        with self._lock:
            self._settle()
            old = [name for name, (since, _) in self._waiting.items() if since < late]
        for name in old:
            self.discard(name)
        orphans = self._sweep_orphans()
        if old or orphans:
            _swept.add(len(old), {"why": "unfetched"})
            _swept.add(orphans, {"why": "orphan"})
            _log.info("segments were swept", extra={"unfetched": len(old), "orphans": orphans})
        return len(old) + orphans

    def close(self) -> None:
        """Remove everything of this process."""
        with self._lock:
            names = list(self._waiting)
        for name in names:
            self.discard(name)
        with suppress(OSError):
            os.unlink(f"teleworld.{self._owner}.lock", dir_fd=self._folder)
        os.close(self._held)
        os.close(self._folder)

    @property
    def nbytes(self) -> int:
        """Bytes of own segments that nobody has fetched yet."""
        with self._lock:
            self._settle()
            return self._bytes

    @property
    def waiting(self) -> int:
        """Own segments that nobody has fetched yet."""
        with self._lock:
            self._settle()
            return len(self._waiting)

    def _sweep_orphans(self) -> int:
        names = os.listdir(self._folder)
        segments: dict[str, list[str]] = {lock[1]: [] for lock in filter(None, map(_LOCK.fullmatch, names))}
        for segment in filter(None, map(_SEGMENT.fullmatch, names)):
            segments.setdefault(segment[1], []).append(segment[0])
        orphans = 0
        for owner, left in segments.items():
            lock = f"teleworld.{owner}.lock"
            if owner == self._owner or (held := self._hold(lock)) is None:
                continue
            for name in [*left, lock]:  # the lock last: until then another sweep finds the rest again
                with suppress(OSError):
                    os.unlink(name, dir_fd=self._folder)
            os.close(held)
            orphans += len(left)
        return orphans

    def _reserve(self, length: int, since: float) -> str | None:
        """A name for so many bytes within the budget, which count until they are fetched or removed."""
        with self._lock:
            if self._bytes + length > self._budget:
                self._settle()
                if self._bytes + length > self._budget:
                    return None
            self._number += 1
            name = f"teleworld.{self._owner}.{self._number}"
            self._waiting[name] = (since, length)
            self._bytes += length
        return name

    @contextmanager
    def _opened(self, name: str, field: str) -> Iterator[tuple[int, int]]:
        """The descriptor and the size of a segment. Raises as `take` does."""
        if not _SEGMENT.fullmatch(name):
            raise InvalidInput(f"{field}.name", "is not the name of a segment")
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            segment = os.open(name, flags, dir_fd=self._folder)
        except FileNotFoundError:
            raise Unavailable(f"the segment of {field} is gone") from None
        except OSError as error:
            raise InvalidInput(f"{field}.name", "is not a segment that can be opened") from error
        try:
            status = os.fstat(segment)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
                raise InvalidInput(f"{field}.name", "is not a segment of ours")
            yield segment, status.st_size
        finally:
            os.close(segment)

    def _unlink(self, name: str) -> None:
        # Also called when the garbage collector finds what was kept, so it takes no lock; `_settle` finds out.
        with suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def _settle(self) -> None:
        """Forget the segments that are not there any more."""
        for name in list(self._waiting):
            try:
                os.stat(name, dir_fd=self._folder, follow_symlinks=False)
            except FileNotFoundError:
                self._forget(name)

    def _forget(self, name: str) -> None:
        _, length = self._waiting.pop(name, (0.0, 0))
        self._bytes -= length

    def _write(self, name: str, data: memoryview) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        segment = os.open(name, flags, 0o600, dir_fd=self._folder)
        try:
            while len(data):
                data = data[os.write(segment, data) :]
        finally:
            os.close(segment)

    def _found(self) -> tuple[str, int]:
        """A name for this process, and the descriptor of its lock."""
        while True:
            owner = secrets.token_hex(8)
            held = self._hold(f"teleworld.{owner}.lock")
            if held is None:
                continue
            # A sweep of another process may have come between the file's birth and its lock, and removed it.
            if os.fstat(held).st_nlink:
                return owner, held
            os.close(held)

    def _hold(self, name: str) -> int | None:
        """The descriptor of a lock file that is ours now; None for one that somebody else holds or owns."""
        try:
            held = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._folder)
        except PermissionError:
            return None
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            return None
        return held


def _expect(size: int, length: int, field: str) -> None:
    if size != length:
        raise InvalidInput(f"{field}.length", f"the segment has {size} bytes, not {length}")
