"""The dispatcher with workers that a test holds in its hand: what is under way when a worker, a world or the journal goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from teleworld.runtime import dispatcher
from teleworld.runtime.journal import NoJournal
from teleworld.runtime.records import Chunk
from teleworld.scheduling.policy import Policy
from teleworld.scheduling.tasks import Pool
from teleworld.world import latents
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    PreconditionFailed,
    StateLost,
    TeleWorldError,
    Unavailable,
)
from tests.runtime.hands import WORLD, Port, Walk, reference
from tests.services.gateway.cores import TinyDecoder, TinyPlanner, TinyPopulator, TinyReconstructor


@pytest.fixture
async def walk() -> AsyncIterator[Walk]:
    walk = Walk()
    yield walk
    await walk.dispatcher.close()


async def test_a_task_of_a_worker_that_leaves_is_done_by_another(walk: Walk) -> None:
    port = walk.ports[Pool.POPULATOR]
    port.open.clear()
    walk.begin()
    await port.waiting.wait()
    other = Port(TinyPopulator())
    walk.dispatcher.join("another", Pool.POPULATOR, other)
    walk.dispatcher.leave("populator")
    assert await walk.read(12) == await reference(12)
    assert not set(port.calls) - {"populate-0-2"}
    assert other.calls["populate-0-2"] == 1


async def test_an_unavailable_worker_leaves_and_is_told_of(walk: Walk) -> None:
    walk.dispatcher.join("another", Pool.PLANNER, Port(TinyPlanner()))
    walk.ports[Pool.PLANNER].fault = lambda method, request: Unavailable("gone")
    walk.begin()
    assert await walk.read(8) == await reference(8)
    assert walk.lost == ["planner"]


async def test_a_worker_that_leaves_while_its_result_is_written_loses_nothing() -> None:
    class Slow(NoJournal):
        """A journal that lets a worker go in the middle of a write."""

        def __init__(self) -> None:
            self.during: Callable[[], None] = lambda: None

        async def chunk(self, world: str, epoch: int, chunk: Chunk) -> None:
            if chunk.index == 3:
                self.during()
                await asyncio.sleep(0.01)

    journal = Slow()
    walk = Walk(journal)

    def swap() -> None:
        walk.dispatcher.leave("decoder")
        walk.dispatcher.join("another", Pool.DECODER, Port(TinyDecoder()))

    journal.during = swap
    walk.begin()
    assert await walk.read(10) == await reference(10)
    await walk.dispatcher.close()


async def test_a_removed_world_is_given_up_at_once_and_may_come_back(walk: Walk) -> None:
    port = walk.ports[Pool.PLANNER]
    walk.begin()
    first = await walk.read(4)
    port.open.clear()
    port.waiting.clear()
    await port.waiting.wait()
    walk.dispatcher.remove(WORLD)
    port.open.set()
    while not walk.events.empty():
        walk.events.get_nowait()
    walk.begin()
    assert (await walk.read(12))[:4] == first


async def test_lost_state_is_answered_with_the_whole_history(walk: Walk) -> None:
    seen: list[int] = []

    def forget(method: str, request: Any) -> Exception | None:
        if len(request.latents) == 1 and request.index > 2:
            seen.append(request.index)
            return StateLost("restarted")
        return None

    walk.ports[Pool.DECODER].fault = forget
    walk.begin()
    assert await walk.read(8) == await reference(8)
    assert seen[:2] == [3, 4]


@pytest.mark.parametrize("error", [PreconditionFailed("other weights"), InvalidInput("prefix", "is odd")])
async def test_an_error_that_trying_again_cannot_mend_ends_the_world(walk: Walk, error: TeleWorldError) -> None:
    walk.ports[Pool.PLANNER].fault = lambda method, request: error if method == "plan" else None
    walk.begin()
    with pytest.raises(type(error)):
        await walk.read(3)
    assert walk.dispatcher.remove(WORLD) is None


@pytest.mark.parametrize("error", [DeadlineExceeded("too slow"), Overloaded("full", 0.0)])
async def test_a_task_is_tried_again_but_not_for_ever(walk: Walk, error: TeleWorldError) -> None:
    port = walk.ports[Pool.RECONSTRUCTOR]
    port.fault = lambda method, request: error if port.calls[request.context.task] < 3 else None
    walk.begin()
    assert await walk.read(8) == await reference(8)
    port.fault = lambda method, request: error
    with pytest.raises(type(error)):
        await walk.read(20)


async def test_a_defect_ends_the_world_and_not_the_dispatcher(walk: Walk) -> None:
    walk.ports[Pool.DECODER].fault = lambda method, request: ZeroDivisionError() if request.chunk == 5 else None
    walk.begin()
    with pytest.raises(TeleWorldError, match="decode-1-3 failed"):
        await walk.read(12)
    walk.ports[Pool.DECODER].fault = lambda method, request: None
    walk.begin()
    assert await walk.read(8) == await reference(8)


async def test_a_journal_that_refuses_ends_the_world_and_blames_no_worker() -> None:
    class Refusing(NoJournal):
        """A journal whose lease is gone."""

        async def chunk(self, world: str, epoch: int, chunk: Chunk) -> None:
            if chunk.index == 2:
                raise Unavailable("the store does not answer")

    walk = Walk(Refusing())
    walk.begin()
    with pytest.raises(Unavailable):
        await walk.read(6)
    assert walk.lost == []
    assert all(walk.dispatcher.scheduler.workers(pool) for pool in Pool)
    await walk.dispatcher.close()


async def test_a_hung_worker_is_overtaken_and_reported_and_its_late_answer_is_ignored() -> None:
    walk = Walk(policy=Policy(hedge_samples=4, hedge_share=1.0, hedge_floor=0.02))
    other = Port(TinyPopulator())
    walk.dispatcher.join("another", Pool.POPULATOR, other)
    walk.begin()
    first = await walk.read(16)
    held = (
        walk.ports[Pool.POPULATOR] if walk.dispatcher.scheduler.holds(WORLD, Pool.POPULATOR) == "populator" else other
    )
    held.open.clear()
    begun = time.monotonic()
    rest = await walk.read(16)
    assert time.monotonic() - begun < 5.0, "that is as slow as the time-out of a call"
    held.open.set()
    assert first + rest + await walk.read(8) == await reference(40)
    assert walk.lost, "nobody looked after it"
    await walk.dispatcher.close()


async def test_a_control_that_was_bound_while_its_worker_left_is_told_once() -> None:
    class Leaving(NoJournal):
        """A journal that sees the guiding worker go while the binding is written."""

        def __init__(self) -> None:
            self.during: Callable[[], None] = lambda: None

        async def bind(self, world: str, epoch: int, binding: Any, taken: tuple[Control, ...]) -> None:
            if binding.segment == 2:
                during, self.during = self.during, lambda: None
                during()
                await asyncio.sleep(0)

    journal = Leaving()
    walk = Walk(journal)
    session = walk.begin()

    def swap() -> None:
        walk.dispatcher.leave("reconstructor")
        walk.dispatcher.join("another", Pool.RECONSTRUCTOR, Port(TinyReconstructor(walk.field)))

    journal.during = swap
    await walk.read(1)
    session.controls.add(Control(5, Keys.W))
    await walk.read(11)
    assert [sequence for sequence, _ in walk.bound] == [5]
    await walk.dispatcher.close()


async def test_digests_of_large_latents_are_made_beside_the_event_loop(
    walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set[int]()
    digest = latents.latent_digest

    def noted(latent: Any) -> str:
        threads.add(threading.get_ident())
        return digest(latent)

    expected = await reference(6)
    monkeypatch.setattr(dispatcher, "LARGE", 0)
    monkeypatch.setattr(latents, "latent_digest", noted)
    walk.begin()
    assert await walk.read(6) == expected
    assert threads - {threading.get_ident()}
