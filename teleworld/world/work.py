"""What workers are asked and what they answer, free of any transport.

Each request is self-contained: the answer is a pure function of the request and the weights that `TaskContext.weights`
names, so that a task may be tried again anywhere. The in-process engine passes these objects by hand; `teleworld.rpc`
carries the same objects over gRPC. Latents are float32 [C, h, w], pictures uint8 [H, W, 3] in RGB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.timeline import Timeline

Float = NDArray[np.float32]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class TaskContext:
    """Who asks, for which world and segment. `epoch` fences: a worker refuses an epoch older than one it has seen.

    `weights` is the digest that the world pinned at its birth; a worker with other weights refuses the task. `attempt`
    never reaches the noise: `seed` and the segment's own numbers do.
    """

    world: str
    epoch: int
    segment: int
    task: str
    attempt: int
    seed: int
    weights: str


@dataclass(frozen=True)
class Prompt:
    """A prompt as the network reads it: text and its token embeddings float32 [T, D]."""

    text: str
    embedding: Float


@dataclass(frozen=True)
class Guidance:
    """The memory as seen from the commanded poses, for the latents `indices` of one segment (n of them, ascending).

    pixels: uint8 [n*4, H, W, 3], holes filled by reflection. mask: uint8 [n*4, H, W]: 0 hole, 255 seen.
    latents: float32 [n, C, h, w], the encoded pixels. coverage: float32 [n, h, w], the share of seen pixels a latent cell.
    For those who denoise, latents and coverage say all; they are sent none of the pictures: pixels and mask of 0 frames.
    """

    indices: tuple[int, ...]
    pixels: Bytes
    mask: Bytes
    latents: Float
    coverage: Float

    def of(self, indices: tuple[int, ...], *, pictures: bool = True) -> Guidance:
        """The part that belongs to some of the latents, with its pictures or without. Neighbours are views, not copies."""
        rows = [self.indices.index(index) for index in indices]
        if rows and rows == list(range(rows[0], rows[-1] + 1)):
            these = slice(rows[0], rows[-1] + 1)
            seen = slice(4 * these.start, 4 * these.stop) if pictures else slice(0)
            return Guidance(indices, self.pixels[seen], self.mask[seen], self.latents[these], self.coverage[these])
        some = [row * 4 + frame for row in rows for frame in range(4)] if pictures else []
        return Guidance(indices, self.pixels[some], self.mask[some], self.latents[rows], self.coverage[rows])


@dataclass(frozen=True)
class EmbedRequest:
    """Embed a prompt."""

    weights: str
    text: str


@dataclass(frozen=True)
class EncodeRequest:
    """Encode the start picture (task I): uint8 [H, W, 3] -> the prefix latent of segment 0."""

    context: TaskContext
    picture: Bytes


@dataclass(frozen=True)
class EncodeResult:
    """latent: float32 [C, h, w]."""

    latent: Float
    stage_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanRequest:
    """Micro planning (task P, Eq. 1): the three key latents jointly, from the prefix. guidance: of the planned latents."""

    context: TaskContext
    timeline: Timeline
    prefix: Float
    guidance: Guidance
    prompt: Prompt


@dataclass(frozen=True)
class LatentsResult:
    """Clean latents of one group. latents: float32 [n, C, h, w] for `indices`."""

    indices: tuple[int, ...]
    latents: Float
    stage_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PopulateRequest:
    """Content populating (tasks F1, F2, Eq. 3), or any other group but the planned one.

    clean: float32 [n, C, h, w] of `timeline.visible(group)`, in that order.
    """

    context: TaskContext
    timeline: Timeline
    group: int
    clean: Float
    guidance: Guidance
    prompt: Prompt


@dataclass(frozen=True)
class BridgeRequest:
    """Key decode and boundary (task K, paper 3.2.1). keys: float32 [k, C, h, w] of `timeline.key_frames`."""

    context: TaskContext
    timeline: Timeline
    prefix: Float
    keys: Float
    guidance: Guidance


@dataclass(frozen=True)
class BridgeResult:
    """pictures: uint8 [k, H, W, 3], the last pixel frame of each key latent. boundary: float32 [C, h, w], the next prefix."""

    pictures: Bytes
    boundary: Float
    stage_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GuideRequest:
    """Render and encode guidance (task G). path: the cameras of the n*4 pixel frames of the latents `indices`.

    `own_view_only` renders from `revision`'s newest key frame alone: the memory-off baseline of the benchmarks.
    """

    context: TaskContext
    revision: int
    indices: tuple[int, ...]
    path: CameraPath
    own_view_only: bool = False


@dataclass(frozen=True)
class GuideResult:
    """The guidance."""

    guidance: Guidance
    stage_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ReconstructRequest:
    """Fuse key frames into the memory (task R): revision `base` -> `base + 1`; base -1 bootstraps from the start picture.

    pictures: uint8 [k, H, W, 3]; path: their k cameras; frames: their global pixel frame numbers.
    """

    context: TaskContext
    base: int
    pictures: Bytes
    path: CameraPath
    frames: tuple[int, ...]


@dataclass(frozen=True)
class ReconstructResult:
    """The new revision, how far one may walk, and the median depth of the last picture in metres."""

    revision: int
    clearance: Clearance
    median_depth: float
    static_points: int
    dynamic_points: int
    stage_ms: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DecodeRequest:
    """Latent -> pixels -> super-resolution -> H.264 (task D), for the latent `index` of a segment.

    `latents` float32 [n, C, h, w] ends with `index` and starts either at latent 1 (the whole history: any decoder can do
    it) or at `index` itself, for a decoder that still holds the stream's state after `index - 1`; one that does not
    raises StateLost. `guidance` covers the latents sent, the prefix excepted. `previous` is the sha256 of latent
    `index - 1`, so that state is never continued on other content.
    """

    context: TaskContext
    chunk: int
    index: int
    latents: Float
    previous: str
    guidance: Guidance | None


@dataclass(frozen=True)
class DecodeResult:
    """video: Annex B H.264 of `frames` pictures, width x height, starting with an IDR."""

    video: bytes
    frames: int
    width: int
    height: int
    stage_ms: Mapping[str, float] = field(default_factory=dict)
