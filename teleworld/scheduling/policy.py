"""The scheduling policy: which ready task runs on which worker, now. Events in, decisions out; time is an argument.

(1) A segment opens as late as playback allows (`pacing`), never further ahead of it than `Limits.ahead`. (2) Of all ready
tasks of a pool the one with the least slack goes first, and tenants get fair shares of what is not enough (`fairness`): so
the chain of segment s + 1 runs before the populating of s exactly when it is the more urgent of the two (paper 3.6.1, Fig.
4). (3) A task goes to the worker that holds its world's state, if that is worth it (`crew`), with others of its shape if
the worker takes several at a time. (4) A task that runs far longer than tasks of its kind do is started a second time
elsewhere; the first result counts. (5) A world that would starve the others is refused (`admission`).

Every event costs O(log n) in the number of worlds, tasks and workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from teleworld.scheduling.admission import Admission
from teleworld.scheduling.alarms import Alarms
from teleworld.scheduling.measures import Cost, Measures
from teleworld.scheduling.ordering import Limits, Ordering, Policy, Share
from teleworld.scheduling.progress import Progress
from teleworld.scheduling.reanchoring import Load
from teleworld.scheduling.staff import Assignment, Staff
from teleworld.scheduling.tasks import Kind, Pool, Task
from teleworld.scheduling.worlds import World
from teleworld.world.timeline import Timeline

EVERYBODY = Share()

__all__ = ["Assignment", "Limits", "Ordering", "Policy", "Scheduler", "Share"]


class Scheduler:
    """The policy's state. Not thread-safe: one owner. After any event, and at `wake_at`, ask `decide`."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.measures = Measures(self.policy.guess, self.policy.quantile, self.policy.drift)
        self._alarms = Alarms()
        self._staff = Staff(self.policy, self.measures, self._alarms)
        self._progress = Progress(self.policy, self.measures, self._staff.push, self._wake, self._load)
        self._admission = Admission(self.measures, self.policy.utilisation)
        self._gone: list[Task] = []

    # -- workers ------------------------------------------------------------------------------------------------------

    def join(self, worker: str, pool: Pool, slots: int, now: float, batches: Mapping[Kind, int] | None = None) -> None:
        """A worker is ready for `slots` calls at a time; a call may carry so many tasks of a kind as `batches` says."""
        self._staff.now = now
        self._staff.join(worker, pool, slots, batches or {})

    def leave(self, worker: str) -> tuple[Task, ...]:
        """A worker is gone. Returns its tasks; those of which no copy runs elsewhere are ready again."""
        return self._staff.leave(worker)

    def workers(self, pool: Pool) -> tuple[str, ...]:
        """The workers of a pool."""
        return tuple(self._staff.crews[pool].workers)

    # -- worlds -------------------------------------------------------------------------------------------------------

    def admit(self, timeline: Timeline, fps: float, *, model: str = "") -> None:
        """Raise Overloaded when one more real-time world would starve those that run; its `retry_after_s` is measured."""
        slots = {pool: crew.slots for pool, crew in self._staff.crews.items()}
        self._admission.check(self._progress.profile(timeline, fps, model), slots)

    def add(
        self,
        world: str,
        timeline: Timeline,
        fps: float,
        limits: Limits,
        now: float,
        first_segment: int = 0,
        done: Iterable[Task] = (),
        *,
        model: str = "",
        share: Share = EVERYBODY,
        first_chunk: int | None = None,
        cuts: Mapping[int, int] | None = None,
    ) -> None:
        """A world starts at `first_segment`, everything before it being done, and those tasks of it that `done` names.

        first_chunk: the number of that segment's first chunk, if earlier ones were cut. cuts: the last latents of segments
        that are known to end early.
        """
        self._staff.now = now
        self.remove(world)
        first = timeline.first_chunk(first_segment) if first_chunk is None else first_chunk
        state = self._progress.add(
            world, timeline, fps, limits, now, first_segment=first_segment, first_chunk=first, done=done,
            cuts=cuts or {}, model=model, share=share,
        )  # fmt: skip
        if limits.realtime:
            self._admission.entered(world, state.profile, now)

    def remove(self, world: str) -> None:
        """Forget a world; what still runs for it no longer counts when it ends."""
        if (state := self._progress.remove(world)) is not None:
            self._staff.drop(job for segment in state.segments.values() for job in segment.jobs.values())
            if state.limits.realtime:
                self._admission.left(world, state.profile, self._staff.now)

    def played(self, world: str, chunks: int, now: float) -> None:
        """Playback has consumed the first `chunks` chunks; a late player moves every deadline that follows."""
        state = self._progress.touch(world)
        if chunks > state.played:
            state.heard(chunks, now)

    def until(self, world: str, chunks: int | None) -> None:
        """Generate no more than the first `chunks` chunks; None for no end."""
        self._progress.touch(world).until = chunks

    def pause(self, world: str, paused: bool) -> None:
        """A paused world opens no new segment."""
        state = self._progress.touch(world)
        state.paused = paused
        state.resumed()

    def cut(self, world: str, segment: int, last: int, now: float) -> tuple[Task, ...]:
        """Let a segment end at its latent `last`, behind which nothing was shown: re-anchoring. What came behind it is
        forgotten and opens anew. Returns the tasks under way that no longer count."""
        self._staff.now = now
        return self._staff.drop(self._progress.cut(self._progress.worlds[world], segment, last, now))

    def pressed(self, world: str, waiting: bool) -> None:
        """Whether a key waits that is not bound yet: where `Limits.reanchor` says so, it may cut the newest segment."""
        self._progress.touch(world).pressed = waiting

    def bound(self, world: str, segment: int, settled: int) -> None:
        """A segment's keys are fixed, for the first time. It may be cut at the latent `settled` or later: its keys do not change
        from there on."""
        state = self._progress.touch(world)
        state.settled = {number: last for number, last in state.settled.items() if number >= segment - 1}
        state.settled[segment] = settled

    def ended(self, world: str, segment: int) -> int:
        """The last latent of a segment that was cut, 0 for a whole one: what the binding of the next one must say."""
        return self._progress.worlds[world].cuts.get(segment, 0)

    def gone(self) -> tuple[Task, ...]:
        """The tasks under way that no longer count, since this was last asked."""
        gone, self._gone = tuple(self._gone), []
        return gone

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def prime(self, kind: Kind, seconds: float, *, model: str = "", group: int = 0) -> None:
        """A first guess of a service time, until one is measured."""
        self.measures.prime(Cost(model, kind, group), seconds)

    def finished(self, task: Task, worker: str, seconds: float, now: float) -> tuple[str, ...]:
        """`task` is done; `seconds` is the service time of its call. Returns the workers whose copies of it are in vain."""
        self._staff.now = now
        if (job := self._progress.find(task)) is None:
            return ()
        losers = self._staff.finished(job, worker, seconds)
        self._progress.completed(job, now)
        return losers

    def failed(self, task: Task, worker: str, now: float) -> int:
        """`task` did not succeed on `worker` and, unless a copy runs on, is ready again. Returns how often it was tried."""
        self._staff.now = now
        job = self._progress.find(task)
        return self._staff.failed(job, worker) if job is not None else 0

    # -- decisions ----------------------------------------------------------------------------------------------------

    def wake_at(self) -> float | None:
        """When `decide` may have something to say although nothing has happened until then; None for never."""
        return self._alarms.next()

    def decide(self, now: float) -> list[Assignment]:
        """The tasks to start now, the most urgent of each pool first. They count as running from here on."""
        self._staff.now = now
        self._alarms.ring(now)
        self._progress.settle(now)
        if void := self._progress.void():
            self._gone += self._staff.drop(void)
        return self._staff.match()

    def holds(self, world: str, pool: Pool) -> str | None:
        """The worker of a pool that served a world last, and so may hold state of it."""
        state = self._progress.worlds.get(world)
        holder = state.holds.get(pool) if state else None
        return holder.name if holder is not None and holder.present else None

    def depth(self, pool: Pool) -> int:
        """Tasks of a pool that could run now and find no free worker: what an autoscaler looks at."""
        return self._staff.queues[pool].size + sum(
            len(worker.parked) for worker in self._staff.crews[pool].workers.values()
        )

    def age(self, pool: Pool, now: float) -> float:
        """How long the oldest task of a pool has waited for a worker, in seconds; 0 if none waits."""
        since = self._staff.queues[pool].oldest()
        return 0.0 if since is None else max(0.0, now - since)

    def busy(self, pool: Pool) -> int:
        """Tasks that the workers of a pool have in hand."""
        return sum(len(worker.runs) for worker in self._staff.crews[pool].workers.values())

    def cost(self, kind: Kind, *, model: str = "", group: int = 0) -> float:
        """The mean service time of a kind of late, in seconds."""
        return self.measures.entry(Cost(model, kind, group)).call.mean

    # -- inside -------------------------------------------------------------------------------------------------------

    def _load(self) -> Load:
        """How full the pools are of what playing worlds ask."""
        slots = {pool: max(crew.slots, 1) for pool, crew in self._staff.crews.items()}
        asked, most = self._admission.asked(), self._admission.asked(spares=True)
        fullest = max(busy / slots[pool] for pool, busy in asked.items())
        return Load(fullest, asked[Pool.PLANNER] / slots[Pool.PLANNER], most[Pool.PLANNER] / slots[Pool.PLANNER])

    def _wake(self, at: float, world: World) -> None:
        self._alarms.at(at, self._look, world)

    def _look(self, world: World) -> None:
        if self._progress.worlds.get(world.name) is world:
            self._progress.touch(world.name)
