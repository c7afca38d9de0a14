"""A rolling upgrade of the weights: what runs goes on unchanged, what is new goes to the new ones, and what is left is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from services.gateway.assembly import assemble
from services.gateway.discovery import Sighting
from services.gateway.settings import GatewaySettings
from teleworld.rpc.convert.common import ModelDescription
from tests.services.gateway.mesh import WEIGHTS, Gateway, Mesh, attached, essence

NEW = ModelDescription("nano", "digest-of-new-cores")
LAST = 18


class Cluster:
    """A discovery that tells of workers as they come."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Sighting] = asyncio.Queue()

    async def sightings(self) -> AsyncIterator[Sighting]:
        while True:
            yield await self._queue.get()

    def add(self, mesh: Mesh) -> None:
        for pool, servers in mesh.workers.items():
            for server in servers:
                self._queue.put_nowait(Sighting(pool, server.address))


@pytest.fixture
async def new(redis_url: str) -> AsyncIterator[Mesh]:
    """Workers with new weights; they serve no world before the cluster tells of them."""
    mesh = Mesh(redis_url, weights=NEW)
    await mesh.start_workers()
    yield mesh
    await mesh.close()


async def test_a_running_world_keeps_its_weights_while_new_ones_are_born_with_the_new(mesh: Mesh, new: Mesh) -> None:
    cluster = Cluster()
    cluster.add(mesh)
    settings = GatewaySettings(redis_url=mesh.redis_url, lease_seconds=2.0, worker_patience_seconds=0.3)
    server, worlds = assemble(settings, cluster)
    await server.start()
    await worlds.start()
    server.ready()
    gateway = Gateway(server, worlds)
    try:
        calm = await gateway.create()
        async with attached(gateway, calm.name, until_chunk=LAST) as stream:
            expected = essence(await stream.finish())
        old = await gateway.create()
        async with attached(gateway, old.name, until_chunk=LAST) as stream:
            await stream.read_until(lambda s: len(s.chunks) == 6)
            cluster.add(new)
            await worlds.roster.fleet(NEW.weights_digest, 10)
            born = await gateway.create()
            assert born.weights_digest == NEW.weights_digest
            async with attached(gateway, born.name, until_chunk=LAST) as other:
                assert len(await other.finish()) == LAST + 1
            assert essence(await stream.finish()) == expected
        assert (await gateway.get(old.name)).weights_digest == WEIGHTS.weights_digest
        await asyncio.gather(*(worker.drain() for servers in mesh.workers.values() for worker in servers))
        async with asyncio.timeout(10):
            while worlds.roster.fleets.of(WEIGHTS.weights_digest) is not None:
                await worlds.roster._changed.next.wait()
        await _refused(gateway, old.name)
        async with attached(gateway, born.name, until_chunk=LAST + 6) as stream:
            assert len(await stream.finish()) == 6
    finally:
        await gateway.close()


async def _refused(gateway: Gateway, name: str) -> None:
    """A stream of a world whose weights nobody has any more."""
    async with attached(gateway, name) as stream:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.finish()
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "weights" in (caught.value.details() or "")
