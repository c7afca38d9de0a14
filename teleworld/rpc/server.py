"""The life of a service process: listen, warm up, serve, drain.

    start    listens; health says NOT_SERVING
    warm-up  loads what takes time
    ready    health says SERVING
    drain    on SIGTERM or SIGINT: NOT_SERVING, admission stops, calls under way get `drain_seconds` to finish, close

`run` goes through all of it and prints one JSON line to stdout when it listens and one when it serves; tests and embedders
call the steps by hand.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from teleworld.rpc.channels import MAX_MESSAGE_BYTES, SERVER_OPTIONS
from teleworld.rpc.health import SERVICE as HEALTH
from teleworld.rpc.health import Health
from teleworld.rpc.interceptors import ServerBoundary
from teleworld.rpc.link import segments
from teleworld.rpc.segments import SWEEP_SECONDS
from teleworld.rpc.tls import TlsFiles, is_loopback, server_credentials
from teleworld.world.errors import InvalidInput

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerConfig:
    """Where a server listens and how it ends.

    port 0 chooses a free one. admin_port, if given, serves health, reflection and channelz alone (a kubelet's probes need
    no access to the API; it is always plaintext). require_deadline refuses calls without one. tls: none is for loopback, or
    asked for by name (`insecure`). callers: names of whom a certificate must prove a peer to be; empty asks clients for none.
    max_message_bytes: of a request.
    """

    host: str = "127.0.0.1"
    port: int = 0
    admin_port: int | None = None
    drain_seconds: float = 10.0
    require_deadline: bool = True
    tls: TlsFiles | None = None
    callers: tuple[str, ...] = ()
    insecure: bool = False
    max_message_bytes: int = MAX_MESSAGE_BYTES


class Server:
    """A gRPC server with health and reflection. Made and used on one event loop."""

    def __init__(self, service: str, config: ServerConfig) -> None:
        self.service = service
        self.config = config
        self.health = Health()
        self.address = ""
        self.admin_address = ""
        self._on_drain: list[Callable[[], Awaitable[None]]] = []
        self._names = [HEALTH]
        self._sweeper: asyncio.Task[None] | None = None
        self._server = grpc.aio.server(
            interceptors=[ServerBoundary(require_deadline=config.require_deadline, callers=config.callers)],
            options=[*SERVER_OPTIONS, ("grpc.max_receive_message_length", config.max_message_bytes)],
        )
        self._admin = None if config.admin_port is None else grpc.aio.server(options=SERVER_OPTIONS)

    def add(self, register: Callable[[Any, grpc.aio.Server], None], servicer: object, name: str) -> None:
        """Serve `servicer`; `register` is the generated `add_..._to_server`, `name` the full name of the gRPC service."""
        register(servicer, self._server)
        self.health.add(name)
        self._names.append(name)

    def on_drain(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Await `callback` when the drain begins, after health said NOT_SERVING: stop admitting, end long streams."""
        self._on_drain.append(callback)

    async def start(self) -> str:
        """Listen and return the address, `host:port`. Raises InvalidInput(`port`) when the address cannot be had.

        Raises InvalidInput(`host`) for an interface that others can reach, without TLS and without being told so.
        """
        if self.config.tls is None and not self.config.insecure and not is_loopback(self.config.host):
            raise InvalidInput("host", f"{self.config.host} without TLS must be asked for by name: set `insecure`")
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        reflection.enable_server_reflection([*self._names, reflection.SERVICE_NAME], self._server)
        self.address = self._bind(self._server, self.config.port, "port")
        if self._admin is not None and self.config.admin_port is not None:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self._admin)
            reflection.enable_server_reflection([HEALTH, reflection.SERVICE_NAME], self._admin)
            channelz.add_channelz_servicer(self._admin)
            self.admin_address = self._bind(self._admin, self.config.admin_port, "admin_port")
            await self._admin.start()
        await self._server.start()
        self._sweeper = asyncio.create_task(_sweep(), name="sweep segments")
        return self.address

    def ready(self) -> None:
        """Say SERVING."""
        self.health.set_serving(True)

    async def drain(self) -> None:
        """Say NOT_SERVING, stop admitting, let calls under way finish within the bound, close."""
        self.health.close()
        clock = asyncio.get_running_loop().time
        end = clock() + self.config.drain_seconds
        try:
            async with asyncio.timeout_at(end):
                for callback in self._on_drain:
                    await callback()
        except TimeoutError:
            _log.warning("the drain's bound is over before everything ended")
        await self._server.stop(max(end - clock(), 0.0))
        if self._admin is not None:
            await self._admin.stop(0)
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _bind(self, server: grpc.aio.Server, port: int, field: str) -> str:
        try:
            bound = self._listen(server, f"{self.config.host}:{port}")
        except RuntimeError as error:
            raise InvalidInput(field, f"cannot listen on {self.config.host}:{port}") from error
        return f"{self.config.host}:{bound}"

    def _listen(self, server: grpc.aio.Server, place: str) -> int:
        if server is self._admin or self.config.tls is None:
            return server.add_insecure_port(place)
        return server.add_secure_port(
            place, server_credentials(self.config.tls, known_clients=bool(self.config.callers))
        )


async def _sweep() -> None:
    """Remove what peers left in the node's memory, now and every SWEEP_SECONDS."""
    while (kept := segments()) is not None:
        kept.sweep()
        await asyncio.sleep(SWEEP_SECONDS)


async def run(server: Server, warm_up: Callable[[], Awaitable[None]]) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises what `start` or `warm_up` raises, after closing."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    address = await server.start()
    announce("listening", service=server.service, address=address, admin_address=server.admin_address)
    try:
        await _warm(server, warm_up, stop)
        await stop.wait()
        _log.info("draining", extra={"seconds": server.config.drain_seconds})
    finally:
        await server.drain()
    _log.info("stopped")


async def _warm(server: Server, warm_up: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    """Become ready, unless the process is told to stop first."""
    warming, stopping = asyncio.ensure_future(warm_up()), asyncio.ensure_future(stop.wait())
    await asyncio.wait((warming, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not warming.done():
        warming.cancel()
        return
    await warming
    server.ready()
    announce("serving", service=server.service, address=server.address)


def announce(event: str, **fields: str) -> None:
    """Print one JSON line to stdout, for whoever started this process."""
    print(json.dumps({"event": event, **{key: value for key, value in fields.items() if value}}), flush=True)
    sys.stdout.flush()
