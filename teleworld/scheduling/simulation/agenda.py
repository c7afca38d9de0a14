"""The queue of events of a simulation: what happens next, and when.

Events at one instant happen in the order in which they were put in, so a run is a function of its inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Event = tuple[float, int, Callable[..., None], tuple[Any, ...]]


class Agenda:
    """Events by time, in seconds. `now` is the time of the event under way."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[Event] = []
        self._serial = 0

    def at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act(*arguments)` at `when`; a time that is over means at once, after what is there already."""
        self._serial += 1
        heappush(self._heap, (when if when > self.now else self.now, self._serial, act, arguments))

    def after(self, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call `act(*arguments)` so many seconds from now."""
        self._serial += 1
        heappush(self._heap, (self.now + seconds, self._serial, act, arguments))

    def next_at(self) -> float | None:
        """When the next event is due; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def step(self) -> None:
        """Let the next event happen. Raises IndexError when there is none."""
        self.now, _, act, arguments = heappop(self._heap)
        act(*arguments)
