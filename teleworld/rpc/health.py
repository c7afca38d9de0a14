"""grpc.health.v1: a server's own servicer, and what a client asks of it.

The servicer of grpcio-health-checking keeps a Watch open for ever, which holds a drain back until its bound. Here a Watch
streams every change and ends when the server drains. One process has one status, whatever service is asked for: it serves
once it is warm and until it drains. Only the name `liveness` asks something else, whether the process answers at all: one
that waits, for its weights or for workers, or that drains, must not be restarted for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from teleworld.rpc import calls
from teleworld.rpc.status import from_rpc_error

SERVICE = "grpc.health.v1.Health"
LIVENESS = "liveness"
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):
    """The status of one process. Starts as NOT_SERVING; the empty service name stands for the whole process."""

    def __init__(self) -> None:
        self._services = {"", LIVENESS}
        self._serving = False
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether Check answers SERVING."""
        return self._serving

    def add(self, service: str) -> None:
        """Answer for `service` as well."""
        self._services.add(service)

    def set_serving(self, serving: bool) -> None:
        """Change the status and tell every watcher."""
        if serving != self._serving:
            self._serving = serving
            self._notify()

    def close(self) -> None:
        """Say NOT_SERVING for good, and end every Watch after it was told so."""
        self._serving = False
        self._closed = True
        self._notify()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext) -> None:
        told = None
        while True:
            changed, closed, status = self._changed, self._closed, self._status(request.service)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            if closed:
                return
            await changed.wait()

    def _status(self, service: str) -> health_pb2.HealthCheckResponse.ServingStatus:
        if service not in self._services:
            return _SERVICE_UNKNOWN
        return _SERVING if self._serving or service == LIVENESS else _NOT_SERVING

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


async def check(channel: grpc.aio.Channel, service: str, timeout: float) -> bool:
    """Whether `service` serves now. Raises Unavailable, DeadlineExceeded or NotFound."""
    try:
        response = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=timeout
        )
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
    return response.status == _SERVING


async def watch(channel: grpc.aio.Channel, service: str) -> AsyncGenerator[bool, None]:
    """Whether `service` serves: now, and at every change. Ends when the server drains; raises Unavailable when it is away."""
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    async with aclosing(calls.server_stream(stub.Watch, f"{SERVICE}/Watch", request, None)) as responses:
        async for response in responses:
            yield response.status == _SERVING
