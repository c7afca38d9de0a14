"""The 4D memory in the loop (paper 3.3, 3.4): guidance from it, key frames into it; what the reconstructor service computes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from teleworld.generation.conditioning import tensor_to_latents
from teleworld.generation.model import Model
from teleworld.generation.pixels import coverage, to_pixels
from teleworld.generation.stages import StageClock
from teleworld.memory.agreement import settled
from teleworld.memory.fusion import Observation
from teleworld.memory.memory import Memory
from teleworld.memory.points import Field
from teleworld.memory.splat import Rendering, render
from teleworld.models.geometry.mirrored import infer_mirrored
from teleworld.world.camera import CameraPath
from teleworld.world.errors import InvalidInput
from teleworld.world.work import (
    Bytes,
    Guidance,
    GuideRequest,
    GuideResult,
    ReconstructRequest,
    ReconstructResult,
)

MOVES = 0.5


class Reconstructor:
    """Renders and encodes guidance; measures key frames and fuses them. The state is the memory's, never this object's."""

    def __init__(self, model: Model, memory: Memory) -> None:
        self.model = model
        self.memory = memory

    @torch.inference_mode()
    def guide(self, request: GuideRequest) -> GuideResult:
        """Task G: the memory at `request.revision`, seen from the commanded cameras."""
        request.path.check("path", 4 * len(request.indices))
        clock = StageClock()
        with clock.stage("render_guidance"):
            lens, context = self.model.spec.lens, request.context
            seen = self.memory.guidance_frames(
                context.world,
                context.epoch,
                request.revision,
                request.path,
                lens.width,
                lens.height,
                request.own_view_only,
            )
        with clock.stage("encode_guidance"):
            latents = self._encode(seen.pixels)
            covered = coverage(torch.from_numpy(seen.mask), self.model.spec.spatial_stride)[0, 0].numpy()
        return GuideResult(Guidance(request.indices, seen.pixels, seen.mask, latents, covered), clock.milliseconds)

    @torch.inference_mode()
    def reconstruct(self, request: ReconstructRequest) -> ReconstructResult:
        """Task R: measure the key frames against what the memory knows, and make the next revision."""
        request.path.check("path", len(request.pictures))
        world, epoch, clock = request.context.world, request.context.epoch, StageClock()
        with clock.stage("reconstruct"):
            seen = self.measure(
                self.memory.field_at(world, epoch, request.base), request.pictures, request.path, request.frames
            )
            after = self.memory.fuse_and_append(world, epoch, request.base, seen)
            x, y, z = (float(value) for value in request.path.camera_to_world[-1, :3, 3])
            room = self.memory.clearance(world, epoch, after.revision, x, y, z)
        known = seen.depth[-1][seen.depth[-1] > 0]
        return ReconstructResult(
            revision=after.revision,
            clearance=room,
            median_depth=float(np.median(known)) if known.size else 0.0,
            static_points=len(after.static),
            dynamic_points=len(after.dynamic),
            stage_ms=clock.milliseconds,
        )

    def measure(self, field: Field, pictures: Bytes, path: CameraPath, frames: tuple[int, ...]) -> Observation:
        """Depth, confidence and movers of generated key frames, measured beside the newest frame of the memory, whose depth
        stays where they show what it shows (`teleworld.memory.agreement`).

        pictures: uint8 [k, H, W, 3]; path: their k cameras; frames: their global pixel frame numbers.
        """
        seen, shown = self._measure(field, pictures, path, frames)
        return settled(seen, shown)

    def measure_recorded(self, field: Field, pictures: Bytes, path: CameraPath, frames: tuple[int, ...]) -> Observation:
        """The same of pictures that were not made from the memory, and so owe it nothing."""
        return self._measure(field, pictures, path, frames)[0]

    def _measure(
        self, field: Field, pictures: Bytes, path: CameraPath, frames: tuple[int, ...]
    ) -> tuple[Observation, Rendering]:
        """(what the network says, the memory from the same cameras)."""
        height, width = pictures.shape[1:3]
        if (height, width) != (self.model.spec.lens.height, self.model.spec.lens.width):
            raise InvalidInput(
                "pictures", f"expected {self.model.spec.lens.width} x {self.model.spec.lens.height} pixels"
            )
        known = render(field, path, width, height, frames=frames)
        shown, cameras, depth = pictures, path, known.depth
        if field.view is not None:
            camera = field.view.camera
            shown = np.concatenate([field.view.picture[None], pictures])
            cameras = CameraPath(
                np.concatenate([camera.camera_to_world, path.camera_to_world]),
                np.concatenate([camera.intrinsics, path.intrinsics]),
            )
            before = render(field, camera, width, height, frames=(field.view.frame,))
            depth = np.concatenate([before.depth, known.depth])
        inputs = (
            to_pixels(shown)[0].transpose(0, 1),
            torch.from_numpy(cameras.intrinsics),
            torch.from_numpy(cameras.camera_to_world),
            torch.from_numpy(depth),
        )
        geometry = self.model.geometry
        # What a world's first picture measures stays for good, and is measured once: there a second pass pays.
        estimate = infer_mirrored(geometry, *inputs) if field.view is None else geometry.infer(*inputs)
        new = slice(len(shown) - len(pictures), None)
        seen = Observation(
            pictures=pictures,
            depth=estimate.depth[new].numpy(),
            confidence=estimate.confidence[new].numpy(),
            dynamic=estimate.dynamic[new].numpy() > MOVES,
            path=path,
            frames=frames,
        )
        return seen, known

    def fork(self, source: str, revision: int, target: str) -> None:
        """Give `target` a memory of its own that starts as `source` was at `revision`."""
        self.memory.fork(source, revision, target)

    def forget(self, world: str) -> None:
        """Drop everything of a world."""
        self.memory.drop(world)

    def export(self, world: str, revision: int, dynamic_frame: int | None) -> Iterator[bytes]:
        """A PLY file in pieces: the static points, and the dynamic ones of `dynamic_frame` if given."""
        return self.memory.export(world, revision, dynamic_frame)

    def _encode(self, pixels: Bytes) -> np.ndarray:
        """Latents float32 [n, C, h, w] of n * 4 frames, behind a first frame that only starts the stream."""
        video, state = self.model.place(to_pixels(pixels)), self.model.vae.new_encoder_state()
        self.model.vae.encode_chunk(video[:, :, :1], state)
        return tensor_to_latents(self.model.vae.encode_chunk(video, state))
