"""One WatchWorld call: a spectator reads what the store has and is told by the store's events when there is more.

So it does not matter which gateway drives the world, or whether any does. A spectator has no credit: HTTP/2 flow control
holds it back, and one that falls behind the retention is sent away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

from services.gateway.clock import now
from services.gateway.endings import Ending, Reason
from services.gateway.messages import write_attached, write_chunk, write_end, write_heartbeat
from services.gateway.worlds import Worlds
from teleworld._proto.gateway.v1 import stream_pb2, world_service_pb2
from teleworld.runtime.aiokit import Bell
from teleworld.world.errors import InvalidInput, NotFound, PreconditionFailed

Down = world_service_pb2.WatchWorldResponse


class Spectator:
    """The state of one call. `messages` is its answer."""

    def __init__(self, worlds: Worlds, world: str, resume_after: int | None) -> None:
        self._worlds = worlds
        self._world = world
        self._after = resume_after
        self._bell = Bell()
        self._head = 0
        self._stale = False
        self._ending: Ending | None = None

    def end(self, reason: Reason) -> None:
        """Send the spectator away."""
        self._ending = self._ending or Ending(reason)
        self._bell.ring()

    async def messages(self) -> AsyncGenerator[Down, None]:
        """Everything that is sent to the spectator. Raises NotFound, InvalidInput or PreconditionFailed."""
        async with self._worlds.hub.listening(self._world, self._event, heads=True):
            record, state = await self._worlds.store.record(self._world), await self._worlds.store.state(self._world)
            self._head = state.head
            if self._after is not None and state.head == 0:
                raise InvalidInput("resume_after_chunk", "the world has no chunk yet")
            first = max(state.head - 1, 0) if self._after is None else min(self._after + 1, state.head)
            yield Down(attached=write_attached(record, state.epoch, first))
            if self._after is not None and self._after >= state.head:
                yield Down(rewound=stream_pb2.Rewound(to_chunk=state.head - 1))
            async for message in self._feed(first):
                yield message

    async def _feed(self, index: int) -> AsyncGenerator[Down, None]:
        beat, sent = self._worlds.settings.heartbeat_seconds, now()
        while True:
            ring = self._bell.next
            if self._stale:
                await self._refresh()
            if self._ending is not None:
                yield Down(end=write_end(self._ending, index - 1 if index else None))
                return
            if index < self._head:
                chunk = await self._worlds.store.chunk(self._world, index)
                if chunk is None:
                    raise PreconditionFailed(f"chunk {index} is beyond the retention horizon")
                yield Down(chunk=write_chunk(chunk))
                index, sent = index + 1, now()
                continue
            if now() - sent >= beat:
                yield Down(heartbeat=write_heartbeat())
                self._stale, sent = True, now()
                continue
            await ring.wait(sent + beat - now())

    async def _refresh(self) -> None:
        """Look at the store itself: an event may have been missed."""
        self._stale = False
        try:
            await self._worlds.store.record(self._world)
            self._head = max(self._head, (await self._worlds.store.state(self._world)).head)
        except NotFound:
            self.end(Reason.DELETED)

    def _event(self, kind: str, value: bytes) -> None:
        if kind == "head":
            self._head = max(self._head, int(value))
        elif kind == "deleted":
            self.end(Reason.DELETED)
        elif kind == "lost":
            self._stale = True
        self._bell.ring()
