"""Finding workers: who joins, who does not, and who comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.discovery import Sighting, StaticDiscovery
from services.gateway.roster import Roster
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server
from teleworld.runtime.aiokit import Bell
from teleworld.runtime.dispatcher import Dispatcher
from teleworld.runtime.journal import NoJournal
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput, Unavailable
from tests.services.gateway.cores import TinyPlanner, TinyPopulator
from tests.services.gateway.mesh import WEIGHTS, start_worker

OTHERS = ModelDescription("nano", "digest-of-other-cores")


class Told(Dispatcher):
    """A dispatcher that notes who joins and leaves."""

    def __init__(self) -> None:
        super().__init__(NoJournal())
        self.log: list[str] = []
        self.changed = Bell()

    def join(self, worker: str, pool: Pool, port: Any, slots: int = 1) -> None:
        super().join(worker, pool, port, slots)
        self._note(f"+{worker}")

    def leave(self, worker: str) -> None:
        super().leave(worker)
        self._note(f"-{worker}")

    def _note(self, what: str) -> None:
        self.log.append(what)
        self.changed.ring()

    async def hears(self, what: str) -> None:
        """Wait until `what` is noted."""
        async with asyncio.timeout(10):
            while what not in self.log:
                await self.changed.next.wait()


class Sightings:
    """A discovery that a test speaks through."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Sighting] = asyncio.Queue()

    async def sightings(self) -> AsyncIterator[Sighting]:
        while True:
            yield await self.queue.get()


@pytest.fixture
async def told() -> Told:
    return Told()


@pytest.fixture
async def sightings() -> Sightings:
    return Sightings()


@pytest.fixture
async def roster(told: Told, sightings: Sightings) -> AsyncIterator[Roster]:
    roster = Roster(told, sightings)
    roster.start()
    yield roster
    await roster.close()
    assert not any(told.scheduler.workers(pool) for pool in Pool)


async def worker(pool: Pool = Pool.PLANNER, description: ModelDescription = WEIGHTS) -> Server:
    return await start_worker(pool, TinyPlanner() if pool is Pool.PLANNER else TinyPopulator(), description)


async def test_a_worker_joins_while_it_serves(roster: Roster, told: Told, sightings: Sightings) -> None:
    server = await worker()
    sightings.queue.put_nowait(Sighting(Pool.PLANNER, server.address))
    await told.hears(f"+{server.address}")
    assert roster.joined(Pool.PLANNER) == 1
    await server.drain()
    await told.hears(f"-{server.address}")
    assert roster.joined(Pool.PLANNER) == 0


async def test_a_worker_of_other_weights_stays_outside(roster: Roster, told: Told, sightings: Sightings) -> None:
    first, other, second = await worker(), await worker(Pool.POPULATOR, OTHERS), await worker(Pool.POPULATOR)
    sightings.queue.put_nowait(Sighting(Pool.PLANNER, first.address))
    await told.hears(f"+{first.address}")
    sightings.queue.put_nowait(Sighting(Pool.POPULATOR, other.address))
    sightings.queue.put_nowait(Sighting(Pool.POPULATOR, second.address))
    await told.hears(f"+{second.address}")
    assert told.scheduler.workers(Pool.POPULATOR) == (second.address,)
    for server in (first, other, second):
        await server.drain()


async def test_an_address_that_is_gone_is_left(roster: Roster, told: Told, sightings: Sightings) -> None:
    server = await worker()
    sightings.queue.put_nowait(Sighting(Pool.PLANNER, server.address))
    await told.hears(f"+{server.address}")
    sightings.queue.put_nowait(Sighting(Pool.PLANNER, server.address, present=False))
    await told.hears(f"-{server.address}")
    await server.drain()


async def test_a_worker_that_is_said_to_be_lost_is_looked_at_again(
    roster: Roster, told: Told, sightings: Sightings
) -> None:
    server = await worker()
    sightings.queue.put_nowait(Sighting(Pool.PLANNER, server.address))
    await told.hears(f"+{server.address}")
    told.log.clear()
    roster.lost(server.address)
    await told.hears(f"+{server.address}")
    assert told.log == [f"-{server.address}", f"+{server.address}"]
    await server.drain()


async def test_a_mesh_without_a_pool_says_which(roster: Roster, told: Told, sightings: Sightings) -> None:
    server = await worker()
    sightings.queue.put_nowait(Sighting(Pool.PLANNER, server.address))
    await told.hears(f"+{server.address}")
    with pytest.raises(Unavailable, match="populators, reconstructors, decoders"):
        await roster.model(0.05)
    await server.drain()


def test_an_address_without_a_port_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        StaticDiscovery({Pool.DECODER: ["decoder-1"]})
    assert caught.value.field == "decoder_addresses"
