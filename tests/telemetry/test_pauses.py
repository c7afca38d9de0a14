"""Pauses are seen where they happen, and readiness takes what is alive out of the collector's way."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator

import pytest

from teleworld.telemetry import pauses
from teleworld.telemetry.pauses import LoopWatch, Worst, settle


@pytest.fixture
def collector() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def test_a_callback_that_holds_the_loop_is_seen() -> None:
    async with LoopWatch(period=0.01) as watch:
        await asyncio.sleep(0.03)
        asyncio.get_running_loop().call_soon(time.sleep, 0.2)
        await asyncio.sleep(0.21)  # the watch's timer is due before this one
        assert 0.15 < watch.lag < 10


async def test_a_collection_is_seen_while_watched_and_only_then() -> None:
    async with LoopWatch() as watch:
        gc.collect()
    seen = watch.pause
    assert seen > 0
    callbacks = len(gc.callbacks)
    async with LoopWatch():
        assert len(gc.callbacks) == callbacks + 1
    assert len(gc.callbacks) == callbacks


async def test_the_collector_waits_for_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run in the middle of the metrics' own code, which holds a lock that recording takes."""
    recorded: list[float] = []

    class Histogram:
        def record(self, value: float, labels: dict[str, int]) -> None:
            recorded.append(value)

    monkeypatch.setattr(pauses, "_collected", Histogram())
    async with LoopWatch(period=3600.0):
        gc.collect()
        assert not recorded
    assert recorded, "it is told later, by code that nothing interrupted"


def test_the_worst_is_forgotten_after_two_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(pauses.time, "monotonic", lambda: moment)
    worst = Worst(seconds=10)
    worst.add(3.0)
    worst.add(1.0)
    assert worst.value == 3.0
    moment += 11
    assert worst.value == 3.0, "the window before still counts"
    worst.add(2.0)
    moment += 11
    assert worst.value == 2.0
    moment += 50
    assert worst.value == 0.0


def test_settling_hides_what_is_alive_from_the_collector(collector: None) -> None:
    built_up = [[number] for number in range(1000)]
    settle()
    assert gc.get_freeze_count() > len(built_up)
    assert gc.get_threshold() == pauses.THRESHOLDS
