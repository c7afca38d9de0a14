"""Executes the policy's decisions: hands tasks to workers, takes results in, journals, and delivers chunks in order.

One dispatcher serves all worlds of a process, on one event loop. It knows workers only as ports, so the same code drives
the in-process engine and the mesh. A failed task goes back to the policy; a task that keeps failing, or fails for a
reason that trying again cannot mend, ends its world, and so does a journal that refuses an entry.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from teleworld.runtime.aiokit import TaskGroup
from teleworld.runtime.journal import Journal
from teleworld.runtime.records import Chunk, Memory, Plan
from teleworld.runtime.session import WorldSession
from teleworld.runtime.spans import WorldSpans
from teleworld.scheduling.policy import Assignment, Limits, Scheduler
from teleworld.scheduling.tasks import Kind, Pool, Task
from teleworld.world.controls import Control
from teleworld.world.errors import DeadlineExceeded, Internal, Overloaded, StateLost, TeleWorldError, Unavailable

ATTEMPTS = {Unavailable: 6, DeadlineExceeded: 3, Overloaded: 60}
"""How often a task is tried before its world ends, by the last error; what is not listed is not tried again."""
TIMEOUT_S = 30.0
METHOD_OF = {
    Kind.ENCODE: "encode",
    Kind.BOOTSTRAP: "reconstruct",
    Kind.GUIDE: "guide",
    Kind.PLAN: "plan",
    Kind.BRIDGE: "bridge",
    Kind.RECONSTRUCT: "reconstruct",
    Kind.FIRST_HALF: "populate",
    Kind.SECOND_HALF: "populate",
    Kind.DECODE: "decode",
}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listener:
    """Who hears of a world: each finished chunk in order, each live control when it is bound, and the error that ended it."""

    chunk: Callable[[Chunk], None]
    bound: Callable[[Control], None]
    ended: Callable[[TeleWorldError], None]


class _TaskFailed(Exception):
    """A worker's error, told apart from the journal's."""

    def __init__(self, error: TeleWorldError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class _Running:
    session: WorldSession
    listener: Listener
    next_chunk: int
    spans: WorldSpans
    early: dict[int, Chunk] = field(default_factory=dict)
    taken: list[Control] = field(default_factory=list)
    flights: dict[Task, _Flight] = field(default_factory=dict)


@dataclass
class _Flight:
    """A task under way. From `landed` on its result is being taken in, which must not be torn."""

    worker: str
    work: asyncio.Task[None] | None = None
    landed: bool = False


class Dispatcher:
    """See the module's text. `worker_lost` is told of a worker that did not answer; it has left the pool by then."""

    def __init__(
        self,
        journal: Journal,
        *,
        worker_lost: Callable[[str], None] = lambda worker: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scheduler = Scheduler()
        self._journal = journal
        self._worker_lost = worker_lost
        self._clock = clock
        self._ports: dict[str, Any] = {}
        self._worlds: dict[str, _Running] = {}
        self._tasks = TaskGroup(self._crashed)

    # -- workers ------------------------------------------------------------------------------------------------------

    def join(self, worker: str, pool: Pool, port: Any, slots: int = 1) -> None:
        """A worker of `pool` is ready; `port` is its port of `teleworld.runtime.ports`."""
        self._ports[worker] = port
        self.scheduler.join(worker, pool, slots, self._clock())
        self.kick()

    def leave(self, worker: str) -> None:
        """A worker is gone; what it was doing is done elsewhere."""
        self._ports.pop(worker, None)
        self.scheduler.leave(worker)
        for running in self._worlds.values():
            self._abandon(running, [task for task, flight in running.flights.items() if flight.worker == worker])
        self.kick()

    def port(self, pool: Pool, avoid: Collection[str] = ()) -> tuple[str, Any]:
        """A worker of `pool` and its port, for a question outside of any world's tasks. Raises Unavailable."""
        for worker in self.scheduler.workers(pool):
            if worker in self._ports and worker not in avoid:
                return worker, self._ports[worker]
        raise Unavailable(f"no {pool.value} is ready")

    # -- worlds -------------------------------------------------------------------------------------------------------

    def add(
        self,
        session: WorldSession,
        listener: Listener,
        limits: Limits,
        *,
        first_segment: int = 0,
        next_chunk: int = 0,
        done: tuple[Task, ...] = (),
    ) -> None:
        """Run a world from `first_segment` on; chunks before `next_chunk` are made again but not delivered."""
        world = session.record.world
        self._worlds[world] = _Running(session, listener, next_chunk, WorldSpans(world))
        self.scheduler.add(
            world, session.timeline, session.spec.fps, limits, self._clock(), first_segment=first_segment, done=done
        )
        self.kick()

    def remove(self, world: str) -> WorldSession | None:
        """Stop a world; what is under way for it is given up."""
        running = self._worlds.pop(world, None)
        self.scheduler.remove(world)
        if running is None:
            return None
        self._abandon(running, tuple(running.flights), even_landed=True)
        running.spans.close()
        return running.session

    def played(self, world: str, chunks: int) -> None:
        """The player has consumed the chunks before the one numbered `chunks`."""
        if (running := self._worlds.get(world)) is not None:
            self.scheduler.played(world, chunks - running.session.record.first_chunk, self._clock())
            self.kick()

    def until(self, world: str, chunks: int | None) -> None:
        """Make no chunk with the number `chunks` or a higher one."""
        if (running := self._worlds.get(world)) is not None:
            self.scheduler.until(world, None if chunks is None else chunks - running.session.record.first_chunk)
            self.kick()

    def pause(self, world: str, paused: bool) -> None:
        """Open no new segment while paused."""
        if world in self._worlds:
            self.scheduler.pause(world, paused)
            self.kick()

    def kick(self) -> None:
        """Ask the policy, and start what it says."""
        for assignment in self.scheduler.decide(self._clock()):
            task = assignment.task
            running = self._worlds[task.world]
            if (landed := running.flights.get(task)) is not None:
                # Its worker left while the result was being taken in: it ends on the new worker, with nothing to do.
                landed.worker = assignment.worker
                continue
            flight = running.flights[task] = _Flight(assignment.worker)
            name = f"{task.world}/{task.name}"
            flight.work = self._tasks.start(self._run(running, flight, assignment), name=name)

    async def close(self) -> None:
        """Stop all work."""
        for world in tuple(self._worlds):
            self.remove(world)
        await self._tasks.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _run(self, running: _Running, flight: _Flight, assignment: Assignment) -> None:
        task = assignment.task
        started = self._clock()
        try:
            if task.kind is Kind.GUIDE:
                await self._bind(running, task.segment)
            started = self._clock()
            try:
                with running.spans.task(assignment) as span:
                    result = await self._call(running.session, assignment)
                    span.set_attributes({f"teleworld.stage.{name}_ms": ms for name, ms in result.stage_ms.items()})
            except TeleWorldError as error:
                raise _TaskFailed(error) from error
            seconds, flight.landed = self._clock() - started, True
            await self._take(running, task, result)
            if self._current(running, flight, task):
                del running.flights[task]
                self.scheduler.finished(task, flight.worker, seconds, self._clock())
        except _TaskFailed as failure:
            await self._failed(running, flight, assignment, failure.error)
        except TeleWorldError as error:
            self._end(running, error)
        except Exception:
            _log.exception("a task cannot go on", extra={"world": task.world, "task": task.name})
            self._end(running, Internal(f"{task.name} failed"))
        self.kick()

    async def _call(self, session: WorldSession, assignment: Assignment) -> Any:
        task, port = assignment.task, self._ports.get(assignment.worker)
        if port is None:
            raise Unavailable(f"{assignment.worker} has left")
        method = getattr(port, METHOD_OF[task.kind])
        try:
            return await method(session.request(task, assignment.attempt), TIMEOUT_S)
        except StateLost:
            return await method(session.request(task, assignment.attempt, replay=True), TIMEOUT_S)

    async def _bind(self, running: _Running, segment: int) -> None:
        session = running.session
        running.spans.bound(segment)
        binding, taken = session.bind(segment)
        running.taken += taken
        await self._journal.bind(session.record.world, session.epoch, binding, tuple(running.taken))
        taken, running.taken = tuple(running.taken), []
        for control in taken:
            running.listener.bound(control)

    async def _take(self, running: _Running, task: Task, result: Any) -> None:
        session = running.session
        world, epoch = session.record.world, session.epoch
        match session.accept(task, result):
            case Plan() as plan:
                await self._journal.plan(world, epoch, plan)
            case Memory() as memory:
                await self._journal.memory(world, epoch, memory)
            case Chunk() as chunk:
                if chunk.index >= running.next_chunk:
                    await self._journal.chunk(world, epoch, chunk)
                    running.early[chunk.index] = chunk
                while (ready := running.early.pop(running.next_chunk, None)) is not None:
                    running.next_chunk += 1
                    running.spans.chunk(ready, last=ready.latent == session.timeline.last_shown)
                    session.shown(ready)
                    running.listener.chunk(ready)

    async def _failed(self, running: _Running, flight: _Flight, assignment: Assignment, error: TeleWorldError) -> None:
        task, worker = assignment.task, assignment.worker
        if isinstance(error, Overloaded):
            await asyncio.sleep(
                error.retry_after_s
            )  # the slot stays taken, so that nobody else is sent there meanwhile
        if not self._current(running, flight, task):
            return
        del running.flights[task]
        attempts = self.scheduler.failed(task, worker, self._clock())
        if isinstance(error, Unavailable) and worker in self._ports:
            self.leave(worker)
            self._worker_lost(worker)
        if attempts >= next((limit for kind, limit in ATTEMPTS.items() if isinstance(error, kind)), 0):
            self._end(running, error)

    def _current(self, running: _Running, flight: _Flight, task: Task) -> bool:
        """Whether the outcome of a flight still counts: its world runs on, and the task was not given to another worker."""
        world = task.world
        return self._worlds.get(world) is running and running.flights.get(task) is flight

    def _end(self, running: _Running, error: TeleWorldError) -> None:
        world = running.session.record.world
        if self._worlds.get(world) is running:
            self.remove(world)
            running.listener.ended(error)

    def _abandon(self, running: _Running, tasks: Iterable[Task], *, even_landed: bool = False) -> None:
        """Cancel the flights of `tasks`, the one that asks for it excepted: it ends by itself."""
        for task in tasks:
            flight = running.flights[task]
            if flight.landed and not even_landed:
                continue
            del running.flights[task]
            if flight.work is not None and flight.work is not asyncio.current_task():
                flight.work.cancel()

    def _crashed(self, error: BaseException) -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "a dispatcher task failed", "exception": error})
