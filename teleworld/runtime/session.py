"""One running world: it makes the request of every task from the results so far, and takes the results in.

Nothing here waits or computes. What must be written down before work begins is returned to the caller, who owns the
journal (`Binding` before GUIDE, `Plan` after BRIDGE).

A segment may be cut while it is under way (re-anchoring): the next one is then bound to begin after an earlier latent, and
that binding is all that says so. What was made beyond the cut is never shown, fused or asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from teleworld.runtime.controls import ControlQueue
from teleworld.runtime.records import Binding, Chunk, Memory, Plan, WorldRecord
from teleworld.scheduling.tasks import Kind, Task
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.controls import Control, Keys
from teleworld.world.errors import Internal
from teleworld.world.latents import LastDigest
from teleworld.world.layout import Layout
from teleworld.world.timeline import Group
from teleworld.world.walker import Walker, walk
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    DecodeRequest,
    DecodeResult,
    EncodeRequest,
    EncodeResult,
    Float,
    Guidance,
    GuideRequest,
    GuideResult,
    LatentsResult,
    PlanRequest,
    PopulateRequest,
    Prompt,
    ReconstructRequest,
    ReconstructResult,
    TaskContext,
)


class WorldSession:
    """The state of a world between two events. `epoch` is the lease under which its tasks run.

    Tasks count segments and chunks on the world's own timeline, which for a fork starts at the fork. Everything that leaves
    a session (chunks, controls, frame numbers) counts from the birth of its first ancestor: `record.first_chunk` more.
    """

    def __init__(self, record: WorldRecord, epoch: int = 1, *, remember: bool = True) -> None:
        self.record = record
        self.epoch = epoch
        self.spec = record.spec
        self.timeline = record.timeline
        self.layout = Layout(record.timeline)
        self.controls = ControlQueue(record.first_chunk + 1)
        self.prompt: Prompt = record.prompt
        self.revision = record.start_revision
        self.static_points = 0
        self.dynamic_points = 0
        self.scale = record.fork.scale if record.fork else 1.0
        self._remember = remember
        self._showing = 0
        self._replayed: set[int] = set()
        self._warm: set[int] = set()
        self._clearance = Clearance.open()
        self._bindings: dict[int, Binding] = {}
        self._prefix: dict[int, Float] = {}
        self._boundaries: dict[tuple[int, int], Float] = {}
        self._latents: dict[tuple[int, int], Float] = {}
        self._digests = LastDigest()
        self._guidance: dict[int, Guidance] = {}
        self._pictures: dict[tuple[int, int], np.ndarray] = {}
        self._stage_ms: dict[int, dict[str, float]] = {}

    def number(self, segment: int, index: int) -> int:
        """What a chunk of the own timeline is called outside."""
        return self.record.first_chunk + self.layout.chunk(segment, index)

    # -- controls -----------------------------------------------------------------------------------------------------

    def bind(self, segment: int, cut: int = 0) -> tuple[Binding, tuple[Control, ...]]:
        """Fix what happens in `segment`: its keys and cameras. Returns the binding and the live controls it took in.

        cut: the last latent that the segment before shows, if that was cut (re-anchoring). A segment that was bound before
        (a replay) keeps its binding.
        """
        if segment in self._bindings:
            return self._bindings[segment], ()
        first = self.layout.chunk(segment, 2)
        if cut:
            first = self.layout.chunk(segment - 1, cut) + 1
            self.controls.reopen(self.record.first_chunk + first)
        self.layout.begin(segment, first)
        shown = [self.number(segment, index) for index in range(2, self.timeline.last_shown + 1)]
        controls, taken = self.controls.bind(shown)
        controls += (controls[-1],) * (self.timeline.latents - self.timeline.last_shown)
        frames = [control.keys for control in controls for _ in range(4)]
        start = self._start_of(segment)
        walkers = (start, *walk(start, frames, self.spec.gait, self.scale, self._clearance))
        binding = Binding(
            segment=segment,
            keys=tuple(control.keys for control in controls),
            control_sequences=tuple(control.sequence for control in controls),
            walkers=walkers,
            revision=self.revision,
            scale=self.scale,
            prompt=self.prompt,
            first_chunk=first,
        )
        self._bindings[segment] = binding
        return binding, taken

    def settled(self, segment: int) -> int | None:
        """The first latent of a bound segment from which on its keys do not change: cut there or later, it undoes no control.

        None for a segment that came from the journal, which must stay as it is: its key frames may be in the memory.
        """
        return None if segment in self._replayed else self._bindings[segment].settled(self.timeline.last_shown)

    def said_before(self, control: Control) -> bool:
        """Whether a scheduled control is the very one that its chunk is bound to.

        A client that lost its gateway says again what nobody confirmed, though the world may have it already.
        """
        for binding in self._bindings.values():
            for row, bound in enumerate(zip(binding.keys, binding.control_sequences, strict=True)):
                shown = row + 2 <= self.layout.last_shown(binding.segment)
                if shown and self.number(binding.segment, row + 2) == control.chunk:
                    return bound == (control.keys, control.sequence)
        return False

    def restore(self, binding: Binding) -> None:
        """Take a binding from the journal, in the order of segments, so that the segment is replayed as it was."""
        self._bindings[binding.segment] = binding
        self._replayed.add(binding.segment)
        if binding.first_chunk is not None:
            self.layout.begin(binding.segment, binding.first_chunk)
        self.controls.bound = self.number(binding.segment + 1, 2)

    def restore_plan(self, plan: Plan) -> None:
        """Take a finished plan from the journal: the segment's chain need not run again."""
        self._prefix[plan.segment] = plan.prefix
        self._boundaries[plan.segment, self.layout.cut(plan.segment)] = plan.boundary
        for row, index in enumerate(self.timeline.members(Group.PLAN)):
            self._latents[plan.segment, index] = plan.keys[row]

    def restore_memory(self, memory: Memory) -> None:
        """Take the state of the memory as it is after `memory.revision`."""
        self.revision, self.scale, self._clearance = memory.revision, memory.scale, memory.clearance
        self.static_points, self.dynamic_points = memory.static_points, memory.dynamic_points

    def _start_of(self, segment: int) -> Walker:
        if segment == 0:
            return self.record.start
        before = self._bindings[segment - 1]
        return before.walkers[self.timeline.frames_of(self.layout.last_shown(segment - 1))[-1]]

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(self, task: Task, attempt: int, *, replay: bool = False) -> Any:
        """The request of a task whose needs are met. `replay` sends a decoder the segment's whole history."""
        context = self.record.context(self.epoch, task.segment, task.name, attempt)
        segment, timeline = task.segment, self.timeline
        match task.kind:
            case Kind.ENCODE:
                return EncodeRequest(context, self.record.picture)
            case Kind.BOOTSTRAP:
                start = self._path(self.record.start)
                return ReconstructRequest(context, -1, self.record.picture[None], start, (0,))
            case Kind.GUIDE:
                binding, used = self._bindings[segment], timeline.used
                frames = [frame for index in used for frame in timeline.frames_of(index)]
                return GuideRequest(
                    context, binding.revision, used, binding.path(self.spec, frames), not self._remember
                )
            case Kind.PLAN:
                guidance = self._guidance[segment].of(timeline.members(Group.PLAN), pictures=False)
                return PlanRequest(context, timeline, self._start(segment), guidance, self._bindings[segment].prompt)
            case Kind.BRIDGE:
                shown = self.layout.part(task.index)
                keys, guidance = self._stack(segment, shown.key_frames), self._guidance[segment].of(shown.key_frames)
                return BridgeRequest(context, shown, self._start(segment), keys, guidance)
            case Kind.RECONSTRUCT:
                last = [timeline.frames_of(index)[-1] for index in self.layout.part(task.index).key_frames]
                first = timeline.first_frame(self.number(segment, 2))
                return ReconstructRequest(
                    context,
                    self.record.start_revision + segment,
                    self._pictures[segment, task.index],
                    self._bindings[segment].path(self.spec, last),
                    tuple(first - 1 + frame for frame in last),
                )
            case Kind.POPULATE:
                group = task.index
                return PopulateRequest(
                    context,
                    timeline,
                    group,
                    self._stack(segment, timeline.visible(group)),
                    self._guidance[segment].of(timeline.members(group), pictures=False),
                    self._bindings[segment].prompt,
                )
            case Kind.DECODE:
                return self._decode_request(context, task, replay)

    def _decode_request(self, context: TaskContext, task: Task, replay: bool) -> DecodeRequest:
        segment, index = task.segment, task.index
        known = index > 2 or (index == 2 and segment in self._warm)
        first = index if known and not replay else 1
        indices = tuple(range(first, index + 1))
        hinted = tuple(i for i in indices if i > 1)
        return DecodeRequest(
            context=context,
            chunk=self.number(segment, index),
            index=index,
            latents=self._stack(segment, indices),
            previous=self._digests.of(self._latent(segment, index - 1)) if index > 1 else "",
            guidance=self._guidance[segment].of(hinted) if hinted else None,
        )

    def foresee(self, task: Task) -> None:
        """While a task is under way: make what its result will need, the digest of the latent that is being decoded."""
        if task.kind is Kind.DECODE:
            self._digests.of(self._latent(task.segment, task.index))

    # -- results ------------------------------------------------------------------------------------------------------

    def accept(self, task: Task, result: Any) -> Plan | Memory | Chunk | None:
        """Take a result in. Returns what is now final: a plan after BRIDGE, a memory after RECONSTRUCT, a chunk after DECODE.

        A result may be taken in again, as long as `shown` did not say that its segment is over.
        """
        segment = task.segment
        self._note(segment, task, result.stage_ms)
        match result:
            case EncodeResult():
                self._prefix[0] = result.latent
            case GuideResult():
                self._guidance[segment] = result.guidance
            case LatentsResult():
                for index, latent in zip(result.indices, result.latents, strict=True):
                    self._latents[segment, index] = latent
            case BridgeResult():
                self._pictures[segment, task.index] = result.pictures
                self._boundaries[segment, task.index] = result.boundary
                if task.index == self.layout.cut(segment):
                    return self.plan(segment)
            case ReconstructResult():
                if task.kind is Kind.BOOTSTRAP:
                    self.scale = self.spec.gait.scale(result.median_depth)
                self.revision = result.revision
                self._clearance = result.clearance
                self.static_points, self.dynamic_points = result.static_points, result.dynamic_points
                return Memory(self.revision, self._clearance, self.scale, self.static_points, self.dynamic_points)
            case DecodeResult() if segment and task.index == 1:
                self._warm.add(segment)
            case DecodeResult():
                return self._finish(task, result)
            case _:
                raise Internal(f"no task gives a {type(result).__name__}")
        return None

    def plan(self, segment: int) -> Plan | None:
        """The plan of a segment that ends where the layout says, once its boundary is known."""
        last, cut = self.layout.last_shown(segment), self.layout.cut(segment)
        if (boundary := self._boundaries.get((segment, cut))) is None:
            return None
        planned = self._stack(segment, self.timeline.members(Group.PLAN))
        return Plan(segment, self._start(segment), planned, boundary, last)

    def _finish(self, task: Task, result: DecodeResult) -> Chunk:
        segment, index, timeline = task.segment, task.index, self.timeline
        number = self.number(segment, index)
        if index == 1:
            path, keys, sequence = self._path(self.record.start), Keys.NONE, 0
        else:
            binding = self._bindings[segment]
            path = binding.path(self.spec, list(timeline.frames_of(index)))
            keys, sequence = binding.keys[index - 2], binding.control_sequences[index - 2]
        return Chunk(
            index=number,
            segment=segment,
            latent=index,
            first_frame=timeline.first_frame(number),
            frames=result.frames,
            width=result.width,
            height=result.height,
            video=result.video,
            path=path,
            keys=keys,
            control_sequence=sequence,
            latent_sha256=self._digests.of(self._latent(segment, index)),
            stage_ms=dict(self._stage_ms.get(segment, {})) | dict(result.stage_ms),
        )

    def shown(self, chunk: Chunk) -> None:
        """Chunks up to `chunk` are safe and delivered. Where a segment ended is certain when the next one is shown."""
        if chunk.segment > self._showing:
            self._showing = chunk.segment
            self._forget(chunk.segment - 1)

    def _note(self, segment: int, task: Task, stage_ms: Mapping[str, float]) -> None:
        if task.kind is not Kind.DECODE:
            of_segment = self._stage_ms.setdefault(segment, {})
            for stage, milliseconds in stage_ms.items():
                of_segment[stage] = of_segment.get(stage, 0.0) + milliseconds

    def _forget(self, segment: int) -> None:
        """Drop what no later task can ask for, once the whole segment is shown; its chain has then run too or holds its own."""
        for index in range(2, self.timeline.latents + 1):
            if index not in self.timeline.key_frames:
                self._latents.pop((segment, index), None)
        for old in [number for number in self._guidance if number < segment]:
            for table in (self._guidance, self._stage_ms, self._prefix):
                table.pop(old, None)
            for index in self.timeline.key_frames:
                self._latents.pop((old, index), None)
        for part in [part for part in self._pictures if part[0] < segment]:
            del self._pictures[part]
        for part in [part for part in self._boundaries if part[0] < segment - 1]:
            del self._boundaries[part]
        for old in [number for number in self._bindings if number < segment - 1]:
            del self._bindings[old]
        self.layout.forget(segment - 1)
        self._warm = {number for number in self._warm if number >= segment}

    # -- inside -------------------------------------------------------------------------------------------------------

    def _path(self, walker: Walker) -> CameraPath:
        return CameraPath(walker.camera_to_world(self.spec.lens)[None], self.spec.lens.at_pitch(walker.pitch)[None])

    def _start(self, segment: int) -> Float:
        """The prefix of a segment: the start picture's latent, or the boundary where the segment before ended."""
        if segment not in self._prefix:
            self._prefix[segment] = self._boundaries[segment - 1, self.layout.cut(segment - 1)]
        return self._prefix[segment]

    def _latent(self, segment: int, index: int) -> Float:
        return self._start(segment) if index == 1 else self._latents[segment, index]

    def _stack(self, segment: int, indices: tuple[int, ...]) -> Float:
        latents = [self._latent(segment, index) for index in indices]
        return np.stack(latents) if len(latents) > 1 else latents[0][None]
