"""Forks: a shared past, a life of its own, and no need of the world it left."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest

from teleworld._proto.gateway.v1 import stream_pb2, world_pb2, world_service_pb2
from teleworld._proto.types.v1 import task_pb2
from teleworld.rpc.status import from_rpc_error
from teleworld.world.controls import Keys
from teleworld.world.errors import InvalidInput, PreconditionFailed
from tests.services.gateway.mesh import Gateway, Mesh, attached, essence


async def walk(
    gateway: Gateway, name: str, last: int, *, turn: int | None = None, **attach: Any
) -> list[stream_pb2.Chunk]:
    """The chunks up to `last`; W and RIGHT are held from chunk `turn` on."""
    async with attached(gateway, name, until_chunk=last, **attach) as stream:
        if turn is not None:
            await stream.control(Keys.W | Keys.RIGHT, chunk=turn)
        return await stream.finish()


async def fork(gateway: Gateway, name: str, chunk: int, request_id: str = "") -> world_pb2.World:
    request = world_service_pb2.ForkWorldRequest(name=name, chunk=chunk, request_id=request_id)
    return (await gateway.stub.ForkWorld(request, timeout=20)).world


@pytest.mark.parametrize("chain", [task_pb2.CHAIN_MODE_T_B, task_pb2.CHAIN_MODE_T_C])
@pytest.mark.parametrize("chunk", [0, 7, 8])
async def test_a_fork_shares_the_past_and_goes_on_without_its_source(gateway: Gateway, chunk: int, chain: int) -> None:
    source = await gateway.create(chain_mode=chain)
    past = await walk(gateway, source.name, 14, turn=5)
    child = await fork(gateway, source.name, chunk)
    assert (child.forked_from, child.forked_at_chunk, child.chunks) == (source.name, chunk, chunk + 1)
    assert child.static_points == 100 * (child.memory_revision + 1)
    await gateway.stub.DeleteWorld(world_service_pb2.DeleteWorldRequest(name=source.name), timeout=20)
    own = await walk(gateway, child.name, chunk + 12)
    assert [c.index for c in own] == list(range(chunk + 1, chunk + 13))
    assert [c.first_frame for c in own] == [1 + 4 * (c.index - 1) for c in own]
    if chunk:
        again = await walk(gateway, child.name, chunk + 12, resume_after_chunk=0)
        assert essence(again) == essence(past[1 : chunk + 1] + own)
        assert essence(own[:3]) != essence(past[chunk + 1 : chunk + 4])


async def test_the_camera_goes_on_where_the_shared_chunk_left_it(gateway: Gateway) -> None:
    source = await gateway.create()
    past = await walk(gateway, source.name, 12, turn=2)
    child = await fork(gateway, source.name, 8)
    (own,) = await walk(gateway, child.name, 9, turn=9)
    before = np.reshape(past[8].path.camera_to_world_opencv_metres, (4, 4, 4))[-1, :3, 3]
    after = np.reshape(own.path.camera_to_world_opencv_metres, (4, 4, 4))[0, :3, 3]
    assert np.linalg.norm(before) > 1.0
    assert np.linalg.norm(after - before) < 0.31
    assert own.control_sequence == 1


async def test_equal_forks_live_equal_lives_and_a_fork_survives_a_gateway(mesh: Mesh, gateway: Gateway) -> None:
    source = await gateway.create()
    await walk(gateway, source.name, 10, turn=3)
    one, two = await fork(gateway, source.name, 5), await fork(gateway, source.name, 5)
    expected = await walk(gateway, one.name, 20, turn=9)
    other = await mesh.gateway()
    seen = await walk(gateway, two.name, 11, turn=9)
    seen += await walk(other, two.name, 20, resume_after_chunk=11)
    assert essence(seen) == essence(expected)


async def test_a_fork_can_be_forked_but_not_before_its_own_life(gateway: Gateway) -> None:
    source = await gateway.create()
    await walk(gateway, source.name, 10, turn=3)
    child = await fork(gateway, source.name, 5)
    await walk(gateway, child.name, 12)
    grandchild = await fork(gateway, child.name, 9)
    own = await walk(gateway, grandchild.name, 15)
    assert [c.index for c in own] == list(range(10, 16))
    twin = await fork(gateway, child.name, 5)
    assert [c.index for c in await walk(gateway, twin.name, 9)] == [6, 7, 8, 9]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fork(gateway, child.name, 3)
    error = from_rpc_error(caught.value)
    assert isinstance(error, PreconditionFailed)
    assert source.name in error.message


async def test_a_fork_of_a_chunk_that_is_not_made_is_refused_and_requests_are_idempotent(gateway: Gateway) -> None:
    source = await gateway.create()
    await walk(gateway, source.name, 6)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fork(gateway, source.name, 7)
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidInput)
    assert error.field == "chunk"
    assert await fork(gateway, source.name, 6, "fork-once") == await fork(gateway, source.name, 6, "fork-once")
