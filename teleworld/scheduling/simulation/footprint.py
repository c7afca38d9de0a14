"""Bytes that generation holds: latents that somebody still needs, and the keys and values of the tasks under way.

A latent lives from the end of the task that makes it until its chunk is decoded and no stage of its segment that sees it is
still to come (a latent that is not shown: until the last). Keys and values live inside a task, for the clean latents that
it sees and for its own: they never leave a process, so a stage that sees more needs more.
"""

from __future__ import annotations

from teleworld.scheduling.tasks import Kind, Task
from teleworld.world.timeline import Group, Timeline


class _Segment:
    """made: latents that live. needed: those that a stage still to come sees. coming: those stages. last: shown latent."""

    __slots__ = ("coming", "last", "made", "needed")

    def __init__(self, timeline: Timeline) -> None:
        self.made: set[int] = set()
        self.coming = set(timeline.groups)
        self.needed: set[int] = set()
        self.last = timeline.last_shown


class Footprint:
    """Counts bytes as tasks start and end. peak: of everything at one moment; peak_kv: the most in one task."""

    def __init__(self, timeline: Timeline, latent_bytes: float, kv_per_latent: float) -> None:
        self.peak = 0.0
        self.peak_latents = 0.0
        self.peak_kv = 0.0
        self._timeline = timeline
        self._latent_bytes = latent_bytes
        self._kv_per_latent = kv_per_latent
        self._held = {group: len(timeline.visible(group)) + len(timeline.members(group)) for group in timeline.groups}
        self._latents = 0
        self._kv = 0
        self._segments: dict[tuple[str, int], _Segment] = {}
        self._decoded: dict[tuple[str, int], int] = {}

    def start(self, task: Task) -> int:
        """A task starts; returns the clean latents whose keys and values it holds, for `release`."""
        if (group := group_of(task)) is None:
            return 0
        held = self._held[group]
        self._kv += held
        self.peak_kv = max(self.peak_kv, held * self._kv_per_latent)
        self._count()
        return held

    def release(self, held: int) -> None:
        """A task that held so many latents' keys and values is over, one way or the other."""
        self._kv -= held

    def finish(self, task: Task) -> None:
        """A task is done: what it made lives, what nobody needs any more does not."""
        key = task.world, task.segment
        if task.kind is Kind.DECODE:
            self._decoded[key] = task.index
            if (segment := self._segments.get(key)) is not None and task.index not in segment.needed:
                self._drop(key, segment, [task.index])
        elif (group := group_of(task)) is not None:
            segment = self._segments.get(key)
            if segment is None:
                segment = self._segments[key] = _Segment(self._timeline)
            members = self._timeline.members(group)
            segment.coming.discard(group)
            segment.made.update(members)
            self._latents += len(members)
            self._count()
            self._sweep(key, segment)

    def cut(self, world: str, number: int, last: int) -> None:
        """A segment ends at its latent `last`: stages that make later ones alone will not come."""
        if (segment := self._segments.get((world, number))) is not None:
            segment.last = last
            segment.coming.intersection_update(self._timeline.cut(last).groups)
            self._sweep((world, number), segment)

    def forget(self, world: str, segments: int) -> None:
        """A world is over; its last segment was `segments`."""
        for number in range(segments + 1):
            self._decoded.pop((world, number), None)
            if (segment := self._segments.pop((world, number), None)) is not None:
                self._latents -= len(segment.made)

    def _sweep(self, key: tuple[str, int], segment: _Segment) -> None:
        """Drop what nobody needs, now that fewer stages are to come."""
        segment.needed = {index for coming in segment.coming for index in self._timeline.visible(coming)}
        decoded = self._decoded.get(key, 0)
        over = [index for index in segment.made if index <= decoded or index > segment.last]
        self._drop(key, segment, [index for index in over if index not in segment.needed])

    def _drop(self, key: tuple[str, int], segment: _Segment, over: list[int]) -> None:
        before = len(segment.made)
        segment.made.difference_update(over)
        self._latents -= before - len(segment.made)
        if not segment.coming and not segment.made:
            del self._segments[key]
            self._decoded.pop(key, None)

    def _count(self) -> None:
        latents = self._latents * self._latent_bytes
        self.peak_latents = max(self.peak_latents, latents)
        self.peak = max(self.peak, latents + self._kv * self._kv_per_latent)


def group_of(task: Task) -> int | None:
    """The group of latents that a task makes; None for other work."""
    if task.kind is Kind.PLAN:
        return Group.PLAN
    return task.index if task.kind is Kind.POPULATE else None
