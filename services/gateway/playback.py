"""When the person at the other end has seen which chunk: what the look-ahead of generation is measured from."""

from __future__ import annotations

from collections import deque


class Playback:
    """The player's position. With `fps`, a chunk is consumed when it is acknowledged and its time is over; a late chunk
    stalls the player and moves everything after it. Without, it is consumed when it is acknowledged. Times in seconds.
    """

    def __init__(self, first_chunk: int, fps: float | None) -> None:
        self._fps = fps
        self._played = self._acked = first_chunk
        self._ends: deque[tuple[int, float]] = deque()
        self._paused_at: float | None = None

    def sent(self, chunk: int, frames: int, now: float) -> None:
        """A chunk was sent."""
        if self._fps is not None:
            begins = max(now, self._ends[-1][1]) if self._ends else now
            self._ends.append((chunk, begins + frames / self._fps))

    def acked(self, chunks: int) -> None:
        """The chunks before number `chunks` have arrived."""
        self._acked = max(self._acked, chunks)

    def pause(self, now: float) -> None:
        """The player stands still."""
        self._paused_at = now

    def resume(self, now: float) -> None:
        """It goes on where it was."""
        if self._paused_at is not None:
            late, self._paused_at = now - self._paused_at, None
            self._ends = deque((chunk, end + late) for chunk, end in self._ends)

    def played(self, now: float) -> int:
        """The number of the first chunk that is not consumed."""
        if self._fps is None:
            self._played = self._acked
        while self._ends and self._paused_at is None:
            chunk, end = self._ends[0]
            if end > now or chunk >= self._acked:
                break
            self._played = max(self._played, chunk + 1)
            # The last one stays until the next is sent, which follows it without a gap.
            if len(self._ends) == 1:
                break
            self._ends.popleft()
        return self._played

    def due(self, now: float) -> float | None:
        """When `played` next changes by the passing of time alone; None if it does not."""
        if self._paused_at is not None:
            return None
        return next((end for chunk, end in self._ends if end > now and chunk < self._acked), None)
