"""The worlds of a gateway: making, finding, dropping and driving them. Transport-free."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from services.gateway import metrics
from services.gateway.drive import Drive
from services.gateway.endings import Guest, Reason
from services.gateway.events import EventHub
from services.gateway.journal import DriveJournal
from services.gateway.restore import first_logged_segment, restore
from services.gateway.roster import Roster
from services.gateway.settings import GatewaySettings
from services.gateway.solo import walk_alone
from services.gateway.states import ANY_ROOM, Birth, Room, View
from services.gateway.store import Store
from services.gateway.usage import Usage
from teleworld.runtime.aiokit import Bell, TaskGroup
from teleworld.runtime.dispatcher import Dispatcher
from teleworld.runtime.records import WorldRecord
from teleworld.scheduling.policy import Policy
from teleworld.scheduling.tasks import Pool
from teleworld.video.pictures import load_picture
from teleworld.world.controls import Control
from teleworld.world.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    PreconditionFailed,
    StaleEpoch,
    TeleWorldError,
    Unavailable,
)
from teleworld.world.identifiers import check_request_id, new_world_id
from teleworld.world.spec import spec_of
from teleworld.world.timeline import ChainMode
from teleworld.world.work import EmbedRequest, Prompt

T = TypeVar("T")
CALL_SECONDS = 10.0
EXPORT_SECONDS = 60.0
FORGET_ATTEMPTS = 30
MAX_PROMPT = 4096
_log = logging.getLogger(__name__)


class Worlds:
    """See the module's text. `start` before use, `close` after."""

    def __init__(
        self, settings: GatewaySettings, store: Store, make_roster: Callable[[Callable[[], Dispatcher]], Roster]
    ) -> None:
        self.settings = settings
        self.store = store
        self.hub = EventHub(settings.redis_url)
        self.drives: dict[str, Drive] = {}
        self.spectators: set[Guest] = set()
        self.usage = Usage()
        self.roster = make_roster(self._dispatcher)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks = TaskGroup(self._crashed)
        self._detached_tasks: set[asyncio.Task[Any]] = set()
        self._alone: dict[str, asyncio.Future[Drive]] = {}
        self.let_go = Bell()
        self._opening = 0
        self._draining = False

    def _dispatcher(self) -> Dispatcher:
        """For the workers of one set of weights."""
        return Dispatcher(
            DriveJournal(self.drives),
            worker_lost=self.roster.lost,
            spent=self.usage.spent,
            policy=Policy(utilisation=self.settings.utilisation or math.inf),
        )

    async def start(self) -> None:
        """Connect to the store and look for workers; returns when every pool has one."""
        await self.store.ping()
        self._tasks.start(self.hub.run(), name="events")
        self.roster.start()
        while True:
            try:
                await self.roster.newest(self.settings.worker_patience_seconds)
                return
            except Unavailable as error:
                _log.warning("waiting for workers", extra={"reason": error.message})

    async def drain(self) -> None:
        """End every stream, and wait until their worlds are let go; nothing new is opened."""
        self._draining = True
        for drive in tuple(self.drives.values()):
            drive.end(Reason.DRAINING)
        for spectator in tuple(self.spectators):
            spectator.end(Reason.DRAINING)
        while self.drives:
            await self.let_go.next.wait()

    async def close(self) -> None:
        """Let everything go."""
        self._draining = True
        await asyncio.gather(*(drive.close() for drive in tuple(self.drives.values())))
        while self._detached_tasks:
            await asyncio.gather(*self._detached_tasks, return_exceptions=True)
        for fleet in self.roster.fleets:
            await fleet.dispatcher.close()
        await self.roster.close()
        await self._tasks.close()
        await self.store.close()

    # -- worlds -------------------------------------------------------------------------------------------------------

    async def create(self, birth: Birth, room: Room = ANY_ROOM) -> View:
        """Make a world, or find the one that an equal request made. Raises InvalidInput naming the field, or Overloaded."""
        if birth.request_id:
            check_request_id(birth.request_id)
        if len(birth.prompt) > MAX_PROMPT:
            raise InvalidInput("prompt", f"at most {MAX_PROMPT} characters, got {len(birth.prompt)}")
        mesh = (await self.roster.newest(self.settings.worker_patience_seconds)).model
        spec = spec_of(birth.model or mesh.name)
        if spec.name != mesh.name:
            raise InvalidInput("model", f"this mesh serves {mesh.name!r}")
        world = new_world_id(birth.tenant)
        if birth.request_id:
            world = await self.store.reserve(birth.tenant, birth.request_id, world)
            if (known := await self.find(world)) is not None:
                return known
        room = await self.check_room(world, room)
        picture = await asyncio.to_thread(load_picture, birth.image, spec.lens.width, spec.lens.height)
        record = WorldRecord(
            world=world,
            model=spec.name,
            weights=mesh.weights_digest,
            seed=secrets.randbits(63) if birth.seed is None else birth.seed,
            chain=birth.chain or ChainMode.T_B,
            prompt=await self.embed(birth.prompt, mesh.weights_digest),
            picture=picture,
            created=time.time(),
            request_id=birth.request_id,
            tenant=birth.tenant,
            reanchor=birth.reanchor,
            told=mesh.spec,
        )
        await self.store.create(record, room=room)
        return await self.view(world)

    async def view(self, world: str) -> View:
        """A world. Raises NotFound."""
        return View(await self.store.record(world), await self.store.state(world))

    async def find(self, world: str) -> View | None:
        """A world, if there is one."""
        record = await self.store.find(world)
        return None if record is None else View(record, await self.store.state(world))

    async def check_room(self, world: str, room: Room) -> Room:
        """The room of a tenant within that of the store, in which `world` finds a place by now. Raises Overloaded."""
        room = replace(room, total=self.settings.max_worlds)
        await self.store.index.check(world, room)
        return room

    async def page(self, tenant: str, after: str, size: int) -> tuple[list[View], str]:
        """Up to `size` worlds of a tenant after the id `after`, oldest first, and the id to go on from."""
        records, token = await self.store.page(tenant, after, size)
        return [View(record, await self.store.state(record.world)) for record in records], token

    async def delete(self, world: str) -> None:
        """End a world's stream, and drop everything of it. Raises NotFound."""
        record = await self.store.record(world)
        async with self._lock(world):
            if (drive := self.drives.get(world)) is not None:
                drive.end(Reason.DELETED)
            await self.store.delete(record)
        try:
            await self._forget(world)
        except Unavailable:
            self._tasks.start(self._forget_later(world), name=f"{world}/forget")

    async def embed(self, text: str, weights: str) -> Prompt:
        """A prompt as the model reads it."""
        question = EmbedRequest(weights, text)
        return await self.ask(Pool.PLANNER, lambda port: port.embed(question, CALL_SECONDS), weights)

    async def ask(self, pool: Pool, call: Callable[[Any], Awaitable[T]], weights: str = "") -> T:
        """What some worker of a pool, with these weights or any, answers; another one is asked if it is away or busy."""
        tried: dict[str, Exception] = {}
        while True:
            try:
                worker, port = self.roster.fleets.port(pool, tried, weights)
            except Unavailable:
                if tried:
                    raise list(tried.values())[-1] from None
                raise
            try:
                return await call(port)
            except (Unavailable, Overloaded, DeadlineExceeded) as error:
                tried[worker] = error

    # -- driving ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def driving(self, world: str) -> AsyncIterator[Drive]:
        """Inside, this gateway holds the world's lease; call `start` on the drive to generate.

        Whoever held the lease before is superseded. Opening and closing run to their end even if the caller is cancelled,
        so that no lease, task or world is left behind. Raises NotFound, PreconditionFailed, Unavailable or Overloaded.
        """
        stack = AsyncExitStack()
        opening = self._detached(self._open(world, stack))
        try:
            yield await asyncio.shield(opening)
        finally:
            await asyncio.shield(self._detached(self._close(opening, stack)))

    @contextmanager
    def watching(self, guest: Guest) -> Iterator[None]:
        """Inside, `guest` is told when the gateway drains. Raises Overloaded or Unavailable."""
        if self._draining:
            raise Unavailable("the gateway is shutting down")
        if len(self.spectators) >= self.settings.max_spectators:
            metrics.refused.add(1, {"reason": "spectators"})
            raise Overloaded(f"{len(self.spectators)} spectators are watching", 5.0)
        self.spectators.add(guest)
        try:
            yield
        finally:
            self.spectators.discard(guest)

    async def control(self, world: str, controls: list[Control]) -> None:
        """Controls for a world that is driven here, elsewhere, or by nobody yet: then it begins to walk on its own here.

        Raises Unavailable when the gateway that drives it does not answer.
        """
        drive = self.drives.get(world)
        if drive is None or drive.ending is not None:
            if (await self.view(world)).state.leased:
                if not await self.store.send_controls(world, tuple(controls)):
                    raise Unavailable("the gateway that drives the world does not answer")
                return
            drive = await self._walk_alone(world)
        for number, control in enumerate(controls):
            try:
                await drive.control(control)
            except InvalidInput as error:
                raise InvalidInput(error.field.replace("control", f"controls[{number}]", 1), error.problem) from error

    async def _walk_alone(self, world: str) -> Drive:
        if (opening := self._alone.get(world)) is None:
            opening = self._alone[world] = asyncio.get_running_loop().create_future()
            walking = self._tasks.start(walk_alone(self, world, opening), name=f"{world}/alone")
            walking.add_done_callback(lambda _: self._alone.pop(world, None))
        return await asyncio.shield(opening)

    async def _open(self, world: str, stack: AsyncExitStack) -> Drive:
        if self._draining:
            raise Unavailable("the gateway is shutting down")
        busy = sum(other != world for other in self.drives) + self._opening
        if busy >= self.settings.max_streams:
            metrics.refused.add(1, {"reason": "streams"})
            raise Overloaded(f"{busy} worlds are being driven; at most {self.settings.max_streams}", 5.0)
        self._opening += 1
        try:
            async with self._lock(world):
                drive = await self._take_over(world)
                await stack.enter_async_context(self.hub.listening(world, drive.event))
        finally:
            self._opening -= 1
        if self._draining:
            drive.end(Reason.DRAINING)
        return drive

    async def _take_over(self, world: str) -> Drive:
        record = await self.store.record(world)
        fleet = await self.roster.fleet(record.weights, self.settings.worker_patience_seconds)
        if (old := self.drives.get(world)) is not None:
            old.end(Reason.SUPERSEDED)
            with suppress(StaleEpoch):
                await old.flush()
        seconds = self.settings.lease_seconds
        epoch = await self.store.acquire(world, seconds)
        try:
            state = await self.store.state(world)
            last = await self.store.chunk(world, state.head - 1) if state.head else None
            if last is None and state.head > record.first_chunk + 1:
                raise PreconditionFailed("the last chunk of the world is not kept any more")
            log = await self.store.log(world, state, first_logged_segment(record, last))
            restored = restore(record, epoch, last, log)
        except BaseException:
            with suppress(TeleWorldError):
                await self.store.release(world, epoch)
            raise
        drive = self.drives[world] = Drive(self.store, fleet.dispatcher, record, state, restored, seconds)
        return drive

    async def _close(self, opening: asyncio.Future[Drive], stack: AsyncExitStack) -> None:
        """Close a drive, as soon as it is open."""
        await asyncio.wait((opening,))
        if opening.cancelled() or opening.exception() is not None:
            return
        drive = opening.result()
        await stack.aclose()
        await drive.close()
        if self.drives.get(drive.record.world) is drive:
            del self.drives[drive.record.world]
            self.usage.close(drive.record.world)
        self.let_go.ring()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _detached(self, work: Any) -> asyncio.Task[Any]:
        """A task of its own: without the deadline and the trace of the call that starts it, and not cancelled with it."""
        task = asyncio.create_task(work, context=contextvars.Context())
        self._detached_tasks.add(task)
        task.add_done_callback(self._detached_tasks.discard)
        return task

    def _lock(self, world: str) -> asyncio.Lock:
        lock = self._locks.get(world)
        if lock is None:
            lock = self._locks[world] = asyncio.Lock()
        return lock

    async def _forget(self, world: str) -> None:
        await self.ask(Pool.RECONSTRUCTOR, lambda port: port.forget(world, CALL_SECONDS))

    async def _forget_later(self, world: str) -> None:
        """The world is gone already; its memory follows when a reconstructor is back, or expires by itself."""
        for _ in range(FORGET_ATTEMPTS):
            await asyncio.sleep(CALL_SECONDS)
            with suppress(TeleWorldError):
                await self._forget(world)
                return
        _log.error("the memory of a deleted world could not be dropped", extra={"world": world})

    def _crashed(self, error: BaseException) -> None:
        _log.error("a background task failed", exc_info=error)
