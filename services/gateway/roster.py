"""Which of the discovered workers are well: each address is watched through gRPC health, and joins the dispatcher while it serves.

A worker joins only with the weights of the mesh, so that every task of a world is computed by the same ones. The mesh's
weights are those of the setting, or of the first worker seen.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import aclosing

from services.gateway.discovery import Discovery
from teleworld.rpc import health
from teleworld.rpc.convert.common import ModelDescription
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
from teleworld.runtime.aiokit import TaskGroup
from teleworld.runtime.dispatcher import Dispatcher
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import TeleWorldError, Unavailable

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
    """Joins workers to a dispatcher and takes them away. `digest` pins the weights; empty adopts the first ones seen."""

    def __init__(self, dispatcher: Dispatcher, discovery: Discovery, *, digest: str = "", slots: int = 1) -> None:
        self._dispatcher = dispatcher
        self._discovery = discovery
        self._digest = digest
        self._slots = slots
        self._model: ModelDescription | None = None
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._lost: dict[str, asyncio.Event] = {}
        self._joined: dict[str, Pool] = {}
        self._changed = asyncio.Event()
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

    def joined(self, pool: Pool) -> int:
        """How many workers of a pool are at work."""
        return sum(joined is pool for joined in self._joined.values())

    async def model(self, seconds: float) -> ModelDescription:
        """What the mesh computes with, once every pool has a worker. Raises Unavailable after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self._model is None or any(not self.joined(pool) for pool in Pool):
                    await self._changed.wait()
        except TimeoutError:
            away = ", ".join(f"{pool.value}s" for pool in Pool if not self.joined(pool))
            raise Unavailable(f"no {away} are ready") from None
        return self._model

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
            client = make(address)
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
                    if serving and self._fits(await client.describe(DESCRIBE_SECONDS), client.address):
                        self._joined[client.address] = pool
                        self._dispatcher.join(client.address, pool, client, self._slots)
                        self._ring()
                        _log.info("worker joined", extra={"pool": pool.value, "address": client.address})
                    else:
                        self._leave(client.address)
        except TeleWorldError as error:
            _log.debug("worker away", extra={"address": client.address, "reason": error.reason})

    def _fits(self, model: ModelDescription, address: str) -> bool:
        if not self._joined and not self._digest:
            self._model = None
        expected = self._digest or (self._model.weights_digest if self._model else model.weights_digest)
        if model.weights_digest != expected:
            _log.error("worker has other weights", extra={"address": address, "weights": model.weights_digest})
            return False
        self._model = model
        return True

    def _leave(self, address: str) -> None:
        if self._joined.pop(address, None) is not None:
            self._dispatcher.leave(address)
            self._ring()
            _log.warning("worker left", extra={"address": address})

    def _ring(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _crashed(self, error: BaseException) -> None:
        _log.error("looking for workers failed", exc_info=error)
