"""What a gateway does beside its streams: it tells its queues for autoscaling, and one of the replicas keeps the store tidy and,
where it is asked to, sizes the pools.

In a cluster that replica is elected by a Lease; elsewhere each gateway tidies, which does no harm: it is idempotent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AsyncExitStack
from dataclasses import replace

from services.gateway.demand import Demand
from services.gateway.scaler import register
from services.gateway.settings import GatewaySettings
from services.gateway.worlds import Worlds
from teleworld.rpc.server import Server
from teleworld.runtime.aiokit import TaskGroup
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput, Unavailable

SWEEP_SECONDS = 300.0
_log = logging.getLogger(__name__)


def identity() -> str:
    """What tells this gateway from its replicas: the pod's name, else host and process."""
    return os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"


class Duties:
    """`async with Duties(settings, worlds)`, for as long as the gateway runs."""

    def __init__(self, settings: GatewaySettings, worlds: Worlds) -> None:
        self._settings = settings
        self._worlds = worlds
        self.demand = Demand(worlds.store, identity(), self._own)
        self.scaler_address = ""
        self._tasks = TaskGroup(_failed)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Duties:
        if self._settings.scale and self._settings.discovery != "kubernetes":
            raise InvalidInput("scale", "needs discovery=kubernetes")
        self._stack.push_async_callback(self._tasks.close)
        self._tasks.start(self.demand.run(), name="demand")
        if self._settings.scaler_port is not None:
            server = Server(
                "scaler", replace(self._settings.server(), port=self._settings.scaler_port, admin_port=None)
            )
            register(server, self.demand)
            self.scaler_address = await server.start()
            server.ready()
            self._stack.push_async_callback(server.drain)
        if self._settings.discovery == "kubernetes":
            await self._campaign()
        else:
            self._tasks.start(self._sweep(), name="sweep")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def _own(self) -> dict[Pool, int]:
        schedulers = [fleet.dispatcher.scheduler for fleet in self._worlds.roster.fleets]
        return {pool: sum(one.depth(pool) + one.busy(pool) for one in schedulers) for pool in Pool}

    async def _campaign(self) -> None:
        # Imported late: only a gateway in a cluster needs the Kubernetes client.
        from services.gateway.cluster.api import connect, own_namespace
        from services.gateway.cluster.leadership import Leadership, LeaseName
        from services.gateway.cluster.scaling import Autoscaler, Bounds

        bounds = Bounds.parse(self._settings.scale)
        api = await connect(self._settings.kubernetes_api)
        self._stack.push_async_callback(api.close)
        namespace = os.environ.get("POD_NAMESPACE") or own_namespace()
        autoscaler = Autoscaler(api, namespace, bounds, self.demand)

        async def lead() -> None:
            async with asyncio.TaskGroup() as duties:
                duties.create_task(self._sweep(), name="sweep")
                if bounds:
                    duties.create_task(autoscaler.run(), name="autoscaler")

        lease = LeaseName(self._settings.lease_name, namespace)
        campaign = TaskGroup(_failed)
        # Ends before the client does: whoever leads gives the Lease back, so that the next one need not wait it out.
        self._stack.push_async_callback(campaign.close)
        campaign.start(Leadership(api, lease, identity(), lead).run(), name="leadership")

    async def _sweep(self) -> None:
        """Take worlds that are gone, expired or deleted half-way, out of the index, for ever."""
        while True:
            try:
                if swept := await self._worlds.store.sweep():
                    _log.info("swept the index", extra={"worlds": swept})
            except Unavailable as error:
                _log.warning("the store cannot be swept", extra={"reason": error.reason})
            await asyncio.sleep(SWEEP_SECONDS)


def _failed(error: BaseException) -> None:
    _log.error("a duty failed", exc_info=error)
