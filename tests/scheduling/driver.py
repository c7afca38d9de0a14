"""Worlds in a discrete clock: the policy, workers that take as long as a test says, players that consume what is made.

Whatever happens, it asserts what must always hold: no task before its needs, no task under way twice but as a hedge, one
result a task, chunks in order, nothing beyond the look-ahead, no worker with more calls than slots.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from teleworld.scheduling.policy import Assignment, Limits, Policy, Scheduler, Share
from teleworld.scheduling.tasks import Kind, Pool, Task, needs
from teleworld.world.timeline import Timeline

EVEN = dict.fromkeys(Kind, 0.05)


@dataclass
class Seen:
    """What became of a world: results taken, when each chunk was ready and when shown, and the player's stalls."""

    timeline: Timeline
    limits: Limits
    done: set[Task] = field(default_factory=set)
    ready: dict[int, float] = field(default_factory=dict)
    shown: dict[int, float] = field(default_factory=dict)
    played: int = 0
    playing: bool = False
    stalls: list[float] = field(default_factory=list)


class Mesh:
    """See the module's text. `durations`: seconds of each kind; `stretch(assignment)`: by which factor this call is slower."""

    def __init__(
        self,
        populators: int = 1,
        durations: Mapping[Kind, float] = EVEN,
        *,
        others: int = 1,
        jitter: float = 0.0,
        seed: int = 0,
        policy: Policy | None = None,
        batches: Mapping[Kind, int] | None = None,
        slots: int = 1,
    ) -> None:
        self.scheduler = Scheduler(policy)
        self.durations = durations
        self.chance = random.Random(seed)
        self.jitter = jitter
        self.stretch: Callable[[Assignment], float] = lambda assignment: 1.0
        self.fails: Callable[[Assignment], bool] = lambda assignment: False
        self.batches, self.slots = batches or {}, slots
        self.seen: dict[str, Seen] = {}
        self.calls: dict[int, tuple[str, list[Assignment], float]] = {}
        self.starts: list[tuple[float, Assignment]] = []
        self.results: Counter[Task] = Counter()
        self.now = 0.0
        self._queue: list[tuple[float, int, str, Any]] = []
        self._serial = 0
        self._alarm: float | None = None
        for pool in Pool:
            for number in range(populators if pool is Pool.POPULATOR else others):
                self.join(f"{pool.value}-{number}")

    def join(self, worker: str) -> None:
        """A worker named after its pool comes."""
        self.scheduler.join(worker, Pool(worker.rsplit("-", 1)[0]), self.slots, self.now, self.batches)

    def leave(self, worker: str) -> None:
        """A worker dies: its calls never end."""
        self.scheduler.leave(worker)
        self.calls = {number: call for number, call in self.calls.items() if call[0] != worker}

    def add(self, world: str, timeline: Timeline, limits: Limits, *, fps: float = 16.0, until: int | None = None,
            share: Share | None = None) -> Seen:  # fmt: skip
        """A world begins."""
        self.seen[world] = Seen(timeline, limits)
        self.scheduler.add(world, timeline, fps, limits, self.now, share=share or Share())
        self.scheduler.until(world, until)
        return self.seen[world]

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._push(when, "action", action)

    def run(self, until: float = 1e9) -> None:
        """Let time pass until nothing happens any more, or `until`."""
        self._decide()
        while self._queue and self._queue[0][0] <= until:
            self.now, _, kind, subject = heapq.heappop(self._queue)
            match kind:
                case "action":
                    subject()
                case "end":
                    self._end(subject)
                case "consumed":
                    self._consumed(subject)
                case "alarm" if subject == self._alarm:
                    self._alarm = None
            self._decide()
        self.now = max(self.now, until) if until < 1e9 else self.now

    def _push(self, when: float, kind: str, subject: Any) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (when, self._serial, kind, subject))

    def _decide(self) -> None:
        calls: dict[int, list[Assignment]] = {}
        for assignment in self.scheduler.decide(self.now):
            self._check(assignment)
            self.starts.append((self.now, assignment))
            calls.setdefault(assignment.call, []).append(assignment)
        for number, members in calls.items():
            first = members[0]
            assert len({(member.worker, member.task.kind, member.task.index) for member in members}) == 1
            assert len(members) <= self.batches.get(first.task.kind, 1)
            self.calls[number] = (first.worker, members, self.now)
            assert sum(worker == first.worker for worker, _, _ in self.calls.values()) <= self.slots
            seconds = self.durations[first.task.kind] * self.stretch(first)
            self._push(self.now + seconds * self.chance.uniform(1 - self.jitter, 1 + self.jitter), "end", number)
        wake = self.scheduler.wake_at()
        if wake is not None and wake != self._alarm:
            self._alarm = wake
            self._push(max(wake, self.now), "alarm", wake)

    def _check(self, assignment: Assignment) -> None:
        task = assignment.task
        seen = self.seen[task.world]
        assert task not in seen.done, f"{task} is done already"
        assert seen.done.issuperset(needs(task, seen.timeline)), f"{task} started before its needs"
        assert seen.timeline.first_chunk(task.segment) - seen.played <= seen.limits.ahead, f"{task} ran too far ahead"
        running = [member for _, members, _ in self.calls.values() for member in members if member.task == task]
        assert bool(running) == assignment.hedge and len(running) <= 1, f"{task} is under way"
        assert assignment.worker not in [member.worker for member in running]

    def _end(self, number: int) -> None:
        if number not in self.calls:
            return
        worker, members, began = self.calls.pop(number)
        for member in members:
            task = member.task
            if self.fails(member):
                self.scheduler.failed(task, worker, self.now)
                continue
            self.results[task] += 1
            losers = self.scheduler.finished(task, worker, self.now - began, self.now)
            for other, (name, copies, _) in tuple(self.calls.items()):
                if any(copy.task == task for copy in copies):
                    assert name in losers
                    copies[:] = [copy for copy in copies if copy.task != task]
                    if not copies:
                        del self.calls[other]
            self._take(task)

    def _take(self, task: Task) -> None:
        seen = self.seen[task.world]
        assert task not in seen.done, f"two results of {task} were taken"
        seen.done.add(task)
        if task.kind is Kind.DECODE:
            seen.ready[seen.timeline.chunk(task.segment, task.index)] = self.now
            if not seen.playing:
                if seen.limits.realtime and seen.played in seen.ready and seen.played:
                    seen.stalls.append(self.now)
                self._play(task.world)

    def _play(self, world: str) -> None:
        """Show the next chunk if it is there: at the frame rate, or at once if nobody watches."""
        seen = self.seen[world]
        seen.playing = seen.played in seen.ready
        if seen.playing:
            seen.shown[seen.played] = self.now
            frames = seen.timeline.chunk_frames(seen.played) if seen.limits.realtime else 0
            self._push(self.now + frames / 16.0, "consumed", world)

    def _consumed(self, world: str) -> None:
        seen = self.seen[world]
        seen.played += 1
        self.scheduler.played(world, seen.played, self.now)
        self._play(world)
