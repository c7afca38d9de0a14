"""Devices that are held for a time: a clock each, which says until when it is busy.

A task reserves the device that is free first, from the later of now and then on, and sleeps until its own end. So tasks
follow each other without a gap, in the order of their arrival, as kernels on a stream do, and what a sleep overshoots
delays one answer but never the device. The clocks may lie in a file that several processes share, because one device
may serve several pools; the monotonic clock is the same in all processes of a machine. A reservation stands even when
its process dies: a kernel under way runs to its end too.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from teleworld.world.errors import InvalidInput

MAX_DEVICES = 4096
LAG_WEIGHT = 0.05
MAX_LAG_S = 0.002
_CLOCK = struct.Struct("<d")


@dataclass(frozen=True)
class Hold:
    """A reservation: asked for, begun and over at these readings of `time.monotonic`, on device number `device`."""

    device: int
    asked: float
    start: float
    end: float


class Devices:
    """`count` devices. Safe for threads; with `shared`, a file that holds their clocks, for processes as well.

    log: a file to which every hold is appended as a line of JSON, for whoever wants to account for the time afterwards.
    """

    def __init__(self, count: int = 1, shared: Path | None = None, log: Path | None = None) -> None:
        if not 1 <= count <= MAX_DEVICES:
            raise InvalidInput("emulated_devices", f"must lie between 1 and {MAX_DEVICES}, got {count}")
        self._count = count
        self._name = f"process {os.getpid()}" if shared is None else str(shared)
        self._lock = threading.Lock()
        self._lag = 0.0
        self._file: int | None = None
        self._clocks: bytearray | mmap.mmap = bytearray(count * _CLOCK.size)
        try:
            if shared is not None:
                self._file = os.open(shared, os.O_RDWR | os.O_CREAT, 0o600)
                if os.fstat(self._file).st_size < len(self._clocks):
                    os.ftruncate(self._file, len(self._clocks))
                self._clocks = mmap.mmap(self._file, len(self._clocks))
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._log = None if log is None else os.open(log, flags, 0o600)
        except OSError as error:
            raise InvalidInput("emulated_device_clock", f"{error.filename or shared}: {error.strerror}") from error

    def reserve(self, seconds: float) -> Hold:
        """The device that is free first, for so long. Returns at once."""
        with self._exclusive():
            asked = time.monotonic()
            clocks = [_CLOCK.unpack_from(self._clocks, number * _CLOCK.size)[0] for number in range(self._count)]
            device = min(range(self._count), key=clocks.__getitem__)
            start = max(asked, clocks[device])
            _CLOCK.pack_into(self._clocks, device * _CLOCK.size, start + seconds)
        return Hold(device, asked, start, start + seconds)

    def wait(self, hold: Hold, name: str) -> float:
        """Sleep until a hold is over; returns by how many seconds it woke too late.

        The usual lateness of a sleep is measured and subtracted from the next one. `name` is what the log calls the hold.
        """
        while (rest := hold.end - time.monotonic()) > self._lag:
            time.sleep(rest - self._lag)
        woke = time.monotonic()
        if rest > 0 or woke - hold.end < MAX_LAG_S:
            self._lag = min(max(self._lag + LAG_WEIGHT * (woke - hold.end), 0.0), MAX_LAG_S)
        if self._log is not None:
            entry = {"task": name, "device": f"{self._name}:{hold.device}", "start": hold.start, "end": hold.end}
            os.write(self._log, json.dumps(entry | {"asked": hold.asked, "woke": woke}).encode() + b"\n")
        return woke - hold.end

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with self._lock:
            if self._file is None:
                yield
                return
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
