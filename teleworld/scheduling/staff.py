"""Who does what: ready tasks meet free workers, pool by pool, and each copy of a task that is under way is known here.

A task that runs far longer than tasks of its kind do is started a second time on a free worker, and the first result
counts: tasks are deterministic, so it does not matter whose it is. The worker that lost is benched, because it may hang.
Second copies are a small share of all tasks, so that a pool that is slow as a whole does not do everything twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import NamedTuple

from teleworld.scheduling.alarms import Alarms
from teleworld.scheduling.crew import Choice, Crew, Run, Worker
from teleworld.scheduling.fairness import ReadyQueue
from teleworld.scheduling.measures import Measures
from teleworld.scheduling.ordering import Policy
from teleworld.scheduling.tasks import Kind, Pool, Task
from teleworld.scheduling.worlds import Job, State

SERVICE_MEMORY = 16
"""Of how many calls the mean service time of a pool is."""
LEAST_KNOWN, UNSURE = 3, 4
"""From so many calls on a task's time is judged at all, for a start so many times more patiently."""


class Assignment(NamedTuple):
    """Run `task` on `worker`. Those of one `call`, one behind the other in the list, go to the worker together.

    attempt: counts from 1, at claim time. waited: seconds since the task became ready. hedge: a copy of it runs already.
    """

    task: Task
    worker: str
    attempt: int
    waited: float
    call: int
    hedge: bool = False


