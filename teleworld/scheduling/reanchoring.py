"""When a segment is cut, and what must wait so that it still can be: re-anchoring.

A segment that is under way may end at any latent that is clean and behind which nothing was shown; the next one then starts
from there, with the keys of now. For every such end there is one moment that counts: the latest at which the segment
behind it could open (`Lead`), so that what follows is there when the player is. If a key waits at that moment and the
bridge of the end is ready, the segment is cut; if not, it goes on to the next latent. So a key is seen at the first chunk
that its chain can make in time, by what the last segments needed, and no decision is made sooner than playback asks for.

What is done for that depends on the load that playing worlds ask of the pools, by mean measured times (`World.effort`).
The bridges of as many ends as planners have room for are made before their moments, so that none is in a key's way: those of
the last ends, which are ready in time most easily. They keep off the planner where they would delay a chain that may begin.
Where one would come late by little, all segments open so much earlier (`lead`): that costs every key as much, and spares
those that come early in a segment a whole latent. The bridge of any other end is made once a key waits, if that can still
be reached: keys wait for it, and nothing is made in vain. Where there is no room for the shorter segments of cuts at all,
the world goes on as if it could not be cut, and so it does until service times are known. A chunk that comes too late puts
its world a step down for a while, twice as long if it happens again: what a machine cannot carry whose cores are shared is
not seen in means.

Two things wait as long as a cut is possible. A latent is not decoded before it is too late to cut in front of it,
because a chunk that is decoded counts as shown. Key frames are not fused before the segment's end is certain: when its
last cut is too late, and not later than the memory needs them for the segment behind a whole one. The segment behind a
cut is guided by the memory without the key frames of the cut one, which are fused beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from teleworld.scheduling.ordering import Policy
from teleworld.scheduling.tasks import Kind
from teleworld.scheduling.worlds import SHORTEST_REST, Job, Segment, World
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT

NEVER = math.inf
"""Not before something else happens."""
INSTANT = 1e-4
MOST_LEAD = 0.5
"""Of the time that a chunk plays: what opening earlier may cost."""
LONGEST_REST = 256
"""For how many segments a world is put a step down, at most."""


class Load(NamedTuple):
    """How full pools are, as shares of their workers: the fullest one, the planners, and these with the bridges of all ends."""

    fullest: float
    planners: float
    most: float


class Reanchoring:
    """The rules, over what `Progress` knows of a world."""

    def __init__(self, policy: Policy, load: Callable[[], Load]) -> None:
        self._policy = policy
        self._guard = policy.guard
        self._load = load

    def judge(self, world: World) -> None:
        """A segment opens: what is done for its cuts."""
        load, ends = self._load(), world.timeline.boundary - 2
        room, asked = self._policy.spares - load.planners, load.most - load.planners
        ahead = ends if room >= asked else max(0, int(ends * room / asked))
        known = all(entry.call.count for entry in world.profile.entries)
        best = 1 + ahead if known and load.fullest <= self._policy.cuts else 0
        if world.resting:
            world.resting -= 1
            best = min(best, world.most_effort)
            if not world.resting:
                world.rest = max(world.rest // 2, SHORTEST_REST)
        self._set(world, best)

    def late(self, world: World, segment: Segment) -> None:
        """A chunk of a segment came late: less is done for cuts for a while, if it may be for what was done."""
        before = world.segments.get(segment.number - 1)
        behind_a_cut = segment.is_cut or (before is not None and before.is_cut)
        if segment.number > world.first + 1 and (world.effort > 1 or (world.effort and behind_a_cut)):
            self._set(world, world.effort - 1)
            world.most_effort, world.resting = world.effort, world.rest
            world.rest = min(2 * world.rest, LONGEST_REST)

    def ending(self, world: World, now: float) -> tuple[int, float]:
        """(the latent at which the newest segment is to be cut now, or 0; when to ask again though nothing happens)."""
        segment = world.segments.get(world.opened)
        if not world.pressed or world.paused or segment is None or not self._open_ended(world, segment):
            return 0, NEVER
        for last in range(world.settled[segment.number], segment.graph.timeline.boundary):
            latest = self._latest(world, segment, last)
            if now > latest or self._begun(segment, Kind.DECODE, last + 1):
                continue
            if world.until is not None and segment.base + last >= world.until:
                break
            if now < (turn := latest - max(world.spare_lead, self._guard)):
                return 0, turn
            if segment.done[segment.graph.number[Kind.BRIDGE, last]]:
                return last, NEVER
            return 0, latest + INSTANT
        return 0, NEVER

    def free_at(self, job: Job, now: float) -> float:
        """When a task whose needs are met may run: not later than `now`, at a moment, or `NEVER`."""
        world, segment = job.world, job.segment
        before, after = world.segments.get(segment.number - 1), world.segments.get(segment.number + 1)
        match job.task.kind:
            case Kind.DECODE if segment.number == 0 or job.task.index > 1:
                return self._decode_at(job, now)
            case Kind.GUIDE:
                older = world.segments.get(segment.number - 2)
                lags = before is not None and before.is_cut
                return now if not lags or older is None or older.has(Kind.RECONSTRUCT) else NEVER
            case Kind.RECONSTRUCT:
                if before is not None and not before.has(Kind.RECONSTRUCT):
                    return NEVER
                if segment.is_cut:
                    return now if after is not None and after.has(Kind.GUIDE) else NEVER
                if segment.number not in world.settled or not world.effort:
                    return now
                opens = world.due(segment.base + segment.graph.timeline.boundary - 1) - world.lead
                too_late_to_cut = self._latest(world, segment, segment.graph.timeline.boundary - 1) + INSTANT
                return min(opens - job.entry.used - self._guard, too_late_to_cut)
            case Kind.BRIDGE if segment.graph.nodes[job.node].spare:
                return self._spare_at(job, now)
            case Kind.BRIDGE if not segment.is_cut:
                return self._bridge_at(job, now)
            case _:
                return now

    def lead(self, world: World) -> float:
        """How much earlier than need be segments open, in seconds, so that the bridges of their ends are ready in time."""
        profile, chunk_s = world.profile, PIXEL_FRAMES_PER_LATENT / world.fps
        ready = [0.0] * len(profile.graph.nodes)
        lead = 0.0
        for number, node in enumerate(profile.graph.nodes):
            if node.kind is not Kind.DECODE:
                ready[number] = max((ready[need] for need in node.needs), default=0.0) + profile.entries[number].used
            if node.spare and self._ahead(world, node.index):
                late = ready[number] + self._guard - (node.index - 1) * chunk_s
                lead = max(lead, late if late <= MOST_LEAD * chunk_s else 0.0)
        return lead

    @staticmethod
    def _set(world: World, effort: int) -> None:
        if effort != world.effort:
            world.effort, world.revision = effort, (-1, 0.0)

    @staticmethod
    def _ahead(world: World, last: int) -> bool:
        """Whether the bridge of an end is made before a key asks for it."""
        return last > world.timeline.boundary - world.effort

    def _latest(self, world: World, segment: Segment, last: int) -> float:
        """Until when a segment may be cut at the latent `last`, so that what follows is there in time."""
        return world.due(segment.base + last - 1) - world.learned.seconds(world.profile.opening)

    def _decode_at(self, job: Job, now: float) -> float:
        """A latent is decoded when it is too late to cut before it."""
        world, segment, last = job.world, job.segment, job.task.index - 1
        if segment.is_cut or last < world.settled.get(segment.number, segment.graph.timeline.boundary):
            return now
        if not world.effort or segment.number != world.opened:
            return now
        latest = self._latest(world, segment, last)
        if not self._ahead(world, last) and not self._begun(segment, Kind.BRIDGE, last):
            latest -= segment.profile.entries[segment.graph.number[Kind.BRIDGE, last]].call.mean
        return latest + INSTANT

    def _open_ended(self, world: World, segment: Segment) -> bool:
        """Whether the end of a segment is still to be decided, and the memory is ready for the one behind."""
        before = world.segments.get(segment.number - 1)
        if segment.number not in world.settled or segment.is_cut or not world.effort:
            return False
        return not self._begun(segment, Kind.RECONSTRUCT, 0) and (before is None or before.has(Kind.RECONSTRUCT))

    def _begun(self, segment: Segment, kind: Kind, index: int) -> bool:
        node = segment.graph.number[kind, index]
        job = segment.jobs.get(node)
        return bool(segment.done[node]) or (job is not None and job.attempts > 0)

    def _spare_at(self, job: Job, now: float) -> float:
        """The bridge of an end that a segment may yet be given is of use only if it is ready when that end has its moment."""
        world, segment, last = job.world, job.segment, job.task.index
        if segment.number != world.opened or not self._open_ended(world, segment):
            return NEVER
        if now + job.entry.call.mean > self._latest(world, segment, last):
            return NEVER
        if self._ahead(world, last):
            return self._bridge_at(job, now)
        ends = range(world.settled[segment.number], last)
        sooner = any(
            now <= self._latest(world, segment, end) and self._begun(segment, Kind.BRIDGE, end) for end in ends
        )
        return NEVER if sooner or not world.pressed or last < world.settled[segment.number] else now

    def _bridge_at(self, job: Job, now: float) -> float:
        """A bridge that is made ahead starts when it is over before the next chain that may begin wants the planner, and if there
        is time for that, when the first latent of its segment is decoded: the two may share a device, and that one is due."""
        world, segment, last = job.world, job.segment, job.task.index
        chunk_s = PIXEL_FRAMES_PER_LATENT / world.fps
        guide_s = segment.profile.entries[segment.graph.number[Kind.GUIDE, 0]].used
        late = segment.starts() + segment.profile.late[job.node]
        if last:
            late = self._latest(world, segment, last) - job.entry.used
        if not world.effort or segment.number != world.opened or now >= late:
            return now
        shown = segment.graph.number[Kind.DECODE, 2]
        if not segment.done[shown] and now < (at := late - segment.profile.entries[shown].used):
            return at
        if job.entry.used > chunk_s + guide_s:
            return now
        window = max(world.spare_lead, self._guard)
        first = self._latest(world, segment, 1)
        latest = first + math.ceil(max(now - first, 0.0) / chunk_s) * chunk_s
        free = now + job.entry.used <= latest - window + guide_s
        return now if free or (last and latest >= self._latest(world, segment, last)) else latest + INSTANT
