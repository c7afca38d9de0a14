"""What the scheduler knows of a world: its open segments, the tasks that are ready or under way, and the player's clock."""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

from teleworld.scheduling.graph import Graph
from teleworld.scheduling.measures import Entry
from teleworld.scheduling.ordering import Limits, Ordering, Share
from teleworld.scheduling.pacing import Lead, Profile
from teleworld.scheduling.tasks import Kind, Pool, Task
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT, Timeline

if TYPE_CHECKING:
    from teleworld.scheduling.crew import Run, Worker

MEMORY_OF_PLAYBACK = 8
SHORTEST_REST = 16
"""For how many segments less is done for keys after a chunk came late, the first time."""


class State(IntEnum):
    """Where a job is: held back by its world, in its pool's queue, parked at a busy worker, under way, or done or given up."""

    HELD = 0
    READY = 1
    PARKED = 2
    RUNNING = 3
    GONE = 4


class Job:
    """A task whose needs are met. `since` is when they were, `key` the rank among the ready ones: the lower, the sooner.

    runs: the copies under way. avoid: workers that failed it. parked: since when it waits for the worker that holds its
    world, although another one is idle. held: the moment until which its world holds it back.
    """

    __slots__ = (
        "attempts", "avoid", "clock", "entry", "held", "key", "node", "parked", "pool", "runs", "segment", "serial", "since",
        "state", "task", "world",
    )  # fmt: skip

    def __init__(self, world: World, segment: Segment, node: int, serial: int, now: float) -> None:
        spec = segment.graph.nodes[node]
        self.world = world
        self.segment = segment
        self.node = node
        self.pool = spec.pool
        self.task = Task(world.name, spec.kind, segment.number, spec.index)
        self.entry: Entry = segment.profile.entries[node]
        self.serial = serial
        self.since = now
        self.key = now
        self.clock = -1
        self.state = State.READY
        self.attempts = 0
        self.runs: list[Run] = []
        self.avoid: set[str] | None = None
        self.parked: float | None = None
        self.held: float | None = None

    @property
    def chunk(self) -> int:
        """The first chunk that waits for it, on the world's own timeline."""
        return self.segment.base + self.segment.graph.nodes[self.node].latent - 1

    @property
    def shape(self) -> object:
        """What tasks must have in common to be done in one call. None: this one is done by itself, because it failed before, which
        may be what the others failed of, or because its layout is not the paper's, with which batches were not tried."""
        timeline = self.segment.graph.timeline
        if self.avoid or timeline.planned_chain is None:
            return None
        return self.world.model, timeline, self.task.kind, self.task.index

    def rank(self) -> None:
        """Set the key anew: the latest start under `ADAPTIVE`, else the moment at which it became ready."""
        self.clock = self.world.clock
        if self.world.limits.ordering is Ordering.ADAPTIVE:
            self.key = self.segment.starts() + self.segment.profile.late[self.node]
        else:
            self.key = self.since


class Segment:
    """An open segment. base: the number of the chunk at the place of latent 1 (shown in segment 0 alone).

    missing: by node, how many of its needs are not met. jobs: by node, its job, if it is ready or under way. left:
    nodes that are not done. opened: when, or when its chain could begin. ready: the earliest moment at which its latent
    1 could have been due, for none of its chunks so far to be late.
    """

    __slots__ = ("base", "done", "graph", "jobs", "left", "missing", "number", "opened", "profile", "ready", "world")

    def __init__(self, world: World, number: int, base: int, profile: Profile, now: float) -> None:
        self.world = world
        self.number = number
        self.base = base
        self.profile = profile
        self.graph: Graph = profile.graph
        self.missing = list(self.graph.missing)
        self.done = bytearray(len(self.missing))
        self.jobs: dict[int, Job] = {}
        self.left = sum(not node.spare for node in self.graph.nodes)
        self.opened = now
        self.ready = float("-inf")

    def starts(self) -> float:
        """When its latent 1 is due, by the player's clock."""
        return self.world.due(self.base)

    @property
    def is_cut(self) -> bool:
        """Whether it ends earlier than the world's segments do."""
        return self.graph.timeline.boundary < self.world.timeline.boundary

    def has(self, kind: Kind) -> bool:
        """Whether the chain's task of a kind is done, or all decoding is."""
        node = self.graph.ends[kind] if kind in self.graph.ends else self.graph.number[kind, 0]
        return bool(self.done[node])


