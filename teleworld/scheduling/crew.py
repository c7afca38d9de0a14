"""The workers of one pool: which one takes a task.

The worker that holds a world's state is taken if it is free. If it is busy and another one is idle, the world waits for it
until it has waited, over all of its tasks, for as long as building the state anew elsewhere would have taken, by measured
times (which costs at most twice of what the best choice would have cost); then it moves to the worker that is idle longest.
A worker that failed a task does not get it again while its pool has another one, and a worker that lost a hedge sits on the bench
for a while: it may be hung.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from heapq import heapify, heappop, heappush

from teleworld.scheduling.ordering import Policy
from teleworld.scheduling.tasks import Kind, Pool
from teleworld.scheduling.worlds import Job

LEAST_WAIT_S = 1e-4
MOST_STALE = 64
"""Invalid entries that the heap of idle workers may hold beside twice their number."""


class Run:
    """A copy of a task under way, in a call of `size` tasks. moved: whether another worker holds its
    world's state."""

    __slots__ = ("call", "hedge", "job", "moved", "size", "started", "worker")

    def __init__(
        self, job: Job, worker: Worker, started: float, call: int, size: int, moved: bool, hedge: bool
    ) -> None:
        self.job = job
        self.worker = worker
        self.started = started
        self.call = call
        self.size = size
        self.moved = moved
        self.hedge = hedge


class Worker:
    """A worker and its calls: `calls` counts the tasks of each. `batches`: how many tasks of a kind a call may carry."""

    __slots__ = (
        "batches", "benched", "calls", "free_since", "lost_hedges", "mark", "name", "parked", "pool", "runs", "serial", "slots",
    )  # fmt: skip

    def __init__(self, name: str, serial: int, pool: Pool, slots: int, batches: Mapping[Kind, int], now: float) -> None:
        self.name = name
        self.serial = serial
        self.pool = pool
        self.slots = slots
        self.batches = dict(batches)
        self.calls: dict[int, int] = {}
        self.runs: dict[Run, None] = {}
        self.parked: list[Job] = []
        self.free_since = now
        self.mark = 0
        self.benched = False
        self.lost_hedges = 0

    @property
    def free(self) -> bool:
        """Whether it takes one more call."""
        return not self.benched and len(self.calls) < self.slots

    @property
    def present(self) -> bool:
        """Whether it has not left."""
        return self.mark >= 0


class Choice(Enum):
    """Why a task gets no worker now."""

    WAIT = auto()
    NONE = auto()


class Crew:
    """The workers of a pool, the free ones in a heap. `slots` is the number of calls at a time, `free` of those to spare."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.workers: dict[str, Worker] = {}
        self.slots = self.free = 0
        self.largest: dict[Kind, int] = {}
        self._idle: list[tuple[int, float, int, int, Worker]] = []

    # -- members ------------------------------------------------------------------------------------------------------

    def join(self, worker: Worker) -> None:
        """One more worker."""
        self.workers[worker.name] = worker
        self.slots += worker.slots
        self.free += worker.slots
        self._measure_batches()
        self._offer(worker)

    def leave(self, worker: Worker) -> None:
        """A worker is gone."""
        del self.workers[worker.name]
        self.slots -= worker.slots
        if not worker.benched:
            self.free -= max(0, worker.slots - len(worker.calls))
        worker.mark = -1
        self._measure_batches()
        if self.workers and all(other.benched for other in self.workers.values()):
            for other in self.workers.values():
                self.unbench(other)

    def bench(self, worker: Worker) -> float | None:
        """Give a worker nothing for a while, unless it is the last one. Returns for how long."""
        if worker.benched or all(other.benched or other is worker for other in self.workers.values()):
            return None
        self.free -= max(0, worker.slots - len(worker.calls))
        worker.benched = True
        worker.mark += 1
        worker.lost_hedges += 1
        return self._policy.suspect * float(2 ** min(worker.lost_hedges - 1, 5))

    def unbench(self, worker: Worker) -> None:
        """A worker may be tried again, if it is still here."""
        if worker.benched and worker.present:
            worker.benched = False
            self.free += max(0, worker.slots - len(worker.calls))
            self._offer(worker)

    # -- calls --------------------------------------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """A task starts; those of one call take one slot."""
        worker = run.worker
        worker.runs[run] = None
        if run.call in worker.calls:
            worker.calls[run.call] += 1
            return
        worker.calls[run.call] = 1
        self.free -= 1
        self._offer(worker)

    def end(self, run: Run, now: float) -> None:
        """A task is over; its call is, when all of its tasks are."""
        worker = run.worker
        if run not in worker.runs:
            return
        del worker.runs[run]
        worker.calls[run.call] -= 1
        if not worker.calls[run.call]:
            del worker.calls[run.call]
            worker.free_since = now
            if not worker.benched and worker.present:
                self.free += 1
                self._offer(worker)

    # -- choice -------------------------------------------------------------------------------------------------------

    def choose(self, job: Job, now: float) -> Worker | Choice:
        """The worker that takes `job` now, or why there is none."""
        holder = job.world.holds.get(job.pool)
        barred = self._barred(job)
        if holder is not None and holder.present and not (barred and holder.name in barred):
            if holder.free:
                return holder
            if self._worth_waiting(job, holder, now):
                holder.parked.append(job)
                return Choice.WAIT
        return self._longest_idle(barred) or Choice.NONE

    def other(self, job: Job) -> Worker | None:
        """A free worker for a second copy of `job`."""
        busy = {run.worker.name for run in job.runs} | (job.avoid or set())
        return self._longest_idle(busy)

    def _barred(self, job: Job) -> set[str] | None:
        """Workers that failed the task, as long as there is another one."""
        if not job.avoid:
            return None
        return job.avoid if any(name not in job.avoid for name in self.workers) else None

    def _worth_waiting(self, job: Job, holder: Worker, now: float) -> bool:
        left = job.entry.rebuild - job.world.rent.get(job.pool, 0.0)
        if left <= LEAST_WAIT_S or holder.benched:
            return False
        ends = (run.started + run.job.entry.call.mean for run in holder.runs)
        return min(ends, default=now) < now + left

    def _longest_idle(self, barred: set[str] | None) -> Worker | None:
        """The free worker with the fewest calls, of those the one idle longest."""
        skipped = []
        while self._idle:
            entry = self._idle[0]
            mark, worker = entry[3:]
            if mark != worker.mark or not worker.free:
                heappop(self._idle)
            elif barred and worker.name in barred:
                skipped.append(heappop(self._idle))
            else:
                break
        found = self._idle[0][4] if self._idle else None
        for entry in skipped:
            heappush(self._idle, entry)
        return found

    def _offer(self, worker: Worker) -> None:
        """Enter a worker into the heap; older entries of it become invalid."""
        worker.mark += 1
        if worker.free:
            heappush(self._idle, (len(worker.calls), worker.free_since, worker.serial, worker.mark, worker))
        if len(self._idle) > 2 * len(self.workers) + MOST_STALE:
            # Where every world has its worker, nobody looks for an idle one, and no invalid entry is ever met.
            self._idle = [entry for entry in self._idle if entry[3] == entry[4].mark]
            heapify(self._idle)

    def _measure_batches(self) -> None:
        self.largest = {}
        for worker in self.workers.values():
            for kind, size in worker.batches.items():
                self.largest[kind] = max(size, self.largest.get(kind, 1))
