"""The parts of a gateway, put together."""

from __future__ import annotations

from services.gateway.discovery import Discovery, StaticDiscovery
from services.gateway.roster import Roster
from services.gateway.servicer import register
from services.gateway.settings import GatewaySettings
from services.gateway.states import Retention
from services.gateway.store import Store
from services.gateway.worlds import Worlds
from teleworld.rpc.server import Server


def assemble(settings: GatewaySettings, discovery: Discovery | None = None) -> tuple[Server, Worlds]:
    """A gateway's server and its worlds; `discovery` is by the settings' addresses unless given. Raises InvalidInput."""
    retention = Retention(
        chunks=settings.chunk_retention,
        nbytes=settings.chunk_retention_bytes,
        segments=settings.log_retention,
        world_seconds=settings.world_ttl_seconds,
        request_seconds=settings.request_ttl_seconds,
    )
    sources = discovery or StaticDiscovery(settings.addresses())
    worlds = Worlds(
        settings,
        Store(settings.redis_url, retention),
        lambda dispatcher: Roster(dispatcher, sources, digest=settings.weights_digest, slots=settings.worker_slots),
    )
    server = Server("gateway", settings.server())
    register(server, worlds)
    server.on_drain(worlds.drain)
    return server, worlds
