"""The thread that computes, so that the event loop stays free to answer health checks, refuse and cancel.

Models are not thread-safe and a small machine gains nothing from a second thread: there is one, and work is done one after
the other, in the order of its arrival. Only cores that wait more than they compute, such as emulated devices, take more
threads. Cancelling the awaiting task drops work that has not begun; work under way cannot be stopped, so it
runs to its end, keeps its slot until then, and its result is dropped. The thread is a daemon: a computation that outlives
the drain's bound does not hold the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import re
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from opentelemetry import metrics, trace

from teleworld.rpc.admission import Slot
from teleworld.world.errors import Unavailable

T = TypeVar("T")

_log = logging.getLogger(__name__)
_meter = metrics.get_meter("teleworld.rpc")
_queued = _meter.create_histogram(
    "teleworld.worker.queue.duration", "s", "Time that a task waits for the computing thread"
)
_computed = _meter.create_histogram("teleworld.worker.compute.duration", "s", "Time that a task computes")
_busy = _meter.create_counter("teleworld.worker.busy.time", "s", "Time in which the device computed")
_END = object()
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory")
"""How torch says it, on a GPU and on the CPU."""


class _Job:
    """One call with the contextvars of its caller, so that spans made inside belong to the caller's trace."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.context = contextvars.copy_context()
        self.future: Future[Any] = Future()
        self.asked = time.monotonic()
        self.begun = self.ended = self.asked

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        self.begun = time.monotonic()
        try:
            result = self.context.run(self.call)
        except BaseException as error:  # whatever it is, it belongs to the caller and not to this thread
            self.ended = time.monotonic()
            self.future.set_exception(_told(error))
        else:
            self.ended = time.monotonic()
            self.future.set_result(result)


class Compute:
    """`threads` computing threads named `name`. They start at once; `close` ends them after the work that they have begun."""

    def __init__(self, name: str, threads: int = 1) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more work."""
        for _ in self._threads:
            self._jobs.put(None)

    async def call(self, call: Callable[[], T]) -> T:
        """The result of `call()` on the computing thread, outside of any admission."""
        return await self._result(_Job(call))

    async def run(self, slot: Slot, call: Callable[[], T]) -> T:
        """The result of `call()` on the computing thread. `slot` is given back when the work is over or dropped."""
        job = _Job(call)
        self._release_after(job, slot)
        return await self._result(job)

    async def iterate(self, slot: Slot, make: Callable[[], Iterable[T]]) -> AsyncGenerator[T, None]:
        """The items of `make()`, each taken on the computing thread, so that other work may come between two items."""
        job = _Job(lambda: iter(make()))
        try:
            iterator = await self._result(job)
            while True:
                job = _Job(lambda: next(iterator, _END))
                item = await self._result(job)
                if item is _END:
                    return
                yield item
        finally:
            self._release_after(job, slot)

    async def _result(self, job: _Job) -> Any:
        self._jobs.put(job)
        waiter = asyncio.wrap_future(job.future)
        try:
            return await waiter
        finally:
            if waiter.cancelled() and not job.future.cancelled():
                job.future.add_done_callback(_log_unheard)
            elif job.future.done():
                _measure(job)

    @staticmethod
    def _release_after(job: _Job, slot: Slot) -> None:
        loop = asyncio.get_running_loop()

        def release(_: Future[Any]) -> None:
            # The loop may be gone when abandoned work ends during shutdown; its slots are gone with it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(slot.release)

        job.future.add_done_callback(release)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()


def _told(error: BaseException) -> BaseException:
    """A worker without memory for a task is not broken: another one may have it, or this one later."""
    starved = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)))
    if not starved:
        return error
    refusal = Unavailable("the worker is out of memory")
    refusal.__cause__ = error
    return refusal


def _measure(job: _Job) -> None:
    waited, computed = job.begun - job.asked, job.ended - job.begun
    _queued.record(waited)
    _computed.record(computed)
    _busy.add(computed)
    span = trace.get_current_span()
    span.set_attribute("teleworld.queue_ms", 1e3 * waited)
    span.set_attribute("teleworld.compute_ms", 1e3 * computed)


def _log_unheard(future: Future[Any]) -> None:
    if (error := future.exception()) is not None:
        _log.error("work failed after its caller had gone", exc_info=error)
