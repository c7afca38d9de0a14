"""Tasks of several worlds in one call: each gets its own answer, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from teleworld.runtime.dispatcher import Listener
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.policy import Limits
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.world.errors import (
    DeadlineExceeded,
    InvalidInput,
)
from teleworld.world.timeline import ChainMode
from teleworld.world.work import Prompt
from tests.runtime.hands import Port, Walk, reference
from tests.services.gateway.cores import TinyPlanner, TinyPopulator, TinyReconstructor


def crowd(walk: Walk, count: int) -> dict[str, asyncio.Queue[Any]]:
    """So many worlds, on enough planners and reconstructors that they wait for populators; what each world's listener hears."""
    for pool, core in ((Pool.PLANNER, TinyPlanner()), (Pool.RECONSTRUCTOR, TinyReconstructor(walk.field))):
        walk.dispatcher.join(f"{pool.value}-more", pool, Port(core), slots=8)
    queues = {f"{number}" * 26: asyncio.Queue[Any]() for number in range(count)}
    for name, queue in queues.items():
        record = WorldRecord(
            name, "nano", "w", 3, ChainMode.T_B, Prompt("", np.zeros((1, 8), np.float32)),
            np.zeros((96, 160, 3), np.uint8), 0.0, "",
        )  # fmt: skip
        listener = Listener(chunk=queue.put_nowait, bound=lambda control: None, ended=queue.put_nowait)
        walk.dispatcher.add(WorldSession(record), listener, Limits(6))
    return queues


async def test_tasks_of_several_worlds_go_to_a_worker_in_one_call_and_each_gets_its_own_answer() -> None:
    class Many:
        """A populator that takes one call at a time, of up to four tasks."""

        def __init__(self) -> None:
            self.core, self.sizes = TinyPopulator(), list[int]()

        async def populate(self, request: Any, timeout: float) -> Any:
            return (await self.populate_many([request], timeout))[0]

        async def populate_many(self, requests: Any, timeout: float) -> list[Any]:
            self.sizes.append(len(requests))
            await asyncio.sleep(0.005)
            if len(requests) > 1 and max(self.sizes) == len(requests) and self.sizes.count(len(requests)) == 1:
                raise DeadlineExceeded("the first call of a size fails")
            return [self.core.populate(request) for request in requests]

    port = Many()
    walk = Walk()
    walk.dispatcher.leave("populator")
    walk.dispatcher.join("many", Pool.POPULATOR, port, batches={Kind.POPULATE: 4})
    queues = crowd(walk, 6)
    made: dict[str, list[str]] = {name: [] for name in queues}
    for number in range(12):
        for name, queue in queues.items():
            chunk = await asyncio.wait_for(queue.get(), 10)
            assert isinstance(chunk, Chunk), chunk
            made[name].append(chunk.latent_sha256)
            walk.dispatcher.played(name, number + 1)
    await walk.dispatcher.close()
    assert max(port.sizes) > 1, "nothing went together"
    calm = await reference(12)
    assert all(digests == calm for digests in made.values())


async def test_a_world_that_makes_a_shared_call_fail_ends_alone() -> None:
    """Its request is bad. The others of the call are asked again, one by one, and go on; the bad one's world ends."""
    culprit = "0" * 26

    class Strict:
        """A populator that refuses a world's third segment, and all of a call that has it."""

        def __init__(self) -> None:
            self.core, self.spoiled = TinyPopulator(), list[int]()

        async def populate(self, request: Any, timeout: float) -> Any:
            return (await self.populate_many([request], timeout))[0]

        async def populate_many(self, requests: Any, timeout: float) -> list[Any]:
            await asyncio.sleep(0.005)
            if any(r.context.world == culprit and r.context.segment == 2 for r in requests):
                self.spoiled.append(len(requests))
                raise InvalidInput("requests[0].clean", "is bad")
            return [self.core.populate(request) for request in requests]

    port, walk = Strict(), Walk()
    walk.dispatcher.leave("populator")
    walk.dispatcher.join("strict", Pool.POPULATOR, port, batches={Kind.POPULATE: 4})
    queues = crowd(walk, 6)
    for number in range(20):
        for name, queue in queues.items():
            event = await asyncio.wait_for(queue.get(), 10) if number < 9 or name != culprit else None
            if isinstance(event, Chunk):
                walk.dispatcher.played(name, number + 1)
            elif event is not None:
                assert name == culprit, "an innocent world ended"
                queue.put_nowait(event)
    await walk.dispatcher.close()
    assert any(size > 1 for size in port.spoiled), "it failed alone: nothing was shown"
    assert isinstance(queues[culprit].get_nowait(), InvalidInput)
