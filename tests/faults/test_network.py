"""A network that is slow, falls silent, cuts connections in mid message and spoils bytes, before the gateways and behind them."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509

from teleworld.client import Chunk, WorldClient
from teleworld.rpc.tls import TlsFiles
from teleworld.runtime.dispatcher import TIMEOUT_S
from teleworld.scheduling.tasks import Pool
from tests.faults.fleet import GATEWAY, Fleet
from tests.faults.proxy import Proxy
from tests.faults.walkers import Journey, Walked, check, walk
from tests.rpc.test_tls import Authority

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

JOURNEY = Journey(seed=6, last=90)
LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))


def identities(folder: Path) -> dict[str, TlsFiles]:
    """Certificates of an authority of our own: one for the gateways, one for each pool."""
    authority = Authority()
    return {name: authority.issue(folder / name, name, LOOPBACK) for name in (GATEWAY, *(pool.value for pool in Pool))}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Fleet]:
    """Every byte passes a proxy and is encrypted: tensors do not take the way through shared memory."""
    folder = tmp_path_factory.mktemp("network")
    async with Fleet(
        folder,
        proxied=True,
        tls=identities(folder / "tls"),
        variables={"shared_memory": "false"},
        gateway={"shared_memory": "false", "insecure": "true"},
    ) as fleet:
        yield fleet
        assert not [key for key in await fleet.redis.keys() if "{" in key], "keys of deleted worlds"
    assert not fleet.leaks()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def reference(fleet: Fleet) -> Walked:
    """The walk that nothing disturbs."""
    return await walk(fleet.target(), JOURNEY, authority=fleet.authority)


def behind(fleet: Fleet) -> list[Proxy]:
    """The proxies before the workers."""
    return [proxy for name, proxy in fleet.proxies.items() if not name.startswith(GATEWAY)]


def before(fleet: Fleet) -> Proxy:
    """The proxy before the first gateway."""
    return fleet.proxies[f"{GATEWAY}-1"]


async def test_a_slow_network_only_delays(fleet: Fleet, reference: Walked) -> None:
    slow = [before(fleet), *behind(fleet)]
    for proxy in slow:
        proxy.delay = 0.004
    try:
        check(await walk(fleet.target(), JOURNEY, authority=fleet.authority), JOURNEY, reference)
    finally:
        for proxy in slow:
            proxy.delay = 0.0


async def test_connections_that_are_cut_in_mid_message_lose_nothing(fleet: Fleet, reference: Walked) -> None:
    walked, front, back = Walked(), before(fleet), behind(fleet)
    cuts = sum(proxy.cuts for proxy in (front, *back))

    def cut(chunk: Chunk) -> None:
        if chunk.index % 20 == 10:
            front.cut(after=1500)
        if chunk.index % 10 == 0:
            back[chunk.index // 10 % len(back)].cut(after=700)

    await walk(fleet.target(), JOURNEY, walked, seen=cut, authority=fleet.authority)
    check(walked, JOURNEY, reference)
    assert sum(proxy.cuts for proxy in (front, *back)) - cuts >= 6
    assert walked.attachments >= 4


async def test_spoilt_bytes_are_never_taken_for_good_ones(fleet: Fleet, reference: Walked) -> None:
    """TLS sees each of them; the connection ends, and what it carried is asked for again."""
    walked, front, back = Walked(), before(fleet), behind(fleet)

    def spoil(chunk: Chunk) -> None:
        if chunk.index % 30 == 10:
            front.corrupt(1)
        if chunk.index % 10 == 0:
            back[chunk.index // 10 % len(back)].corrupt(1)

    await walk(fleet.target(), JOURNEY, walked, seen=spoil, authority=fleet.authority)
    check(walked, JOURNEY, reference)
    assert front.corrupted >= 3
    assert sum(proxy.corrupted for proxy in back) >= 5


async def test_a_worker_out_of_reach_is_overtaken(fleet: Fleet, reference: Walked) -> None:
    """Its connections stand and nothing passes: no error tells the gateway, only time."""
    walked = Walked()
    async with asyncio.TaskGroup() as group:
        group.create_task(walk(fleet.target(), JOURNEY, walked, authority=fleet.authority))
        for pool in Pool:
            await walked.reach(len(walked.chunks) + 5)
            proxy = fleet.proxies[f"{pool.value}-1"]
            proxy.silent = True
            await walked.reach(len(walked.chunks) + 10, 0.9 * TIMEOUT_S)
            proxy.silent = False
    check(walked, JOURNEY, reference)


async def test_a_client_behind_a_reset_goes_on(fleet: Fleet, reference: Walked) -> None:
    walked = Walked()

    def reset(chunk: Chunk) -> None:
        if chunk.index % 15 == 7:
            before(fleet).reset()

    await walk(fleet.target(), JOURNEY, walked, seen=reset, authority=fleet.authority)
    check(walked, JOURNEY, reference)
    async with WorldClient(fleet.target(), authority=fleet.authority) as client:
        assert [world async for world in client.list_worlds()] == []
