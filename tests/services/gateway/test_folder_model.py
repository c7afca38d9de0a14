"""Worlds of a model that only its folder and its workers know: a gateway that has seen no worker yet can read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest

from services.gateway import codec
from services.gateway.assembly import assemble
from services.gateway.settings import GatewaySettings
from teleworld._proto.gateway.v1 import world_service_pb2
from teleworld.rpc.convert.common import ModelDescription
from teleworld.world.errors import Internal, InvalidInput
from teleworld.world.spec import NANO, SPECS, spec_of
from tests.services.gateway.mesh import Gateway, Mesh, attached, essence
from tests.services.gateway.test_store import record, same
from tests.services.gateway.test_upgrade import Cluster

HOUSE = replace(NANO, name="my-house", fps=12.5, gait=replace(NANO.gait, step=0.05))
LAST = 12


@pytest.fixture
async def house(redis_url: str) -> AsyncIterator[Mesh]:
    """A mesh that serves HOUSE, with one gateway."""
    mesh = Mesh(redis_url, weights=ModelDescription(HOUSE.name, "digest-of-my-house", spec=HOUSE))
    await mesh.start_workers()
    await mesh.gateway()
    yield mesh
    await mesh.close()
    SPECS.pop(HOUSE.name, None)


async def test_a_new_gateway_knows_worlds_before_any_worker_joins(house: Mesh) -> None:
    first = house.gateways[0]
    calm, world = await first.create(), await first.create()
    async with attached(first, calm.name, until_chunk=LAST) as stream:
        expected = essence(await stream.finish())
    async with attached(first, world.name, until_chunk=LAST // 2) as stream:
        shown = await stream.finish()
    await house.all_let_go()
    del SPECS[HOUSE.name]  # as a process that starts
    with pytest.raises(InvalidInput):
        spec_of(HOUSE.name)
    cluster = Cluster()
    server, worlds = assemble(GatewaySettings(redis_url=house.redis_url, worker_patience_seconds=0.3), cluster)
    await server.start()
    waiting = asyncio.create_task(worlds.start())
    gateway = Gateway(server, worlds)
    try:
        found = await gateway.get(world.name)
        assert (found.fps, found.model, found.chunks) == (HOUSE.fps, HOUSE.name, LAST // 2 + 1)
        listed = await gateway.stub.ListWorlds(world_service_pb2.ListWorldsRequest(page_size=100), timeout=20)
        assert world.name in {each.name for each in listed.worlds}
        async with attached(gateway, world.name) as stream:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.finish()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, "no worker yet, which passes"
        cluster.add(house)
        await waiting
        async with attached(gateway, world.name, until_chunk=LAST, resume_after_chunk=shown[-1].index) as stream:
            assert essence([*shown, *await stream.finish()]) == expected
    finally:
        waiting.cancel()
        await gateway.close()


def test_the_spec_is_kept_in_the_record_and_checked_when_it_is_read() -> None:
    born = record(model=HOUSE.name, told=HOUSE)
    data = codec.write_record(born)
    read = codec.read_record(data)
    assert same(read, born) and read.spec == HOUSE
    assert codec.read_record(codec.write_record(record())).told is None
    with pytest.raises(Internal):
        codec.read_record(codec.write_record(replace(born, told=replace(HOUSE, fps=float("inf")))))
