"""The simulation's loop: events go to the policy, its decisions go to the devices, chunks go to the viewers.

The policy is asked after every instant at which something happened, and when it said it wants to be (`wake_at`), just as the
live dispatcher asks it. What the dispatcher adds to a task in reality (transport, the journal) is `Spec.overhead_s`.
"""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import NamedTuple

from teleworld.scheduling.chaining import choose_chain
from teleworld.scheduling.costs import CostTable
from teleworld.scheduling.policy import Assignment, Scheduler
from teleworld.scheduling.simulation.agenda import Agenda
from teleworld.scheduling.simulation.crowd import Crowd, World
from teleworld.scheduling.simulation.fleet import Call, Fleet
from teleworld.scheduling.simulation.footprint import Footprint, group_of
from teleworld.scheduling.simulation.specification import Spec
from teleworld.scheduling.simulation.timing import Timing
from teleworld.scheduling.tasks import Kind, Task
from teleworld.world.spec import WorldSpec
from teleworld.world.timeline import ChainMode

GENERATING = (Kind.PLAN, Kind.POPULATE)
"""Kinds of task that make latents, and hold keys and values for it."""


class Bar(NamedTuple):
    """A piece of a Gantt chart: a task on the device of a worker. done: its result counted."""

    worker: str
    begin: float
    end: float
    task: Task
    done: bool


