"""A small Kubernetes API server that keeps its word: resource versions, optimistic locking, watches with bookmarks, and 410
Gone for a version that it has forgotten. It serves EndpointSlices, Leases and the scale of Deployments over real HTTP."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

SLICES = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
SCALES = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"


class KubeApi:
    """Objects by kind and name. `requests` counts calls by (method, kind, whether it is a watch)."""

    def __init__(self) -> None:
        self.version = 100
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: dict[tuple[str, str, bool], int] = {}
        self.down = False
        self._events: list[tuple[int, str, str, dict[str, Any]]] = []
        self._forgotten = 0
        self._changed = asyncio.Condition()
        self._watches: set[asyncio.Task[Any]] = set()

    # -- what a test does to the cluster ------------------------------------------------------------------------------

    async def put(self, kind: str, name: str, body: dict[str, Any]) -> None:
        """Create or replace an object, as a controller would."""
        event = "MODIFIED" if (kind, name) in self.objects else "ADDED"
        body = {**body, "metadata": {**body.get("metadata", {}), "name": name}}
        await self._record(event, kind, name, body)

    async def remove(self, kind: str, name: str) -> None:
        """Delete an object."""
        await self._record("DELETED", kind, name, self.objects[kind, name])

    async def bookmark(self) -> None:
        """Tell every watch how far the world has come."""
        await self._record("BOOKMARK", "endpointslices", "", {"kind": "EndpointSlice", "metadata": {}})

    async def forget(self) -> None:
        """Compact the history and end all watches: versions older than now answer 410."""
        self._forgotten = self.version
        self._events.clear()
        await self.hang_up()

    async def hang_up(self) -> None:
        """End all watches."""
        watches = tuple(self._watches)
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def _record(self, event: str, kind: str, name: str, body: dict[str, Any]) -> None:
        async with self._changed:
            self.version += 1
            body = copy.deepcopy(body)
            body["metadata"]["resourceVersion"] = str(self.version)
            if event == "DELETED":
                del self.objects[kind, name]
            elif event != "BOOKMARK":
                self.objects[kind, name] = body
            self._events.append((self.version, kind, event, body))
            self._changed.notify_all()

    # -- what a client sees -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL."""
        app = web.Application(middlewares=[self._gate])
        app.router.add_get(SLICES, self._slices)
        app.router.add_post(LEASES, self._create)
        app.router.add_get(LEASES + "/{name}", self._read)
        app.router.add_put(LEASES + "/{name}", self._replace)
        app.router.add_get(SCALES, self._scale)
        app.router.add_put(SCALES, self._rescale)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await self.hang_up()
            await runner.cleanup()

    @web.middleware
    async def _gate(self, request: web.Request, handler: Any) -> web.StreamResponse:
        kind = next(kind for kind in ("leases", "endpointslices", "scale") if kind in request.path.split("/"))
        key = (request.method, kind, "watch" in request.query)
        self.requests[key] = self.requests.get(key, 0) + 1
        if self.down:
            return _status(503, "ServiceUnavailable", "the API server is restarting")
        return await handler(request)

    async def _slices(self, request: web.Request) -> web.StreamResponse:
        wanted = dict(pair.split("=", 1) for pair in request.query.get("labelSelector", "").split(",") if pair)
        fits = lambda item: all(item["metadata"].get("labels", {}).get(k) == v for k, v in wanted.items())  # noqa: E731
        if request.query.get("watch") in ("true", "True", "1"):
            return await self._watch(request, fits)
        items = [item for (kind, _), item in self.objects.items() if kind == "endpointslices" and fits(item)]
        return web.json_response(
            {"kind": "EndpointSliceList", "metadata": {"resourceVersion": str(self.version)}, "items": items}
        )

    async def _watch(self, request: web.Request, fits: Any) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self._forgotten:
            return _status(410, "Expired", "too old resource version")
        bookmarks = request.query.get("allowWatchBookmarks") in ("true", "True", "1")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.current_task()
        assert task is not None
        self._watches.add(task)
        try:
            while True:
                async with self._changed:
                    fresh = [event for event in self._events if event[0] > since]
                    if not fresh:
                        await self._changed.wait()
                        continue
                for number, kind, event, item in fresh:
                    since = number
                    if kind == "endpointslices" and (bookmarks if event == "BOOKMARK" else fits(item)):
                        await response.write(json.dumps({"type": event, "object": item}).encode() + b"\n")
        except asyncio.CancelledError:
            # The connection ends as a server ends one that has run its time.
            task.uncancel()
            return response
        finally:
            self._watches.discard(task)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = body["metadata"]["name"]
        if ("leases", name) in self.objects:
            return _status(409, "AlreadyExists", f"leases {name} already exists")
        await self.put("leases", name, body)
        return web.json_response(self.objects["leases", name], status=201)

    async def _read(self, request: web.Request) -> web.Response:
        found = self.objects.get(("leases", request.match_info["name"]))
        return web.json_response(found) if found else _status(404, "NotFound", "no such lease")

    async def _replace(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.json()
        found = self.objects.get(("leases", name))
        if found is None:
            return _status(404, "NotFound", "no such lease")
        if body["metadata"].get("resourceVersion") not in (None, found["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", "the object has been modified")
        await self.put("leases", name, body)
        return web.json_response(self.objects["leases", name])

    async def _scale(self, request: web.Request) -> web.Response:
        found = self.objects.get(("deployments", request.match_info["name"]))
        return web.json_response(_scale_of(found)) if found else _status(404, "NotFound", "no such deployment")

    async def _rescale(self, request: web.Request) -> web.Response:
        """Only the number of pods changes, and the Deployment's resource version with it."""
        name, body = request.match_info["name"], await request.json()
        found = self.objects.get(("deployments", name))
        if found is None:
            return _status(404, "NotFound", "no such deployment")
        if body["metadata"].get("resourceVersion") not in (None, found["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", "the object has been modified")
        replicas = body["spec"].get("replicas", 0)
        if replicas < 0:
            return _status(422, "Invalid", "spec.replicas: must be greater than or equal to 0")
        await self.put("deployments", name, {**found, "spec": {**found["spec"], "replicas": replicas}})
        return web.json_response(_scale_of(self.objects["deployments", name]))


def _scale_of(deployment: dict[str, Any]) -> dict[str, Any]:
    """The scale subresource: the same name and version as the Deployment, its number of pods, and how many there are."""
    spec, pods = deployment["spec"], deployment.get("status", {}).get("replicas", 0)
    selector = ",".join(f"{key}={value}" for key, value in spec.get("selector", {}).get("matchLabels", {}).items())
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: deployment["metadata"][key] for key in ("name", "resourceVersion")},
        # A number of nothing is left out, as the API server does.
        "spec": {"replicas": spec["replicas"]} if spec["replicas"] else {},
        "status": {"replicas": pods, "selector": selector},
    }


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}, status=code
    )
