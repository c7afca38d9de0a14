"""From the log back to a running world: where to begin again so that it goes on exactly as if it had never stopped.

Generation is deterministic, so only what was decided (bindings) and what a chain hands on (plans, clearance) must be known.
A world begins again at the segment of the first chunk that is missing; what is missing of that segment is computed once
more, chunks that were made are not delivered twice. If it was never noted what the segment before handed on (its boundary,
or the memory with its key frames), it begins one segment earlier, to make that again.

Where a segment was cut, the binding of the next one says so. A segment that is restored is not cut any more: its key frames
may be in the memory already.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.states import Log
from teleworld.runtime.records import Chunk, Plan, WorldRecord
from teleworld.runtime.session import WorldSession
from teleworld.scheduling.tasks import Kind, Task, tasks_of
from teleworld.world.errors import PreconditionFailed
from teleworld.world.timeline import Timeline


@dataclass(frozen=True)
class Restored:
    """A session, the segment that it begins with, and the tasks that need not be done again.

    first_chunk: where that segment begins. cuts: the last latents of the segments from there on that were cut.
    """

    session: WorldSession
    first_segment: int
    done: tuple[Task, ...]
    first_chunk: int
    cuts: dict[int, int]


def first_logged_segment(record: WorldRecord, last: Chunk | None) -> int:
    """The first segment whose log `restore` may look at. last: the newest chunk of the world, if there is one."""
    return max(0, _segment(record, last) - 2)


def restore(record: WorldRecord, epoch: int, last: Chunk | None, log: Log) -> Restored:
    """The world as the log has it. Raises PreconditionFailed when the log does not reach back far enough."""
    session = WorldSession(record, epoch)
    for number in sorted(log.bindings):
        session.restore(log.bindings[number])
    layout, segment = session.layout, _segment(record, last)
    if last is not None and last.index > record.first_chunk and last.latent == layout.last_shown(segment):
        segment += 1
    plans = {
        plan.segment: plan for plan in log.plans.values() if _ends(record, plan) == layout.last_shown(plan.segment)
    }
    first = segment
    while first and not (first - 1 in plans and _fused(record, log, first - 1)):
        first -= 1
    if any(number not in log.bindings for number in range(first, segment)):
        raise PreconditionFailed("the log of the world does not reach back to its last chunk")
    for number in sorted(plans):
        if number >= first - 1:
            session.restore_plan(plans[number])
    if log.memory:
        session.restore_memory(log.memory[max(log.memory)])
    session.controls.restore(session.controls.bound, log.controls)
    session.prompt = log.prompt or record.prompt
    # Guidance and latents between the key frames are not logged, and a decoder starts at the boundary: the first segments
    # compute them again.
    done = list[Task]()
    if first == 0 and 0 in plans:
        done.append(Task(record.world, Kind.ENCODE))
    if first == 0 and record.start_revision in log.memory:
        done.append(Task(record.world, Kind.BOOTSTRAP))
    for number in range(first, max([segment, *plans]) + 1):
        cut = layout.cut(number)
        if number in plans and _fused(record, log, number):
            done += [Task(record.world, kind, number, cut) for kind in (Kind.BRIDGE, Kind.RECONSTRUCT)]
        if number < segment:
            done += _shown(record.world, number, layout.of(number), cut)
    if record.fork is not None and first == 0:
        done.append(Task(record.world, Kind.DECODE, 0, 1))
    cuts = {number: cut for number in range(first, max([segment, *log.bindings])) if (cut := layout.cut(number))}
    return Restored(session, first, tuple(done), layout.chunk(first, 2) if first else 0, cuts)


def _segment(record: WorldRecord, last: Chunk | None) -> int:
    """The segment of the newest chunk; a fork shares the first one with its source, on whose timeline it says where it is."""
    return last.segment if last is not None and last.index > record.first_chunk else 0


def _fused(record: WorldRecord, log: Log, segment: int) -> bool:
    """Whether the key frames of a segment are in the memory, and what that gave is known."""
    return record.start_revision + segment + 1 in log.memory


def _ends(record: WorldRecord, plan: Plan) -> int:
    """The latent that the boundary of a plan stands for. One that was written before its segment was cut is void."""
    return record.timeline.last_shown if plan.last is None else plan.last


def _shown(world: str, segment: int, timeline: Timeline, cut: int) -> list[Task]:
    """What a segment whose chunks are all made need not do again, though its chain runs once more."""
    last = max(map(timeline.group_of, timeline.key_frames))
    return [
        task
        for task in tasks_of(world, segment, timeline, cut)
        if task.kind is Kind.DECODE or (task.kind is Kind.POPULATE and task.index > last)
    ]
