"""The ready tasks of a pool: earliest latest-start first, and fair shares by tenant where there is not enough for all.

Each share (tenant and weight) has a lane, ordered by the latest start of its tasks. While every lane is ahead of its
deadlines, the most urgent task of all goes first: that is optimal as long as everybody can be served in time. Lanes whose
head is due are served in the order of what they have received so far, by weight (start-time fair queueing): then a tenant
with ten times the worlds does not push the others aside, and nobody waits for ever. A lane that was idle begins level with
the one served last: shares are not saved up.
"""

from __future__ import annotations

from heapq import heappop, heappush

from teleworld.scheduling.ordering import Share
from teleworld.scheduling.worlds import Job, State

EPSILON = 1e-6


class _Lane:
    """One share's tasks. `mark` tells its valid entry in the heaps of lanes from older ones."""

    __slots__ = ("heap", "mark", "number", "received", "weight")

    def __init__(self, number: int, weight: float) -> None:
        self.number = number
        self.weight = weight
        self.heap: list[tuple[float, int, Job]] = []
        self.received = 0.0
        self.mark = 0


class ReadyQueue:
    """See the module's text. Every call is O(log n), but for tasks that were dropped or whose deadline has moved."""

    def __init__(self) -> None:
        self._lanes: dict[Share, _Lane] = {}
        self._by_key: list[tuple[float, int, int, _Lane]] = []
        self._due: list[tuple[float, int, int, _Lane]] = []
        self._shapes: dict[object, list[tuple[float, int, Job]]] = {}
        self._level = 0.0
        self.size = 0

    def push(self, job: Job, shape: object = None) -> None:
        """A task is ready. shape: what it has in common with those it may be batched with; None for nothing."""
        job.state = State.READY
        job.rank()
        lane = self._lanes.get(job.world.share)
        if lane is None:
            lane = self._lanes[job.world.share] = _Lane(len(self._lanes), job.world.share.weight)
        if not lane.heap:
            lane.received = max(lane.received, self._level)
        self.size += 1
        heappush(lane.heap, (job.key, job.serial, job))
        if lane.heap[0][2] is job:
            self._place(lane)
        if shape is not None:
            heappush(self._shapes.setdefault(shape, []), (job.key, job.serial, job))

    def oldest(self) -> float | None:
        """When the task that waits longest became ready; None if none waits. O(n), for whoever watches."""
        waiting = [job.since for lane in self._lanes.values() for _, serial, job in lane.heap if _waits(job, serial)]
        return min(waiting, default=None)

    def dropped(self) -> None:
        """A task is not ready any more, without having been popped."""
        self.size -= 1

    def pop(self, now: float, grace: float) -> Job | None:
        """The task to start next; None if there is none. grace: how long before its latest start a task counts as due."""
        while (lane := self._next(now + grace)) is not None:
            key, serial, job = heappop(lane.heap)
            if not _waits(job, serial):
                self._place(lane)
                continue
            if job.clock != job.world.clock:
                job.rank()
                if job.key > key + EPSILON:
                    heappush(lane.heap, (job.key, serial, job))
                    self._place(lane)
                    continue
            self._taken(job, lane)
            self._place(lane)
            return job
        return None

    def like(self, shape: object) -> int:
        """At most how many ready tasks have a shape."""
        return len(self._shapes.get(shape, ()))

    def pop_like(self, shape: object) -> Job | None:
        """The most urgent task of a shape."""
        heap = self._shapes.get(shape, [])
        while heap:
            _, serial, other = heappop(heap)
            if other.state is State.READY and other.serial == serial and other.shape is not None:
                # Its entry in its lane is found to be stale when it comes up.
                self._taken(other, self._lanes[other.world.share])
                return other
        self._shapes.pop(shape, None)
        return None

    def _taken(self, job: Job, lane: _Lane) -> None:
        job.state = State.RUNNING
        self.size -= 1
        self._level = max(self._level, lane.received)
        lane.received += job.entry.share / lane.weight

    def _place(self, lane: _Lane) -> None:
        """Enter a lane by its head; older entries of it become invalid."""
        lane.mark += 1
        if lane.heap:
            heappush(self._by_key, (lane.heap[0][0], lane.number, lane.mark, lane))

    def _next(self, due: float) -> _Lane | None:
        """The lane to serve. Lanes whose head is due move over to the heap that is ordered by what they received."""
        by_key = self._by_key
        while by_key and (by_key[0][0] <= due or by_key[0][2] != by_key[0][3].mark):
            _, number, mark, lane = heappop(by_key)
            if mark == lane.mark:
                heappush(self._due, (lane.received, number, mark, lane))
        while self._due:
            received, number, mark, lane = self._due[0]
            if mark != lane.mark:
                heappop(self._due)
            elif received != lane.received:
                heappop(self._due)
                heappush(self._due, (lane.received, number, mark, lane))
            else:
                return lane
        return by_key[0][3] if by_key else None


def _waits(job: Job, serial: int) -> bool:
    """Whether an entry still speaks for its job."""
    return job.state is State.READY and job.serial == serial
