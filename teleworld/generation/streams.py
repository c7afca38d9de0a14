"""The streams that a decoder holds: for each world the state of its networks after the latent that was decoded last.

State is only a shortcut. It is bounded, may be forgotten at any moment, and a request that carries the segment's whole
history rebuilds it anywhere. What makes it safe is the mark: it names epoch, segment, latent and the latent's content,
so that state is never continued by another driver of the world, twice by a repeated request, or on other content.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from teleworld.models.stream_vae.state import StreamState
from teleworld.world.errors import StateLost
from teleworld.world.work import TaskContext

MAX_STREAMS = 64


def mark(context: TaskContext, index: int, digest: str) -> str:
    """Where a stream stands: after latent `index`, whose sha256 is `digest`, of the segment and epoch of `context`."""
    return f"{context.epoch}/{context.segment}/{index}/{digest}"


class StreamTable:
    """States by world, those of the `capacity` worlds that moved last. Safe to use from several threads."""

    def __init__(self, capacity: int = MAX_STREAMS) -> None:
        self._capacity = capacity
        self._streams: OrderedDict[str, tuple[str, tuple[StreamState, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def nbytes(self) -> int:
        """Bytes of all states."""
        with self._lock:
            held = list(self._streams.values())
        return sum(state.nbytes for _, states in held for state in states)

    def resume(self, world: str, after: str) -> tuple[StreamState, ...]:
        """Copies of the states of `world`, if they stand at the mark `after`. Raises StateLost otherwise."""
        with self._lock:
            held, states = self._streams.get(world, ("", ()))
        if held != after:
            raise StateLost(f"no state after {after.rpartition('/')[0]} of {world}")
        return tuple(state.clone() for state in states)

    def keep(self, world: str, at: str, states: tuple[StreamState, ...]) -> None:
        """Hold the states of `world`, which now stand at the mark `at`; the world that rested longest may be forgotten."""
        with self._lock:
            self._streams[world] = (at, states)
            self._streams.move_to_end(world)
            while len(self._streams) > self._capacity:
                self._streams.popitem(last=False)

    def forget(self, world: str) -> None:
        """Let go of what is held for `world`, if anything is."""
        with self._lock:
            self._streams.pop(world, None)
