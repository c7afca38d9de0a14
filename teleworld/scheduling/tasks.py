"""The task graph of a world: what there is to do for each segment, where it runs, and what it needs first.

    ENCODE, BOOTSTRAP            the start picture: prefix latent of segment 0, revision 0 of the memory
    GUIDE(s)                     render and encode the memory at the commanded poses of segment s
    PLAN(s)                      the three key latents (Eq. 1)
    BRIDGE(s)                    decode the key frames, re-encode the boundary: prefix of segment s + 1
    RECONSTRUCT(s)               fuse the key frames: revision s + 1
    FIRST_HALF(s), SECOND_HALF(s) populate (Eq. 3)
    DECODE(s, i)                 latent i to video, in display order

The chain GUIDE -> PLAN -> BRIDGE -> RECONSTRUCT -> GUIDE of the next segment is the only one that crosses segments;
populating and decoding of segment s run beside the chain of s + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from teleworld.world.timeline import Group, Timeline


class Pool(Enum):
    """The worker pools."""

    PLANNER = "planner"
    POPULATOR = "populator"
    RECONSTRUCTOR = "reconstructor"
    DECODER = "decoder"


class Kind(Enum):
    """Kinds of task; see the module's text."""

    ENCODE = "encode"
    BOOTSTRAP = "bootstrap"
    GUIDE = "guide"
    PLAN = "plan"
    BRIDGE = "bridge"
    RECONSTRUCT = "reconstruct"
    FIRST_HALF = "first_half"
    SECOND_HALF = "second_half"
    DECODE = "decode"


POOL_OF = {
    Kind.ENCODE: Pool.PLANNER,
    Kind.BOOTSTRAP: Pool.RECONSTRUCTOR,
    Kind.GUIDE: Pool.RECONSTRUCTOR,
    Kind.PLAN: Pool.PLANNER,
    Kind.BRIDGE: Pool.PLANNER,
    Kind.RECONSTRUCT: Pool.RECONSTRUCTOR,
    Kind.FIRST_HALF: Pool.POPULATOR,
    Kind.SECOND_HALF: Pool.POPULATOR,
    Kind.DECODE: Pool.DECODER,
}
KIND_OF_GROUP = {Group.PLAN: Kind.PLAN, Group.FIRST_HALF: Kind.FIRST_HALF, Group.SECOND_HALF: Kind.SECOND_HALF}


@dataclass(frozen=True)
class Task:
    """One piece of work of one world. `index` is the latent of a DECODE, else 0."""

    world: str
    kind: Kind
    segment: int = 0
    index: int = 0

    @property
    def name(self) -> str:
        """A readable identity, unique in the world: the idempotency key of the task."""
        return f"{self.kind.value}-{self.segment}" + (f"-{self.index}" if self.index else "")

    @property
    def pool(self) -> Pool:
        """Where it runs."""
        return POOL_OF[self.kind]


def group_of(index: int, timeline: Timeline) -> Group:
    """The group that generates a latent."""
    for group in Group:
        if index in timeline.members(group):
            return group
    raise ValueError(f"latent {index} is not on the timeline")


def needs(task: Task, timeline: Timeline) -> tuple[Task, ...]:
    """The tasks whose results `task` takes."""
    world, segment = task.world, task.segment
    match task.kind:
        case Kind.ENCODE | Kind.BOOTSTRAP:
            return ()
        case Kind.GUIDE:
            return (Task(world, Kind.RECONSTRUCT, segment - 1) if segment else Task(world, Kind.BOOTSTRAP),)
        case Kind.PLAN:
            prefix = Task(world, Kind.BRIDGE, segment - 1) if segment else Task(world, Kind.ENCODE)
            return (Task(world, Kind.GUIDE, segment), prefix)
        case Kind.BRIDGE | Kind.FIRST_HALF:
            return (Task(world, Kind.PLAN, segment),)
        case Kind.RECONSTRUCT:
            return (Task(world, Kind.BRIDGE, segment),)
        case Kind.SECOND_HALF:
            first = Kind.FIRST_HALF if timeline.members(Group.FIRST_HALF) else Kind.PLAN
            return (Task(world, first, segment),)
        case Kind.DECODE:
            group = group_of(task.index, timeline)
            source = Task(world, Kind.ENCODE) if group is Group.PREFIX else Task(world, KIND_OF_GROUP[group], segment)
            if task.index == timeline.chunks(segment)[0]:
                return (source,)
            return (source, Task(world, Kind.DECODE, segment, task.index - 1))


def tasks_of(world: str, segment: int, timeline: Timeline) -> Iterator[Task]:
    """Every task of a segment, the chain first."""
    if segment == 0:
        yield Task(world, Kind.ENCODE)
        yield Task(world, Kind.BOOTSTRAP)
    for kind in (Kind.GUIDE, Kind.PLAN, Kind.BRIDGE, Kind.RECONSTRUCT):
        yield Task(world, kind, segment)
    for group in timeline.groups:
        if group is not Group.PLAN:
            yield Task(world, KIND_OF_GROUP[group], segment)
    for index in timeline.chunks(segment):
        yield Task(world, Kind.DECODE, segment, index)


def first_chunk_fed(task: Task, timeline: Timeline) -> int:
    """The earliest chunk that cannot be shown without `task`: its deadline is the task's deadline."""
    match task.kind:
        case Kind.ENCODE | Kind.BOOTSTRAP:
            return 0
        case Kind.DECODE:
            return timeline.chunk(task.segment, task.index)
        case Kind.GUIDE | Kind.PLAN:
            return timeline.first_chunk(task.segment) + (1 if task.segment == 0 else 0)
        case Kind.BRIDGE | Kind.RECONSTRUCT:
            return timeline.first_chunk(task.segment + 1)
        case Kind.FIRST_HALF:
            return timeline.chunk(task.segment, timeline.early + 1)
        case Kind.SECOND_HALF:
            return timeline.chunk(task.segment, timeline.middle + 1)
