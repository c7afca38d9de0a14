"""The scheduling policy: which ready task runs on which worker, now.

Three rules, in this order. (1) A segment is opened (its controls are bound and GUIDE becomes ready) as late as playback
allows, never further ahead than `Limits.ahead`. (2) Of all ready tasks the one with the least slack goes first: the
deadline of the first chunk that waits for it, less what measured service times say still lies between. So the chain of
segment s + 1 runs before the populating of s exactly when it is the more urgent of the two (paper 3.6.1, Fig. 4).
(3) A task goes to the worker that holds its state, if that one is free; else to the one idle longest.

The policy is told of events and asked for decisions; time is an argument. A worker that failed a task is avoided for the
next attempt of it, as long as its pool has another one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from teleworld.scheduling.tasks import Kind, Pool, Task, first_chunk_fed, needs, tasks_of
from teleworld.world.timeline import Timeline

INITIAL_COST_S = 0.1
COST_WEIGHT = 0.2


@dataclass(frozen=True)
class Limits:
    """How far a world runs ahead of playback: a segment opens when at most `ahead` chunks before it are unplayed."""

    ahead: int


@dataclass(frozen=True)
class Assignment:
    """Run `task` on `worker`; `attempt` counts from 1, at claim time. `waited` is the seconds since the task became ready."""

    task: Task
    worker: str
    attempt: int
    waited: float


@dataclass
class _Worker:
    pool: Pool
    slots: int
    running: set[Task] = field(default_factory=set)
    free_since: float = 0.0


@dataclass
class _World:
    timeline: Timeline
    fps: float
    limits: Limits
    origin: float
    played: int = 0
    until: int | None = None
    paused: bool = False
    opened: int = -1
    done: set[Task] = field(default_factory=set)
    open: set[Task] = field(default_factory=set)
    running: dict[Task, str] = field(default_factory=dict)
    attempts: dict[Task, int] = field(default_factory=dict)
    ready_since: dict[Task, float] = field(default_factory=dict)
    avoid: dict[Task, set[str]] = field(default_factory=dict)


class Scheduler:
    """The policy's state. Not thread-safe: one owner."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}
        self._worlds: dict[str, _World] = {}
        self._cost: dict[Kind, float] = {}
        self._holds: dict[tuple[str, Pool], str] = {}

    # -- workers ------------------------------------------------------------------------------------------------------

    def join(self, worker: str, pool: Pool, slots: int, now: float) -> None:
        """A worker is ready for `slots` tasks at a time."""
        self._workers[worker] = _Worker(pool, slots, free_since=now)

    def leave(self, worker: str) -> tuple[Task, ...]:
        """A worker is gone; its tasks are ready again. Returns them."""
        gone = self._workers.pop(worker, None)
        self._holds = {key: holder for key, holder in self._holds.items() if holder != worker}
        lost = tuple(gone.running) if gone else ()
        for task in lost:
            if world := self._worlds.get(task.world):
                world.running.pop(task, None)
        return lost

    def workers(self, pool: Pool) -> tuple[str, ...]:
        """The workers of a pool."""
        return tuple(name for name, worker in self._workers.items() if worker.pool is pool)

    # -- worlds -------------------------------------------------------------------------------------------------------

    def add(
        self,
        world: str,
        timeline: Timeline,
        fps: float,
        limits: Limits,
        now: float,
        first_segment: int = 0,
        done: Iterable[Task] = (),
    ) -> None:
        """A world starts at `first_segment`, everything before it being done, and those tasks of it that `done` names."""
        state = _World(timeline, fps, limits, origin=now, opened=first_segment - 1, done=set(done))
        state.played = timeline.first_chunk(first_segment)
        state.origin = now - timeline.first_frame(state.played) / fps
        if first_segment:
            for kind in (Kind.BRIDGE, Kind.RECONSTRUCT):
                state.done.add(Task(world, kind, first_segment - 1))
        self._worlds[world] = state

    def remove(self, world: str) -> None:
        """Forget a world; what still runs for it no longer counts when it ends."""
        if (state := self._worlds.pop(world, None)) is not None:
            for task, worker in state.running.items():
                if worker in self._workers:
                    self._workers[worker].running.discard(task)
        self._holds = {key: holder for key, holder in self._holds.items() if key[0] != world}

    def played(self, world: str, chunks: int, now: float) -> None:
        """Playback has consumed the first `chunks` chunks; a late player moves every deadline that follows."""
        state = self._worlds[world]
        if chunks > state.played:
            state.played = chunks
            state.origin = max(state.origin, now - state.timeline.first_frame(chunks) / state.fps)

    def until(self, world: str, chunks: int | None) -> None:
        """Generate no more than the first `chunks` chunks; None for no end."""
        self._worlds[world].until = chunks

    def pause(self, world: str, paused: bool) -> None:
        """A paused world opens no new segment."""
        self._worlds[world].paused = paused

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def finished(self, task: Task, worker: str, seconds: float, now: float) -> None:
        """`task` is done; `seconds` is its service time."""
        self._release(task, worker, now)
        known = self._cost.get(task.kind)
        self._cost[task.kind] = seconds if known is None else known + COST_WEIGHT * (seconds - known)
        if (state := self._worlds.get(task.world)) is not None and task in state.open:
            state.open.discard(task)
            state.done.add(task)
            state.attempts.pop(task, None)
            state.avoid.pop(task, None)
            self._prune(task.world, state)

    def failed(self, task: Task, worker: str, now: float) -> int:
        """`task` did not succeed on `worker` and is ready again. Returns how often it has been tried."""
        self._release(task, worker, now)
        if self._holds.get((task.world, task.pool)) == worker:
            del self._holds[task.world, task.pool]
        if (state := self._worlds.get(task.world)) is None:
            return 0
        state.avoid.setdefault(task, set()).add(worker)
        return state.attempts.get(task, 0)

    # -- decisions ----------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Assignment]:
        """The tasks to start now, most urgent first. They count as running from here on."""
        ready: list[tuple[float, Task]] = []
        for name, state in self._worlds.items():
            self._open(name, state)
            ready.extend(
                (self._latest_start(task, state), task)
                for task in state.open
                if task not in state.running
                and (state.until is None or first_chunk_fed(task, state.timeline) < state.until)
                and state.done.issuperset(needs(task, state.timeline))
            )
        ready.sort(key=lambda item: (item[0], item[1].world, item[1].segment, item[1].kind.value, item[1].index))
        assignments = []
        for _, task in ready:
            state = self._worlds[task.world]
            state.ready_since.setdefault(task, now)
            if (worker := self._pick(task, state.avoid.get(task, set()))) is None:
                continue
            self._workers[worker].running.add(task)
            self._holds[task.world, task.pool] = worker
            state.running[task] = worker
            state.attempts[task] = state.attempts.get(task, 0) + 1
            waited = now - state.ready_since.pop(task)
            assignments.append(Assignment(task, worker, state.attempts[task], waited))
        return assignments

    def holds(self, world: str, pool: Pool) -> str | None:
        """The worker of a pool that served a world last, and so may hold state of it."""
        return self._holds.get((world, pool))

    def depth(self, pool: Pool) -> int:
        """Tasks of a pool that could run now and find no free worker: what an autoscaler looks at."""
        return sum(
            task.pool is pool and task not in state.running and state.done.issuperset(needs(task, state.timeline))
            for state in self._worlds.values()
            for task in state.open
        )

    def cost(self, kind: Kind) -> float:
        """The running mean of a kind's service time, in seconds."""
        return self._cost.get(kind, INITIAL_COST_S)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _open(self, name: str, state: _World) -> None:
        while not state.paused:
            first = state.timeline.first_chunk(state.opened + 1)
            if first - state.played > state.limits.ahead or (state.until is not None and first >= state.until):
                return
            state.opened += 1
            state.open.update(task for task in tasks_of(name, state.opened, state.timeline) if task not in state.done)

    def _latest_start(self, task: Task, state: _World) -> float:
        """When `task` must start for its first chunk to be on time."""
        chunk = first_chunk_fed(task, state.timeline)
        deadline = state.origin + state.timeline.first_frame(chunk) / state.fps
        ahead = {
            Kind.ENCODE: (Kind.PLAN, Kind.DECODE),
            Kind.BOOTSTRAP: (Kind.GUIDE, Kind.PLAN, Kind.DECODE),
            Kind.GUIDE: (Kind.PLAN, Kind.DECODE),
            Kind.PLAN: (Kind.DECODE,),
            Kind.BRIDGE: (Kind.RECONSTRUCT, Kind.GUIDE, Kind.PLAN, Kind.DECODE),
            Kind.RECONSTRUCT: (Kind.GUIDE, Kind.PLAN, Kind.DECODE),
            Kind.FIRST_HALF: (Kind.DECODE,),
            Kind.SECOND_HALF: (Kind.DECODE,),
            Kind.DECODE: (),
        }[task.kind]
        return deadline - self.cost(task.kind) - sum(self.cost(kind) for kind in ahead)

    def _pick(self, task: Task, avoid: set[str]) -> str | None:
        pool = {name: worker for name, worker in self._workers.items() if worker.pool is task.pool}
        if pool.keys() - avoid:
            pool = {name: worker for name, worker in pool.items() if name not in avoid}
        free = {name: worker for name, worker in pool.items() if len(worker.running) < worker.slots}
        holder = self._holds.get((task.world, task.pool))
        if holder in free:
            return holder
        return min(free, key=lambda name: (len(free[name].running), free[name].free_since, name), default=None)

    def _release(self, task: Task, worker: str, now: float) -> None:
        if (holder := self._workers.get(worker)) is not None:
            holder.running.discard(task)
            holder.free_since = now
        if (state := self._worlds.get(task.world)) is not None and state.running.get(task) == worker:
            del state.running[task]

    def _prune(self, world: str, state: _World) -> None:
        """Forget finished tasks that nothing open can need any more."""
        oldest = min((task.segment for task in state.open), default=state.opened + 1)
        state.done = {task for task in state.done if task.segment >= oldest - 1}
