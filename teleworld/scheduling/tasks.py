"""The task graph of a world: what there is to do for each segment, where it runs, and what it needs first.

    ENCODE, BOOTSTRAP   the start picture: prefix latent of segment 0, revision 0 of the memory
    GUIDE(s)            render and encode the memory at the commanded poses of segment s
    PLAN(s)             the first group of latents: the key latents (Eq. 1)
    BRIDGE(s)           decode the key frames, re-encode the boundary: prefix of segment s + 1
    RECONSTRUCT(s)      fuse the key frames: revision s + 1
    POPULATE(s, g)      every further group g: the two halves between the key latents (Eq. 3)
    DECODE(s, i)        latent i to video, in display order (i = 1 of a later segment: the decoder's state alone)

The chain GUIDE -> PLAN -> BRIDGE -> RECONSTRUCT -> GUIDE leads from segment to segment; populating and decoding of segment s
run beside the chain of s + 1. Decoding goes in display order across segments: a decoder holds one state a world. On an
autoregressive timeline the chain takes every group in, because its key frames are the latents of several.

A segment that was cut short (re-anchoring) is a segment of the timeline `timeline.cut(last)`; its BRIDGE and RECONSTRUCT are
other tasks than those of the whole segment and carry `last` as their index. So the bridges of several ends can be made ahead,
before it is known which one it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from teleworld.world.timeline import Timeline


class Pool(Enum):
    """The worker pools."""

    PLANNER = "planner"
    POPULATOR = "populator"
    RECONSTRUCTOR = "reconstructor"
    DECODER = "decoder"

    # Pools and kinds are keys of every table: by identity, not by a call of Python code as enums do it.
    __hash__ = object.__hash__


class Kind(Enum):
    """Kinds of task; see the module's text."""

    ENCODE = "encode"
    BOOTSTRAP = "bootstrap"
    GUIDE = "guide"
    PLAN = "plan"
    BRIDGE = "bridge"
    RECONSTRUCT = "reconstruct"
    POPULATE = "populate"
    DECODE = "decode"

    __hash__ = object.__hash__


POOL_OF = {
    Kind.ENCODE: Pool.PLANNER,
    Kind.BOOTSTRAP: Pool.RECONSTRUCTOR,
    Kind.GUIDE: Pool.RECONSTRUCTOR,
    Kind.PLAN: Pool.PLANNER,
    Kind.BRIDGE: Pool.PLANNER,
    Kind.RECONSTRUCT: Pool.RECONSTRUCTOR,
    Kind.POPULATE: Pool.POPULATOR,
    Kind.DECODE: Pool.DECODER,
}
BATCHED = {Pool.PLANNER: (Kind.PLAN,), Pool.POPULATOR: (Kind.POPULATE,)}
"""The kinds of which a worker may take several tasks in one call."""
CHAIN = (Kind.GUIDE, Kind.PLAN, Kind.BRIDGE, Kind.RECONSTRUCT)


class Task(NamedTuple):
    """One piece of work of one world. `index` is the latent of a DECODE, the group of a POPULATE, the last latent of a cut
    segment for its BRIDGE and RECONSTRUCT, else 0."""

    world: str
    kind: Kind
    segment: int = 0
    index: int = 0  # type: ignore[assignment]  # hides the method of tuples, which nobody needs here

    @property
    def name(self) -> str:
        """A readable identity, unique in the world: the idempotency key of the task."""
        return f"{self.kind.value}-{self.segment}" + (f"-{self.index}" if self.index else "")

    @property
    def pool(self) -> Pool:
        """Where it runs."""
        return POOL_OF[self.kind]


def maker(world: str, group: int, segment: int) -> Task:
    """The task that makes a group of latents."""
    match group:
        case 0:
            return Task(world, Kind.ENCODE)
        case 1:
            return Task(world, Kind.PLAN, segment)
        case _:
            return Task(world, Kind.POPULATE, segment, group)


def needs(task: Task, timeline: Timeline, cut_before: int = 0, *, warm: bool = False) -> tuple[Task, ...]:
    """The tasks whose results `task` takes. cut_before: the last latent of the segment before, if that was cut. warm: see
    `tasks_of`."""
    world, segment = task.world, task.segment
    match task.kind:
        case Kind.ENCODE | Kind.BOOTSTRAP:
            return ()
        case Kind.GUIDE:
            return (Task(world, Kind.RECONSTRUCT, segment - 1, cut_before) if segment else Task(world, Kind.BOOTSTRAP),)
        case Kind.PLAN:
            prefix = Task(world, Kind.BRIDGE, segment - 1, cut_before) if segment else Task(world, Kind.ENCODE)
            return (Task(world, Kind.GUIDE, segment), prefix)
        case Kind.BRIDGE:
            part = timeline.cut(task.index) if task.index else timeline
            groups = sorted({timeline.group_of(index) for index in part.key_frames})
            return tuple(maker(world, group, segment) for group in groups)
        case Kind.RECONSTRUCT:
            return (Task(world, Kind.BRIDGE, segment, task.index),)
        case Kind.POPULATE:
            groups = sorted({timeline.group_of(index) for index in timeline.visible(task.index)} - {0})
            return tuple(maker(world, group, segment) for group in groups)
        case Kind.DECODE:
            if segment and task.index == 1:
                prefix = Task(world, Kind.BRIDGE, segment - 1, cut_before)
                return (prefix, Task(world, Kind.DECODE, segment - 1, cut_before or timeline.boundary))
            source = maker(world, timeline.group_of(task.index), segment)
            if task.index == (1 if warm else timeline.chunks(segment)[0]):
                before = Task(world, Kind.DECODE, segment - 1, cut_before or timeline.boundary)
                return (source, before) if segment else (source,)
            return (source, Task(world, Kind.DECODE, segment, task.index - 1))


def tasks_of(world: str, segment: int, timeline: Timeline, cut: int = 0, *, warm: bool = False) -> Iterator[Task]:
    """Every task of a segment, the chain first. cut: its last latent, if it was cut (then `timeline` is that of the cut).

    warm: the prefix of a later segment, which is not shown, is decoded by itself as soon as it is known, so that the first
    chunk need not wait for it. That keeps a world's decoding in display order, where a decoder holds the state of one segment.
    """
    if segment == 0:
        yield Task(world, Kind.ENCODE)
        yield Task(world, Kind.BOOTSTRAP)
    for kind in CHAIN:
        yield Task(world, kind, segment, cut if kind in (Kind.BRIDGE, Kind.RECONSTRUCT) else 0)
    for group in timeline.groups:
        if group > 1:
            yield Task(world, Kind.POPULATE, segment, group)
    if warm and segment:
        yield Task(world, Kind.DECODE, segment, 1)
    for index in timeline.chunks(segment):
        yield Task(world, Kind.DECODE, segment, index)
