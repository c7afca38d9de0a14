"""What no ordering can beat: the critical path of a world, and the work of each set of devices over their number.

A makespan is at least the longest path through the task graph, each task taking its time, and at least the work that one
set of devices has to do, divided by how many there are. The larger of the two is the lower bound that orderings are
measured against (Graham's bound for each set by itself).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from teleworld.scheduling.simulation.specification import DeviceSet
from teleworld.scheduling.tasks import Kind, Task, needs, tasks_of
from teleworld.world.timeline import Timeline


@dataclass(frozen=True)
class Bounds:
    """Seconds. work: of each device set, over its number of devices."""

    critical_path: float
    work: Mapping[str, float]

    @property
    def lower(self) -> float:
        """No makespan is below this."""
        return max(self.critical_path, *self.work.values())


def needed(timeline: Timeline, chunks: int) -> list[Task]:
    """Every task without which one of the first `chunks` chunks of a world cannot be shown, in an order in which they can
    be done."""
    last = timeline.locate(chunks - 1)[0]
    tasks = [task for segment in range(last + 1) for task in tasks_of("", segment, timeline)]
    wanted = {task for task in tasks if task.kind is Kind.DECODE and timeline.chunk(task.segment, task.index) < chunks}
    open_ = list(wanted)
    while open_:
        for need in needs(open_.pop(), timeline):
            if need not in wanted:
                wanted.add(need)
                open_.append(need)
    return [task for task in tasks if task in wanted]


def bounds(timeline: Timeline, chunks: int, seconds: Callable[[Task], float], sets: Sequence[DeviceSet]) -> Bounds:
    """The bounds of one world of `chunks` chunks whose tasks take `seconds`."""
    ends: dict[Task, float] = {}
    work = {devices.name: 0.0 for devices in sets}
    set_of = {pool: devices for devices in sets for pool in devices.serves}
    for task in _ordered(needed(timeline, chunks), timeline):
        time = seconds(task)
        ends[task] = time + max((ends[need] for need in needs(task, timeline)), default=0.0)
        work[set_of[task.pool].name] += time / set_of[task.pool].count
    return Bounds(max(ends.values()), work)


def _ordered(tasks: Sequence[Task], timeline: Timeline) -> list[Task]:
    """The same tasks, each behind what it needs."""
    ordered: dict[Task, None] = {}
    left = list(tasks)
    while left:
        ready = [task for task in left if all(need in ordered for need in needs(task, timeline))]
        ordered |= dict.fromkeys(ready)
        left = [task for task in left if task not in ordered]
    return list(ordered)
