"""KEDA is told the tasks of the whole mesh by any gateway, and of none that fell silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from redis.crc import key_slot

from services.gateway import demand as module
from services.gateway import index as index_module
from services.gateway.demand import KEY, Demand
from services.gateway.scaler import register
from services.gateway.scripts import PREFIX
from services.gateway.states import Room
from services.gateway.store import Store
from teleworld._proto.keda.v1 import externalscaler_pb2 as pb
from teleworld._proto.keda.v1.externalscaler_pb2_grpc import ExternalScalerStub
from teleworld.rpc.server import Server, ServerConfig
from teleworld.scheduling.tasks import Pool

QUEUES = {Pool.PLANNER: 1, Pool.POPULATOR: 5}


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    made = Store(redis_url)
    await made.redis.delete(KEY)
    yield made
    await made.close()


@pytest.fixture
async def keda(store: Store) -> AsyncIterator[ExternalScalerStub]:
    server = Server("scaler", ServerConfig(require_deadline=False))
    register(server, Demand(store, "asked", lambda: {}))
    address = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield ExternalScalerStub(channel)
    await server.drain()


async def told(store: Store, identity: str, queues: dict[Pool, int]) -> None:
    """Let a gateway tell its queues once."""
    work = asyncio.create_task(Demand(store, identity, lambda: queues).run())
    async with asyncio.timeout(5):
        while not await store.redis.hexists(KEY, identity):
            await store.redis.ping()
    work.cancel()


def ref(**metadata: str) -> pb.ScaledObjectRef:
    return pb.ScaledObjectRef(name="populator", namespace="world", scalerMetadata=metadata)


async def tasks(keda: ExternalScalerStub, pool: str) -> int:
    spec = await keda.GetMetricSpec(ref(pool=pool, targetQueueDepth="3"))
    asked = pb.GetMetricsRequest(scaledObjectRef=ref(pool=pool), metricName=spec.metricSpecs[0].metricName)
    return (await keda.GetMetrics(asked)).metricValues[0].metricValue


async def test_the_tasks_of_all_gateways_are_added_up(store: Store, keda: ExternalScalerStub) -> None:
    await told(store, "gw-0", QUEUES)
    await told(store, "gw-1", {Pool.POPULATOR: 7})
    assert [await tasks(keda, pool) for pool in ("populator", "planner", "decoder")] == [12, 1, 0]


async def test_a_silent_gateway_counts_no_more(
    store: Store, keda: ExternalScalerStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(store, "gw-0", QUEUES)
    assert await tasks(keda, "populator") == 5
    monkeypatch.setattr(module, "STALE_MS", -1)
    assert await tasks(keda, "populator") == 0
    assert not await store.redis.hexists(KEY, "gw-0"), "it was taken out"


async def test_the_target_is_what_one_replica_should_have(keda: ExternalScalerStub) -> None:
    spec = (await keda.GetMetricSpec(ref(pool="populator", targetQueueDepth="2.5"))).metricSpecs[0]
    assert (spec.metricName, spec.targetSizeFloat) == ("teleworld-populator-tasks", 2.5)
    assert (await keda.IsActive(ref(pool="populator"))).result
    async for answer in keda.StreamIsActive(ref(pool="decoder")):
        assert answer.result
        break


@pytest.mark.parametrize(
    ("metadata", "field"),
    [({"pool": "gateway"}, "pool"), ({}, "pool"), ({"pool": "planner", "targetQueueDepth": "-1"}, "targetQueueDepth")],
)
async def test_bad_metadata_is_named(keda: ExternalScalerStub, metadata: dict[str, str], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=f"scalerMetadata.{field}") as refused:
        await keda.GetMetricSpec(ref(**metadata))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_worlds_that_expired_are_swept_from_the_index(store: Store) -> None:
    index = f"{PREFIX}:worlds"
    gone = [f"gone{number}" for number in range(7)]
    await store.redis.zadd(index, dict.fromkeys([*gone, "kept"], 0))
    await store.redis.set(f"{PREFIX}:{{kept}}:record", b"x", ex=60)
    assert await store.sweep(size=3) >= len(gone)
    left = await store.redis.zrange(index, 0, -1)
    assert b"kept" in left and not {name.encode() for name in gone} & set(left)
    await store.redis.zrem(index, "kept")


async def test_a_world_that_is_being_made_is_not_swept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in the index before it is there, since its tenant's room was taken with that."""
    await store.index.enter("coming", Room())
    await store.sweep()
    assert b"coming" in await store.index.names("", "", 10_000)
    monkeypatch.setattr(index_module, "BIRTH_MS", 1)
    await store.index.enter("coming", Room())  # and then its gateway died
    while b"coming" in await store.index.names("", "", 10_000):
        await store.sweep()


def test_the_keys_of_the_index_may_be_touched_together_in_a_cluster() -> None:
    slots = {key_slot(key.encode()) for key in (index_module.INDEX, index_module.BIRTHS)}
    assert len(slots) == 1
