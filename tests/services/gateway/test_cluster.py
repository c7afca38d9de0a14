"""The gateway in a cluster: endpoints are followed through every whim of the API server, and never two replicas lead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from kubernetes.aio import client

from services.gateway.cluster import endpoints
from services.gateway.cluster.api import connect
from services.gateway.cluster.endpoints import EndpointSliceDiscovery, ServiceName, own_zone
from services.gateway.cluster.leadership import Leadership, LeaseName
from services.gateway.discovery import Sighting
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput
from tests.services.gateway.kube_api import KubeApi

POPULATORS = {Pool.POPULATOR: ServiceName("populator", "world", 7300)}
LEASE = LeaseName("gateway", "world")


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApi, client.ApiClient]]:
    server = KubeApi()
    async with server.serving() as url:
        api = await connect(url)
        yield server, api
        await api.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "MIN_BACKOFF_SECONDS", 0.01)
    monkeypatch.setattr(endpoints, "MAX_BACKOFF_SECONDS", 0.05)


def pods(*addresses: str, service: str = "populator", **more: Any) -> dict[str, Any]:
    """An EndpointSlice of ready pods."""
    listed = [{"addresses": [address], "conditions": {"ready": True, "serving": True}} | more for address in addresses]
    return {"metadata": {"labels": {"kubernetes.io/service-name": service}}, "endpoints": listed}


async def seen(sightings: AsyncIterator[Sighting], count: int) -> dict[str, bool]:
    """The next `count` sightings: address -> present."""
    told: dict[str, bool] = {}
    async with asyncio.timeout(10):
        for _ in range(count):
            sighting = await anext(sightings)
            told[sighting.address] = sighting.present
    return told


async def test_pods_come_and_go(kube: tuple[KubeApi, client.ApiClient]) -> None:
    server, api = kube
    await server.put("endpointslices", "populator-a", pods("10.0.0.1", "10.0.0.2"))
    await server.put("endpointslices", "planner-a", pods("10.0.9.9", service="planner"))
    async with aclosing(EndpointSliceDiscovery(api, POPULATORS).sightings()) as sightings:
        assert await seen(sightings, 2) == {"10.0.0.1:7300": True, "10.0.0.2:7300": True}
        await server.put("endpointslices", "populator-a", pods("10.0.0.2", "10.0.0.3"))
        assert await seen(sightings, 2) == {"10.0.0.1:7300": False, "10.0.0.3:7300": True}
        await server.put("endpointslices", "populator-b", pods("fd00::7"))
        assert await seen(sightings, 1) == {"[fd00::7]:7300": True}
        await server.remove("endpointslices", "populator-b")
        assert await seen(sightings, 1) == {"[fd00::7]:7300": False}
    assert server.requests["GET", "endpointslices", True] == 1, "one watch carries all changes"


async def test_a_pod_in_two_slices_stays_until_it_is_in_none(kube: tuple[KubeApi, client.ApiClient]) -> None:
    server, api = kube
    await server.put("endpointslices", "one", pods("10.0.0.1"))
    async with aclosing(EndpointSliceDiscovery(api, POPULATORS).sightings()) as sightings:
        await seen(sightings, 1)
        await server.put("endpointslices", "two", pods("10.0.0.1", "10.0.0.2"))
        assert await seen(sightings, 1) == {"10.0.0.2:7300": True}
        await server.remove("endpointslices", "one")
        await server.remove("endpointslices", "two")
        assert await seen(sightings, 2) == {"10.0.0.1:7300": False, "10.0.0.2:7300": False}


async def test_a_draining_pod_stays_and_one_that_does_not_serve_goes(kube: tuple[KubeApi, client.ApiClient]) -> None:
    server, api = kube
    await server.put("endpointslices", "s", pods("10.0.0.1"))
    async with aclosing(EndpointSliceDiscovery(api, POPULATORS).sightings()) as sightings:
        await seen(sightings, 1)
        draining = {"ready": False, "serving": True, "terminating": True}
        await server.put("endpointslices", "s", pods("10.0.0.1", "10.0.0.2", conditions=draining))
        assert await seen(sightings, 1) == {"10.0.0.2:7300": True}
        await server.put("endpointslices", "s", pods("10.0.0.1", conditions={"ready": False, "serving": False}))
        assert await seen(sightings, 2) == {"10.0.0.1:7300": False, "10.0.0.2:7300": False}


async def test_changes_behind_a_forgotten_version_are_found_by_a_new_list(
    kube: tuple[KubeApi, client.ApiClient],
) -> None:
    server, api = kube
    await server.put("endpointslices", "s", pods("10.0.0.1"))
    async with aclosing(EndpointSliceDiscovery(api, POPULATORS).sightings()) as sightings:
        await seen(sightings, 1)
        server.down = True
        await server.hang_up()
        await server.put("endpointslices", "s", pods("10.0.0.2"))
        await server.forget()
        server.down = False
        assert await seen(sightings, 2) == {"10.0.0.1:7300": False, "10.0.0.2:7300": True}
    assert server.requests["GET", "endpointslices", False] >= 2, "a 410 asks for a new list"


async def test_a_bookmark_moves_the_version_so_that_no_new_list_is_needed(
    kube: tuple[KubeApi, client.ApiClient],
) -> None:
    server, api = kube
    await server.put("endpointslices", "s", pods("10.0.0.1"))
    async with aclosing(EndpointSliceDiscovery(api, POPULATORS).sightings()) as sightings:
        await seen(sightings, 1)
        await server.put("endpointslices", "other", pods("10.9.9.9", service="decoder"))
        await server.bookmark()
        await server.put("endpointslices", "s", pods("10.0.0.1", "10.0.0.2"))
        assert await seen(sightings, 1) == {"10.0.0.2:7300": True}
        await server.forget()
        await server.put("endpointslices", "s", pods("10.0.0.1", "10.0.0.2", "10.0.0.3"))
        assert await seen(sightings, 1) == {"10.0.0.3:7300": True}
    assert server.requests["GET", "endpointslices", False] == 1


async def test_nothing_is_lost_while_the_server_is_away(kube: tuple[KubeApi, client.ApiClient]) -> None:
    server, api = kube
    await server.put("endpointslices", "s", pods("10.0.0.1"))
    async with aclosing(EndpointSliceDiscovery(api, POPULATORS).sightings()) as sightings:
        await seen(sightings, 1)
        server.down = True
        await server.hang_up()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(sightings), 0.2)


async def test_hints_keep_traffic_in_the_zone_as_long_as_every_endpoint_has_one(
    kube: tuple[KubeApi, client.ApiClient],
) -> None:
    server, api = kube
    hinted = lambda zone: {"hints": {"forZones": [{"name": zone}]}, "zone": zone}  # noqa: E731
    here, there = pods("10.0.0.1", **hinted("a")), pods("10.0.0.2", **hinted("b"))
    both = here | {"endpoints": here["endpoints"] + there["endpoints"]}
    await server.put("endpointslices", "s", both)
    async with aclosing(EndpointSliceDiscovery(api, POPULATORS, zone="a").sightings()) as sightings:
        assert await seen(sightings, 1) == {"10.0.0.1:7300": True}
        await server.put("endpointslices", "s", both | {"endpoints": both["endpoints"] + pods("10.0.0.3")["endpoints"]})
        assert await seen(sightings, 2) == {"10.0.0.2:7300": True, "10.0.0.3:7300": True}


async def test_the_own_zone_is_read_from_the_slices(kube: tuple[KubeApi, client.ApiClient]) -> None:
    server, api = kube
    await server.put("endpointslices", "g", pods("10.0.0.9", zone="eu-1b", targetRef={"kind": "Pod", "name": "gw-7"}))
    assert await own_zone(api, "world", "gw-7") == "eu-1b"
    assert await own_zone(api, "world", "gw-8") == ""


def test_service_names() -> None:
    parsed = ServiceName.parse("planner_addresses", "rel-planner.prod.svc.cluster.local:7300", "default")
    assert parsed == ServiceName("rel-planner", "prod", 7300)
    assert ServiceName.parse("planner_addresses", "planner:1", "here").namespace == "here"
    with pytest.raises(InvalidInput, match="planner_addresses"):
        ServiceName.parse("planner_addresses", "planner", "here")


class Replica:
    """A candidate that notes while it leads."""

    def __init__(self, api: client.ApiClient, name: str, seconds: float = 0.6) -> None:
        self.rose, self.fell = asyncio.Event(), asyncio.Event()
        self.leadership = Leadership(api, LEASE, name, self._duty, seconds=seconds)
        self.task = asyncio.create_task(self.leadership.run())

    async def _duty(self) -> None:
        self.rose.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.fell.set()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_one_leads_and_hands_over_when_it_goes(kube: tuple[KubeApi, client.ApiClient]) -> None:
    server, api = kube
    first = Replica(api, "gw-0")
    await asyncio.wait_for(first.rose.wait(), 5)
    second = Replica(api, "gw-1")
    for _ in range(20):
        await asyncio.sleep(0.05)
        assert not (first.leadership.leading and second.leadership.leading)
    assert not second.rose.is_set()
    await first.stop()
    assert first.fell.is_set()
    await asyncio.wait_for(second.rose.wait(), 5)
    spec = server.objects["leases", "gateway"]["spec"]
    assert spec["holderIdentity"] == "gw-1" and spec["leaseTransitions"] == 1
    await second.stop()


async def test_a_leader_cut_off_steps_down_before_another_rises(kube: tuple[KubeApi, client.ApiClient]) -> None:
    _, api = kube
    own = await connect(api.configuration.host)
    first = Replica(own, "gw-0")
    await asyncio.wait_for(first.rose.wait(), 5)
    second = Replica(api, "gw-1")
    own.configuration.host = "http://127.0.0.1:1"  # nobody listens there
    await asyncio.wait_for(second.rose.wait(), 10)
    assert first.fell.is_set(), "the old leader let go before the new one began"
    await first.stop()
    await second.stop()
    await own.close()


async def test_a_race_is_won_by_one(kube: tuple[KubeApi, client.ApiClient]) -> None:
    _, api = kube
    replicas = [Replica(api, f"gw-{number}") for number in range(5)]
    await asyncio.wait(
        [asyncio.create_task(one.rose.wait()) for one in replicas], return_when=asyncio.FIRST_COMPLETED, timeout=5
    )
    await asyncio.sleep(0.3)
    assert sum(one.leadership.leading for one in replicas) == 1
    for one in replicas:
        await one.stop()
