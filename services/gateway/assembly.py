"""The parts of a gateway, put together."""

from __future__ import annotations

from services.gateway.access.door import open_door
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
    tls = settings.tls()
    sources = discovery or _discovery(settings)
    worlds = Worlds(
        settings,
        Store(settings.redis_url, retention),
        lambda make: Roster(make, sources, digest=settings.weights_digest, slots=settings.worker_slots, tls=tls),
    )
    server = Server("gateway", settings.server())
    register(server, worlds, open_door(settings, worlds.store))
    server.on_drain(worlds.drain)
    return server, worlds


def _discovery(settings: GatewaySettings) -> Discovery:
    if settings.discovery == "static":
        return StaticDiscovery(settings.addresses())
    # Imported late: only a gateway in a cluster needs the Kubernetes client.
    from services.gateway.cluster.endpoints import ClusterDiscovery

    return ClusterDiscovery(settings.addresses(), settings.kubernetes_api, settings.zone)
