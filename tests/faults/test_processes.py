"""Every service is killed, frozen, drained and replaced under walks that must not notice: one fleet, real processes."""

from __future__ import annotations

import asyncio
import signal

import pytest

from teleworld.client import Chunk, Pace, WorldClient
from teleworld.runtime.dispatcher import TIMEOUT_S
from teleworld.scheduling.tasks import Pool
from tests.faults.fleet import GATEWAY, Fleet
from tests.faults.walkers import JOURNEY, OTHER, PATIENCE, PROMPT, Journey, Walked, check, picture, walk

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

NEARLY = 0.9
"""Of a call's time to live: whoever waits so long has waited for it, even where many tests run at a time."""
SERVICES = (*(pool.value for pool in Pool), GATEWAY)


def gateways(fleet: Fleet) -> str:
    """All gateways as one target; gRPC takes another one when the first is away."""
    return "ipv4:" + ",".join(member.address for member in fleet.members[GATEWAY])


async def both(fleet: Fleet, one: Walked, two: Walked) -> None:
    """Two worlds at a time, one of each chain mode, at different gateways if both are there."""
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(gateways(fleet), JOURNEY, one))
        group.create_task(walk(gateways(fleet), OTHER, two))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_one_of_each_service_goes_away_during_the_walk(
    fleet: Fleet, references: dict[Journey, Walked], number: signal.Signals
) -> None:
    one, two = Walked(), Walked()
    async with asyncio.TaskGroup() as group:
        group.create_task(both(fleet, one, two))
        for count, service in enumerate(SERVICES, start=1):
            await one.reach(20 * count)
            member = fleet.running(service)[0]
            member.signal(number)
            status = await member.ended()
            assert status == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    check(one, JOURNEY, references[JOURNEY])
    check(two, OTHER, references[OTHER])
    assert one.attachments >= 2, "the gateway was not missed"
    await asyncio.gather(*(member.start() for service in SERVICES for member in fleet.members[service][:1]))


async def test_a_frozen_process_is_waited_for_far_shorter_than_its_call_would_last(
    fleet: Fleet, references: dict[Journey, Walked]
) -> None:
    """Each replica of each pool in its turn, so that one of the two is the one that the world's tasks go to."""
    walked, moments = Walked(), list[float]()
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked))
        for pool in Pool:
            for member in fleet.running(pool.value):
                await walked.reach(len(walked.chunks) + 6)
                member.signal(signal.SIGSTOP)
                began = asyncio.get_running_loop().time()
                try:
                    await walked.reach(min(len(walked.chunks) + 10, JOURNEY.last + 1), NEARLY * TIMEOUT_S)
                finally:
                    member.signal(signal.SIGCONT)
                moments.append(asyncio.get_running_loop().time() - began)
    check(walked, JOURNEY, references[JOURNEY])
    print(f"ten chunks beside a frozen worker took {', '.join(f'{moment:.2f}' for moment in moments)} s")


async def test_a_gateway_that_stands_still_goes_on_where_it_stood(
    fleet: Fleet, references: dict[Journey, Walked]
) -> None:
    walked, frozen = Walked(), fleet.members[GATEWAY][0]

    def stop(chunk: Chunk) -> None:
        if chunk.index == 40:
            frozen.signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(1.0, frozen.signal, signal.SIGCONT)

    await walk(fleet.target(), JOURNEY, walked, seen=stop)
    check(walked, JOURNEY, references[JOURNEY])


async def test_a_gateway_that_hangs_for_good_is_left_by_its_clients(
    fleet: Fleet, references: dict[Journey, Walked]
) -> None:
    walked, hanging = Walked(), fleet.running(GATEWAY)[0]

    def stop(chunk: Chunk) -> None:
        if chunk.index == 40:
            hanging.signal(signal.SIGSTOP)

    try:
        await walk(gateways(fleet), JOURNEY, walked, seen=stop)
    finally:
        hanging.signal(signal.SIGCONT)
    check(walked, JOURNEY, references[JOURNEY])
    longest = max(after - before for before, after in zip(walked.arrivals, walked.arrivals[1:], strict=False))
    assert longest < TIMEOUT_S
    print(f"a gateway that hung was left after {longest:.1f} s")


async def test_a_client_that_vanishes_goes_on_at_another_gateway(
    fleet: Fleet, references: dict[Journey, Walked]
) -> None:
    """Again and again without a word: the process of a client that dies closes its connections, and says nothing."""
    walked = Walked()
    async with WorldClient(fleet.target(), patience=PATIENCE) as client:
        made = await client.create_world(
            picture(), prompt=PROMPT, seed=JOURNEY.seed, chain=JOURNEY.chain, reanchor=False
        )
        for number, until in enumerate((30, 60, 90, 120, JOURNEY.last)):
            async with WorldClient(fleet.target(number % 2), patience=PATIENCE) as other:
                after = walked.chunks[-1].index if walked.chunks else None
                async with other.walk(made.name, pace=Pace.MAX, resume_after=after, until=JOURNEY.last) as trip:
                    for keys, chunk in JOURNEY.holds() if number == 0 else ():
                        trip.hold(keys, chunk=chunk)
                    async for event in trip:
                        if isinstance(event, Chunk):
                            walked.chunks.append(event)
                            if event.index == until and until < JOURNEY.last:
                                await other.close()
                                break
        await client.delete_world(made.name)
    check(walked, JOURNEY, references[JOURNEY])


async def replace(fleet: Fleet, service: str, walked: Walked) -> None:
    """Both processes of a service, one after the other: the new one serves before the old one is told to go."""
    for old in fleet.running(service):
        fresh = next(member for member in fleet.members[service] if not member.alive)
        await fresh.start()
        count = len(walked.chunks)
        assert await old.drain() == 0
        await walked.reach(count + 4)


async def test_every_process_is_replaced_by_a_new_one_on_another_address(
    fleet: Fleet, references: dict[Journey, Walked]
) -> None:
    """A rolling upgrade of all services at a time, under a walk in real time."""
    walked = Walked()
    async with asyncio.TaskGroup() as group:
        steady = group.create_task(walk(gateways(fleet), Journey(3, 2000), walked, pace=Pace.REALTIME))
        await asyncio.gather(*(replace(fleet, service, walked) for service in SERVICES))
        steady.cancel()
    chunks = len(walked.chunks)
    assert [chunk.index for chunk in walked.chunks] == list(range(chunks)), "lost, repeated or reordered"
    reference = references[JOURNEY].identity()
    assert walked.identity()[: len(reference)] == reference[:chunks]
    async with WorldClient(gateways(fleet), patience=PATIENCE) as client:
        await client.delete_world(walked.world)
