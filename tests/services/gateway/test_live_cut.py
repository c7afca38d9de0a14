"""Live keys that cut a segment, through a gateway: what the stream says of it, and that the log alone gives the same chunks."""

from __future__ import annotations

import pytest

from services.gateway.scripts import PREFIX
from teleworld._proto.gateway.v1 import stream_pb2, world_service_pb2
from teleworld.world.controls import Keys
from teleworld.world.spec import NANO
from teleworld.world.timeline import ChainMode
from tests.services.gateway.mesh import Gateway, Mesh, Stream, attached, essence

FULL = NANO.timeline(ChainMode.T_B).last_shown
HELD = (Keys.W, Keys.RIGHT, Keys.W | Keys.LEFT, Keys.NONE, Keys.S, Keys.D)


def cuts(chunks: list[stream_pb2.Chunk]) -> dict[int, int]:
    """The last latents of the segments that ended early, but for the one that is still shown."""
    ends = {chunk.segment: chunk.latent for chunk in chunks}
    return {segment: last for segment, last in ends.items() if last < FULL and segment < chunks[-1].segment}


async def walk_until_cut(stream: Stream, more: int = 0) -> None:
    """Press a key with every other chunk until a segment was cut, and read a few more chunks."""
    while not cuts(stream.chunks):
        assert len(stream.chunks) < 60, "no key cuts a segment"
        seen = len(stream.chunks)
        await stream.read_until(lambda s, seen=seen: len(s.chunks) >= seen + 2)  # type: ignore[misc]
        await stream.control(HELD[seen // 2 % len(HELD)])
    seen = len(stream.chunks)
    await stream.read_until(lambda s: len(s.chunks) >= seen + more)


def check_receipts(stream: Stream) -> None:
    """What was told to apply at a chunk does, and at no earlier one."""
    applied = [receipt for receipt in stream.receipts if receipt.HasField("chunk")]
    assert applied
    for receipt in applied:
        before = [chunk for chunk in stream.chunks if chunk.index < receipt.chunk]
        after = [chunk for chunk in stream.chunks if chunk.index >= receipt.chunk]
        assert all(chunk.control_sequence < receipt.sequence for chunk in before)
        assert all(chunk.control_sequence >= receipt.sequence for chunk in after)


async def forget_chunks(gateway: Gateway, world: str, first: int) -> None:
    """Let the store lose the chunks from `first` on, as if they had never been written; the log stays."""
    redis = gateway.worlds.store.redis
    key = f"{PREFIX}:{{{world.removeprefix('worlds/')}}}"
    numbers = [int(number) for number in await redis.hkeys(f"{key}:chunks")]
    await redis.hdel(f"{key}:chunks", *[str(number) for number in numbers if number >= first])
    await redis.hset(f"{key}:state", mapping={"head": first, "acked": first})


async def test_a_gateway_that_dies_after_a_cut_is_continued_and_the_log_alone_makes_the_same_chunks(mesh: Mesh) -> None:
    second = await mesh.gateway()
    first = await mesh.process()
    world = await first.create()
    async with attached(first, world.name, pace=stream_pb2.PACE_REALTIME) as stream:
        await walk_until_cut(stream, more=2)
        check_receipts(stream)
        await first.kill()
    seen = stream.chunks
    last = seen[-1].index
    assert [chunk.index for chunk in seen] == list(range(last + 1))
    async with attached(second, world.name, resume_after_chunk=last, until_chunk=last + 8) as stream:
        seen = seen + await stream.finish()
    assert [chunk.index for chunk in seen] == list(range(last + 9))

    segment, ended = next(iter(cuts(seen).items()))
    at = next(chunk.index for chunk in seen if (chunk.segment, chunk.latent) == (segment, ended))
    for again in (at, at + 1):
        await forget_chunks(second, world.name, again)
        async with attached(second, world.name, resume_after_chunk=again - 1, until_chunk=last + 8) as stream:
            assert essence(await stream.finish()) == essence(seen[again:])


async def test_a_fork_behind_a_cut_begins_where_the_chunk_ended(mesh: Mesh) -> None:
    gateway = await mesh.gateway()
    world = await gateway.create()
    async with attached(gateway, world.name, pace=stream_pb2.PACE_REALTIME) as stream:
        await walk_until_cut(stream, more=1)
    source = stream.chunks[-1]
    request = world_service_pb2.ForkWorldRequest(name=world.name, chunk=source.index)
    fork = (await gateway.stub.ForkWorld(request, timeout=20)).world
    assert fork.reanchor
    async with attached(gateway, fork.name, resume_after_chunk=source.index, until_chunk=source.index + 5) as stream:
        chunks = await stream.finish()
    assert [chunk.index for chunk in chunks] == [source.index + number for number in range(1, 6)]
    binding = await gateway.worlds.store.binding(world.name.removeprefix("worlds/"), source.segment)
    begins = await gateway.worlds.store.record(fork.name.removeprefix("worlds/"))
    assert binding is not None
    assert begins.start == binding.walkers[NANO.timeline(ChainMode.T_B).frames_of(source.latent)[-1]]


async def test_keys_that_are_scheduled_give_the_same_chunks_whether_segments_may_be_cut_or_not(mesh: Mesh) -> None:
    """What is made ahead for cuts, and made late because of them, leaves no trace."""
    gateway = await mesh.gateway()
    walks = []
    for pace in (stream_pb2.PACE_REALTIME, stream_pb2.PACE_MAX):
        world = await gateway.create()
        async with attached(gateway, world.name, pace=pace, until_chunk=10) as stream:
            for number, keys in enumerate(HELD[:3]):
                await stream.control(keys, 1 + 3 * number)
            walks.append(essence(await stream.finish()))
    assert walks[0] == walks[1]


@pytest.mark.parametrize("fields", [{"reanchor": False}, {}])
async def test_no_segment_is_cut_where_that_is_off_or_nobody_watches_in_real_time(
    mesh: Mesh, fields: dict[str, bool]
) -> None:
    gateway = await mesh.gateway()
    world = await gateway.create(**fields)
    assert world.reanchor == fields.get("reanchor", True)
    pace = stream_pb2.PACE_REALTIME if fields else stream_pb2.PACE_MAX
    async with attached(gateway, world.name, pace=pace, until_chunk=12) as stream:
        for number in range(4):
            await stream.read_until(lambda s, number=number: len(s.chunks) > 2 * number)  # type: ignore[misc]
            await stream.control(HELD[number])
        await stream.finish()
    assert not cuts(stream.chunks)
    timeline = NANO.timeline(ChainMode.T_B)
    assert [(chunk.segment, chunk.latent) for chunk in stream.chunks] == [timeline.locate(n) for n in range(13)]
