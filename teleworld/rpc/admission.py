"""Admission at the worker: one task computes, a bounded number waits, the rest is refused at once with a time to come back.

gRPC's own limit on concurrent calls cannot be relied on and answers without RetryInfo. A slot is reserved before the
handler first awaits, so that no burst slips through between the check and the reservation, and it is given back when the
work is over, which may be after the caller went away.
"""

from __future__ import annotations

import time

from opentelemetry import metrics

from teleworld.world.errors import Overloaded, Unavailable

MIN_RETRY_S = 0.05
MAX_RETRY_S = 10.0
_SMOOTHING = 0.2

_meter = metrics.get_meter("teleworld.rpc")
_in_flight = _meter.create_up_down_counter("teleworld.worker.in_flight", "{task}", "Tasks admitted and not yet over")
_refused = _meter.create_counter("teleworld.worker.refused", "{task}", "Tasks refused at admission")


class Slot:
    """A reserved place. `release` may be called more than once."""

    def __init__(self, admission: Admission) -> None:
        self._admission: Admission | None = admission
        self._since = time.monotonic()

    def release(self) -> None:
        """Give the place back."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission._returned(time.monotonic() - self._since)


class Admission:
    """At most `slots + queue` tasks at once. Closed until `open`; not thread-safe: used on the event loop alone."""

    def __init__(self, queue: int, slots: int = 1) -> None:
        self._capacity = slots + queue
        self._used = 0
        self._closed: str | None = "the worker is warming up"
        self._turnaround_s = MIN_RETRY_S

    @property
    def used(self) -> int:
        """Tasks admitted and not yet over."""
        return self._used

    def open(self) -> None:
        """Admit from now on."""
        self._closed = None

    def close(self, reason: str) -> None:
        """Answer Unavailable with `reason` from now on."""
        self._closed = reason

    def reserve(self) -> Slot:
        """A place, or Overloaded when all are taken, or Unavailable when closed. Never awaits."""
        if self._closed is not None:
            _refused.add(1, {"reason": "closed"})
            raise Unavailable(self._closed)
        if self._used >= self._capacity:
            _refused.add(1, {"reason": "full"})
            raise Overloaded(
                f"{self._used} tasks are at work or waiting; at most {self._capacity}", self._retry_after_s()
            )
        self._used += 1
        _in_flight.add(1)
        return Slot(self)

    def _retry_after_s(self) -> float:
        # Tasks leave a full queue at an even pace, so one place is free after a turnaround divided by the places.
        return min(max(self._turnaround_s / self._capacity, MIN_RETRY_S), MAX_RETRY_S)

    def _returned(self, seconds: float) -> None:
        self._used -= 1
        _in_flight.add(-1)
        self._turnaround_s += _SMOOTHING * (seconds - self._turnaround_s)
