"""What is to be looked at again at a moment at which nothing need happen by itself."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any


def _always(subject: object) -> bool:
    return True


class Alarms:
    """A heap of moments. Each rings once, in order; of equal moments the one that was set first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[Any], None], Any, Callable[[Any], bool]]] = []
        self._serials = count()

    def at(
        self, when: float, ring: Callable[[Any], None], subject: Any, needed: Callable[[Any], bool] = _always
    ) -> None:
        """Call `ring(subject)` at `when`, unless it is not needed any more by then."""
        heappush(self._heap, (when, next(self._serials), ring, subject, needed))

    def ring(self, now: float) -> None:
        """Ring all that are due, those included that others set meanwhile."""
        while self._heap and self._heap[0][0] <= now:
            _, _, ring, subject, _ = heappop(self._heap)
            ring(subject)

    def next(self) -> float | None:
        """When the next one that is needed rings."""
        while self._heap and not self._heap[0][4](self._heap[0][3]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None
