"""Worker cores that compute next to nothing, but like the real ones are pure functions of the request, state and history included.

Every input that must reach a result does: a lost prompt, a wrong memory revision or a chunk decoded on foreign state gives
other bytes, so that tests can compare whole walks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from teleworld.video.h264 import encode_chunk
from teleworld.world.collision import Clearance
from teleworld.world.errors import Conflict, NotFound, PreconditionFailed, StateLost
from teleworld.world.spec import NANO
from teleworld.world.timeline import Group
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    DecodeRequest,
    DecodeResult,
    EmbedRequest,
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
)

SHAPE = NANO.latent_shape
HEIGHT, WIDTH = NANO.lens.height, NANO.lens.width


def digest(*parts: object) -> bytes:
    """sha256 of arrays, numbers and texts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
        state.update(b"|")
    return state.digest()


def latent_of(*parts: object) -> Float:
    """A latent [C, h, w] that depends on every part."""
    seed = int.from_bytes(digest(*parts)[:8], "little")
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


def picture_of(*parts: object) -> np.ndarray:
    """A picture uint8 [H, W, 3] of flat blocks."""
    blocks = np.frombuffer(digest(*parts), np.uint8)[:24].reshape(2, 4, 3)
    return np.repeat(np.repeat(blocks, HEIGHT // 2, 0), WIDTH // 4, 1)


class TinyPlanner:
    """PlannerCore."""

    def embed(self, request: EmbedRequest) -> Prompt:
        return Prompt(request.text, np.frombuffer(digest(request.text), np.uint8).reshape(4, 8).astype(np.float32))

    def encode(self, request: EncodeRequest) -> EncodeResult:
        return EncodeResult(latent_of(request.picture), {"encode_picture": 1.0})

    def plan(self, request: PlanRequest) -> LatentsResult:
        context, guidance = request.context, request.guidance
        known = (context.seed, context.segment, request.prefix, guidance.latents, request.prompt.embedding)
        indices = request.timeline.members(Group.PLAN)
        return LatentsResult(indices, np.stack([latent_of(index, *known) for index in indices]), {"plan": 1.0})

    def bridge(self, request: BridgeRequest) -> BridgeResult:
        pictures = np.stack([picture_of(request.prefix, key) for key in request.keys])
        return BridgeResult(pictures, latent_of(pictures[-1]), {"bridge": 1.0})


class TinyPopulator:
    """PopulatorCore."""

    def populate(self, request: PopulateRequest) -> LatentsResult:
        context, indices = request.context, request.timeline.members(request.group)
        known = (context.seed, context.segment, request.clean, request.guidance.latents, request.prompt.embedding)
        return LatentsResult(indices, np.stack([latent_of(index, *known) for index in indices]), {"populate": 1.0})


class Field:
    """What the reconstructors of one mesh share: the digest of each revision of each world."""

    def __init__(self) -> None:
        self.worlds: dict[str, dict[int, bytes]] = {}


class TinyReconstructor:
    """ReconstructorCore over a `Field`."""

    def __init__(self, field: Field) -> None:
        self.field = field

    def guide(self, request: GuideRequest) -> GuideResult:
        seen, frames = self._revision(request.context.world, request.revision), 4 * len(request.indices)
        latents = np.stack(
            [
                latent_of(seen, request.path[slice(4 * n, 4 * n + 4)].camera_to_world)
                for n in range(len(request.indices))
            ]
        )
        guidance = Guidance(
            indices=request.indices,
            pixels=np.zeros((frames, HEIGHT, WIDTH, 3), np.uint8),
            mask=np.zeros((frames, HEIGHT, WIDTH), np.uint8),
            latents=latents,
            coverage=np.zeros((len(request.indices), *SHAPE[1:]), np.float32),
        )
        return GuideResult(guidance, {"render_guidance": 1.0})

    def reconstruct(self, request: ReconstructRequest) -> ReconstructResult:
        world, revision = request.context.world, request.base + 1
        before = self._revision(world, request.base) if request.base >= 0 else b""
        after = digest(before, request.pictures, request.path.camera_to_world, request.frames)
        known = self.field.worlds.setdefault(world, {})
        if known.get(revision, after) != after or (request.base < 0 and min(known, default=0) > 0):
            raise Conflict(f"revision {revision} of {world} has other content")
        known[revision] = after
        blocked = np.unpackbits(np.frombuffer(after, np.uint8)).astype(bool).reshape(16, 16)
        return ReconstructResult(
            revision=revision,
            clearance=Clearance((-40.0, -40.0), 5.0, blocked & np.roll(blocked, 1, 0)),
            median_depth=4.0 + after[0] / 64,
            static_points=100 * (revision + 1),
            dynamic_points=after[1],
            stage_ms={"reconstruct": 1.0},
        )

    def fork(self, source: str, revision: int, target: str) -> None:
        self.field.worlds[target] = {revision: self._revision(source, revision)}

    def forget(self, world: str) -> None:
        self.field.worlds.pop(world, None)

    def export(self, world: str, revision: int, dynamic_frame: int | None) -> Iterator[bytes]:
        seen = self._revision(world, revision)
        yield f"ply\ncomment revision {revision}, dynamic {dynamic_frame}\n".encode()
        yield seen

    def _revision(self, world: str, revision: int) -> bytes:
        if world not in self.field.worlds:
            raise NotFound(f"the memory of {world}")
        if revision not in self.field.worlds[world]:
            raise PreconditionFailed(f"revision {revision} is not kept")
        return self.field.worlds[world][revision]


class TinyDecoder:
    """DecoderCore with the state of the last stream: the digest of all latents since the boundary."""

    def __init__(self) -> None:
        self._state: dict[tuple[str, int], tuple[str, bytes]] = {}

    def decode(self, request: DecodeRequest) -> DecodeResult:
        key, first = (request.context.world, request.context.segment), request.index - len(request.latents) + 1
        state = b""
        if first > 1:
            previous, state = self._state.get(key, ("", b""))
            if not previous or previous != request.previous:
                raise StateLost("the stream's state is not here")
        for latent in request.latents:
            state = digest(state, latent)
        last = hashlib.sha256(np.ascontiguousarray(request.latents[-1], "<f4").tobytes()).hexdigest()
        self._state = {key: (last, state)}
        frames = 1 if request.index == 1 else 4
        picture = np.repeat(np.repeat(picture_of(state), 2, 0), 2, 1)
        video = encode_chunk(np.repeat(picture[None], frames, 0), NANO.fps)
        return DecodeResult(video, frames, picture.shape[1], picture.shape[0], {"decode": 1.0})
