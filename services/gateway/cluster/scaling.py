"""Autoscaling without an autoscaler: the gateway that leads writes how many pods a pool has, by the Deployment's scale subresource.

For clusters that have neither KEDA nor a metrics adapter. The signal is theirs, the tasks of all gateways that wait or are
in work. Up at once, since people wait. Down one pod at a time, each of which drains, and only when fewer would have done for a
while. A pool without pods is left alone: somebody wants it so. While the API server or the store is away nothing changes, and
of two that write at a time one is refused by the resource version and looks again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from kubernetes.aio import client

from services.gateway.cluster.api import AWAY
from services.gateway.demand import Demand
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput, Unavailable

LOOK_SECONDS = 5.0
DOWN_SECONDS = 60.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """A Deployment, its fewest and most pods, the tasks that one pod should have, and for how many seconds fewer pods must do."""

    deployment: str
    least: int
    most: int
    tasks: float
    patience: float

    @classmethod
    def parse(cls, text: str) -> dict[Pool, Bounds]:
        """Of `pool=deployment:least:most:tasks:seconds`, separated by commas. Raises InvalidInput(`scale`)."""
        found: dict[Pool, Bounds] = {}
        for entry in filter(None, map(str.strip, text.split(","))):
            pool, _, told = entry.partition("=")
            try:
                name, least, most, tasks, seconds = told.split(":")
                bounds = cls(name, int(least), int(most), float(tasks), float(seconds))
                found[Pool(pool)] = bounds
            except ValueError:
                raise InvalidInput(
                    "scale", f"expected pool=deployment:least:most:tasks:seconds, got {entry!r}"
                ) from None
            if not (name and 1 <= bounds.least <= bounds.most and bounds.tasks > 0 and bounds.patience >= 0):
                raise InvalidInput("scale", f"{entry!r}: 1 <= least <= most, tasks above 0 and seconds are needed")
        return found


class Sizing:
    """How many pods one pool should have. Pure: whoever calls brings time, in seconds of any clock that does not jump."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._needs: deque[tuple[float, int]] = deque()
        self._since: float | None = None
        self._shrank = -math.inf

    def next(self, now: float, pods: int, tasks: int) -> int:
        """The number of pods from now on, where there are `pods` and `tasks` wait or are in work."""
        bounds = self._bounds
        need = min(max(math.ceil(tasks / bounds.tasks), bounds.least), bounds.most)
        self._since = now if self._since is None else self._since
        self._needs.append((now, need))
        while self._needs[0][0] < now - bounds.patience:
            self._needs.popleft()
        if pods == 0 or need >= pods:
            return need if pods else 0
        if pods > bounds.most:
            return bounds.most
        lasted = now - self._since >= bounds.patience and max(each for _, each in self._needs) < pods
        if not lasted or now - self._shrank < DOWN_SECONDS:
            return pods
        self._shrank = now
        return pods - 1


class Autoscaler:
    """The duty of the leading gateway, beside others. `bounds`: of the pools that it sizes, in `namespace`."""

    def __init__(self, api: client.ApiClient, namespace: str, bounds: Mapping[Pool, Bounds], demand: Demand) -> None:
        self._api = client.AppsV1Api(api)
        self._namespace = namespace
        self._bounds = bounds
        self._demand = demand

    async def run(self) -> None:
        """Look at the queues and set the pools' sizes, for ever."""
        sizings = {pool: Sizing(bounds) for pool, bounds in self._bounds.items()}
        while True:
            try:
                tasks = await self._demand.total()
            except Unavailable as error:
                _log.warning("the queues cannot be read", extra={"reason": error.reason})
            else:
                for pool, sizing in sizings.items():
                    try:
                        await self._set(pool, sizing, tasks[pool])
                    except AWAY as error:
                        _log.warning("a pool cannot be sized", extra={"pool": pool.value, "reason": str(error)[:200]})
            await asyncio.sleep(LOOK_SECONDS)

    async def _set(self, pool: Pool, sizing: Sizing, tasks: int) -> None:
        name = self._bounds[pool].deployment
        scale = await self._api.read_namespaced_deployment_scale(name, self._namespace)
        spec = scale.spec or client.V1ScaleSpec()
        pods = spec.replicas or 0
        wanted = sizing.next(asyncio.get_running_loop().time(), pods, tasks)
        if wanted == pods:
            return
        spec.replicas, scale.spec = wanted, spec
        # It carries the resource version that was read: what somebody else wrote meanwhile is not overwritten.
        await self._api.replace_namespaced_deployment_scale(name, self._namespace, scale)
        _log.info("sized a pool", extra={"pool": pool.value, "pods": wanted, "before": pods, "tasks": tasks})
