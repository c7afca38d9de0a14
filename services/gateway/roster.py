"""Which of the discovered workers are well: each address is watched through gRPC health, and joins the fleet of its weights
while it serves."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import aclosing

from services.gateway.discovery import Discovery
from services.gateway.fleets import Fleet, Fleets
from teleworld.rpc import health
from teleworld.rpc.tls import TlsFiles
from teleworld.rpc.workers import (
    DECODER,
    PLANNER,
    POPULATOR,
    RECONSTRUCTOR,
    DecoderClient,
    PlannerClient,
    PopulatorClient,
    ReconstructorClient,
)
from teleworld.runtime.aiokit import Bell, TaskGroup
from teleworld.runtime.dispatcher import Dispatcher
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import PreconditionFailed, TeleWorldError, Unavailable

Client = PlannerClient | PopulatorClient | ReconstructorClient | DecoderClient

_CLIENTS: dict[Pool, tuple[type[Client], str]] = {
    Pool.PLANNER: (PlannerClient, PLANNER),
    Pool.POPULATOR: (PopulatorClient, POPULATOR),
    Pool.RECONSTRUCTOR: (ReconstructorClient, RECONSTRUCTOR),
    Pool.DECODER: (DecoderClient, DECODER),
}
DESCRIBE_SECONDS = 5.0
MIN_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.05, 2.0
_log = logging.getLogger(__name__)


class Roster:
    """Joins workers to fleets and takes them away. `digest`: see `Fleets`; `slots`: tasks that a worker is given for each that
    it does at a time; `make`: a dispatcher for one more fleet.

    tls: what the gateway shows to workers; each must then prove to be of its pool.
    """

    def __init__(
        self,
        make: Callable[[], Dispatcher],
        discovery: Discovery,
        *,
        digest: str = "",
        slots: int = 1,
        tls: TlsFiles | None = None,
    ) -> None:
        self.fleets = Fleets(make, digest)
        self._discovery = discovery
        self._slots = slots
        self._tls = tls
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._lost: dict[str, asyncio.Event] = {}
        self._changed = Bell()
        self._tasks = TaskGroup(self._crashed)

    def start(self) -> None:
        """Look for workers from now on."""
        self._tasks.start(self._discover(), name="discovery")

    async def close(self) -> None:
        """Stop looking and let all workers go."""
        await self._tasks.close()

    def lost(self, worker: str) -> None:
        """The dispatcher says that a worker did not answer: look at once whether it is still there."""
        if (event := self._lost.get(worker)) is not None:
            event.set()

    async def newest(self, seconds: float) -> Fleet:
        """The fleet that new worlds go to, once it has a worker in every pool. Raises Unavailable after `seconds`."""
        if (fleet := await self._wait(self.fleets.newest, seconds)) is None:
            raise Unavailable(f"no {', '.join(f'{pool.value}s' for pool in self.fleets.missing())} are ready")
        return fleet

    async def fleet(self, digest: str, seconds: float) -> Fleet:
        """The fleet with these weights, once it has a worker in every pool.

        Raises PreconditionFailed after `seconds` if the mesh serves other weights alone, Unavailable if it serves none.
        """
        if (fleet := await self._wait(lambda: self.fleets.of(digest), seconds)) is None:
            await self.newest(0.0)
            raise PreconditionFailed("the world is pinned to weights that this mesh does not have")
        return fleet

    async def _wait(self, find: Callable[[], Fleet | None], seconds: float) -> Fleet | None:
        end = asyncio.get_running_loop().time() + seconds
        while True:
            ring = self._changed.next
            if (fleet := find()) is not None:
                return fleet
            if not await ring.wait(end - asyncio.get_running_loop().time()):
                return None

    async def _discover(self) -> None:
        async for sighting in self._discovery.sightings():
            address = sighting.address
            if sighting.present and address not in self._watches:
                self._lost[address] = asyncio.Event()
                self._watches[address] = self._tasks.start(self._watch(sighting.pool, address), name=f"watch {address}")
            elif not sighting.present and (watch := self._watches.pop(address, None)) is not None:
                watch.cancel()
                del self._lost[address]

    async def _watch(self, pool: Pool, address: str) -> None:
        """Follow one address for ever. The wait between attempts doubles, and starts anew after one that joined."""
        backoff = MIN_BACKOFF_SECONDS
        while True:
            make, service = _CLIENTS[pool]
            client = make(address, self._tls, pool.value)
            began = asyncio.get_running_loop().time()
            lost = self._lost[address]
            lost.clear()
            following = asyncio.create_task(self._follow(pool, service, client))
            told = asyncio.create_task(lost.wait())
            try:
                await asyncio.wait((following, told), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (following, told):
                    task.cancel()
                await asyncio.gather(following, told, return_exceptions=True)
                self._leave(address)
                await client.close()
            if not following.cancelled() and (error := following.exception()) is not None:
                _log.error("following a worker failed", extra={"address": address}, exc_info=error)
            if asyncio.get_running_loop().time() - began > MAX_BACKOFF_SECONDS:
                backoff = MIN_BACKOFF_SECONDS
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)

    async def _follow(self, pool: Pool, service: str, client: Client) -> None:
        """Join while the worker serves; returns when it is away or says that it ends."""
        try:
            async with aclosing(health.watch(client.channel, service)) as statuses:
                async for serving in statuses:
                    if serving:
                        model = await client.describe(DESCRIBE_SECONDS)
                        self._leave(client.address)
                        self.fleets.join(client.address, pool, client, model, self._slots * model.slots)
                        self._changed.ring()
                        _log.info("worker joined", extra={"pool": pool.value, "address": client.address})
                    else:
                        self._leave(client.address)
        except TeleWorldError as error:
            _log.debug("worker away", extra={"address": client.address, "reason": error.reason})

    def _leave(self, address: str) -> None:
        if self.fleets.leave(address):
            self._changed.ring()
            _log.warning("worker left", extra={"address": address})

    def _crashed(self, error: BaseException) -> None:
        _log.error("looking for workers failed", exc_info=error)
