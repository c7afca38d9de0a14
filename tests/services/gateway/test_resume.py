"""Going on: resume, takeover, restarts, drain. A walk that was interrupted is the walk that was not."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import grpc
import pytest

from services.gateway.scripts import PREFIX
from teleworld._proto.gateway.v1 import stream_pb2, world_pb2, world_service_pb2
from teleworld._proto.types.v1 import task_pb2
from teleworld.rpc.status import from_rpc_error
from teleworld.scheduling.tasks import Pool
from teleworld.world.controls import Keys
from teleworld.world.errors import PreconditionFailed, StaleEpoch, Unavailable
from tests.services.gateway.mesh import Gateway, Mesh, Stream, attached, essence

LAST = 24


async def schedule(stream: Stream) -> None:
    """Some keys, long before they are due."""
    await stream.control(Keys.W, chunk=8)
    await stream.control(Keys.W | Keys.LEFT, chunk=13)
    await stream.control(Keys.D, chunk=19)


async def whole_walk(gateway: Gateway, chain: int) -> list[stream_pb2.Chunk]:
    """The walk without interruption."""
    world = await gateway.create(chain_mode=chain)
    async with attached(gateway, world.name, until_chunk=LAST) as stream:
        await schedule(stream)
        return await stream.finish()


async def test_resume_sends_exactly_the_missing_chunks(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name, until_chunk=15) as stream:
        first = await stream.finish()
    async with attached(gateway, world.name, resume_after_chunk=6, until_chunk=20) as stream:
        hello = await stream.read()
        again = await stream.finish()
    assert (hello.epoch, hello.next_chunk) == (2, 7)
    assert [chunk.index for chunk in again] == list(range(7, 21))
    assert essence(again[:9]) == essence(first[7:])


async def test_without_a_word_a_stream_goes_on_after_the_last_acknowledged_chunk(mesh: Mesh, gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name, acks=False) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 5)
        await stream.send(ack=stream_pb2.Ack(chunk=2))
        await stream.read_until(lambda s: len(s.chunks) == 8)
    await mesh.all_let_go()
    async with attached(gateway, world.name) as stream:
        assert (await stream.read()).next_chunk == 3


async def test_chunks_beyond_the_retention_are_not_resumed(mesh: Mesh) -> None:
    gateway = await mesh.gateway(chunk_retention=64)
    world = await gateway.create()
    async with attached(gateway, world.name, until_chunk=80) as stream:
        await stream.finish()
    async with attached(gateway, world.name, resume_after_chunk=3) as stream:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.finish()
    assert isinstance(from_rpc_error(caught.value), PreconditionFailed)
    async with attached(gateway, world.name, resume_after_chunk=20, until_chunk=81) as stream:
        assert [chunk.index for chunk in await stream.finish()] == list(range(21, 82))


async def test_a_client_that_knows_more_than_the_store_is_rewound(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name, until_chunk=5) as stream:
        await stream.finish()
    async with attached(gateway, world.name, resume_after_chunk=50, until_chunk=60) as stream:
        hello, rewound = await stream.read(), await stream.read()
        chunks = await stream.finish()
    assert hello.next_chunk == 6
    assert rewound == stream_pb2.Rewound(to_chunk=5)
    assert [chunk.index for chunk in chunks] == list(range(6, 61))


async def test_where_no_chunk_is_left_the_start_picture_still_stands(gateway: Gateway) -> None:
    world = await gateway.create()
    async with attached(gateway, world.name, resume_after_chunk=3, until_chunk=9) as stream:
        hello, rewound = await stream.read(), await stream.read()
        chunks = await stream.finish()
    assert hello.next_chunk == 1
    assert rewound == stream_pb2.Rewound(to_chunk=0)
    assert [chunk.index for chunk in chunks] == list(range(1, 10))


@pytest.mark.parametrize("chain", [task_pb2.CHAIN_MODE_T_B, task_pb2.CHAIN_MODE_T_C])
async def test_a_walk_goes_on_bit_by_bit_from_any_chunk_at_another_gateway(mesh: Mesh, chain: int) -> None:
    gateways = [await mesh.gateway(), await mesh.gateway()]
    expected = essence(await whole_walk(gateways[0], chain))
    world = await gateways[0].create(chain_mode=chain)
    seen: list[stream_pb2.Chunk] = []
    for number, stop in enumerate((0, 1, 2, 3, 4, 6, 9, 10, 13, 14, 19, LAST)):
        after: dict[str, Any] = {"resume_after_chunk": seen[-1].index} if seen else {}
        async with attached(gateways[number % 2], world.name, **after) as stream:
            if not seen:
                await schedule(stream)
                await stream.read_until(lambda s: len(s.receipts) >= 3)
            await stream.read_until(lambda s, stop=stop: bool(s.chunks) and s.chunks[-1].index >= stop)  # type: ignore[misc]
            seen += stream.chunks
    assert essence(seen)[: LAST + 1] == expected


@pytest.mark.parametrize("chain, stop", [(task_pb2.CHAIN_MODE_T_B, 4), (task_pb2.CHAIN_MODE_T_C, 12)])
async def test_a_gateway_that_is_killed_is_continued_bit_by_bit(mesh: Mesh, stop: int, chain: int) -> None:
    second = await mesh.gateway()
    expected = essence(await whole_walk(second, chain))
    first = await mesh.process()
    world = await first.create(chain_mode=chain)
    async with attached(first, world.name) as stream:
        await schedule(stream)
        await stream.read_until(lambda s: len(s.chunks) > stop and len(s.receipts) >= 3)
        await first.kill()
    seen = stream.chunks[: stop + 1]
    async with attached(second, world.name, resume_after_chunk=stop, until_chunk=LAST) as stream:
        seen += await stream.finish()
    assert essence(seen) == expected


async def test_a_process_that_is_told_to_stop_ends_its_streams_and_exits_well(mesh: Mesh) -> None:
    gateway = await mesh.process()
    world = await gateway.create()
    async with attached(gateway, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 3)
        stopping = asyncio.create_task(gateway.kill(signal.SIGTERM))
        await stream.finish()
        assert stream.end is not None
        assert stream.end.reason == stream_pb2.END_REASON_DRAINING
        assert await stopping == 0


async def test_a_second_stream_supersedes_the_first(mesh: Mesh) -> None:
    one, two = await mesh.gateway(), await mesh.gateway()
    expected = essence(await whole_walk(one, task_pb2.CHAIN_MODE_T_B))
    world = await one.create()
    async with attached(one, world.name) as first:
        await schedule(first)
        await first.read_until(lambda s: len(s.chunks) == 7)
        for number, gateway in enumerate((two, one, one)):
            async with attached(gateway, world.name, resume_after_chunk=6, until_chunk=LAST) as stream:
                assert (await stream.read()).epoch == 2 + number
                await first.finish()
                assert first.end is not None
                assert first.end.reason == stream_pb2.END_REASON_SUPERSEDED
                if number == 2:
                    chunks = first.chunks[:7] + await stream.finish()
                    assert essence(chunks) == expected


async def test_a_control_to_a_gateway_that_lost_the_lease_unheard_is_answered_with_the_reason(mesh: Mesh) -> None:
    """The event of the takeover may be lost; the store's fence is what counts."""
    gateway = await mesh.gateway(lease_seconds=60)
    world = await gateway.create()
    async with attached(gateway, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 3)
        await stream.send(pause=stream_pb2.Pause())
        lease = f"{PREFIX}:{{{world.name.removeprefix('worlds/')}}}:lease"
        await gateway.worlds.store.redis.hincrby(lease, "epoch", 1)
        await stream.control(Keys.W)
        await stream.finish()
    assert stream.end is not None
    assert stream.end.reason == stream_pb2.END_REASON_SUPERSEDED


