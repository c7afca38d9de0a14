"""KEDA's external scaler: how many replicas a pool needs, by the tasks that wait for it and those it works on.

A trigger's metadata names the `pool` and `targetQueueDepth`, the tasks that one replica should have; tasks in work count,
so that a pool that is busy but not behind keeps its size. A pool is never inactive: a world must find a worker at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from services.gateway.demand import Demand
from teleworld._proto.keda.v1 import externalscaler_pb2 as pb
from teleworld._proto.keda.v1 import externalscaler_pb2_grpc
from teleworld.rpc.server import Server
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput

NAME = "externalscaler.ExternalScaler"
METRIC = "teleworld-{pool}-tasks"
DEFAULT_TARGET = 2.0


class ExternalScaler(externalscaler_pb2_grpc.ExternalScalerServicer):
    """Answers KEDA for the whole mesh, whichever gateway it asks."""

    def __init__(self, demand: Demand) -> None:
        self._demand = demand

    async def IsActive(self, request: pb.ScaledObjectRef, context: grpc.aio.ServicerContext) -> pb.IsActiveResponse:
        _pool(request)
        return pb.IsActiveResponse(result=True)

    async def StreamIsActive(
        self, request: pb.ScaledObjectRef, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.IsActiveResponse]:
        _pool(request)
        yield pb.IsActiveResponse(result=True)
        await asyncio.Event().wait()

    async def GetMetricSpec(
        self, request: pb.ScaledObjectRef, context: grpc.aio.ServicerContext
    ) -> pb.GetMetricSpecResponse:
        target = _target(request)
        spec = pb.MetricSpec(metricName=_metric(request), targetSize=max(1, round(target)), targetSizeFloat=target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(
        self, request: pb.GetMetricsRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetMetricsResponse:
        ref = request.scaledObjectRef
        tasks = (await self._demand.total())[_pool(ref)]
        value = pb.MetricValue(metricName=_metric(ref), metricValue=tasks, metricValueFloat=float(tasks))
        return pb.GetMetricsResponse(metricValues=[value])


def register(server: Server, demand: Demand) -> None:
    """Serve the scaler on `server`."""
    server.add(externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server, ExternalScaler(demand), NAME)


def _pool(ref: pb.ScaledObjectRef) -> Pool:
    named = ref.scalerMetadata.get("pool", "")
    try:
        return Pool(named)
    except ValueError:
        known = ", ".join(pool.value for pool in Pool)
        raise InvalidInput("scalerMetadata.pool", f"{named!r} is none of {known}") from None


def _metric(ref: pb.ScaledObjectRef) -> str:
    return METRIC.format(pool=_pool(ref).value)


def _target(ref: pb.ScaledObjectRef) -> float:
    given = ref.scalerMetadata.get("targetQueueDepth", "")
    try:
        target = float(given) if given else DEFAULT_TARGET
    except ValueError:
        target = 0.0
    if not 0 < target < 1e6:
        raise InvalidInput("scalerMetadata.targetQueueDepth", f"must be a number above 0, got {given!r}")
    return target
