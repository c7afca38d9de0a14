"""Which way large tensors take between two processes: inside the message, or through the memory that both see.

Both sides must agree, call by call. A client that runs on this node says in the call's metadata which memory it sees: the
boot of the kernel and the device of /dev/shm, because equal host names prove nothing, and containers of one host have
their own. A server that was reached over loopback and sees the same answers through it, and says so in the answer's
metadata, from which the client learns that it may do likewise. To and from any other peer a reference is neither written nor
accepted, whatever it claims.

The agreement is a context variable around the conversion of messages, so that the converters need not know of it.
"""

from __future__ import annotations

import atexit
import ipaddress
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from teleworld.rpc.held import Kept
from teleworld.rpc.segments import Segments

METADATA_KEY = "teleworld-memory"
INLINE_BYTES = 128 * 2**10
"""Tensors of more bytes go through shared memory where both sides see it; see docs/performance.md for the measurement."""

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_ours: list[Segments | None] = []
_inline: int | None = INLINE_BYTES


@dataclass(frozen=True, eq=False)
class Route:
    """A peer that sees our memory. inline: bytes up to which a tensor stays in its message. writes: whether the peer said that
    it sees the memory too. sent: the segments that were written for it. told: those of ours that it was told to read from.
    """

    segments: Segments
    inline: int
    writes: bool = True
    sent: list[str] = field(default_factory=list)
    told: list[Kept] = field(default_factory=list)

    def send(self, array: NDArray[Any]) -> str | None:
        """Write a tensor for the peer; the name of its segment, or None when it must travel in the message."""
        name = self.segments.put(array) if self.writes and array.nbytes > self.inline else None
        if name is not None:
            self.sent.append(name)
        return name

    def tell(self, kept: Kept) -> bool:
        """Let the peer read from a segment that we keep, until `discard`. False when the values must be sent."""
        if not self.writes or not kept.pin():
            return False
        self.told.append(kept)
        return True

    def discard(self) -> None:
        """The call is over: remove what was sent and not fetched, and let go of what the peer was told of."""
        for name in self.sent:
            self.segments.discard(name)
        for kept in self.told:
            kept.unpin()
        self.told.clear()


_route: ContextVar[Route | None] = ContextVar("teleworld_route", default=None)


def route() -> Route | None:
    """How the message that is being converted travels; None for inside of itself."""
    return _route.get()


@contextmanager
def over(chosen: Route | None) -> Iterator[None]:
    """Inside, messages are converted for `chosen`."""
    token = _route.set(chosen)
    try:
        yield
    finally:
        _route.reset(token)


def configure(inline_bytes: int | None) -> None:
    """Up to how many bytes a tensor stays in its message, in this process; None keeps all of them there, also those received."""
    global _inline
    _inline = inline_bytes


def segments() -> Segments | None:
    """This process's segments, made when they are first asked for; None where shared memory cannot be had, or is not wanted."""
    if _inline is None:
        return None
    with _lock:
        if not _ours:
            try:
                _ours.append(made := Segments())
                atexit.register(made.close)
            except OSError as error:
                _log.info("no shared memory; tensors travel inside of messages", extra={"error": str(error)})
                _ours.append(None)
        return _ours[0]


@lru_cache(maxsize=4096)
def is_local(peer: str) -> bool:
    """Whether gRPC's name of a peer (`ipv4:127.0.0.1:4711`, `unix:...`), or `host:port`, is this very machine."""
    if peer.startswith(("unix:", "unix-abstract:")):
        return True
    host = peer.removeprefix("ipv4:").removeprefix("ipv6:").replace("%5B", "[").replace("%5D", "]").rpartition(":")[0]
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def agreed(peer: str, metadata: Iterable[tuple[str, str | bytes]]) -> Route | None:
    """The route to a peer that sent `metadata`, if it is on this node and sees our memory."""
    claimed = next((value for key, value in metadata if key == METADATA_KEY), None)
    if claimed is None or _inline is None or not is_local(peer):
        return None
    ours = segments()
    return None if ours is None or claimed != ours.namespace else Route(ours, _inline)


class Link:
    """What a client knows of the way to one server."""

    def __init__(self, address: str) -> None:
        self._segments = segments() if is_local(address) else None
        self._shared = False

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to tell the server with a call."""
        return () if self._segments is None else ((METADATA_KEY, self._segments.namespace),)

    @property
    def undecided(self) -> bool:
        """Whether the server has yet to say what it sees."""
        return self._segments is not None and not self._shared

    def learn(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Take in the metadata of an answer."""
        ours = self._segments
        self._shared = ours is not None and (METADATA_KEY, ours.namespace) in tuple(metadata)

    def route(self) -> Route | None:
        """For one call. Answers may come through shared memory before we know that requests may go there."""
        ours = self._segments
        return None if ours is None or _inline is None else Route(ours, _inline, writes=self._shared)