async def test_a_stale_epoch_writes_nothing(gateway: Gateway) -> None:
    world = (await gateway.create()).name.removeprefix("worlds/")
    store = gateway.worlds.store
    old = await store.acquire(world, 10)
    new = await store.acquire(world, 10)
    with pytest.raises(StaleEpoch) as caught:
        await store.ack(world, old, 5)
    assert (caught.value.epoch, caught.value.current) == (old, new)
    assert (await store.state(world)).acked == 0
    with pytest.raises(StaleEpoch):
        await store.renew(world, old, 10)
    await store.renew(world, new, 10)


async def test_deleting_ends_the_stream_wherever_it_is(mesh: Mesh) -> None:
    one, two = await mesh.gateway(), await mesh.gateway()
    for other in (one, two):
        world = await one.create()
        async with attached(one, world.name) as stream:
            await stream.read_until(lambda s: len(s.chunks) == 3)
            assert (await two.get(world.name)).state == world_pb2.WORLD_STATE_STREAMING
            await other.stub.DeleteWorld(world_service_pb2.DeleteWorldRequest(name=world.name), timeout=20)
            await stream.finish()
        assert stream.end is not None
        assert stream.end.reason == stream_pb2.END_REASON_DELETED


async def test_a_draining_gateway_ends_its_streams_and_another_goes_on(mesh: Mesh) -> None:
    one, two = await mesh.gateway(), await mesh.gateway()
    world = await one.create()
    async with attached(one, world.name) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 6)
        draining = asyncio.create_task(one.server.drain())
        chunks = await stream.finish()
        await draining
    assert stream.end is not None
    assert stream.end.reason == stream_pb2.END_REASON_DRAINING
    assert not one.worlds.drives
    after = stream.end.last_chunk
    async with attached(two, world.name, resume_after_chunk=after, until_chunk=after + 4) as stream:
        chunks = chunks + await stream.finish()
    assert [chunk.index for chunk in chunks] == list(range(after + 5))


async def test_a_lost_worker_is_replaced_and_nothing_is_missing(mesh: Mesh) -> None:
    await mesh.start_workers(populator=2, planner=2)
    gateway = await mesh.gateway()
    expected = essence(await whole_walk(gateway, task_pb2.CHAIN_MODE_T_B))
    world = await gateway.create()
    async with attached(gateway, world.name, until_chunk=LAST) as stream:
        await schedule(stream)
        await stream.read_until(lambda s: len(s.chunks) == 5)
        for pool in (Pool.POPULATOR, Pool.PLANNER):
            await mesh.workers[pool][0]._server.stop(None)
        assert essence(await stream.finish()) == expected
    assert gateway.worlds.roster.fleets.joined(Pool.POPULATOR) == 1


async def test_without_workers_a_call_is_answered_unavailable(mesh: Mesh) -> None:
    gateway = await mesh.gateway(worker_patience_seconds=0.2)
    for server in mesh.workers[Pool.PLANNER]:
        await server.drain()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.create()
    error = from_rpc_error(caught.value)
    assert isinstance(error, Unavailable)
    assert "planner" in error.message
