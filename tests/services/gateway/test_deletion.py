"""A world that is deleted, or that expires, leaves no key behind: in the gateways' store, nor in that of the memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import redis.asyncio as aioredis

from services.gateway.scripts import PREFIX
from services.gateway.settings import GatewaySettings
from services.gateway.states import Retention
from services.gateway.store import Store
from services.reconstructor.settings import ReconstructorSettings
from teleworld._proto.gateway.v1 import world_service_pb2
from teleworld.memory.redis_store import RedisMemoryStore
from teleworld.rpc.convert.common import ModelDescription
from teleworld.world.controls import Control, Keys
from tests.emulation.conftest import quick_model
from tests.emulation.test_mesh import MODEL, EmulatedMesh
from tests.services.gateway.mesh import attached
from tests.services.gateway.test_store import binding, chunk, memory, record

LAST = 12


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    client = aioredis.Redis.from_url(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def walked(redis_url: str) -> AsyncIterator[EmulatedMesh]:
    """A mesh with the memory's real store. Its gateway is `gateways[0]`."""
    mesh = EmulatedMesh(redis_url, weights=ModelDescription(MODEL, quick_model(MODEL).digest))
    await mesh.start_workers()
    await mesh.gateway()
    yield mesh
    await mesh.close()


async def keys_of(client: aioredis.Redis, *texts: str) -> list[str]:
    """All keys whose name contains one of the texts, and what the index of worlds has of them."""
    names = [key.decode() async for key in client.scan_iter("*", count=1000)]
    listed = [f"index {name.decode()}" for name in await client.zrange(f"{PREFIX}:worlds", 0, -1)]
    return [name for name in (*names, *listed) if any(text in name for text in texts)]


async def test_nothing_is_left_of_a_deleted_world(walked: EmulatedMesh, client: aioredis.Redis) -> None:
    gateway = walked.gateways[0]
    world = await gateway.create(request_id="a-walk-to-be-forgotten")
    own = world.name.removeprefix("worlds/")
    async with attached(gateway, world.name, until_chunk=LAST) as stream:
        await stream.control(Keys.W)
        await stream.prompt("a cellar")
        await stream.finish()
    kept = await keys_of(client, own, "a-walk-to-be-forgotten")
    assert {f"tw:{{{own}}}:memory:head", f"{PREFIX}:{{{own}}}:chunks", f"index {own}"} <= set(kept)
    assert f"{PREFIX}:request::a-walk-to-be-forgotten" in kept
    await gateway.stub.DeleteWorld(world_service_pb2.DeleteWorldRequest(name=world.name), timeout=20)
    assert await keys_of(client, own, "a-walk-to-be-forgotten") == []


async def test_deleting_under_a_walk_leaves_nothing_either(walked: EmulatedMesh, client: aioredis.Redis) -> None:
    gateway = walked.gateways[0]
    world = await gateway.create()
    own = world.name.removeprefix("worlds/")
    async with attached(gateway, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 5)
        await gateway.stub.DeleteWorld(world_service_pb2.DeleteWorldRequest(name=world.name), timeout=20)
        await stream.finish()
    await walked.all_let_go()
    for servers in walked.workers.values():
        for server in servers:
            await server.drain()  # what they were at is over
    left = await keys_of(client, own)
    assert [name for name in left if not name.startswith("tw:")] == []
    for name in left:  # a task that had begun may have written its revision after the end
        assert await client.pttl(name) > 0


async def test_whatever_a_gateway_wrote_before_it_died_expires_with_the_world(redis_url: str) -> None:
    """Nobody renews the lease here: each write by itself must leave nothing that lasts."""
    store = Store(redis_url, Retention(world_seconds=60))
    try:
        await store.create(born := record())
        epoch = await store.acquire(born.world, 5)
        await store.memory(born.world, epoch, memory(0))
        await store.bind(born.world, epoch, binding(0), ())
        await store.control(born.world, epoch, Control(1, Keys.W))
        await store.prompt(born.world, epoch, born.prompt)
        await store.put_chunk(born.world, epoch, chunk(0))
        await store.ack(born.world, epoch, 1)
        kept = [name for name in await keys_of(store.redis, born.world) if not name.startswith("index")]
        assert len(kept) >= 7
        assert all([0 < await store.redis.pttl(name) <= 60_000 for name in kept])
        await store.delete(born)
    finally:
        await store.close()


async def test_the_memory_of_a_world_expires(redis_url: str, walked: EmulatedMesh, client: aioredis.Redis) -> None:
    gateway = walked.gateways[0]
    world = await gateway.create()
    own = world.name.removeprefix("worlds/")
    async with attached(gateway, world.name, until_chunk=LAST) as stream:
        await stream.finish()
    assert ReconstructorSettings().memory_ttl_seconds > GatewaySettings().world_ttl_seconds
    kept = RedisMemoryStore.from_url(redis_url, ttl_s=60)
    newest = kept.revisions(own)[-1]
    kept.fork(own, newest, f"{own}-fork")
    for name in await keys_of(client, f"{own}-fork"):
        assert 0 < await client.pttl(name) <= 60_000
    kept.drop(f"{own}-fork")
