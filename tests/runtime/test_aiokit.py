"""A bell that many wait for: who waits hears the next ring, or that time is over, and nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from teleworld.runtime.aiokit import Bell


async def test_a_ring_wakes_all_who_wait_and_whoever_comes_late() -> None:
    bell = Bell()
    ring = bell.next
    waiting = [asyncio.create_task(ring.wait()), asyncio.create_task(ring.wait(60))]
    await asyncio.sleep(0)
    bell.ring()
    assert await asyncio.gather(*waiting) == [True, True]
    assert await ring.wait(0) is True, "it has rung"
    assert await bell.next.wait(0) is False, "the next one has not"


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001])
async def test_time_that_is_over_is_an_answer(seconds: float) -> None:
    assert await Bell().next.wait(seconds) is False


async def test_who_gives_up_does_not_disturb_the_others() -> None:
    bell = Bell()
    given_up, stays = (asyncio.create_task(bell.next.wait(60)) for _ in range(2))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    bell.ring()
    assert await stays is True
