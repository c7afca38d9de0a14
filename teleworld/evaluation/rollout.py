"""A walk along a route, task by task on one thread: what a world generates where the truth is known, or while it is played.

Where the cameras of a recording are commanded, every generated frame has its true counterpart. The cores are those of the
services, and so is the order of the tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from teleworld.evaluation.routes import Route
from teleworld.generation.conditioning import latents_to_tensor
from teleworld.generation.model import Model
from teleworld.generation.pixels import decoder_guidance, to_frames
from teleworld.generation.planner import Planner
from teleworld.generation.populator import Populator
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.fusion import Observation
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.timeline import Group, Timeline
from teleworld.world.work import (
    BridgeRequest,
    Bytes,
    EmbedRequest,
    EncodeRequest,
    Float,
    Guidance,
    GuideRequest,
    PlanRequest,
    PopulateRequest,
    Prompt,
    ReconstructRequest,
    TaskContext,
)

WORLD = "worlds/evaluation"
EPOCH = 1


@dataclass(frozen=True, eq=False)
class Segment:
    """What one segment showed. `first`: number of its first shown pixel frame. frames: uint8 [F, H, W, 3] at the model's
    size; sharp: the same after super-resolution, no frames if that is left out. guidance, mask: what it was guided by,
    aligned with `frames`. latents: float32 [n, C, h, w] of the shown latents. seen: the key frames as they were measured
    and fused."""

    first: int
    frames: Bytes
    sharp: Bytes
    guidance: Bytes
    mask: Bytes
    latents: Float
    seen: Observation


class Roller:
    """Walks of one model. `remember` False guides by the newest key frame alone, the baseline without a memory. `upscale`
    False leaves super-resolution out, which nothing that is generated later depends on."""

    def __init__(self, model: Model, timeline: Timeline, *, remember: bool = True, upscale: bool = True) -> None:
        self.model = model
        self.timeline = timeline
        self._own_view_only = not remember
        self._upscale = upscale
        self._planner, self._populator = Planner(model), Populator(model)

    def prompt(self, text: str) -> Prompt:
        """A prompt's embedding."""
        return self._planner.embed(EmbedRequest(self.model.digest, text))

    @torch.inference_mode()
    def walk(
        self, picture: Bytes, route: Route, prompt: Prompt, seed: int, *, last_only: bool = False
    ) -> Iterator[Segment]:
        """The whole segments of `route`, whose first camera is that of `picture` uint8 [H, W, 3].

        Where a planned latent lies beyond the cameras that are known, the last of them stands in; it is not shown. last_only:
        show the last segment alone, and save the time to decode the others.
        """
        memory = Memory(LocalMemoryStore())
        reconstructor = Reconstructor(self.model, memory)
        timeline = self.timeline
        prefix = self._planner.encode(EncodeRequest(self._context(0, seed), picture)).latent
        path = route.cameras(0, 0, Clearance.open(), 0.0)
        begun = reconstructor.reconstruct(ReconstructRequest(self._context(0, seed), -1, picture[None], path[:1], (0,)))
        revision, clearance = begun.revision, begun.clearance
        count = route.frames // timeline.frames_per_segment
        for number in range(count):
            context, origin = self._context(number, seed), number * timeline.frames_per_segment
            shown, planned = timeline.frames_per_segment, 4 * (timeline.latents - 1)
            path = route.cameras(origin + shown, origin + planned, clearance, begun.median_depth)
            guidance = self._guide(reconstructor, context, revision, path, origin)
            latents = self._generate(context, prefix, guidance, prompt)
            keys = np.stack([latents[index] for index in timeline.key_frames])
            bridged = self._planner.bridge(
                BridgeRequest(context, timeline, prefix, keys, guidance.of(timeline.key_frames))
            )
            at = [origin + timeline.frames_of(index)[-1] for index in timeline.key_frames]
            field = memory.field_at(WORLD, EPOCH, revision)
            seen = reconstructor.measure(field, bridged.pictures, path[at], tuple(at))
            revision = memory.fuse_and_append(WORLD, EPOCH, revision, seen).revision
            x, y, z = (float(value) for value in path.camera_to_world[at[-1], :3, 3])
            clearance = memory.clearance(WORLD, EPOCH, revision, x, y, z)
            if not last_only or number == count - 1:
                yield self._show(origin + 1, latents, guidance, seen)
            prefix = bridged.boundary

    def _context(self, segment: int, seed: int) -> TaskContext:
        return TaskContext(WORLD, EPOCH, segment, "evaluation", 1, seed, self.model.digest)

    def _guide(
        self, reconstructor: Reconstructor, context: TaskContext, revision: int, path: CameraPath, origin: int
    ) -> Guidance:
        used = self.timeline.used
        frames = [min(origin + frame, len(path) - 1) for index in used for frame in self.timeline.frames_of(index)]
        request = GuideRequest(context, revision, used, path[frames], self._own_view_only)
        return reconstructor.guide(request).guidance

    def _generate(self, context: TaskContext, prefix: Float, guidance: Guidance, prompt: Prompt) -> dict[int, Float]:
        timeline = self.timeline
        latents = {1: prefix}
        for group in timeline.groups:
            members = timeline.members(group)
            hint = guidance.of(members)
            if group is Group.PLAN:
                result = self._planner.plan(PlanRequest(context, timeline, prefix, hint, prompt))
            else:
                clean = np.stack([latents[index] for index in timeline.visible(group)])
                result = self._populator.populate(PopulateRequest(context, timeline, group, clean, hint, prompt))
            latents |= dict(zip(result.indices, result.latents, strict=True))
        return latents

    def _show(self, first: int, latents: dict[int, Float], guidance: Guidance, seen: Observation) -> Segment:
        """Decode a segment the way the decoder service does."""
        vae, upscaler = self.model.vae, self.model.super_resolution
        state, upscaler_state = vae.new_decoder_state(), upscaler.new_state()
        vae.decode_chunk(latents_to_tensor(latents[1][None]), state)
        shown = tuple(range(2, self.timeline.last_shown + 1))
        frames, sharp = [], []
        for index in shown:
            hint = decoder_guidance(guidance, guidance.indices.index(index))
            pixels = vae.decode_chunk(latents_to_tensor(latents[index][None]), state, hint)
            frames.append(to_frames(pixels))
            if self._upscale:
                sharp.append(to_frames(upscaler.upscale_chunk(pixels, upscaler_state, hint)))
        own = guidance.of(shown)
        return Segment(
            first,
            np.concatenate(frames),
            np.concatenate(sharp) if sharp else np.zeros((0, 2, 2, 3), np.uint8),
            own.pixels,
            own.mask,
            np.stack([latents[index] for index in shown]),
            seen,
        )


@dataclass(frozen=True, eq=False)
class Walk:
    """All segments of a walk as arrays over its F generated pixel frames; `frames[0]` belongs to the path's camera 1.

    frames, guidance: uint8 [F, H, W, 3]. sharp: uint8 [F, 2H, 2W, 3]. mask: bool [F, H, W], what the memory covered.
    latents: float32 [n, C, h, w]. depth, dynamic: of the fused key frames, whose path frames are `keys`.
    """

    frames: Bytes
    sharp: Bytes
    guidance: Bytes
    mask: np.ndarray
    latents: Float
    keys: tuple[int, ...]
    depth: Float
    dynamic: np.ndarray

    @classmethod
    def of(cls, segments: Iterable[Segment]) -> Walk:
        """Joined segments, in order."""
        parts = list(segments)
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("frames", "sharp", "guidance", "latents")
        }
        return cls(
            **joined,
            mask=np.concatenate([part.mask for part in parts]) > 0,
            keys=tuple(frame for part in parts for frame in part.seen.frames),
            depth=np.concatenate([part.seen.depth for part in parts]),
            dynamic=np.concatenate([part.seen.dynamic for part in parts]),
        )
