"""A world while this gateway drives it: its lease, its session in the dispatcher, its journal, and what its stream must hear.

A drive ends once, for one reason, and generates nothing from then on. It never touches the wire.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable

from opentelemetry.context import Context, get_current

from services.gateway import metrics
from services.gateway.clock import now
from services.gateway.codec import read_controls
from services.gateway.endings import Ending, Reason
from services.gateway.restore import Restored
from services.gateway.states import State
from services.gateway.store import LOST, Store
from teleworld.runtime.aiokit import Bell, TaskGroup, within
from teleworld.runtime.dispatcher import Dispatcher, Listener
from teleworld.runtime.records import Binding, Chunk, Memory, Plan, WorldRecord
from teleworld.scheduling.ordering import Limits, usual_limits
from teleworld.world.controls import Control
from teleworld.world.errors import (
    Conflict,
    Internal,
    NotFound,
    Overloaded,
    PreconditionFailed,
    StaleEpoch,
    TeleWorldError,
    Unavailable,
)
from teleworld.world.work import Prompt

RECENT_CHUNKS = 32
SAVE_ACKS_SECONDS = 2.0
_log = logging.getLogger(__name__)


def limits_of(record: WorldRecord, *, realtime: bool) -> Limits:
    """How far a world runs ahead. In real time segments open just in time, and `ahead` only bounds what that may ask for."""
    return usual_limits(record.timeline, realtime=realtime, reanchor=record.reanchor)


class Drive:
    """One world under one epoch. `on_applied` is called with the sequence of each control or prompt and its first chunk."""

    def __init__(
        self, store: Store, dispatcher: Dispatcher, record: WorldRecord, state: State, restored: Restored,
        lease_seconds: float,
    ) -> None:  # fmt: skip
        self.record = record
        self.session = restored.session
        self.epoch = restored.session.epoch
        self.head = state.head
        self.oldest = state.oldest
        self.acked = state.acked
        self.heard = now()
        self.ending: Ending | None = None
        self.changed = Bell()
        self.on_applied: Callable[[int, int], None] = lambda sequence, chunk: None
        self._store = store
        self._dispatcher = dispatcher
        self._restored = restored
        self._lease_seconds = lease_seconds
        self._segment, self._revision = state.segment, state.revision or 0
        self._recent: OrderedDict[int, Chunk] = OrderedDict()
        self._order = asyncio.Lock()
        self._acks = Bell()
        self._saved_ack = state.acked
        self._played = -1
        self._check_lease = asyncio.Event()
        self._received: dict[int, float] = {}
        self._scheduled: list[tuple[int, int]] = []
        self._prompts: list[tuple[int, Prompt]] = []
        self._reflects: dict[int, float] = {}
        self._traces: dict[int, Context] = {}
        self._bound_at: dict[int, float] = {}
        self._tasks = TaskGroup(self._crashed)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, limits: Limits, until: int | None) -> None:
        """Generate from here on, unless the drive has ended. until: the number of the first chunk that is not wanted.

        Raises Overloaded when a real-time world would starve those that run.
        """
        if self.ending is not None:
            return
        if limits.realtime:
            try:
                self._dispatcher.admit(self.record)
            except Overloaded:
                metrics.refused.add(1, {"reason": "capacity"})
                raise
        listener = Listener(chunk=self._made, bound=self._bound, ended=self.fail)
        world = self.record.world
        self._dispatcher.add(
            self.session,
            listener,
            limits,
            first_segment=self._restored.first_segment,
            next_chunk=self.head,
            done=self._restored.done,
            first_chunk=self._restored.first_chunk,
            cuts=self._restored.cuts,
        )
        self._dispatcher.until(world, until)
        self.played(self.acked)
        self._tasks.start(self._keep_lease(), name=f"{world}/lease")
        self._tasks.start(self._save_acks(), name=f"{world}/acks")

    def end(self, reason: Reason, message: str = "", error: TeleWorldError | None = None) -> None:
        """Stop generating. The first reason counts."""
        if self.ending is None:
            self.ending = Ending(reason, message, error)
            self._dispatcher.remove(self.record.world)
            self.changed.ring()

    def fail(self, error: TeleWorldError) -> None:
        """End for the reason that an error of the dispatcher or the store stands for.

        What is missing somewhere may be missing because the store lost it: that is looked up first.
        """
        match error:
            case StaleEpoch():
                self.end(Reason.SUPERSEDED)
            case NotFound() | PreconditionFailed() | Conflict():
                self._tasks.start(self._judge(error), name=f"{self.record.world}/judge")
            case Internal():
                _log.error("a world ended", extra={"world": self.record.world, "error": error.message})
                self.end(Reason.ERROR, "internal error")
            case _:
                _log.warning("a world ended", extra={"world": self.record.world, "error": error.message})
                self.end(Reason.ERROR, error.message, error if error.retryable else None)

    async def close(self) -> None:
        """End, save what was acknowledged, and give the lease back."""
        self.end(Reason.CLIENT_CLOSED)
        await self._tasks.close()
        try:
            await self.flush()
            await self._store.release(self.record.world, self.epoch)
        except (StaleEpoch, NotFound):
            return
        except Unavailable:
            _log.warning("a lease could not be given back", extra={"world": self.record.world})

    async def flush(self) -> None:
        """Write down what was acknowledged."""
        if self._saved_ack < self.acked:
            acked = self.acked
            await self._store.ack(self.record.world, self.epoch, acked)
            self._saved_ack = acked

    def event(self, kind: str, value: bytes) -> None:
        """Another gateway did something to the world."""
        if kind == "epoch" and int(value) > self.epoch:
            self.end(Reason.SUPERSEDED)
        elif kind == "deleted":
            self.end(Reason.DELETED)
        elif kind == "lost":
            self._check_lease.set()
        elif kind == "control":
            for control in read_controls(value):
                self._tasks.start(self._foreign(control), name=f"{self.record.world}/control")

    # -- what the client says -----------------------------------------------------------------------------------------

    async def control(self, control: Control, received: float | None = None) -> None:
        """Take a control and write it down. received: the moment, for the latency that a live one is answered with.

        One that its chunk is bound to already is told again where it applies. Raises InvalidInput when it is scheduled
        for a chunk that is bound to something else, or too many wait.
        """
        self.heard = now()
        if control.chunk is not None and self.session.said_before(control):
            self.on_applied(control.sequence, control.chunk)
            return
        async with self._order:
            self.session.controls.add(control)
            if received is not None:
                if control.chunk is None:
                    self._received[control.sequence] = received
                else:
                    self._scheduled.append((control.sequence, control.chunk))
            await self._store.control(self.record.world, self.epoch, control)
        if control.chunk is None and self.ending is None:
            self._dispatcher.heard(self.record.world)

    async def prompt(self, prompt: Prompt, sequence: int) -> None:
        """Take a prompt for the segments that are not bound yet, and write it down."""
        async with self._order:
            await self._store.prompt(self.record.world, self.epoch, prompt)
            self.session.prompt = prompt
            self._prompts.append((sequence, prompt))

    def ack(self, chunks: int) -> None:
        """The chunks before number `chunks` have arrived."""
        if chunks > self.acked:
            self.acked = chunks
            self._acks.ring()

    def played(self, chunks: int) -> None:
        """The chunks before number `chunks` were consumed."""
        if self.ending is None and chunks != self._played:
            self._played = chunks
            self._dispatcher.played(self.record.world, chunks)

    def pause(self, paused: bool) -> None:
        """Open no new segment while paused."""
        if self.ending is None:
            self._dispatcher.pause(self.record.world, paused)

    # -- what the client gets -----------------------------------------------------------------------------------------

    async def chunk(self, index: int) -> Chunk:
        """A chunk before `head`. Raises PreconditionFailed when it is beyond the retention horizon."""
        chunk = self._recent.get(index) or await self._store.chunk(self.record.world, index)
        if chunk is None:
            raise PreconditionFailed(f"chunk {index} is beyond the retention horizon")
        return chunk

    def trace_of(self, chunk: int) -> Context | None:
        """The trace of a chunk of late, for the exemplars of what is measured of it."""
        return self._traces.get(chunk)

    def reflected(self, chunk: int) -> float | None:
        """When the newest live control was received that `chunk` is the first to reflect."""
        return self._reflects.pop(chunk, None)

    # -- journal ------------------------------------------------------------------------------------------------------

    async def log_binding(self, binding: Binding) -> None:
        """Write a binding, with the controls that wait behind it."""
        self._bound_at[binding.segment] = now()
        async with self._order:
            await self._store.bind(self.record.world, self.epoch, binding, self.session.controls.waiting())
        self._segment = max(self._segment, binding.segment)
        first = self.session.number(binding.segment, 2)
        last = self.session.number(binding.segment, self.session.layout.last_shown(binding.segment))
        for sequence, chunk in [item for item in self._scheduled if item[1] <= last]:
            self._scheduled.remove((sequence, chunk))
            self.on_applied(sequence, max(chunk, first))
        taken = [number for number, (_, prompt) in enumerate(self._prompts) if prompt is binding.prompt]
        for sequence, _ in self._prompts[: taken[-1] + 1] if taken else ():
            self.on_applied(sequence, first)
        self._prompts = self._prompts[taken[-1] + 1 :] if taken else self._prompts

    async def log_plan(self, plan: Plan) -> None:
        """Write a plan."""
        await self._store.plan(self.record.world, self.epoch, plan)

    async def log_memory(self, memory: Memory) -> None:
        """Write a memory revision's clearance."""
        await self._store.memory(self.record.world, self.epoch, memory)
        self._revision = memory.revision

    async def log_chunk(self, chunk: Chunk) -> None:
        """Write a chunk."""
        self._traces[chunk.index] = get_current()
        self._traces.pop(chunk.index - RECENT_CHUNKS, None)
        await self._store.put_chunk(self.record.world, self.epoch, chunk)
        if (bound := self._bound_at.get(chunk.segment)) is not None:
            metrics.chunk_seconds.record(now() - bound)
        for old in [segment for segment in self._bound_at if segment < chunk.segment - 1]:
            del self._bound_at[old]

    # -- inside -------------------------------------------------------------------------------------------------------

    def _made(self, chunk: Chunk) -> None:
        self._recent[chunk.index] = chunk
        if len(self._recent) > RECENT_CHUNKS:
            self._recent.popitem(last=False)
        self.head = chunk.index + 1
        self.changed.ring()

    def _bound(self, control: Control) -> None:
        received = self._received.pop(control.sequence, None)
        if received is not None and control.chunk is not None:
            self._reflects[control.chunk] = received
            self.on_applied(control.sequence, control.chunk)

    async def _keep_lease(self) -> None:
        """Renew at half of the remaining time. A store that is away is asked again: nobody else can take the lease there."""
        while True:
            await within(self._lease_seconds / 2, self._check_lease)
            self._check_lease.clear()
            try:
                await self._store.renew(self.record.world, self.epoch, self._lease_seconds)
            except Unavailable:
                _log.warning("a lease could not be renewed", extra={"world": self.record.world})
            except TeleWorldError as error:
                self.fail(error)
                return

    async def _save_acks(self) -> None:
        """Write acknowledgements down, so seldom that many become one: they only say where a new client would begin."""
        while True:
            ring = self._acks.next
            try:
                await self.flush()
            except Unavailable:
                _log.warning("an acknowledgement could not be saved", extra={"world": self.record.world})
            except TeleWorldError as error:
                self.fail(error)
                return
            await ring.wait()
            await asyncio.sleep(SAVE_ACKS_SECONDS)

    async def _judge(self, error: TeleWorldError) -> None:
        """End for an error, or for what lies behind it: the world was deleted, or the store has less than it acknowledged."""
        world = self.record.world
        try:
            if await self._store.find(world) is None:
                self.end(Reason.DELETED)
                return
            state = await self._store.state(world)
        except TeleWorldError as away:
            self.fail(away)
            return
        if state.epoch > self.epoch:
            self.end(Reason.SUPERSEDED)
        elif state.head < self.head or state.segment < self._segment or (state.revision or 0) < self._revision:
            self.fail(Unavailable(LOST))
        else:
            _log.warning("a world ended", extra={"world": world, "error": error.message})
            self.end(Reason.ERROR, error.message)

    async def _foreign(self, control: Control) -> None:
        """A control that came by way of another gateway; whoever sent it has its answer already."""
        try:
            await self.control(control)
        except TeleWorldError as error:
            _log.info("a control was dropped", extra={"world": self.record.world, "reason": error.message})

    def _crashed(self, error: BaseException) -> None:
        _log.error("a drive's task failed", extra={"world": self.record.world}, exc_info=error)
        self.end(Reason.ERROR, "internal error")
