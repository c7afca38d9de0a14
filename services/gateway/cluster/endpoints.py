"""Discovery by EndpointSlices: which pods stand behind each worker Service, and which of them to prefer.

A list gives the state and its resource version, a watch the changes since. The watch is told again from a fresh list when the
server has forgotten that version (410), and from the last version when the connection ends. While the API server is
away nothing changes: workers are reached directly, and whether one is well is found out by its own health.

Zone preference follows the server's topology hints, which kube-proxy follows too: they are computed so that each zone's
endpoints can carry that zone's load. Where a slice carries none, or none for our zone, all its endpoints are used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from services.gateway.cluster.api import AWAY, connect, own_namespace
from services.gateway.discovery import Sighting
from teleworld.runtime.aiokit import TaskGroup
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput

GONE = 410
WATCH_SECONDS = 300
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.2, 15.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceName:
    """A Kubernetes Service and the port of its pods."""

    name: str
    namespace: str
    port: int

    @classmethod
    def parse(cls, field: str, text: str, namespace: str) -> ServiceName:
        """`name[.namespace[.svc...]]:port`. Raises InvalidInput naming `field`."""
        host, _, port = text.rpartition(":")
        name, *rest = host.split(".")
        if not name or not port.isdecimal():
            raise InvalidInput(field, f"expected name.namespace:port of a Service, got {text!r}")
        return cls(name, rest[0] if rest else namespace, int(port))


class EndpointSliceDiscovery:
    """`Discovery` over the Services of the pools. `zone`: this gateway's; empty prefers none."""

    def __init__(self, api: client.ApiClient, services: Mapping[Pool, ServiceName], zone: str = "") -> None:
        self._api = client.DiscoveryV1Api(api)
        self._services = services
        self._zone = zone

    async def sightings(self) -> AsyncGenerator[Sighting, None]:
        """Endless. A pool's addresses are told when they appear, and again when they are gone."""
        changes: asyncio.Queue[Sighting | BaseException] = asyncio.Queue()
        tasks = TaskGroup(changes.put_nowait)
        for pool, service in self._services.items():
            tasks.start(self._follow(pool, service, changes), name=f"endpoints of {service.name}")
        try:
            while True:
                change = await changes.get()
                if isinstance(change, BaseException):
                    raise change
                yield change
        finally:
            await tasks.close()

    async def _follow(self, pool: Pool, service: ServiceName, changes: asyncio.Queue[Any]) -> None:
        """List, watch, and begin anew, for ever."""
        told: set[str] = set()
        backoff = MIN_BACKOFF_SECONDS
        while True:
            try:
                slices, version = await self._list(service)
                while True:
                    async with aclosing(self._watch(service, version, slices)) as versions:
                        async for reached in versions:
                            version = reached
                            now = set(_addresses(slices.values(), service.port, self._zone))
                            for address in sorted(told ^ now):
                                changes.put_nowait(Sighting(pool, address, present=address in now))
                            told, backoff = now, MIN_BACKOFF_SECONDS
            except AWAY as error:
                if isinstance(error, ApiException) and error.status == GONE:
                    continue
                _log.warning("endpoints cannot be watched", extra={"service": service.name, "reason": str(error)[:200]})
                await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)

    async def _list(self, service: ServiceName) -> tuple[dict[str, dict[str, Any]], str]:
        """Slices by name, and the resource version of that state."""
        response = await self._api.list_namespaced_endpoint_slice_without_preload_content(
            service.namespace, label_selector=_selector(service)
        )
        async with response:
            listed = _checked(await response.json())
        return {item["metadata"]["name"]: item for item in listed["items"]}, listed["metadata"]["resourceVersion"]

    async def _watch(
        self, service: ServiceName, version: str, slices: dict[str, dict[str, Any]]
    ) -> AsyncGenerator[str, None]:
        """Take changes into `slices`, and say the version after each; at once that of the list. Ends with the connection."""
        yield version
        response = await self._api.list_namespaced_endpoint_slice_without_preload_content(
            service.namespace,
            label_selector=_selector(service),
            resource_version=version,
            watch=True,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_SECONDS,
            _request_timeout=WATCH_SECONDS + 30.0,
        )
        async with response:
            async for line in response.content:
                event = json.loads(line)
                item = _checked(event.get("object", event), event.get("type", ""))
                name = item["metadata"].get("name", "")
                match event["type"]:
                    case "ADDED" | "MODIFIED":
                        slices[name] = item
                    case "DELETED":
                        slices.pop(name, None)
                yield item["metadata"]["resourceVersion"]


def _selector(service: ServiceName) -> str:
    return f"kubernetes.io/service-name={service.name}"


def _checked(item: dict[str, Any], event: str = "") -> dict[str, Any]:
    """The object itself, unless it is a Status that tells of a failure."""
    if event == "ERROR" or item.get("kind") == "Status":
        raise ApiException(status=item.get("code"), reason=item.get("message"))
    return item


def _addresses(slices: Iterable[Mapping[str, Any]], port: int, zone: str) -> Iterator[str]:
    """host:port of every endpoint that may be asked: one that serves, also while it drains."""
    for item in slices:
        endpoints = [one for one in item.get("endpoints") or [] if _serves(one)]
        hinted = [one for one in endpoints if zone in _zones(one)]
        chosen = hinted if zone and hinted and all(_zones(one) for one in endpoints) else endpoints
        for one in chosen:
            for address in one.get("addresses") or []:
                yield f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _serves(endpoint: Mapping[str, Any]) -> bool:
    conditions = endpoint.get("conditions") or {}
    serving = conditions.get("serving")
    return bool(conditions.get("ready", True)) if serving is None else bool(serving)


def _zones(endpoint: Mapping[str, Any]) -> set[str]:
    hints = endpoint.get("hints") or {}
    return {hint["name"] for hint in hints.get("forZones") or []}


async def own_zone(api: client.ApiClient, namespace: str, pod: str) -> str:
    """The zone that EndpointSlices give for this pod; empty if they do not tell."""
    with suppress(*AWAY):
        response = await client.DiscoveryV1Api(api).list_namespaced_endpoint_slice_without_preload_content(namespace)
        async with response:
            listed = _checked(await response.json())
        for item in listed["items"]:
            for endpoint in item.get("endpoints") or []:
                if (endpoint.get("targetRef") or {}).get("name") == pod:
                    return endpoint.get("zone") or ""
    return ""


class ClusterDiscovery:
    """`EndpointSliceDiscovery` that connects when it is first asked, on the loop that asks.

    addresses: one Service a pool, `name.namespace:port`. api: see `connect`. zone: empty looks for the pod's own.
    """

    def __init__(self, addresses: Mapping[Pool, Sequence[str]], api: str = "", zone: str = "") -> None:
        """Raises InvalidInput naming a pool's setting that is not one Service."""
        self._namespace = os.environ.get("POD_NAMESPACE") or own_namespace()
        self._api, self._zone = api, zone
        self._services = {}
        for pool in Pool:
            field = f"{pool.value}_addresses"
            if len(listed := addresses.get(pool, ())) != 1:
                raise InvalidInput(field, f"expected one Service, got {len(listed)}")
            self._services[pool] = ServiceName.parse(field, listed[0], self._namespace)

    async def sightings(self) -> AsyncIterator[Sighting]:
        api = await connect(self._api)
        try:
            pod = os.environ.get("POD_NAME", "")
            zone = self._zone or (await own_zone(api, self._namespace, pod) if pod else "")
            async with aclosing(EndpointSliceDiscovery(api, self._services, zone).sightings()) as sightings:
                async for sighting in sightings:
                    yield sighting
        finally:
            await api.close()
