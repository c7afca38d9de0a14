"""The gateway as its own autoscaler: what size a pool should have, and how that gets into the Deployment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from kubernetes.aio import client

from services.gateway.assembly import assemble
from services.gateway.cluster import scaling
from services.gateway.cluster.api import connect
from services.gateway.cluster.scaling import Autoscaler, Bounds, Sizing
from services.gateway.demand import Demand
from services.gateway.discovery import StaticDiscovery
from services.gateway.duties import Duties, identity
from services.gateway.settings import GatewaySettings
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput, Unavailable
from tests.services.gateway.kube_api import KubeApi

BOUNDS = Bounds("populator", least=2, most=8, tasks=2.0, patience=300.0)
SIZES = {Pool.POPULATOR: BOUNDS, Pool.DECODER: Bounds("decoder", 1, 4, 1.0, 0.0)}


def test_it_grows_at_once_and_within_its_bounds() -> None:
    sizing = Sizing(BOUNDS)
    assert [sizing.next(float(now), 2, tasks) for now, tasks in enumerate((4, 5, 11, 1000))] == [2, 3, 6, 8]
    assert sizing.next(5.0, 1, 0) == 2, "fewer than the fewest"
    assert sizing.next(6.0, 20, 1000) == 8, "more than the most"


def test_it_shrinks_one_by_one_after_a_while_of_less() -> None:
    sizing, pods, changes = Sizing(BOUNDS), 6, list[tuple[int, int]]()
    for now in range(0, 1000, 5):
        tasks = 12 if now < 100 else 5
        if (wanted := sizing.next(float(now), pods, tasks)) != pods:
            changes.append((now, wanted))
            pods = wanted
    assert changes == [(400, 5), (460, 4), (520, 3)]


def test_a_peak_now_and_then_keeps_the_pods() -> None:
    sizing = Sizing(BOUNDS)
    assert {sizing.next(float(now), 6, 12 if now % 200 == 0 else 0) for now in range(0, 2000, 5)} == {6}


def test_who_has_just_begun_to_look_takes_nothing_away() -> None:
    sizing = Sizing(BOUNDS)
    assert {sizing.next(7000.0 + now, 6, 0) for now in range(0, 300, 5)} == {6}
    assert sizing.next(7300.0, 6, 0) == 5


def test_a_pool_that_somebody_emptied_stays_empty() -> None:
    sizing = Sizing(BOUNDS)
    assert {sizing.next(float(now), 0, 50) for now in range(0, 1000, 5)} == {0}


def test_bounds_are_read_and_named_when_they_cannot_be() -> None:
    assert Bounds.parse("populator=walk-populator:2:8:2:300, decoder=d:1:4:1.5:0") == {
        Pool.POPULATOR: Bounds("walk-populator", 2, 8, 2.0, 300.0),
        Pool.DECODER: Bounds("d", 1, 4, 1.5, 0.0),
    }
    assert Bounds.parse("") == {}
    for text in ("populator", "gateway=g:1:2:1:0", "decoder=d:3:2:1:0", "decoder=d:0:2:1:0", "decoder=:1:2:1:0"):
        with pytest.raises(InvalidInput, match="scale"):
            Bounds.parse(text)


class Queues:
    """The demand of a mesh, as a test sets it."""

    def __init__(self) -> None:
        self.tasks = dict.fromkeys(Pool, 0)
        self.away = False

    async def total(self) -> dict[Pool, int]:
        if self.away:
            raise Unavailable("the store does not answer")
        return self.tasks


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[KubeApi, client.ApiClient]]:
    server = KubeApi()
    for name in ("populator", "decoder"):
        body = {"spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "paused": False}}
        await server.put("deployments", name, body)
    async with server.serving() as url:
        api = await connect(url)
        yield server, api
        await api.close()


@pytest.fixture
async def queues(cluster: tuple[KubeApi, client.ApiClient], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queues]:
    """Of an autoscaler that runs."""
    monkeypatch.setattr(scaling, "LOOK_SECONDS", 0.01)
    made = Queues()
    made.tasks[Pool.POPULATOR], made.tasks[Pool.DECODER] = 4, 2
    work = asyncio.create_task(Autoscaler(cluster[1], "world", SIZES, made).run())  # type: ignore[arg-type]
    yield made
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


def replicas(server: KubeApi, name: str) -> int:
    count: int = server.objects["deployments", name]["spec"]["replicas"]
    return count


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - nothing rings when the fake's objects change
            await asyncio.sleep(0.01)


async def looks(server: KubeApi, count: int = 6) -> None:
    """Until the scales were read some more times."""
    key = ("GET", "scale", False)
    enough = server.requests.get(key, 0) + count
    await until(lambda: server.requests.get(key, 0) >= enough)


async def test_the_number_of_pods_follows_the_queue_and_nothing_else_changes(
    cluster: tuple[KubeApi, client.ApiClient], queues: Queues
) -> None:
    server, _ = cluster
    before = dict(server.objects["deployments", "populator"]["spec"])
    await looks(server)
    assert ("PUT", "scale", False) not in server.requests, "a size that is right is not written again"
    queues.tasks[Pool.POPULATOR] = 9
    await until(lambda: replicas(server, "populator") == 5)
    assert server.objects["deployments", "populator"]["spec"] == before | {"replicas": 5}
    assert replicas(server, "decoder") == 2
    queues.tasks[Pool.DECODER] = 0  # whose bounds know no patience
    await until(lambda: replicas(server, "decoder") == 1)


async def test_what_somebody_else_wrote_meanwhile_stands(cluster: tuple[KubeApi, client.ApiClient]) -> None:
    """Between the look and the write: the write is refused, as it would be for the rest of a mesh that has two leaders."""
    server, api = cluster
    apps = client.AppsV1Api(api)
    seen = await apps.read_namespaced_deployment_scale("populator", "world")
    await server.put("deployments", "populator", {"spec": {"replicas": 7}})
    seen.spec.replicas = 3
    with pytest.raises(client.ApiException) as caught:
        await apps.replace_namespaced_deployment_scale("populator", "world", seen)
    assert caught.value.status == 409
    assert replicas(server, "populator") == 7


async def test_nothing_changes_while_the_api_server_or_the_store_is_away(
    cluster: tuple[KubeApi, client.ApiClient], queues: Queues
) -> None:
    server, _ = cluster
    await looks(server)
    server.down = True
    queues.tasks[Pool.POPULATOR] = 16
    await looks(server)
    assert replicas(server, "populator") == 2
    server.down = False
    await until(lambda: replicas(server, "populator") == 8)
    queues.away = True
    await server.put("deployments", "populator", {"spec": {"replicas": 3}})
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert replicas(server, "populator") == 3
    queues.away = False
    await until(lambda: replicas(server, "populator") == 8)


async def test_a_deployment_that_is_gone_does_not_end_the_duty(
    cluster: tuple[KubeApi, client.ApiClient], queues: Queues
) -> None:
    server, _ = cluster
    await server.remove("deployments", "populator")
    await looks(server)
    queues.tasks[Pool.DECODER] = 4
    await until(lambda: replicas(server, "decoder") == 4)
    await server.put("deployments", "populator", {"spec": {"replicas": 0}})
    await looks(server)
    assert replicas(server, "populator") == 0, "somebody wants it so"
    await server.put("deployments", "populator", {"spec": {"replicas": 1}})
    await until(lambda: replicas(server, "populator") == 2)


async def test_the_leading_gateway_does_it(
    cluster: tuple[KubeApi, client.ApiClient], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real gateway's duties, by what another gateway told the store."""
    server, api = cluster
    monkeypatch.setattr(scaling, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("POD_NAMESPACE", "world")
    settings = GatewaySettings(
        scale="decoder=decoder:1:4:1:0",
        redis_url=redis_url,
        discovery="kubernetes",
        kubernetes_api=api.configuration.host,
    )
    _, worlds = assemble(settings, StaticDiscovery({}))
    telling = asyncio.create_task(Demand(worlds.store, "another", lambda: {Pool.DECODER: 3}).run())
    async with Duties(settings, worlds):
        await until(lambda: replicas(server, "decoder") == 3)
        assert server.objects["leases", settings.lease_name]["spec"]["holderIdentity"] == identity()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    assert not server.objects["leases", settings.lease_name]["spec"]["holderIdentity"], "it gave the Lease back"
    await worlds.close()


async def test_sizing_needs_a_cluster(redis_url: str) -> None:
    settings = GatewaySettings(scale="decoder=d:1:2:1:0", redis_url=redis_url)
    _, worlds = assemble(settings)
    with pytest.raises(InvalidInput, match="scale"):
        async with Duties(settings, worlds):
            raise AssertionError("it began")
    await worlds.close()
