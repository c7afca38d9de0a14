"""The client of one world: takes chunks in, plays them, presses keys, and notes what a person would see.

Playback is that of the command line's player and of the gateway's clock: it starts when `buffer` chunks are there, a chunk
that is not there when its turn comes stalls it, and everything after moves. What will be shown when is known as soon as
a chunk arrives, so nothing has to happen at every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from teleworld.world.timeline import Timeline


class Shown(NamedTuple):
    """A chunk on the screen: from `at` on, over by `over`. late: by how much it missed its turn, 0 if it did not."""

    chunk: int
    at: float
    over: float
    late: float


@dataclass(slots=True)
class Viewer:
    """The state of one client. fps None takes chunks as they come. `chunks`: how many it wants, numbered from 0.

    arrivals: how many came, in order. first_frame: when the first generated chunk was shown (chunk 0 is the start picture).
    key_to_frame: seconds from each press to the first frame that reflects it, as shown. stalls, stalled: how often and how long
    the player ran dry. counted: chunks that had a turn to miss; on_time: those that did not miss it.
    """

    came: float
    fps: float | None
    buffer: int
    chunks: int
    arrivals: int = 0
    first_picture: float | None = None
    first_frame: float | None = None
    last: float = 0.0
    stalls: int = 0
    stalled: float = 0.0
    counted: int = 0
    on_time: int = 0
    key_to_frame: list[float] = field(default_factory=list)
    _early: set[int] = field(default_factory=set)
    _held: list[tuple[int, float]] = field(default_factory=list)
    _free: float | None = None
    _pending: list[float] = field(default_factory=list)
    _bound: dict[int, list[float]] = field(default_factory=dict)

    def arrive(self, chunk: int, now: float) -> list[Shown]:
        """Chunk `chunk` is decoded; returns what is thereby known of the screen. Chunks are delivered in order."""
        if chunk < self.arrivals or chunk in self._early:
            raise ValueError(f"chunk {chunk} came twice")
        self._early.add(chunk)
        while self.arrivals in self._early:
            self._early.discard(self.arrivals)
            self._held.append((self.arrivals, now))
            self.arrivals += 1
            self.last = now
        if self._free is None and self.arrivals < min(self.buffer, self.chunks):
            return []
        held, self._held = self._held, []
        return [self._show(number, at, now) for number, at in held]

    @property
    def complete(self) -> bool:
        """Whether every chunk is here."""
        return self.arrivals >= self.chunks

    def press(self, now: float) -> None:
        """A key changes."""
        self._pending.append(now)

    def bind(self, chunks: Sequence[int]) -> int:
        """The keys of `chunks` (ascending) are fixed now: waiting presses take effect one a chunk, the latest win. Returns at
        which of them, counted from 0, the keys change for the last time."""
        late = max(0, len(self._pending) - len(chunks))
        for place, pressed in enumerate(self._pending):
            self._bound.setdefault(chunks[max(place - late, 0)], []).append(pressed)
        changes = len(self._pending) - late
        self._pending.clear()
        return max(changes - 1, 0)

    def close(self, now: float) -> None:
        """The clock stops. A player that runs dry at this moment has stalled, and its keys have waited until now."""
        if self._free is None or self.complete or self._free >= now:
            return
        self.counted += 1
        self.stalls += 1
        self.stalled += now - self._free
        waiting = [*self._pending, *(pressed for bound in self._bound.values() for pressed in bound)]
        self.key_to_frame += [now - pressed for pressed in waiting]

    def _show(self, chunk: int, arrived: float, now: float) -> Shown:
        late = 0.0
        if self.fps is None:
            at = over = arrived
        else:
            seconds = Timeline.chunk_frames(chunk) / self.fps
            if self._free is None:
                self._free = now
            else:
                self.counted += 1
                late = max(0.0, arrived - self._free)
                self.on_time += late == 0.0
            if late > 0:
                self.stalls += 1
                self.stalled += late
            at = max(self._free, arrived)
            over = self._free = at + seconds
        if chunk == 0:
            self.first_picture = at
        elif self.first_frame is None:
            self.first_frame = at
        self.key_to_frame += [at - pressed for pressed in self._bound.pop(chunk, ())]
        return Shown(chunk, at, over, late)
