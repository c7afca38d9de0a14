"""Finding workers: who joins, who does not, and who comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest

from services.gateway.discovery import Sighting, StaticDiscovery
from services.gateway.fleets import Fleets
from services.gateway.roster import Roster
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server
from teleworld.runtime.aiokit import Bell
from teleworld.runtime.dispatcher import Dispatcher
from teleworld.runtime.journal import NoJournal
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.errors import InvalidInput, Unavailable
from tests.services.gateway.cores import TinyPlanner, TinyPopulator
from tests.services.gateway.mesh import WEIGHTS, start_worker

OTHERS = ModelDescription("nano", "digest-of-other-cores")


class Told(Dispatcher):
    """A dispatcher that notes who joins and leaves."""

    def __init__(self) -> None:
        super().__init__(NoJournal())
        self.log: list[str] = []
        self.batches: dict[Pool, Any] = {}
        self.changed = Bell()

    def join(self, worker: str, pool: Pool, port: Any, slots: int = 1, batches: Any = None) -> None:
        super().join(worker, pool, port, slots, batches)
        self.batches[pool] = batches
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
async def dispatchers() -> list[Told]:
    """Those of the first fleet and the second."""
    return [Told(), Told()]


@pytest.fixture
async def told(dispatchers: list[Told]) -> Told:
    return dispatchers[0]


@pytest.fixture
async def sightings() -> Sightings:
    return Sightings()


@pytest.fixture
async def roster(dispatchers: list[Told], told: Told, sightings: Sightings) -> AsyncIterator[Roster]:
    roster = Roster(iter(dispatchers).__next__, sightings)
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
    assert roster.fleets.joined(Pool.PLANNER) == 1
    await server.drain()
    await told.hears(f"-{server.address}")
    assert roster.fleets.joined(Pool.PLANNER) == 0


async def test_workers_of_other_weights_are_a_fleet_of_their_own(
    roster: Roster, dispatchers: list[Told], told: Told, sightings: Sightings
) -> None:
    first, other = await worker(), await worker(Pool.POPULATOR, OTHERS)
    sightings.queue.put_nowait(Sighting(Pool.PLANNER, first.address))
    await told.hears(f"+{first.address}")
    sightings.queue.put_nowait(Sighting(Pool.POPULATOR, other.address))
    await dispatchers[1].hears(f"+{other.address}")
    assert told.scheduler.workers(Pool.POPULATOR) == ()
    assert [fleet.model.weights_digest for fleet in roster.fleets] == [WEIGHTS.weights_digest, OTHERS.weights_digest]
    for server in (first, other):
        await server.drain()


def whole(fleets: Fleets, model: ModelDescription, pools: Iterable[Pool] = Pool) -> None:
    """A worker of each pool joins."""
    for pool in pools:
        fleets.join(f"{model.weights_digest}-{pool.value}:1", pool, object(), model, 1)


async def test_new_worlds_go_to_the_newest_whole_fleet_and_old_ones_keep_theirs() -> None:
    fleets = Fleets(Told)
    whole(fleets, WEIGHTS)
    planner, *others = Pool
    whole(fleets, OTHERS, [planner])
    newest = fleets.newest()
    assert newest is not None and newest.model is WEIGHTS, "the other one is not whole yet"
    whole(fleets, OTHERS, others)
    newest = fleets.newest()
    assert newest is not None and newest.model is OTHERS
    assert fleets.of(WEIGHTS.weights_digest) is not None
    for pool in Pool:
        fleets.leave(f"{WEIGHTS.weights_digest}-{pool.value}:1")
    assert fleets.of(WEIGHTS.weights_digest) is None and fleets.newest() is newest


async def test_a_worker_is_given_as_many_tasks_in_a_call_as_it_says_and_only_of_kinds_that_have_one() -> None:
    told, said = Told(), {"plan": 2, "populate": 4, "decode": 8}
    fleets = Fleets(lambda: told)
    whole(fleets, replace(WEIGHTS, batches=said))
    assert told.batches == {
        Pool.PLANNER: {Kind.PLAN: 2},
        Pool.POPULATOR: {Kind.POPULATE: 4},
        Pool.RECONSTRUCTOR: {},
        Pool.DECODER: {},
    }


async def test_weights_that_are_asked_for_are_the_ones_of_new_worlds() -> None:
    fleets = Fleets(Told, WEIGHTS.weights_digest)
    whole(fleets, OTHERS)
    assert fleets.newest() is None and fleets.missing() == list(Pool)
    whole(fleets, WEIGHTS)
    newest = fleets.newest()
    assert newest is not None and newest.model is WEIGHTS


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
        await roster.newest(0.05)
    await server.drain()


def test_an_address_without_a_port_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        StaticDiscovery({Pool.DECODER: ["decoder-1"]})
    assert caught.value.field == "decoder_addresses"
