"""A player: shows chunks at a steady rate, tells when each is shown, and counts where it had to wait.

It shows nothing on a screen; it is the clock that a screen would be. Playback starts when `buffer` chunks are there. When
it runs dry that is a stall, and a machine that cannot make the rate would stall for ever: so after a stall the player
goes on at the rate at which chunks came lately, if that is lower, and never speeds up again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MARGIN = 0.95
RECENT_CHUNKS = 12


@dataclass(frozen=True)
class _Arrival:
    index: int
    frames: int
    at: float


class Player:
    """Feed it with `offer` and `finish`, run it with `run`. `shown` hears the index of each chunk when its turn comes.

    fps: the rate in force. stalls, stalled_ms: how often and how long it ran dry. clock, sleep: in seconds.
    """

    def __init__(
        self,
        fps: float,
        shown: Callable[[int], None],
        *,
        buffer: int = 2,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.fps = fps
        self.stalls = 0
        self.stalled_ms = 0.0
        self._shown = shown
        self._buffer = buffer
        self._clock = clock
        self._sleep = sleep
        self._queue: asyncio.Queue[_Arrival | None] = asyncio.Queue()
        self._recent: deque[_Arrival] = deque(maxlen=RECENT_CHUNKS)

    def offer(self, index: int, frames: int) -> None:
        """A chunk of so many frames has arrived."""
        arrival = _Arrival(index, frames, self._clock())
        self._recent.append(arrival)
        self._queue.put_nowait(arrival)

    def finish(self) -> None:
        """No more will come; `run` returns when everything was shown."""
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Play to the end."""
        free_at = None
        waiting = await self._fill()
        while waiting:
            arrival = waiting.popleft()
            if arrival is None:
                return
            now = self._clock()
            if free_at is None:
                free_at = now
            elif arrival.at > free_at:
                self._stall(arrival.at - free_at)
                free_at = now
            if free_at > now:
                await self._sleep(free_at - now)
            self._shown(arrival.index)
            free_at += arrival.frames / self.fps
            if not waiting:
                waiting.append(await self._queue.get())

    async def _fill(self) -> deque[_Arrival | None]:
        waiting: deque[_Arrival | None] = deque()
        while len(waiting) < self._buffer:
            waiting.append(await self._queue.get())
            if waiting[-1] is None:
                break
        return waiting

    def _stall(self, seconds: float) -> None:
        self.stalls += 1
        self.stalled_ms += seconds * 1000
        if (rate := sustained_fps([(arrival.at, arrival.frames) for arrival in self._recent])) is not None:
            self.fps = min(self.fps, MARGIN * rate)


def sustained_fps(arrivals: list[tuple[float, int]]) -> float | None:
    """Frames a second over arrivals of (time in seconds, frames); None for too few to tell."""
    if len(arrivals) < 3 or arrivals[-1][0] <= arrivals[0][0]:
        return None
    return sum(frames for _, frames in arrivals[1:]) / (arrivals[-1][0] - arrivals[0][0])
