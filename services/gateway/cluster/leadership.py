"""One of several replicas leads: a coordination.k8s.io Lease, written by compare-and-set on its resource version.

A candidate takes over when it has seen the Lease unchanged for its whole duration, by its own monotonic clock: clocks of
nodes are never compared. A leader that cannot renew steps down when two thirds of the duration have passed since its
last success, so that there is a while without a leader but never two.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from services.gateway.cluster.api import AWAY

NOT_FOUND, CONFLICT = 404, 409
STEP_DOWN = 2 / 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseName:
    """Where the Lease is."""

    name: str
    namespace: str


class Leadership:
    """Runs `duty` while this replica leads. `identity`: unique among the replicas, such as the pod's name."""

    def __init__(
        self,
        api: client.ApiClient,
        lease: LeaseName,
        identity: str,
        duty: Callable[[], Awaitable[None]],
        *,
        seconds: float = 15.0,
    ) -> None:
        self._api = client.CoordinationV1Api(api)
        self._lease = lease
        self._identity = identity
        self._duty = duty
        self._seconds = seconds
        self._seen: tuple[str, float] = ("", 0.0)
        self._leading: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """Whether this replica leads now."""
        return self._leading is not None

    async def run(self) -> None:
        """Campaign until cancelled; then step down and let go of the Lease."""
        renewed = -self._seconds
        clock = asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                try:
                    held = await asyncio.wait_for(self._campaign(), self._seconds * STEP_DOWN)
                except AWAY as error:
                    _log.warning("the lease cannot be reached", extra={"reason": str(error)[:200]})
                    # Nobody else can have it before the duration has passed since the last renewal was begun.
                    held = self.leading and clock() - renewed < self._seconds * STEP_DOWN
                else:
                    renewed = began if held else renewed
                await self._lead(held)
                await asyncio.sleep(self._seconds / 5 * random.uniform(0.8, 1.0))
        finally:
            was_leading = self.leading
            await self._lead(False)
            if was_leading:
                with contextlib.suppress(*AWAY):
                    await asyncio.wait_for(self._release(), self._seconds / 5)

    async def _lead(self, held: bool) -> None:
        if held and self._leading is None:
            _log.info("leading", extra={"lease": self._lease.name, "identity": self._identity})
            self._leading = asyncio.create_task(self._work(), name="leader's duty")
        elif not held and self._leading is not None:
            _log.info("not leading any more", extra={"lease": self._lease.name, "identity": self._identity})
            self._leading.cancel()
            await asyncio.gather(self._leading, return_exceptions=True)
            self._leading = None

    async def _work(self) -> None:
        try:
            await self._duty()
        except Exception:
            _log.exception("the leader's duty failed")

    async def _campaign(self) -> bool:
        """Take or renew the Lease if it is ours to take; True if it is held after that."""
        lease = await self._read()
        if lease is None:
            fresh = client.V1Lease(metadata=client.V1ObjectMeta(name=self._lease.name), spec=self._spec(0))
            return await self._write(self._api.create_namespaced_lease, self._lease.namespace, fresh)
        spec, version = lease.spec or client.V1LeaseSpec(), _version(lease)
        now = asyncio.get_running_loop().time()
        if self._seen[0] != version:
            self._seen = (version, now)
        holder = spec.holder_identity or ""
        if holder not in ("", self._identity) and now - self._seen[1] < (spec.lease_duration_seconds or self._seconds):
            return False
        transitions = (spec.lease_transitions or 0) + (holder != self._identity)
        lease.spec = self._spec(transitions, spec.acquire_time if holder == self._identity else None)
        return await self._replace(lease)

    async def _read(self) -> client.V1Lease | None:
        try:
            return await self._api.read_namespaced_lease(self._lease.name, self._lease.namespace)
        except ApiException as error:
            if error.status == NOT_FOUND:
                return None
            raise

    async def _replace(self, lease: client.V1Lease) -> bool:
        return await self._write(self._api.replace_namespaced_lease, self._lease.name, self._lease.namespace, lease)

    async def _write(self, write: Callable[..., Awaitable[client.V1Lease]], *arguments: Any) -> bool:
        """Compare-and-set: False if somebody else was quicker."""
        try:
            written = await write(*arguments)
        except ApiException as error:
            if error.status == CONFLICT:
                return False
            raise
        self._seen = (_version(written), asyncio.get_running_loop().time())
        return True

    async def _release(self) -> None:
        """Leave the Lease without a holder, so that the next one need not wait it out."""
        lease = await self._read()
        if lease is not None and lease.spec is not None and lease.spec.holder_identity == self._identity:
            lease.spec.holder_identity = ""
            await self._replace(lease)

    def _spec(self, transitions: int, begun: datetime.datetime | None = None) -> client.V1LeaseSpec:
        now = datetime.datetime.now(datetime.UTC)
        # The API server wants exactly six digits behind the second, which Python leaves out when they are all zero.
        now = now.replace(microsecond=now.microsecond or 1)
        return client.V1LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=max(1, round(self._seconds)),
            acquire_time=begun or now,
            renew_time=now,
            lease_transitions=transitions,
        )


def _version(lease: client.V1Lease) -> str:
    """The resource version that a write must name."""
    return (lease.metadata.resource_version if lease.metadata else None) or ""
