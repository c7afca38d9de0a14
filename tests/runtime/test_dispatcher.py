"""The dispatcher with workers that a test holds in its hand: what is under way when a worker, a world or the journal goes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from teleworld.runtime.dispatcher import Dispatcher, Listener
from teleworld.runtime.journal import NoJournal
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.policy import Limits
from teleworld.scheduling.tasks import Pool
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

    def __init__(self, journal: Any = None) -> None:
        self.lost: list[str] = []
        self.dispatcher = Dispatcher(journal or NoJournal(), worker_lost=self.lost.append)
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
    assert not set(port.calls) - {"first_half-0"}
    assert other.calls["first_half-0"] == 1


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
