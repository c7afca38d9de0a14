"""What stands before the computation: admission, fencing, and the one computing thread."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from teleworld.rpc.admission import MAX_RETRY_S, MIN_RETRY_S, Admission
from teleworld.rpc.compute import Compute
from teleworld.rpc.fencing import EpochGuard
from teleworld.world.errors import Overloaded, StaleEpoch, Unavailable


def admission(queue: int) -> Admission:
    made = Admission(queue)
    made.open()
    return made


def test_admission_takes_one_more_than_the_queue_and_refuses_the_rest_with_a_time() -> None:
    gate = admission(queue=2)
    slots = [gate.reserve() for _ in range(3)]
    with pytest.raises(Overloaded) as caught:
        gate.reserve()
    assert MIN_RETRY_S <= caught.value.retry_after_s <= MAX_RETRY_S
    slots[1].release()
    slots[1].release()
    assert gate.used == 2
    gate.reserve()
    with pytest.raises(Overloaded):
        gate.reserve()


def test_admission_is_closed_before_warm_up_and_while_draining() -> None:
    gate = Admission(queue=0)
    with pytest.raises(Unavailable, match="warming up"):
        gate.reserve()
    gate.open()
    slot = gate.reserve()
    gate.close("draining")
    with pytest.raises(Unavailable, match="draining"):
        gate.reserve()
    slot.release()
    assert gate.used == 0


def test_an_older_epoch_is_refused_and_an_equal_or_newer_one_is_not() -> None:
    guard = EpochGuard()
    for epoch in (3, 3, 5):
        guard.check("a", epoch)
    guard.check("b", 1)
    with pytest.raises(StaleEpoch) as caught:
        guard.check("a", 4)
    assert (caught.value.world, caught.value.epoch, caught.value.current) == ("a", 4, 5)


def test_the_guard_forgets_the_least_recently_used_world() -> None:
    guard = EpochGuard(capacity=2)
    guard.check("a", 9)
    guard.check("b", 9)
    guard.check("a", 9)
    guard.check("c", 9)
    assert len(guard) == 2
    guard.check("b", 1)
    with pytest.raises(StaleEpoch):
        guard.check("c", 1)


@pytest.mark.asyncio
async def test_work_is_done_on_one_thread_in_order_while_the_loop_stays_free() -> None:
    compute, gate, places = Compute("test"), threading.Event(), admission(queue=9)
    order: list[tuple[int, str]] = []

    def work(number: int) -> int:
        assert gate.wait(10)
        order.append((number, threading.current_thread().name))
        return number * number

    jobs = [asyncio.create_task(compute.run(places.reserve(), lambda n=n: work(n))) for n in range(4)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*jobs) == [0, 1, 4, 9]
    assert order == [(n, "test") for n in range(4)]
    await drained(places)
    compute.close()


async def drained(places: Admission) -> None:
    """Slots come back through the event loop, in a later step than the result."""
    async with asyncio.timeout(5):
        while places.used:  # noqa: ASYNC110 - a yield to the loop, not a wait
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_cancelling_drops_work_that_has_not_begun_and_waits_out_work_that_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    compute, places = Compute("test"), admission(queue=9)
    begun, gate, done = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        assert gate.wait(10)
        raise ValueError("nobody hears this")

    running = asyncio.create_task(compute.run(places.reserve(), first))
    waiting = asyncio.create_task(compute.run(places.reserve(), lambda: done.append("waiting")))
    await asyncio.to_thread(begun.wait, 10)
    for task in (running, waiting):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert places.used == 1, "work under way keeps its slot after its caller went away"
    with caplog.at_level(logging.ERROR):
        gate.set()
        await drained(places)
        assert await compute.call(lambda: "still alive") == "still alive"
    assert "work failed after its caller had gone" in caplog.text
    assert done == []
    compute.close()


@pytest.mark.asyncio
async def test_an_error_in_the_work_reaches_the_caller_and_frees_the_slot() -> None:
    compute, places = Compute("test"), admission(queue=0)
    with pytest.raises(ZeroDivisionError):
        await compute.run(places.reserve(), lambda: 1 / 0)
    await drained(places)
    compute.close()


@pytest.mark.asyncio
async def test_a_stream_lets_other_work_in_between_and_frees_its_slot_when_it_is_abandoned() -> None:
    compute, places = Compute("test"), admission(queue=1)
    stream = compute.iterate(places.reserve(), lambda: iter(range(100)))
    assert await anext(stream) == 0
    assert await compute.run(places.reserve(), lambda: "between") == "between"
    assert await anext(stream) == 1
    await stream.aclose()
    await drained(places)
    assert [item async for item in compute.iterate(places.reserve(), lambda: "ab")] == ["a", "b"]
    await drained(places)
    compute.close()
