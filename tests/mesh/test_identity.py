"""The same world, bit for bit, whoever computes it: one process or seven, undisturbed or with workers dying under it."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from teleworld.client import Chunk, Pace, Walk, WorldClient
from teleworld.runtime.dispatcher import TIMEOUT_S
from teleworld.world.timeline import ChainMode
from tests.mesh.conftest import KEYS, PROMPT, SEED, identity, walk_in_process, walk_mesh


class Collector:
    """Reads a walk in the background; a test waits for it to get on, or to stand still."""

    def __init__(self, walk: Walk) -> None:
        self.chunks: list[Chunk] = []
        self._more = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(walk))

    async def _read(self, walk: Walk) -> None:
        async for event in walk:
            if isinstance(event, Chunk):
                async with self._more:
                    self.chunks.append(event)
                    self._more.notify_all()

    async def reach(self, count: int) -> None:
        """Return when `count` chunks are there."""
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: len(self.chunks) >= count)

    async def stall(self, seconds: float = 1.5) -> None:
        """Return when no chunk has come for a while."""
        while True:
            count = len(self.chunks)
            try:
                async with asyncio.timeout(seconds), self._more:
                    await self._more.wait_for(lambda: len(self.chunks) > count)  # noqa: B023
            except TimeoutError:
                return

    async def finish(self) -> list[Chunk]:
        """All chunks, when the walk has ended."""
        async with asyncio.timeout(120):
            await self._reading
        return self.chunks


@pytest.mark.timeout(240)
async def test_mesh_and_in_process_give_the_same_world_in_both_chain_modes(start_mesh, checkpoint, picture):
    async with start_mesh(populators=3) as mesh:
        for chain in ChainMode:
            over_mesh = await walk_mesh(mesh.address, picture, chain, 16)
            assert [chunk.index for chunk in over_mesh] == list(range(16))
            assert identity(over_mesh) == await walk_in_process(checkpoint, picture, chain, 16)


@pytest.mark.timeout(240)
async def test_workers_killed_in_the_middle_of_their_tasks_change_nothing(start_mesh, checkpoint, picture):
    chunks = 31
    expected = await walk_in_process(checkpoint, picture, ChainMode.T_C, chunks)
    async with start_mesh(populators=2) as mesh, WorldClient(mesh.address) as client:
        world = await client.create_world(picture, prompt=PROMPT, seed=SEED, chain=ChainMode.T_C)
        async with client.walk(world.name, pace=Pace.MAX, until=chunks - 1) as walk:
            for control in KEYS:
                walk.hold(control.keys, chunk=control.chunk)
            collector = Collector(walk)
            # Frozen together, the workers of a pool must hold the task that the walk then waits for.
            for at, pool in ((6, ("populator-1", "populator-2")), (14, ("reconstructor",)), (21, ("decoder",))):
                await collector.reach(at)
                pids = [mesh.processes[name].pid for name in pool]
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                await collector.stall()
                os.kill(pids[0], signal.SIGKILL)
                for pid in pids[1:]:
                    os.kill(pid, signal.SIGCONT)
            shown = await collector.finish()
    assert [chunk.index for chunk in shown] == list(range(chunks)), "lost, repeated or reordered"
    assert identity(shown) == expected


@pytest.mark.timeout(240)
async def test_a_worker_that_hangs_is_overtaken_long_before_its_call_times_out(start_mesh, checkpoint, picture):
    chunks = 36
    expected = await walk_in_process(checkpoint, picture, ChainMode.T_B, chunks)
    async with start_mesh(populators=2) as mesh, WorldClient(mesh.address) as client:
        world = await client.create_world(picture, prompt=PROMPT, seed=SEED, chain=ChainMode.T_B)
        async with client.walk(world.name, pace=Pace.MAX, until=chunks - 1) as walk:
            for control in KEYS:
                walk.hold(control.keys, chunk=control.chunk)
            collector = Collector(walk)
            await collector.reach(20)
            # Each populator has its turn at being the one that holds the world.
            for count, name in ((26, "populator-1"), (32, "populator-2")):
                pid = mesh.processes[name].pid
                os.kill(pid, signal.SIGSTOP)
                async with asyncio.timeout(TIMEOUT_S / 2):
                    await collector.reach(count)
                os.kill(pid, signal.SIGCONT)
            shown = await collector.finish()
    assert identity(shown) == expected
