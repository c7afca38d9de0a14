"""The store is killed, frozen, filled up, loses acknowledged writes, or has no disk left, while worlds walk on it."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from teleworld.client import WorldClient
from teleworld.world.errors import NotFound
from tests.faults.fleet import Fleet
from tests.faults.walkers import PATIENCE, PROMPT, Journey, Walked, check, picture, walk, walk_on

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

JOURNEY = Journey(seed=8, last=120)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """One of each service. What is deleted is gone."""
    async with Fleet(tmp_path_factory.mktemp("redis"), replicas=1) as fleet:
        yield fleet
        assert not [key for key in await fleet.redis.keys() if "{" in key], "keys of deleted worlds"
    assert not fleet.leaks()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def reference(fleet: Fleet) -> Walked:
    """The walk that nothing disturbs."""
    return await walk(fleet.target(), JOURNEY)


async def test_a_store_that_keeps_its_word_may_die_or_stop_or_stand_still(fleet: Fleet, reference: Walked) -> None:
    walked, redis = Walked(), fleet.redis
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked))
        await walked.reach(30)
        await redis.kill()
        await redis.start()
        await walked.reach(60)
        await redis.stop()
        await redis.start()
        await walked.reach(90)
        pid = await redis.pid()
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        os.kill(pid, signal.SIGCONT)
    check(walked, JOURNEY, reference)


async def test_an_outage_that_outlasts_the_gateways_patience_ends_no_walk(fleet: Fleet, reference: Walked) -> None:
    walked, redis = Walked(), fleet.redis
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked))
        await walked.reach(40)
        await redis.kill()
        await asyncio.sleep(6.0)
        await redis.start()
    check(walked, JOURNEY, reference)
    assert walked.attachments >= 2


async def test_a_full_store_refuses_until_there_is_room(fleet: Fleet, reference: Walked) -> None:
    walked, redis = Walked(), fleet.redis
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked))
        await walked.reach(40)
        await redis.ask("CONFIG", "SET", "maxmemory", "1mb")
        count = len(walked.chunks)
        await asyncio.sleep(1.5)
        assert len(walked.chunks) <= count + 20 < JOURNEY.last, "a store without room takes nothing"
        await redis.ask("CONFIG", "SET", "maxmemory", "0")
    check(walked, JOURNEY, reference)


async def test_a_disk_without_room_stops_the_store_and_not_the_worlds(fleet: Fleet, reference: Walked) -> None:
    """The append-only file may not grow: Redis refuses writes or ends, and goes on where it was when there is room again."""
    walked, redis = Walked(), fleet.redis
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked))
        await walked.reach(40)
        process = psutil.Process(await redis.pid())
        process.rlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        await asyncio.to_thread(process.wait, 20)
        await redis.kill()
        await redis.start()
    check(walked, JOURNEY, reference)


@pytest.mark.parametrize("gone", ["at once", "behind the gateway's back"])
async def test_lost_writes_are_told_as_a_rewind_and_nothing_else_goes_wrong(
    fleet: Fleet, reference: Walked, gone: str
) -> None:
    """A failover to a replica that lagged: the store is as it was a while ago, in all of its keys at once."""
    walked, redis = Walked(), fleet.redis
    await redis.stop()
    redis.durable = False
    await redis.start()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(walk(fleet.target(), JOURNEY, walked))
            await walked.reach(30)
            await redis.ask("SAVE")
            await walked.reach(55)
            await redis.kill()
            if gone == "at once":
                await redis.start()
            else:
                await fleet.member("gateway-1").kill()
                await redis.start()
                await fleet.member("gateway-1").start()
    finally:
        await redis.ask("SAVE")
        redis.durable = True
    [last] = walked.rewinds
    order = [chunk.index for chunk in walked.chunks]
    before = order[: order.index(last + 1, order.index(last + 1) + 1)]
    assert before == list(range(len(before))), "lost, repeated or reordered before the rewind"
    assert order[len(before) :] == list(range(last + 1, JOURNEY.last + 1)), "or after it"
    assert 29 <= last < len(before) - 1
    known = reference.identity()
    assert all(identity == known[identity[0]] for identity in walked.identity()), "the same keys, so the same bits"


async def test_a_loss_of_every_chunk_rewinds_to_the_start_picture(fleet: Fleet, reference: Walked) -> None:
    walked, redis = Walked(), fleet.redis
    await redis.stop()
    redis.durable = False
    await redis.start()
    try:
        async with WorldClient(fleet.target(), patience=PATIENCE) as client:
            made = await client.create_world(
                picture(), prompt=PROMPT, seed=JOURNEY.seed, chain=JOURNEY.chain, reanchor=False
            )
            await redis.ask("SAVE")
            async with asyncio.TaskGroup() as group:
                group.create_task(walk_on(client, made.name, JOURNEY, walked))
                await walked.reach(30)
                await redis.kill()
                await redis.start()
            await client.delete_world(made.name)
    finally:
        await redis.ask("SAVE")
        redis.durable = True
    assert walked.rewinds == [0]
    again = walked.identity()[-JOURNEY.last :]
    assert again == reference.identity()[1:]


async def test_a_world_whose_birth_is_lost_is_not_found(fleet: Fleet) -> None:
    redis = fleet.redis
    await redis.stop()
    redis.durable = False
    await redis.start()
    walked = Walked()
    await redis.ask("SAVE")

    async def lose() -> None:
        await walked.reach(30)
        await redis.kill()
        redis.durable = True
        await redis.start()

    losing = asyncio.create_task(lose())
    with pytest.raises(NotFound):
        await walk(fleet.target(), JOURNEY, walked)
    await losing
