"""One live world in simulated time: the real scheduler, workers that take as long as a test says, a player, and keys."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from teleworld.scheduling.policy import Assignment, Limits, Scheduler
from teleworld.scheduling.tasks import Kind, Pool, Task, needs
from teleworld.world.layout import Layout
from teleworld.world.timeline import ChainMode, Timeline

WORLD = "w"
NANO_S = {
    Kind.ENCODE: 0.005, Kind.BOOTSTRAP: 0.1, Kind.GUIDE: 0.05, Kind.PLAN: 0.065, Kind.BRIDGE: 0.1,
    Kind.RECONSTRUCT: 0.11, Kind.POPULATE: 0.07, Kind.DECODE: 0.085,
}  # fmt: skip


@dataclass
class LiveWorld:
    """`run`, then look at what happened. Keys are pressed at `keys` (seconds); a task of a kind takes `seconds`, times up to
    `1 + jitter`. Playback begins `buffered` seconds after chunk 1 came and stalls where a chunk is late.

    shown: by chunk, (segment, latent, when it was made, when it was shown). bound: by segment, (when, keys taken in).
    applied: by key, the first chunk that reflects it. cuts: by segment, its last latent.
    """

    timeline: Timeline = field(default_factory=lambda: Timeline.of(6, ChainMode.T_B))
    fps: float = 17.5
    seconds: Mapping[Kind, float] = field(default_factory=lambda: NANO_S)
    keys: Sequence[float] = ()
    jitter: float = 0.0
    seed: int = 0
    reanchor: bool = True
    buffered: float = 0.0
    chunks: int = 60
    shown: list[tuple[int, int, float, float]] = field(default_factory=list)
    bound: dict[int, tuple[float, tuple[int, ...]]] = field(default_factory=dict)
    applied: dict[int, int] = field(default_factory=dict)
    cuts: dict[int, int] = field(default_factory=dict)
    fused: list[Task] = field(default_factory=list)
    stalls: int = 0
    stalled_s: float = 0.0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler()
        self.layout = Layout(self.timeline)
        self.done: set[Task] = set()
        self._chance = random.Random(self.seed)
        self._events: list[tuple[float, int, str, object]] = []
        self._serial = count()
        self._waiting: list[int] = []
        self._free: float | None = None
        self._now = 0.0

    def run(self) -> LiveWorld:
        """Until `chunks` chunks are shown. Raises AssertionError when nothing happens any more."""
        scheduler = self.scheduler
        for pool in Pool:
            scheduler.join(pool.value, pool, 1, 0.0)
        for number, at in enumerate(self.keys):
            self._at(at, "key", number)
        scheduler.add(WORLD, self.timeline, self.fps, Limits(400, realtime=True, reanchor=self.reanchor), 0.0)
        while len(self.shown) < self.chunks:
            for assignment in scheduler.decide(self._now):
                self._begin(assignment)
            wake = scheduler.wake_at()
            assert self._events or wake is not None, (
                f"nothing happens after {len(self.shown)} chunks at {self._now:.3f} s"
            )
            if wake is not None and (not self._events or wake < self._events[0][0]):
                self._now = max(self._now, wake)
                continue
            self._now, _, kind, subject = heappop(self._events)
            getattr(self, f"_{kind}")(subject)
        return self

    def latencies(self) -> list[float]:
        """By key, the seconds until the first chunk that reflects it was shown."""
        return [self.shown[chunk][3] - self.keys[key] for key, chunk in self.applied.items() if chunk < len(self.shown)]

    def _at(self, when: float, kind: str, subject: object) -> None:
        heappush(self._events, (when, next(self._serial), kind, subject))

    def _begin(self, assignment: Assignment) -> None:
        task = assignment.task
        cut = self.scheduler.ended(WORLD, task.segment - 1) if task.segment else 0
        self._check_needs(task, cut)
        if task.kind is Kind.GUIDE and task.segment not in self.bound:
            if cut:
                self.cuts[task.segment - 1] = cut
            first = self.layout.chunk(task.segment - 1, cut) + 1 if cut else self.layout.chunk(task.segment, 2)
            self.layout.begin(task.segment, first)
            self.bound[task.segment] = self._now, tuple(self._waiting)
            # As `ControlQueue.bind` does: one key a chunk, and of more keys than chunks the last ones.
            dropped = self._waiting[: max(0, len(self._waiting) - self.timeline.chunks_per_segment)]
            kept = self._waiting[len(dropped) :]
            self.applied |= dict.fromkeys(dropped, first) | {key: first + place for place, key in enumerate(kept)}
            settled = 2 + max(0, len(kept) - 1)
            self._waiting = []
            self.scheduler.bound(WORLD, task.segment, settled)
            self.scheduler.pressed(WORLD, False)
        seconds = self.seconds[task.kind] * (1 + self.jitter * self._chance.random())
        self._at(self._now + seconds, "end", (assignment, seconds))

    def _check_needs(self, task: Task, cut: int) -> None:
        """Whatever the policy does, a task must find what it takes."""
        part = (
            self.timeline.cut(task.index)
            if task.index and task.kind in (Kind.BRIDGE, Kind.RECONSTRUCT)
            else self.timeline
        )
        for need in needs(task, part, cut, warm=self.reanchor):
            lags = task.kind is Kind.GUIDE and need.kind is Kind.RECONSTRUCT and cut
            assert lags or need in self.done, f"{task} began without {need}"
        if task.kind is Kind.RECONSTRUCT:
            assert [fused.segment for fused in self.fused] == list(range(task.segment)), (
                "segments are fused in order, once"
            )
            self.fused.append(task)
        if task.kind is Kind.GUIDE and cut and task.segment > 1:
            assert [fused.segment for fused in self.fused if fused in self.done][-1:] >= [task.segment - 2]

    def _end(self, subject: tuple[Assignment, float]) -> None:
        assignment, seconds = subject
        task = assignment.task
        self.done.add(task)
        self.scheduler.finished(task, assignment.worker, seconds, self._now)
        if task.kind is Kind.DECODE and (task.index > 1 or not task.segment):
            self._made(task)

    def _made(self, task: Task) -> None:
        chunk = self.layout.chunk(task.segment, task.index)
        assert chunk == len(self.shown), f"chunk {chunk} came after {len(self.shown) - 1}"
        if self._free is not None and self._now > self._free + 1e-9:
            self.stalls += 1
            self.stalled_s += self._now - self._free
        if chunk == 1:
            self._free = self._now + self.buffered
        begins = self._now if self._free is None else max(self._now, self._free)
        self.shown.append((task.segment, task.index, self._now, begins))
        if chunk:
            self._free = begins + 4 / self.fps
            self._at(self._free, "played", chunk + 1)

    def _played(self, chunks: int) -> None:
        self.scheduler.played(WORLD, chunks, self._now)

    def _key(self, number: int) -> None:
        self._waiting.append(number)
        self.scheduler.pressed(WORLD, True)