class World:
    """See the module's text. Deadlines count from `origin`: the moment at which frame 0 was due, as playback goes.

    played: chunks that were consumed. opened: the last segment that was opened. bases: where segments begin, as far back as
    one may still be cut; the last one is of the segment that opens next. cuts: the last latents of segments that end early.
    given: tasks that were done before the world came here. shelf: ready tasks that may not run yet. holds: the worker of a
    pool that served it last. rent: how long it has waited for that one while others were idle. alarm: when it is to be
    looked at again, to open a segment. clock: counts the changes of `origin`. profile: of its segments. reanchors: whether a
    key may cut a segment. effort: 0 where none is cut now; else one more than the number of ends, the last ones of a segment,
    whose bridges are made ahead. most_effort: the most, for the next `resting` segments; rest: for how many the next time.
    pressed: a key waits. turn: when it may cut the newest segment. spare_lead: how much earlier segments open for bridges
    made ahead, as of `revision`. settled: the first latents at which segments may be cut, of those that were bound under way
    and not before the world came here.
    """

    def __init__(
        self,
        name: str,
        timeline: Timeline,
        fps: float,
        limits: Limits,
        share: Share,
        model: str,
        profile: Profile,
        learned: Lead,
    ) -> None:
        self.name = name
        self.timeline = timeline
        self.fps = fps
        self.limits = limits
        self.share = share
        self.model = model
        self.profile = profile
        self.learned = learned
        self.origin = 0.0
        self.clock = 0
        self.played = 0
        self.until: int | None = None
        self.paused = False
        self.first = 0
        self.opened = -1
        self.bases: dict[int, int] = {}
        self.cuts: dict[int, int] = {}
        self.given: set[Task] = set()
        self.segments: dict[int, Segment] = {}
        self.shelf: list[Job] = []
        self.holds: dict[Pool, Worker] = {}
        self.rent: dict[Pool, float] = {}
        self.alarm: float | None = None
        self.pressed = False
        self.turn: float | None = None
        self.revision = (-1, 0.0)
        self.effort = self.most_effort = 0
        self.resting, self.rest = 0, SHORTEST_REST
        self.spare_lead = 0.0
        self.just_in_time = limits.realtime and limits.ordering is Ordering.ADAPTIVE
        self.reanchors = limits.reanchor and self.just_in_time
        self.settled: dict[int, int] = {}
        self._heard: deque[float] = deque(maxlen=MEMORY_OF_PLAYBACK)

    @property
    def lead(self) -> float:
        """How long before its latent 1 is due a segment opens, in seconds."""
        return self.learned.seconds(self.profile.opening) + self.spare_lead

    def due(self, base: int) -> float:
        """When latent 1 of the segment that begins at `base` is due."""
        # Chunk 0 is a single frame: it stands for its last one, as if there had been three before.
        return self.origin + (1 + (base - 1) * PIXEL_FRAMES_PER_LATENT) / self.fps

    def heard(self, chunks: int, now: float) -> None:
        """The player consumed the first `chunks` chunks. A report may be late, so the earliest of the last ones counts; a
        world without a player is only ever delayed."""
        self.played = chunks
        at = now - Timeline.first_frame(chunks) / self.fps
        if self.limits.realtime:
            known = len(self._heard) == MEMORY_OF_PLAYBACK and self.opened > self.first + 2
            self._heard.append(at)
            if known and (late := min(self._heard) - self.origin) > 0:
                self.learned.fell_short(min(late, PIXEL_FRAMES_PER_LATENT / self.fps))
            self.move(min(self._heard))
        elif at > self.origin:
            self.move(at)
        for number in [number for number in self.bases if number < self.opened and self.bases[number + 1] < chunks]:
            del self.bases[number]

    def resumed(self) -> None:
        """The player goes on after it stood still: what it did before says nothing about what is due."""
        self._heard.clear()

    def stalled(self, seconds: float) -> None:
        """A chunk came so much too late: all that follows moves."""
        self._heard.clear()
        self._heard.append(self.origin + seconds)
        self.move(self.origin + seconds)

    def move(self, origin: float) -> None:
        """Set the origin of the deadlines."""
        if origin != self.origin:
            self.origin = origin
            self.clock += 1

    def chain_left(self) -> bool:
        """Whether some open segment is not planned yet."""
        return any(not segment.has(Kind.PLAN) for segment in self.segments.values())
