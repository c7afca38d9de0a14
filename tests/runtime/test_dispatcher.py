"""The dispatcher with workers that a test holds in its hand: what is under way when a worker, a world or the journal goes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from teleworld.runtime import dispatcher
from teleworld.runtime.dispatcher import Dispatcher, Listener
from teleworld.runtime.journal import NoJournal
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.policy import Limits, Policy
from teleworld.scheduling.tasks import Kind, Pool
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
from teleworld.world.timeline import ChainMode
from teleworld.world.work import Prompt
from tests.services.gateway.cores import Field, TinyDecoder, TinyPlanner, TinyPopulator, TinyReconstructor

WORLD = "0" * 26
Fault = Callable[[str, Any], Exception | None]


class Port:
    """A worker without a transport. `fault` may raise before a call; while `held`, calls wait at the door."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.fault: Fault = lambda method, request: None
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()
        self.calls: Counter[str] = Counter()

    def __getattr__(self, method: str) -> Any:
        compute = getattr(self.core, method)

        async def call(request: Any, timeout: float) -> Any:
            self.calls[request.context.task] += 1
            if not self.open.is_set():
                self.waiting.set()
                await self.open.wait()
            await asyncio.sleep(0)
            if (error := self.fault(method, request)) is not None:
                raise error
            return compute(request)

        return call


class Walk:
    """A dispatcher with one worker a pool, and what the listener of one world heard."""

    def __init__(self, journal: Any = None, policy: Policy | None = None) -> None:
        self.lost: list[str] = []
        self.dispatcher = Dispatcher(journal or NoJournal(), worker_lost=self.lost.append, policy=policy)
        self.field = Field()
        self.ports = {
            Pool.PLANNER: Port(TinyPlanner()),
            Pool.POPULATOR: Port(TinyPopulator()),
            Pool.RECONSTRUCTOR: Port(TinyReconstructor(self.field)),
            Pool.DECODER: Port(TinyDecoder()),
        }
        for pool, port in self.ports.items():
            self.dispatcher.join(pool.value, pool, port)
        self.events: asyncio.Queue[Chunk | TeleWorldError] = asyncio.Queue()
        self.bound: list[tuple[int, int | None]] = []

    def begin(self, until: int | None = None, **options: Any) -> WorldSession:
        """Run a new session of the world."""
        picture = np.zeros((96, 160, 3), np.uint8)
        prompt = Prompt("", np.zeros((1, 8), np.float32))
        session = WorldSession(WorldRecord(WORLD, "nano", "w", 3, ChainMode.T_B, prompt, picture, 0.0, ""))
        listener = Listener(
            chunk=self.events.put_nowait,
            bound=lambda control: self.bound.append((control.sequence, control.chunk)),
            ended=self.events.put_nowait,
        )
        self.dispatcher.add(session, listener, Limits(6), **options)
        self.dispatcher.until(WORLD, until)
        return session

    async def read(self, count: int) -> list[str]:
        """The digests of the next chunks, played as they come."""
        digests = []
        for _ in range(count):
            chunk = await asyncio.wait_for(self.events.get(), 10)
            if isinstance(chunk, TeleWorldError):
                raise chunk
            digests.append(chunk.latent_sha256)
            self.dispatcher.played(WORLD, chunk.index + 1)
        return digests


@pytest.fixture
async def walk() -> AsyncIterator[Walk]:
    walk = Walk()
    yield walk
    await walk.dispatcher.close()


async def reference(count: int) -> list[str]:
    """The chunks of an undisturbed walk."""
    calm = Walk()
    calm.begin()
    digests = await calm.read(count)
    await calm.dispatcher.close()
    return digests


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


