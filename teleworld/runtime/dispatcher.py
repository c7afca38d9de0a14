"""Executes the policy's decisions: hands tasks to workers, takes results in, journals, and delivers chunks in order.

One dispatcher serves all worlds of a process, on one event loop. It knows workers only as ports, so the same code drives
the in-process engine and the mesh. A failed task goes back to the policy; a task that keeps failing, or fails for a
reason that trying again cannot mend, ends its world, and so does a journal that refuses an entry. Of the copies of a task
that was started twice, the first result is taken and the others are cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

from teleworld.runtime.aiokit import TaskGroup
from teleworld.runtime.batches import Batch
from teleworld.runtime.journal import Journal
from teleworld.runtime.ledger import Ledger, Listener
from teleworld.runtime.records import Chunk, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.runtime.spans import WorldSpans
from teleworld.scheduling.policy import Assignment, Limits, Policy, Scheduler, Share
from teleworld.scheduling.tasks import Kind, Pool, Task
from teleworld.world.errors import DeadlineExceeded, Internal, Overloaded, StateLost, TeleWorldError, Unavailable

ATTEMPTS = {Unavailable: 6, DeadlineExceeded: 3, Overloaded: 60}
"""How often a task is tried before its world ends, by the last error; what is not listed is not tried again."""
TIMEOUT_S = 30.0
LARGE = 2**15  # numbers of a latent from which on its digest is made beside the event loop
METHOD_OF = {
    Kind.ENCODE: "encode",
    Kind.BOOTSTRAP: "reconstruct",
    Kind.GUIDE: "guide",
    Kind.PLAN: "plan",
    Kind.BRIDGE: "bridge",
    Kind.RECONSTRUCT: "reconstruct",
    Kind.POPULATE: "populate",
    Kind.DECODE: "decode",
}
_log = logging.getLogger(__name__)


class _TaskFailed(Exception):
    """A worker's error, told apart from the journal's."""

    def __init__(self, error: TeleWorldError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class _Running:
    session: WorldSession
    listener: Listener
    spans: WorldSpans
    ledger: Ledger
    flights: dict[Task, list[_Flight]] = field(default_factory=dict)


@dataclass(eq=False)
class _Flight:
    """A copy of a task under way."""

    worker: str
    work: asyncio.Task[None] | None = None


class Dispatcher:
    """See the module's text. `worker_lost` is told of a worker that did not answer, which has left the pool by then, or that
    answered so late that another one was faster."""

    def __init__(
        self,
        journal: Journal,
        *,
        worker_lost: Callable[[str], None] = lambda worker: None,
        spent: Callable[[str, Pool, float], None] = lambda world, pool, seconds: None,
        clock: Callable[[], float] = time.monotonic,
        policy: Policy | None = None,
    ) -> None:
        self.scheduler = Scheduler(policy)
        self._journal = journal
        self._worker_lost = worker_lost
        self._spent = spent
        self._clock = clock
        self._ports: dict[str, Any] = {}
        self._worlds: dict[str, _Running] = {}
        self._tasks = TaskGroup(self._crashed)
        self._alarm: asyncio.TimerHandle | None = None

    # -- workers ------------------------------------------------------------------------------------------------------

    def join(
        self, worker: str, pool: Pool, port: Any, slots: int = 1, batches: Mapping[Kind, int] | None = None
    ) -> None:
        """A worker of `pool` is ready; `port` is its port of `teleworld.runtime.ports`. batches: how many tasks of a kind it
        takes in one call."""
        self._ports[worker] = port
        self.scheduler.join(worker, pool, slots, self._clock(), batches)
        self.kick()

    def leave(self, worker: str) -> None:
        """A worker is gone; what it was doing is done elsewhere."""
        self._ports.pop(worker, None)
        for task in self.scheduler.leave(worker):
            self._abandon(task, lambda flight: flight.worker == worker)
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
        share: Share | None = None,
        first_chunk: int | None = None,
        cuts: Mapping[int, int] | None = None,
    ) -> None:
        """Run a world from `first_segment` on; chunks before `next_chunk` are made again but not delivered.

        share: by default that of the record's tenant. first_chunk, cuts: see `Scheduler.add`.
        """
        record = session.record
        spans = WorldSpans(record.world)
        ledger = Ledger(self._journal, session, listener, spans, next_chunk)
        self._worlds[record.world] = _Running(session, listener, spans, ledger)
        self.scheduler.add(
            record.world,
            session.timeline,
            session.spec.fps,
            limits,
            self._clock(),
            first_segment,
            done,
            model=record.model,
            share=share or Share(record.tenant),
            first_chunk=first_chunk,
            cuts=cuts,
        )
        self.kick()

    def admit(self, record: WorldRecord) -> None:
        """Raise Overloaded when one more real-time world like this one would starve those that run."""
        self.scheduler.admit(record.timeline, record.spec.fps, model=record.model)

    def remove(self, world: str) -> WorldSession | None:
        """Stop a world; what is under way for it is given up."""
        running = self._worlds.pop(world, None)
        self.scheduler.remove(world)
        if running is None:
            return None
        for task in tuple(running.flights):
            self._abandon(task, lambda flight: True, running)
        running.ledger.close()
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

    def cut(self, world: str, segment: int, last: int) -> None:
        """Let a segment of the world's own timeline end at its latent `last`: see `Scheduler.cut`."""
        for task in self.scheduler.cut(world, segment, last, self._clock()):
            self._abandon(task, lambda flight: True)
        self.kick()

    def heard(self, world: str) -> None:
        """A control came: where the policy may, it cuts the segment under way for it."""
        if (running := self._worlds.get(world)) is not None:
            self.scheduler.pressed(world, running.session.controls.pressed)
            self.kick()

    def kick(self) -> None:
        """Ask the policy, start what it says, and be awake when it next has something to say."""
        assignments = self.scheduler.decide(self._clock())
        for task in self.scheduler.gone():
            self._abandon(task, lambda flight: True)
        sizes = Counter(assignment.call for assignment in assignments) if assignments else {}
        batches: dict[int, Batch] = {}
        for assignment in assignments:
            task, call = assignment.task, assignment.call
            running = self._worlds[task.world]
            flight = _Flight(assignment.worker)
            running.flights.setdefault(task, []).append(flight)
            if sizes[call] > 1 and call not in batches:
                batches[call] = Batch(self._ports.get(assignment.worker), METHOD_OF[task.kind], TIMEOUT_S)
            name = f"{task.world}/{task.name}"
            work = self._run(running, flight, assignment, batches.get(call))
            flight.work = self._tasks.start(work, name=name)
        self._set_alarm()

    async def close(self) -> None:
        """Stop all work."""
        for world in tuple(self._worlds):
            self.remove(world)
        if self._alarm is not None:
            self._alarm.cancel()
        await self._tasks.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _run(self, running: _Running, flight: _Flight, assignment: Assignment, batch: Batch | None) -> None:
        task = assignment.task
        try:
            if task.kind is Kind.GUIDE:
                await self._bind(running, task.segment)
            started = self._clock()
            try:
                with running.spans.task(assignment) as span:
                    result = await self._call(running.session, assignment, batch)
                    span.set_attributes({f"teleworld.stage.{name}_ms": ms for name, ms in result.stage_ms.items()})
                    together = batch.size if batch else 1
                    span.set_attribute("teleworld.batch", together)
            except TeleWorldError as error:
                raise _TaskFailed(error) from error
            if not self._current(running, flight, task):
                return
            seconds = self._clock() - started
            self._spent(task.world, task.pool, seconds / together)
            self._abandon(task, lambda other: other is not flight, running)
            del running.flights[task]
            entry = running.session.accept(task, result)
            for late in self.scheduler.finished(task, flight.worker, seconds, self._clock()):
                if late in self._ports and assignment.hedge:
                    self._worker_lost(late)
            if isinstance(entry, Chunk):
                # A picture goes out before what it made ready: to write the next requests takes a while.
                asyncio.get_running_loop().call_soon(self.kick)
            else:
                self.kick()
            if entry is not None:
                await running.ledger.write(entry)
            return
        except _TaskFailed as failure:
            await self._failed(running, flight, assignment, failure.error)
        except TeleWorldError as error:
            self._end(running, error)
        except Exception:
            _log.exception("a task cannot go on", extra={"world": task.world, "task": task.name})
            self._end(running, Internal(f"{task.name} failed"))
        self.kick()

    async def _call(self, session: WorldSession, assignment: Assignment, batch: Batch | None) -> Any:
        task, port = assignment.task, self._ports.get(assignment.worker)
        if port is None:
            raise Unavailable(f"{assignment.worker} has left")
        if batch is not None:
            return await batch.answer(session.request(task, assignment.attempt))
        method = getattr(port, METHOD_OF[task.kind])
        loop, large = asyncio.get_running_loop(), prod(session.spec.latent_shape) > LARGE
        soon = partial(loop.run_in_executor, None) if large else loop.call_soon
        soon(session.foresee, task)  # while the request is on its way
        try:
            return await method(session.request(task, assignment.attempt), TIMEOUT_S)
        except StateLost:
            return await method(session.request(task, assignment.attempt, replay=True), TIMEOUT_S)

    async def _bind(self, running: _Running, segment: int) -> None:
        session = running.session
        world = session.record.world
        running.spans.bound(segment)
        cut = self.scheduler.ended(world, segment - 1)
        binding, taken = session.bind(segment, cut)
        await running.ledger.bind(binding, taken, cut)
        if self._worlds.get(world) is running:
            if (settled := session.settled(segment)) is not None:
                self.scheduler.bound(world, segment, settled)
            self.scheduler.pressed(world, session.controls.pressed)

    async def _failed(self, running: _Running, flight: _Flight, assignment: Assignment, error: TeleWorldError) -> None:
        task, worker = assignment.task, assignment.worker
        if isinstance(error, Overloaded):
            await asyncio.sleep(
                error.retry_after_s
            )  # the slot stays taken, so that nobody else is sent there meanwhile
        if not self._current(running, flight, task):
            return
        running.flights[task].remove(flight)
        attempts = self.scheduler.failed(task, worker, self._clock())
        if isinstance(error, Unavailable) and worker in self._ports:
            self.leave(worker)
            self._worker_lost(worker)
        if attempts >= next((limit for kind, limit in ATTEMPTS.items() if isinstance(error, kind)), 0):
            self._end(running, error)

    def _current(self, running: _Running, flight: _Flight, task: Task) -> bool:
        """Whether the outcome of a flight still counts: its world runs on, and it was not given up."""
        return self._worlds.get(task.world) is running and flight in running.flights.get(task, ())

    def _end(self, running: _Running, error: TeleWorldError) -> None:
        world = running.session.record.world
        if self._worlds.get(world) is running:
            self.remove(world)
            running.listener.ended(error)

    def _abandon(self, task: Task, chosen: Callable[[_Flight], bool], running: _Running | None = None) -> None:
        """Cancel those flights of a task that are chosen, the one that asks for it excepted: it ends by itself."""
        if (running := running or self._worlds.get(task.world)) is None:
            return
        flights = running.flights.get(task, [])
        for flight in [flight for flight in flights if chosen(flight)]:
            flights.remove(flight)
            if flight.work is not None and flight.work is not asyncio.current_task():
                flight.work.cancel()
        if not flights:
            running.flights.pop(task, None)

    def _set_alarm(self) -> None:
        """Ask the policy again at the moment that it names, if nothing else happens until then."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if (at := self.scheduler.wake_at()) is not None:
            self._alarm = asyncio.get_running_loop().call_later(max(0.0, at - self._clock()), self.kick)

    def _crashed(self, error: BaseException) -> None:
        asyncio.get_running_loop().call_exception_handler({"message": "a dispatcher task failed", "exception": error})
