"""From the log back to a running world: where to begin again so that it goes on exactly as if it had never stopped.

Generation is deterministic, so only what was decided (bindings) and what a chain hands on (plans, clearance) must be known.
A world begins again at the segment of the first chunk that is missing; what is missing of that segment is computed once
more, chunks that were made are not delivered twice. If the memory revision that guides this segment was never noted, it
begins one segment earlier, to fuse that one's key frames again.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.states import Log, State
from teleworld.runtime.records import WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.tasks import KIND_OF_GROUP, Kind, Task
from teleworld.world.errors import PreconditionFailed
from teleworld.world.timeline import Group


@dataclass(frozen=True)
class Restored:
    """A session, the segment that it begins with, and the tasks that need not be done again."""

    session: WorldSession
    first_segment: int
    done: tuple[Task, ...]


def first_logged_segment(record: WorldRecord, state: State) -> int:
    """The first segment whose log `restore` may look at."""
    return max(0, _next_segment(record, state) - 2)


def restore(record: WorldRecord, epoch: int, state: State, log: Log) -> Restored:
    """The world as the log has it. Raises PreconditionFailed when the log does not reach back far enough."""
    session, timeline = WorldSession(record, epoch), record.timeline
    segment = _next_segment(record, state)
    first = segment if segment == 0 or segment in log.bindings or _fused(log, segment - 1) else segment - 1
    if (first and first - 1 not in log.plans) or (first < segment and first not in log.bindings):
        raise PreconditionFailed("the log of the world does not reach back to its last chunk")
    for number in sorted(log.bindings):
        if number >= first - 1:
            session.restore(log.bindings[number])
    for number in sorted(log.plans):
        if number >= first - 1:
            session.restore_plan(log.plans[number])
    if log.memory:
        session.restore_memory(log.memory[max(log.memory)])
    session.controls.restore(session.controls.bound, log.controls)
    session.prompt = log.prompt or record.prompt
    done = _done_chain(record, log, first)
    if first < segment:
        done += [
            Task(record.world, KIND_OF_GROUP[group], first) for group in timeline.groups if group is not Group.PLAN
        ]
        done += [Task(record.world, Kind.DECODE, first, index) for index in timeline.chunks(first)]
    if record.fork is not None and first == 0:
        done.append(Task(record.world, Kind.DECODE, 0, 1))
    return Restored(session, first, tuple(done))


def _next_segment(record: WorldRecord, state: State) -> int:
    """The segment of the first chunk that is missing."""
    return record.timeline.locate(max(0, state.head - record.first_chunk))[0]


def _fused(log: Log, segment: int) -> bool:
    """Whether the key frames of a segment are in the memory, and what that gave is known."""
    known = segment in log.bindings and segment in log.plans
    return known and log.bindings[segment].revision + 1 in log.memory


def _done_chain(record: WorldRecord, log: Log, first: int) -> list[Task]:
    """What leads from segment to segment and is known. All else that the first segments need is computed again: guidance and
    latents between the key frames are not logged, and a decoder starts at the boundary.
    """
    world, done = record.world, list[Task]()
    if first == 0 and 0 in log.plans:
        done.append(Task(world, Kind.ENCODE))
    if first == 0 and record.start_revision in log.memory:
        done.append(Task(world, Kind.BOOTSTRAP))
    for segment in sorted(log.plans):
        if segment >= first and _fused(log, segment):
            done += [Task(world, Kind.BRIDGE, segment), Task(world, Kind.RECONSTRUCT, segment)]
    return done