def chain_for(spec: Spec, model: WorldSpec, table: CostTable) -> ChainMode:
    """The chain that suits the devices: what a platform would choose for one more world."""
    timelines = {mode: model.timeline(mode) for mode in (ChainMode.T_B, ChainMode.T_C)}
    workers = {pool: devices.count for devices in spec.devices for pool in devices.serves}
    realtime = spec.audience.pace == "realtime"
    return choose_chain(
        timelines,
        lambda task, timeline: table.service(task.kind, timeline, group_of(task) or 0).mean,
        workers,
        fps=(spec.audience.fps or model.fps) if realtime else math.inf,
    )


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Look for cyclic garbage less often inside. A run makes millions of objects and hardly any cycle; searching them at the
    usual pace is a quarter of its time."""
    usual = gc.get_threshold()
    gc.set_threshold(100_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


class Simulation:
    """One run. Make it, `run` it, and read its parts; `results.summarise` sums them up."""

    def __init__(self, spec: Spec, model: WorldSpec, table: CostTable) -> None:
        self.spec = spec
        table = table.ranked({pool: devices.ranks for devices in spec.devices for pool in devices.serves})
        self.table = table
        self.fps = spec.audience.fps or model.fps
        self.timeline = model.timeline(spec.chain or spec.ordering.chain or chain_for(spec, model, table))
        self.timing = Timing(table, self.timeline, spec.seed)
        self.agenda = Agenda()
        self.policy = Scheduler()
        self.crowd = Crowd(spec, self.timeline, self.fps, self.agenda, self.policy, self._left)
        self.fleet = Fleet(
            spec.devices, table.cold_start.value, self.agenda, self.policy, spec.seed, spec.seconds, self._ended
        )
        channels, height, width = model.latent_shape
        self.footprint = Footprint(self.timeline, 2.0 * channels * height * width, table.kv_per_latent.value)
        self.tasks = 0
        self.bars: list[Bar] = []

    def run(self) -> Simulation:
        """Let the clock run to the end of the specification, or until everybody has left."""
        with collecting_rarely():
            self._run()
        self.fleet.stop()
        self.crowd.stop()
        return self

    # -- inside -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._prime()
        self.fleet.start()
        self.crowd.start()
        agenda, policy, end, asked = self.agenda, self.policy, self.spec.seconds, -math.inf
        while not self.crowd.over:
            upcoming, wake = agenda.next_at(), policy.wake_at()
            if wake is not None and wake > asked and (upcoming is None or wake < upcoming):
                if wake > end:
                    break
                agenda.now = wake
            elif upcoming is None or upcoming > end:
                break
            else:
                agenda.step()
                while agenda.next_at() == agenda.now:
                    agenda.step()
            asked = agenda.now
            assignments = policy.decide(asked)
            for task in policy.gone():
                self._cancel(task)
            if assignments:
                self._submit(assignments)

    def _prime(self) -> None:
        """The policy's first guesses come from the table, as a gateway's do."""
        for kind in Kind:
            for group in [group for group in self.timeline.groups if group > 1] if kind is Kind.POPULATE else [0]:
                seconds = self.timing.service(kind, group).median
                self.policy.prime(kind, seconds, model=self.spec.model, group=group)

    def _submit(self, assignments: Sequence[Assignment]) -> None:
        """Start what the policy decided; neighbours of one call go together."""
        for _, batch in (
            itertools.groupby(assignments, key=attrgetter("call")) if len(assignments) > 1 else [(0, assignments)]
        ):
            self._start(list(batch))

    def _start(self, batch: Sequence[Assignment]) -> None:
        first, worlds = batch[0], self.crowd.worlds
        tasks = [assignment.task for assignment in batch]
        world = worlds[first.task.world]
        replay = _replay(first, world) if first.task.kind is Kind.DECODE else 0
        seconds = self.timing.seconds(world.number, first.task, first.attempt, first.hedge, len(batch), replay)
        call = self.fleet.submit(first.worker, tasks, seconds)
        for task in tasks:
            worlds[task.world].calls.add(call)
            if task.kind is Kind.GUIDE and (cut := self.crowd.bind(task.world, task.segment)):
                self.footprint.cut(task.world, task.segment - 1, cut)
            if task.kind in GENERATING:
                call.held += self.footprint.start(task)

    def _cancel(self, task: Task) -> None:
        """A task under way counts no more: its segment was cut."""
        for call in tuple(self.crowd.worlds[task.world].calls):
            if call.tasks == [task]:
                self.fleet.drop(call)

    def _ended(self, call: Call) -> None:
        """A device is through with a call, or lost it."""
        if call.held:
            self.footprint.release(call.held)
        if call.begun is not None and call.begun < self.spec.gantt_s:
            now = self.agenda.now
            self.bars += [Bar(call.worker, call.begun, now, task, not call.lost) for task in call.tasks]
        if call.lost:
            self._forget(call)
        elif self.spec.overhead_s:
            self.agenda.after(self.spec.overhead_s, self._answered, call)
        else:
            self._answered(call)

    def _answered(self, call: Call) -> None:
        """The answer of a call is here, unless it was given up meanwhile."""
        if call.lost:
            return
        self._forget(call)
        now, policy, worlds = self.agenda.now, self.policy, self.crowd.worlds
        seconds = now - call.started
        for task in call.tasks:
            losers = policy.finished(task, call.worker, seconds, now)
            if task.world not in worlds:
                continue
            self.tasks += 1
            for worker in losers:
                self.fleet.cancel(worker, task)
            self.footprint.finish(task)
            if task.kind is Kind.DECODE:
                worlds[task.world].streams[call.worker] = task.segment, task.index
                # The prefix of a later segment is decoded for the decoder's state alone.
                if task.index > 1 or not task.segment:
                    self.crowd.decoded(task.world, task.segment, task.index)

    def _forget(self, call: Call) -> None:
        for task in call.tasks:
            if (world := self.crowd.worlds.get(task.world)) is not None:
                world.calls.discard(call)

    def _left(self, name: str, world: World) -> None:
        """A world is over: what only it waits for stops."""
        for call in tuple(world.calls):
            if len(call.tasks) == 1:
                self.fleet.drop(call)
        self.footprint.forget(name, world.bound)


def _replay(assignment: Assignment, world: World) -> int:
    """How many latents a decoder must decode for a DECODE because another one, or another segment, was served in between;
    0 if it holds the state, or needs none."""
    _, _, segment, index = assignment.task
    if index <= 2 or world.streams.get(assignment.worker) == (segment, index - 1):
        return 0
    return index - 1
