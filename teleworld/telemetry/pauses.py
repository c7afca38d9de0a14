"""What holds an event loop up: callbacks that take long, and the garbage collector.

A gateway promises milliseconds to hundreds of streams on one thread, so a pause of 50 ms is late for all of them at once.
The collector's full passes walk everything that is alive: with models, compiled messages and thousands of open worlds that
is the longest pause of all. `settle` puts what a process has built up by its readiness outside of the collector's sight
and makes full passes rare; `LoopWatch` measures what is left, so that a regression shows in a gauge and not in complaints.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

PERIOD_SECONDS = 0.1
WINDOW_SECONDS = 15.0
MOST_UNRECORDED = 10_000
THRESHOLDS = (20_000, 20, 50)
"""Allocations until a young pass, young passes until a middle one, middle ones until a full one is considered."""

_meter = metrics.get_meter("teleworld.telemetry")
_lag = _meter.create_histogram(
    "teleworld.loop.lag.duration", "s", "How much later than asked for the event loop comes back to a timer"
)
_collected = _meter.create_histogram(
    "teleworld.gc.pause.duration", "s", "How long a garbage collection held the process"
)


def settle() -> None:
    """Collect once, and leave what is alive now out of every later collection. For the moment before a process serves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


class Worst:
    """The largest value of the last one to two windows of `seconds`."""

    def __init__(self, seconds: float = WINDOW_SECONDS) -> None:
        self._seconds = seconds
        self._since = time.monotonic()
        self._now = self._before = 0.0

    def add(self, value: float) -> None:
        """Take a value in."""
        self._roll()
        self._now = max(self._now, value)

    @property
    def value(self) -> float:
        """The largest one; 0 when there was none."""
        self._roll()
        return max(self._now, self._before)

    def _roll(self) -> None:
        moment = time.monotonic()
        if moment - self._since >= self._seconds:
            self._before = self._now if moment - self._since < 2 * self._seconds else 0.0
            self._now, self._since = 0.0, moment


class LoopWatch:
    """Measures the running loop inside of an `async with`. `lag` and `pause` are the worst of late, in seconds."""

    def __init__(self, period: float = PERIOD_SECONDS) -> None:
        self._period = period
        self._task: asyncio.Task[None] | None = None
        self._began = 0.0
        self._lags, self._pauses = Worst(), Worst()
        self._unrecorded: deque[tuple[float, int]] = deque(maxlen=MOST_UNRECORDED)

    @property
    def lag(self) -> float:
        """How much later than asked for the loop came back, in seconds."""
        return self._lags.value

    @property
    def pause(self) -> float:
        """The longest garbage collection, in seconds."""
        return self._pauses.value

    async def __aenter__(self) -> LoopWatch:
        self._task = asyncio.create_task(self._watch(), name="loop watch")
        gc.callbacks.append(self._collecting)
        _observe("teleworld.loop.lag.worst", "The worst lag of the event loop of late", lambda: self.lag)
        _observe("teleworld.gc.pause.worst", "The longest garbage collection of late", lambda: self.pause)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.callbacks.remove(self._collecting)
        self._record()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            asked = time.monotonic()
            await asyncio.sleep(self._period)
            late = max(time.monotonic() - asked - self._period, 0.0)
            self._lags.add(late)
            _lag.record(late)
            self._record()

    def _record(self) -> None:
        """Pass on the collections since the last time."""
        while self._unrecorded:
            took, generation = self._unrecorded.popleft()
            _collected.record(took, {"generation": generation})

    def _collecting(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        took = time.perf_counter() - self._began
        self._pauses.add(took)
        # Nothing that locks: the collector may have interrupted the very code, of this thread, that holds the lock.
        self._unrecorded.append((took, info["generation"]))


def _observe(name: str, description: str, read: Any) -> None:
    def answer(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(read())]

    _meter.create_observable_gauge(name, [answer], "s", description)