def crowd(walk: Walk, count: int) -> dict[str, asyncio.Queue[Any]]:
    """So many worlds, on enough planners and reconstructors that they wait for populators; what each world's listener hears."""
    for pool, core in ((Pool.PLANNER, TinyPlanner()), (Pool.RECONSTRUCTOR, TinyReconstructor(walk.field))):
        walk.dispatcher.join(f"{pool.value}-more", pool, Port(core), slots=8)
    queues = {f"{number}" * 26: asyncio.Queue[Any]() for number in range(count)}
    for name, queue in queues.items():
        record = WorldRecord(
            name, "nano", "w", 3, ChainMode.T_B, Prompt("", np.zeros((1, 8), np.float32)),
            np.zeros((96, 160, 3), np.uint8), 0.0, "",
        )  # fmt: skip
        listener = Listener(chunk=queue.put_nowait, bound=lambda control: None, ended=queue.put_nowait)
        walk.dispatcher.add(WorldSession(record), listener, Limits(6))
    return queues


async def test_tasks_of_several_worlds_go_to_a_worker_in_one_call_and_each_gets_its_own_answer() -> None:
    class Many:
        """A populator that takes one call at a time, of up to four tasks."""

        def __init__(self) -> None:
            self.core, self.sizes = TinyPopulator(), list[int]()

        async def populate(self, request: Any, timeout: float) -> Any:
            return (await self.populate_many([request], timeout))[0]

        async def populate_many(self, requests: Any, timeout: float) -> list[Any]:
            self.sizes.append(len(requests))
            await asyncio.sleep(0.005)
            if len(requests) > 1 and max(self.sizes) == len(requests) and self.sizes.count(len(requests)) == 1:
                raise DeadlineExceeded("the first call of a size fails")
            return [self.core.populate(request) for request in requests]

    port = Many()
    walk = Walk()
    walk.dispatcher.leave("populator")
    walk.dispatcher.join("many", Pool.POPULATOR, port, batches={Kind.POPULATE: 4})
    queues = crowd(walk, 6)
    made: dict[str, list[str]] = {name: [] for name in queues}
    for number in range(12):
        for name, queue in queues.items():
            chunk = await asyncio.wait_for(queue.get(), 10)
            assert isinstance(chunk, Chunk), chunk
            made[name].append(chunk.latent_sha256)
            walk.dispatcher.played(name, number + 1)
    await walk.dispatcher.close()
    assert max(port.sizes) > 1, "nothing went together"
    calm = await reference(12)
    assert all(digests == calm for digests in made.values())


async def test_a_world_that_makes_a_shared_call_fail_ends_alone() -> None:
    """Its request is bad. The others of the call are asked again, one by one, and go on; the bad one's world ends."""
    culprit = "0" * 26

    class Strict:
        """A populator that refuses a world's third segment, and all of a call that has it."""

        def __init__(self) -> None:
            self.core, self.spoiled = TinyPopulator(), list[int]()

        async def populate(self, request: Any, timeout: float) -> Any:
            return (await self.populate_many([request], timeout))[0]

        async def populate_many(self, requests: Any, timeout: float) -> list[Any]:
            await asyncio.sleep(0.005)
            if any(r.context.world == culprit and r.context.segment == 2 for r in requests):
                self.spoiled.append(len(requests))
                raise InvalidInput("requests[0].clean", "is bad")
            return [self.core.populate(request) for request in requests]

    port, walk = Strict(), Walk()
    walk.dispatcher.leave("populator")
    walk.dispatcher.join("strict", Pool.POPULATOR, port, batches={Kind.POPULATE: 4})
    queues = crowd(walk, 6)
    for number in range(20):
        for name, queue in queues.items():
            event = await asyncio.wait_for(queue.get(), 10) if number < 9 or name != culprit else None
            if isinstance(event, Chunk):
                walk.dispatcher.played(name, number + 1)
            elif event is not None:
                assert name == culprit, "an innocent world ended"
                queue.put_nowait(event)
    await walk.dispatcher.close()
    assert any(size > 1 for size in port.spoiled), "it failed alone: nothing was shown"
    assert isinstance(queues[culprit].get_nowait(), InvalidInput)


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
