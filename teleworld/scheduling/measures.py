"""Measured service times: sliding windows, from which the policy reads means and quantiles, and the table of them.

A window of the newest samples gives exact quantiles of what workers do now: it forgets a cold start or a slower build after
a few hundred tasks, and reading it costs nothing while it does not change.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

from teleworld.scheduling.tasks import Kind

WINDOW = 128
LEAST_MOVES = 3
FEW, READ_EVERY = 32, 8
"""Of the first samples each changes what is read off the window, later only one in so many."""


class Window:
    """The newest `size` samples. `mean` and `quantile` are of those; both are `guess` while there are none."""

    __slots__ = ("_guess", "_newest", "_size", "_sorted", "_total", "count")

    def __init__(self, guess: float, size: int = WINDOW) -> None:
        self._guess = guess
        self._size = size
        self._newest: deque[float] = deque()
        self._sorted: list[float] = []
        self._total = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        """Take a sample in; the oldest one goes when the window is full."""
        self.count += 1
        self._total += value
        self._newest.append(value)
        insort(self._sorted, value)
        if len(self._newest) > self._size:
            oldest = self._newest.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._total -= oldest

    @property
    def mean(self) -> float:
        """The mean of the window."""
        return self._total / len(self._newest) if self._newest else self._guess

    def quantile(self, share: float) -> float:
        """The smallest sample that `share` of the window does not exceed."""
        if not self._sorted:
            return self._guess
        return self._sorted[min(int(share * len(self._sorted)), len(self._sorted) - 1)]


class Cost(NamedTuple):
    """What a service time depends on: the model, the kind of task, and for POPULATE the group."""

    model: str
    kind: Kind
    group: int = 0


class Entry:
    """The times of one `Cost`, in seconds.

    call: of one call to a worker, of however many tasks. batches: calls by their size, where there was more than one task.
    moved: of single tasks on a worker that did not hold the world, while another one did; stayed: of some others. used: the
    quantile that present plans are made with. tail: the 99th percentile, as last read.
    """

    __slots__ = ("_share", "batches", "call", "moved", "stayed", "tail", "used")

    def __init__(self, guess: float) -> None:
        self.call, self.moved, self.stayed = Window(guess), Window(guess), Window(guess)
        self.batches: dict[int, Window] = {}
        self._share: Window | None = None
        self.used = self.tail = guess

    @property
    def share(self) -> float:
        """The mean worker time of one task."""
        return self.call.mean if self._share is None else self._share.mean

    @property
    def rebuild(self) -> float:
        """What it costs to take a world to another worker, by the medians: 0 until that was seen."""
        if min(self.moved.count, self.stayed.count) < LEAST_MOVES:
            return 0.0
        return max(0.0, self.moved.quantile(0.5) - self.stayed.quantile(0.5))

    def guess(self, seconds: float) -> None:
        """Believe in `seconds` until something is measured."""
        self.call = Window(seconds)
        self.used = self.tail = seconds

    def batched(self, size: int) -> float:
        """The expected time of a call of `size` tasks; while that is unknown, as if they were done one after another."""
        known = self.batches.get(size)
        return size * self.share if known is None else known.mean

    def add(self, seconds: float, size: int, *, moved: bool) -> None:
        """A call of `size` tasks took `seconds`."""
        self.call.add(seconds)
        if size > 1:
            self.batches.setdefault(size, Window(seconds)).add(seconds)
            if self._share is None:
                self._share = Window(self.call.mean)
        elif moved:
            self.moved.add(seconds)
        elif self.call.count < FEW or self.call.count % READ_EVERY == 0:
            self.stayed.add(seconds)
        if self._share is not None:
            self._share.add(seconds / size)


class Measures:
    """The table of service times. `revision` counts up whenever a quantile that plans are made with has drifted away."""

    def __init__(self, guess: float, share: float, drift: float) -> None:
        self._guess = guess
        self._quantile = share
        self._drift = drift
        self._entries: dict[Cost, Entry] = {}
        self.revision = 0

    def entry(self, cost: Cost) -> Entry:
        """The times of a cost; a first guess where nothing is known."""
        entry = self._entries.get(cost)
        if entry is None:
            entry = self._entries[cost] = Entry(self._guess)
        return entry

    def known(self, cost: Cost) -> bool:
        """Whether anything was measured."""
        return cost in self._entries and self._entries[cost].call.count > 0

    def prime(self, cost: Cost, seconds: float) -> None:
        """A first guess, before anything is measured."""
        if not self.known(cost):
            self.entry(cost).guess(seconds)
            self.revision += 1

    def add(self, entry: Entry, seconds: float, size: int, *, moved: bool) -> None:
        """A call of `size` tasks took `seconds`. moved: whether the state of its world was on another worker."""
        entry.add(seconds, size, moved=moved)
        if entry.call.count % READ_EVERY == 0 or entry.call.count < FEW:
            entry.tail = entry.call.quantile(0.99)
            quantile = entry.call.quantile(self._quantile)
            if abs(quantile - entry.used) > self._drift * entry.used:
                entry.used = quantile
                self.revision += 1