class Staff:
    """The crews of all pools, and the ready tasks that wait for them. `now` is the moment of the last event."""

    def __init__(self, policy: Policy, measures: Measures, alarms: Alarms) -> None:
        self.crews = {pool: Crew(policy) for pool in Pool}
        self.queues = {pool: ReadyQueue() for pool in Pool}
        self.now = 0.0
        self._policy = policy
        self._measures = measures
        self._alarms = alarms
        self._workers: dict[str, Worker] = {}
        self._service = dict.fromkeys(Pool, 0.0)
        self._serials = count()
        self._hedges = 1.0
        self._out: list[Assignment] = []

    # -- workers ------------------------------------------------------------------------------------------------------

    def join(self, worker: str, pool: Pool, slots: int, batches: Mapping[Kind, int]) -> None:
        """A worker comes; one of that name that was here has left."""
        self.leave(worker)
        self._workers[worker] = Worker(worker, next(self._serials), pool, slots, batches, self.now)
        self.crews[pool].join(self._workers[worker])

    def leave(self, worker: str) -> tuple[Task, ...]:
        """A worker is gone. Returns its tasks; those of which no copy runs elsewhere are ready again."""
        if (gone := self._workers.pop(worker, None)) is None:
            return ()
        self.crews[gone.pool].leave(gone)
        lost = tuple(gone.runs)
        for run in lost:
            self._stop(run)
            if not run.job.runs:
                self.push(run.job)
        self._unpark(gone)
        return tuple(run.job.task for run in lost)

    # -- tasks --------------------------------------------------------------------------------------------------------

    def push(self, job: Job) -> None:
        """A task is ready."""
        together = self.crews[job.pool].largest.get(job.task.kind, 1) > 1
        self.queues[job.pool].push(job, job.shape if together else None)

    def finished(self, job: Job, worker: str, seconds: float) -> tuple[str, ...]:
        """A task is done by `worker`, in a call of so many seconds. Returns the workers whose copies of it are in vain."""
        won, others = None, []
        for run in job.runs:
            if run.worker.name == worker:
                won = run
            else:
                others.append(run)
        if won is not None:
            won.worker.lost_hedges = 0
            self._hedges = min(self._hedges + self._policy.hedge_share, float(len(self.crews[job.pool].workers)))
            self._service[job.pool] += (seconds - self._service[job.pool]) / SERVICE_MEMORY
            self._measures.add(job.entry, seconds, won.size, moved=won.moved)
            job.world.holds[job.pool] = won.worker
            for loser in others if won.hedge else ():
                self._bench(loser.worker)
        self.drop((job,))
        return tuple([run.worker.name for run in others])

    def failed(self, job: Job, worker: str) -> int:
        """A copy of a task failed; without another one it is ready again. Returns how often the task was tried."""
        run = next((run for run in job.runs if run.worker.name == worker), None)
        if run is None:
            return 0
        self._stop(run)
        if job.world.holds.get(job.pool) is run.worker:
            del job.world.holds[job.pool]
        job.avoid = (job.avoid or set()) | {worker}
        if not job.runs:
            self.push(job)
        return job.attempts

    def drop(self, jobs: Iterable[Job]) -> tuple[Task, ...]:
        """Tasks are done or given up. Returns those that were under way."""
        running = []
        for job in jobs:
            if job.state is State.READY:
                self.queues[job.pool].dropped()
            elif job.state is State.RUNNING:
                running.append(job.task)
                for run in tuple(job.runs):
                    self._stop(run)
            job.state = State.GONE
        return tuple(running)

    def match(self) -> list[Assignment]:
        """Give ready tasks to free workers, until a pool runs out of one or the other. Returns what starts."""
        for pool, queue in self.queues.items():
            if queue.size and self.crews[pool].free:
                self._match(self.crews[pool], queue, self._service[pool])
        out, self._out = self._out, []
        return out

    # -- inside -------------------------------------------------------------------------------------------------------

    def _match(self, crew: Crew, queue: ReadyQueue, grace: float) -> None:
        """Give ready tasks to free workers until one of both runs out."""
        refused, waiting = [], []
        while crew.free and (job := queue.pop(self.now, grace)) is not None:
            match crew.choose(job, self.now):
                case Worker() as worker:
                    self._call(job, worker, crew, queue)
                case Choice.WAIT:
                    job.state = State.PARKED
                    waiting.append(job)
                case Choice.NONE:
                    refused.append(job)
        for job in refused:
            self.push(job)
        for job in waiting if crew.free else ():
            job.parked = self.now
            self._alarms.at(self.now + job.entry.rebuild - job.world.rent.get(job.pool, 0.0), self._return, job)

    def _call(self, job: Job, worker: Worker, crew: Crew, queue: ReadyQueue) -> None:
        """Start a task, with others of its shape where the worker takes several and they would only wait for another one."""
        call, batch = next(self._serials), [job]
        most = worker.batches.get(job.task.kind, 1)
        if most > 1 and (shape := job.shape) is not None:
            waiting = min(queue.like(shape) + 1, -(-(queue.size + 1) // crew.free))
            size = self._in_time(job, min(most, waiting))
            while len(batch) < size and (other := queue.pop_like(shape)) is not None:
                batch.append(other)
        for job in batch:
            self._run(job, worker, call, len(batch))

    def _in_time(self, job: Job, size: int) -> int:
        """The largest batch, up to `size`, that does not make a task late which alone would be on time."""
        left = job.key + job.entry.used - self.now
        if left >= job.entry.batched(1):
            while size > 1 and job.entry.batched(size) > left:
                size -= 1
        return size

    def _run(self, job: Job, worker: Worker, call: int, size: int, *, hedge: bool = False) -> None:
        holder = job.world.holds.get(worker.pool)
        run = Run(job, worker, self.now, call, size, holder is not None and holder is not worker, hedge)
        job.runs.append(run)
        job.state = State.RUNNING
        job.attempts += 1
        if not hedge:
            job.world.holds[worker.pool] = worker
            if run.moved:
                job.world.rent.pop(worker.pool, None)
        self.crews[worker.pool].begin(run)
        self._out.append(Assignment(job.task, worker.name, job.attempts, self.now - job.since, call, hedge))
        if not hedge and job.entry.call.count >= LEAST_KNOWN and len(self.crews[worker.pool].workers) > 1:
            self._alarms.at(self.now + self._patience(job), self._hedge, run, _runs_on)

    def _patience(self, job: Job) -> float:
        """How long a task may run before it is started a second time: longer while its kind is hardly known."""
        sure = job.entry.call.count >= self._policy.hedge_samples
        return max(self._policy.hedge_floor, self._policy.hedge * job.entry.tail * (1 if sure else UNSURE))

    def _hedge(self, run: Run) -> None:
        """A task runs for too long: a free worker, if there is one, tries it too."""
        if not _runs_on(run) or len(run.job.runs) > 1:
            return
        other = self.crews[run.worker.pool].other(run.job) if self._hedges >= 1 else None
        if other is None:
            self._alarms.at(self.now + self._patience(run.job) / 2, self._hedge, run, _runs_on)
            return
        self._hedges -= 1
        self._run(run.job, other, next(self._serials), 1, hedge=True)

    def _bench(self, worker: Worker) -> None:
        seconds = self.crews[worker.pool].bench(worker)
        if seconds is not None:
            self._alarms.at(self.now + seconds, self.crews[worker.pool].unbench, worker)

    def _return(self, job: Job) -> None:
        """A parked task is looked at again."""
        if job.state is State.PARKED:
            if job.parked is not None:
                job.world.rent[job.pool] = job.world.rent.get(job.pool, 0.0) + self.now - job.parked
                job.parked = None
            self.push(job)

    def _unpark(self, worker: Worker) -> None:
        """Tasks that waited for a worker are looked at again."""
        parked, worker.parked = worker.parked, []
        for job in parked:
            self._return(job)

    def _stop(self, run: Run) -> None:
        """A copy of a task is over."""
        run.job.runs.remove(run)
        self.crews[run.worker.pool].end(run, self.now)
        if run.worker.parked:
            self._unpark(run.worker)


def _runs_on(run: Run) -> bool:
    return run in run.worker.runs
