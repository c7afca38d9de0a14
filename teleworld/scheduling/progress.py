"""How far each world is: which segments are open, which of their tasks are done, and which have thereby become ready.

Counters of missing needs make a finished task cost as much as the tasks that wait for it, however many worlds there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count

from teleworld.scheduling.graph import compiled
from teleworld.scheduling.measures import Measures, Window
from teleworld.scheduling.ordering import Limits, Ordering, Policy, Share
from teleworld.scheduling.pacing import Lead, Profile
from teleworld.scheduling.reanchoring import NEVER, Load, Reanchoring
from teleworld.scheduling.tasks import Kind, Task
from teleworld.scheduling.worlds import Job, Segment, State, World
from teleworld.world.timeline import Timeline

ENDS = (Kind.BRIDGE, Kind.RECONSTRUCT)
"""The kinds of task that are other ones when a segment ends elsewhere."""


class Progress:
    """The worlds. `ready` is called with each task that may run; `wake` with the moment at which a world is to be settled."""

    def __init__(
        self,
        policy: Policy,
        measures: Measures,
        ready: Callable[[Job], None],
        wake: Callable[[float, World], None],
        load: Callable[[], Load],
    ) -> None:
        self.worlds: dict[str, World] = {}
        self._policy = policy
        self._measures = measures
        self._ready = ready
        self._wake = wake
        self._touched: dict[str, World] = {}
        self._profiles: dict[tuple[Timeline, float, str, bool, int, bool], Profile] = {}
        self._likes: dict[Profile, Window] = {}
        self._serials = count()
        self._reanchoring = Reanchoring(policy, load)
        self._void: list[Job] = []

    def profile(
        self, timeline: Timeline, fps: float, model: str, *, first: bool = False, cut: int = 0, spares: bool = False
    ) -> Profile:
        """The deadlines of a kind of segment. spares: with bridges for cuts that may come."""
        key = (timeline, fps, model, first, cut, spares)
        if key not in self._profiles:
            graph = compiled(timeline, first=first, cut=cut, spares=spares)
            self._profiles[key] = Profile(graph, fps, model, self._measures)
        return self._profiles[key]

    # -- events -------------------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        timeline: Timeline,
        fps: float,
        limits: Limits,
        now: float,
        *,
        first_segment: int,
        first_chunk: int,
        done: Iterable[Task],
        cuts: Mapping[int, int],
        model: str,
        share: Share,
    ) -> World:
        """A world begins; see `Scheduler.add`."""
        reanchors = limits.reanchor and limits.realtime and limits.ordering is Ordering.ADAPTIVE
        profile = self.profile(timeline, fps, model, spares=reanchors)
        learned = Lead(self._policy, self._likes.setdefault(profile, Window(0.0)))
        world = self.worlds[name] = World(name, timeline, fps, limits, share, model, profile, learned)
        world.bases[first_segment] = first_chunk - 1 if first_segment else 0
        world.first, world.opened, world.played = first_segment, first_segment - 1, first_chunk
        world.given, world.cuts = set(done), dict(cuts)
        world.origin = now - Timeline.first_frame(first_chunk) / fps
        return self.touch(name)

    def remove(self, name: str) -> World | None:
        """A world is gone."""
        self._touched.pop(name, None)
        return self.worlds.pop(name, None)

    def touch(self, name: str) -> World:
        """A world may have become free to open a segment: look at it when it is settled."""
        world = self._touched[name] = self.worlds[name]
        return world

    def settle(self, now: float) -> None:
        """Open what may open, and let go what was held, in the worlds that were touched."""
        touched, self._touched = self._touched, {}
        for world in touched.values():
            if world.reanchors:
                self._reanchor(world, now)
            self._open(world, now)
            self._let_go(world, now)

    def void(self) -> list[Job]:
        """The jobs that no longer count since this was asked."""
        void, self._void = self._void, []
        return void

    def cut(self, world: World, number: int, last: int, now: float) -> list[Job]:
        """Let a segment end at its latent `last`, and forget what came behind it. Returns the jobs that no longer count."""
        self.touch(world.name)
        base, old = world.bases[number], world.segments.get(number)
        gone = [job for later, other in world.segments.items() if later > number for job in other.jobs.values()]
        gone += old.jobs.values() if old else ()
        world.segments = {earlier: other for earlier, other in world.segments.items() if earlier < number}
        world.bases = {earlier: first for earlier, first in world.bases.items() if earlier <= number}
        world.cuts = {earlier: end for earlier, end in world.cuts.items() if earlier < number} | {number: last}
        world.shelf = [job for job in world.shelf if job.segment.number < number]
        world.opened = number
        new = self._segment(world, number, base, now)
        for place, node in enumerate(new.graph.nodes):
            key = (node.kind, node.index)
            before = old.graph.number.get(key, -1) if old else -1
            if old is not None and before in old.jobs:
                job = new.jobs[place] = old.jobs[before]
                job.segment, job.node = new, place
                gone.remove(job)
                if job.state is State.HELD:
                    world.shelf.append(job)
            elif (before >= 0 and old is not None and old.done[before]) or (old is None and node.kind not in ENDS):
                new.done[place] = 1
        self._begin(new, now)
        if old is not None:
            new.ready, new.opened = old.ready, old.opened
            if new.has(Kind.DECODE):
                self._taught(new)
        return gone

    def find(self, task: Task) -> Job | None:
        """The job of a task that is ready or under way."""
        if (world := self.worlds.get(task.world)) is None or (segment := world.segments.get(task.segment)) is None:
            return None
        return segment.jobs.get(segment.graph.number.get((task.kind, task.index), -1))

    def completed(self, job: Job, now: float) -> None:
        """A task is done: those that waited for it alone are ready."""
        segment, world = job.segment, job.world
        node = segment.graph.nodes[job.node]
        del segment.jobs[job.node]
        segment.done[job.node] = 1
        segment.left -= not node.spare
        if node.kind is Kind.DECODE:
            self._shown(segment, job.node, now)
        for other in node.feeds:
            self._met(segment, other, now)
        ends = segment.graph.ends.get(node.kind) == job.node
        if ends and (after := world.segments.get(segment.number + 1)) is not None:
            for number, waiting in enumerate(after.graph.nodes):
                if node.kind in waiting.waits_for:
                    self._met(after, number, now)
        if world.reanchors or (node.kind is Kind.PLAN and world.shelf):
            self.touch(world.name)
        if not segment.left and segment.number < world.opened:
            self._close(segment)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _reanchor(self, world: World, now: float) -> None:
        """Cut the newest segment if a key waits and this is the moment."""
        known = self._measures.revision, world.learned.seconds(world.profile.opening)
        if world.revision != known:
            world.revision, world.spare_lead = known, self._reanchoring.lead(world)
        last, again = self._reanchoring.ending(world, now)
        if last:
            self._void += self.cut(world, world.opened, last, now)
        elif again < NEVER and again != world.turn:
            world.turn = again
            self._wake(again, world)

    def _open(self, world: World, now: float) -> None:
        while self._may_open(world):
            number, base = world.opened + 1, world.bases[world.opened + 1]
            if world.just_in_time and number > world.first:
                at = world.due(base) - world.lead
                if at > now:
                    if world.alarm is None or not now < world.alarm <= at:
                        world.alarm = at
                        self._wake(at, world)
                    return
            world.opened = number
            if world.reanchors:
                self._reanchoring.judge(world)
            self._begin(self._segment(world, number, base, now), now)
            if (before := world.segments.get(number - 1)) is not None and not before.left:
                self._close(before)

    def _close(self, segment: Segment) -> None:
        """Forget a segment that is done, now that the next one is open."""
        world = segment.world
        del world.segments[segment.number]
        self._void += segment.jobs.values()
        world.shelf = [held for held in world.shelf if held.segment is not segment]

    def _may_open(self, world: World) -> bool:
        base = world.bases[world.opened + 1]
        first = base + 1 if world.opened >= 0 else base
        wanted = world.until is None or first < world.until
        return not world.paused and wanted and first - world.played <= world.limits.ahead

    def _segment(self, world: World, number: int, base: int, now: float) -> Segment:
        profile = world.profile
        cut = world.cuts.get(number, 0)
        if cut or not number:
            spares = world.reanchors
            profile = self.profile(world.timeline, world.fps, world.model, first=not number, cut=cut, spares=spares)
        return Segment(world, number, base, profile, now)

    def _begin(self, segment: Segment, now: float) -> None:
        """Take a segment in, with what is done of it already."""
        world, number = segment.world, segment.number
        world.segments[number] = segment
        world.bases[number + 1] = segment.base + segment.graph.timeline.boundary - 1
        before = world.segments.get(number - 1)
        nodes = segment.graph.nodes
        for task in [task for task in world.given if task.segment == number]:
            world.given.discard(task)
            if (place := segment.graph.number.get((task.kind, task.index))) is not None:
                segment.done[place] = 1
        segment.left -= sum(done and not node.spare for done, node in zip(segment.done, nodes, strict=True))
        for place, node in enumerate(nodes):
            met = sum(segment.done[need] for need in node.needs)
            met += sum(before is None or before.has(kind) or self._lags(before, kind) for kind in node.waits_for)
            segment.missing[place] -= met
            if not segment.missing[place] and not segment.done[place] and place not in segment.jobs:
                self._start(segment, place, now)

    def _met(self, segment: Segment, place: int, now: float) -> None:
        segment.missing[place] -= 1
        if not segment.missing[place] and not segment.done[place]:
            self._start(segment, place, now)

    def _start(self, segment: Segment, place: int, now: float) -> None:
        job = segment.jobs[place] = Job(segment.world, segment, place, next(self._serials), now)
        if job.task.kind is Kind.GUIDE and not job.world.effort:
            # It waited for the chain before it; opening sooner would not have helped.
            segment.opened = now
        if self._may_run(job, now):
            self._ready(job)
        else:
            job.state = State.HELD
            segment.world.shelf.append(job)

    @staticmethod
    def _lags(before: Segment, kind: Kind) -> bool:
        """Whether nothing waits for the memory of the segment before, because that was cut."""
        return before.world.reanchors and before.is_cut and kind is Kind.RECONSTRUCT

    def _may_run(self, job: Job, now: float) -> bool:
        world = job.world
        if world.until is not None and job.chunk >= world.until:
            return False
        if world.reanchors and (at := self._reanchoring.free_at(job, now)) > now:
            if at < NEVER and at != job.held:
                job.held = at
                self._wake(at, world)
            return False
        planned = job.task.kind is not Kind.POPULATE or job.segment.graph.nodes[job.node].chain
        if planned or world.limits.ordering is not Ordering.PLAN_FIRST:
            return True
        return not self._may_open(world) and not world.chain_left()

    def _let_go(self, world: World, now: float) -> None:
        """Look again at the tasks that were held back."""
        if world.shelf:
            shelf, world.shelf = world.shelf, []
            for job in shelf:
                if self._may_run(job, now):
                    self._ready(job)
                else:
                    world.shelf.append(job)

    def _shown(self, segment: Segment, place: int, now: float) -> None:
        """A chunk is made: a late one delays the player, and what a segment needed teaches when to open."""
        world = segment.world
        if not world.limits.realtime or segment.base + segment.graph.nodes[place].latent - 1 < world.played:
            return
        if segment.number and segment.graph.nodes[place].index == 1:
            return
        ready = now - segment.profile.due[place]
        segment.ready = max(segment.ready, ready)
        if (late := ready - segment.starts()) > 0:
            world.stalled(late)
            if world.reanchors:
                self._reanchoring.late(world, segment)
        if segment.graph.nodes[place].index == segment.graph.timeline.boundary:
            self._taught(segment)

    @staticmethod
    def _taught(segment: Segment) -> None:
        world = segment.world
        if world.just_in_time and segment.number > world.first:
            most = world.profile.duration - world.profile.opening
            world.learned.saw(segment.ready - segment.opened, most)
