"""A spot node is taken away after a short notice: whatever clients and workers do, the processes end within their drain."""

from __future__ import annotations

import asyncio
import signal
import time

import grpc
import pytest

from teleworld.scheduling.tasks import Pool
from tests.services.gateway.mesh import Mesh, attached, essence

DRAIN_SECONDS = 1.0
END_SECONDS = 20.0
"""What a process takes to end beside its drain, on a machine that is busy: telemetry is flushed, memory is given back."""
LAST = 24


async def test_a_node_that_is_preempted_takes_no_chunk_with_it(mesh: Mesh) -> None:
    """The node carries one of two populators and a gateway whose client neither reads nor closes; one that does is told of the
    end, as other tests show."""
    mesh.workers[Pool.POPULATOR].append(await mesh.worker(Pool.POPULATOR))
    stays = await mesh.gateway()
    calm = await stays.create()
    async with attached(stays, calm.name, until_chunk=LAST) as stream:
        expected = essence(await stream.finish())
    leaves = await mesh.process(drain_seconds=DRAIN_SECONDS)
    world = await leaves.create()
    async with attached(leaves, world.name, until_chunk=LAST) as stream:
        await stream.read_until(lambda s: len(s.chunks) == 6)
        noticed = time.monotonic()
        ended, _ = await asyncio.gather(leaves.kill(signal.SIGTERM), mesh.workers[Pool.POPULATOR].pop(0).drain())
        assert ended == 0
        assert time.monotonic() - noticed < DRAIN_SECONDS + END_SECONDS
        stream.acks = False  # grpc.aio has a code of its own for who writes just then
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # it was cut off, by which a client comes again
            await stream.finish()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        shown = stream.chunks
    async with attached(stays, world.name, until_chunk=LAST, resume_after_chunk=shown[-1].index) as stream:
        assert essence([*shown, *await stream.finish()]) == expected
