"""When the person at the other end has seen which chunk: what the look-ahead of generation is measured from."""

from __future__ import annotations

from collections import deque


class Playback:
    """The player's position. With `fps`, a chunk's time begins when it is acknowledged, at the end of the one before at the
    earliest, and it is consumed when that time is over: a client acknowledges what it begins to show, or all that arrives.
    A late chunk stalls the player and moves everything after it. Without `fps`, a chunk is consumed when it is
    acknowledged. Times in seconds.
    """

    def __init__(self, first_chunk: int, fps: float | None) -> None:
        self._fps = fps
        self._played = self._acked = first_chunk
        self._sent: deque[tuple[int, int]] = deque()
        self._ends: deque[tuple[int, float]] = deque()
        self._free: float | None = None
        self._paused_at: float | None = None

    def sent(self, chunk: int, frames: int) -> None:
        """A chunk was sent."""
        if self._fps is not None:
            self._sent.append((chunk, frames))

    def dry(self, now: float) -> bool:
        """Whether the player has shown all that it was sent, and waits."""
        if self._fps is None or self._free is None or self._paused_at is not None:
            return False
        return now > self._free + sum(frames for _, frames in self._sent) / self._fps

    def acked(self, chunks: int, now: float) -> None:
        """The chunks before number `chunks` have arrived."""
        self._acked = max(self._acked, chunks)
        now = now if self._paused_at is None else self._paused_at
        while self._fps is not None and self._sent and self._sent[0][0] < self._acked:
            chunk, frames = self._sent.popleft()
            self._free = max(now, self._free or now) + frames / self._fps
            self._ends.append((chunk, self._free))

    def pause(self, now: float) -> None:
        """The player stands still."""
        self._paused_at = now

    def resume(self, now: float) -> None:
        """It goes on where it was."""
        if self._paused_at is not None:
            late, self._paused_at = now - self._paused_at, None
            self._ends = deque((chunk, end + late) for chunk, end in self._ends)
            self._free = None if self._free is None else self._free + late

    def played(self, now: float) -> int:
        """The number of the first chunk that is not consumed."""
        if self._fps is None:
            self._played = self._acked
        while self._ends and self._paused_at is None and self._ends[0][1] <= now:
            self._played = max(self._played, self._ends.popleft()[0] + 1)
        return self._played

    def due(self, now: float) -> float | None:
        """When `played` next changes by the passing of time alone; None if it does not."""
        if self._paused_at is not None:
            return None
        return next((end for _, end in self._ends if end > now), None)
