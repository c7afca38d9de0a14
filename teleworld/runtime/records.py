"""What of a world must outlive a process, as values: its record and the canonical log of its segments.

A world is a pure function of these: generation is deterministic, so everything else can be made again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teleworld.world.camera import CameraPath
from teleworld.world.collision import Clearance
from teleworld.world.controls import Keys
from teleworld.world.spec import WorldSpec, spec_of
from teleworld.world.timeline import ChainMode, Timeline
from teleworld.world.walker import Walker, path_of
from teleworld.world.work import Float, Prompt, TaskContext


@dataclass(frozen=True)
class Fork:
    """Where a world left another one, `source`, after the chunk `chunk`, the last that both share.

    walker: the camera at that chunk's last frame. revision, scale: of the memory and the movement that the fork begins with.
    """

    source: str
    chunk: int
    walker: Walker
    revision: int
    scale: float


@dataclass(frozen=True)
class WorldRecord:
    """The birth of a world. `picture` uint8 [H, W, 3] is the start picture at generation size.

    A fork is a world that is born of the last picture of a chunk of its source, with the source's memory. Its own timeline
    starts there: its chunk n is known to everybody else as `first_chunk` + n. reanchor: whether a live key may cut a segment
    short where somebody watches in real time. told: what workers told of a model that this code does not know by its name.
    """

    world: str
    model: str
    weights: str
    seed: int
    chain: ChainMode
    prompt: Prompt
    picture: NDArray[np.uint8]
    created: float
    request_id: str
    tenant: str = ""
    fork: Fork | None = None
    reanchor: bool = True
    told: WorldSpec | None = None

    def context(self, epoch: int, segment: int, task: str, attempt: int) -> TaskContext:
        """What every request of this world's tasks begins with."""
        return TaskContext(self.world, epoch, segment, task, attempt, self.seed, self.weights)

    @property
    def spec(self) -> WorldSpec:
        """The world's spec: the one that it was born with, so that it can be read while no worker is there to tell."""
        return self.told or spec_of(self.model)

    @property
    def timeline(self) -> Timeline:
        """The layout of its segments."""
        return self.spec.timeline(self.chain)

    @property
    def first_chunk(self) -> int:
        """The number of the chunk whose last picture is `picture`: 0, or the last one that a fork shares with its source."""
        return self.fork.chunk if self.fork else 0

    @property
    def start(self) -> Walker:
        """The camera of `picture`."""
        return self.fork.walker if self.fork else Walker()

    @property
    def start_revision(self) -> int:
        """The memory revision that guides the first segment."""
        return self.fork.revision if self.fork else 0


@dataclass(frozen=True)
class Binding:
    """What was decided for one segment before any of its work began: logged first, so that a replay is exact.

    keys, control_sequences: one a latent 2..N. walkers: one a pixel frame 0..4(N-1) of the segment, the prefix's first.
    revision: of the memory that guides it. scale: of movement. first_chunk: the own number of the chunk that shows latent 2;
    earlier than the segment before would have it, if that was cut. None in logs older than cuts.
    """

    segment: int
    keys: tuple[Keys, ...]
    control_sequences: tuple[int, ...]
    walkers: tuple[Walker, ...]
    revision: int
    scale: float
    prompt: Prompt
    first_chunk: int | None = None

    def settled(self, last_shown: int) -> int:
        """The first latent from which on the keys do not change any more, up to the latent `last_shown`."""
        told = self.control_sequences[: last_shown - 1]
        return 2 + max((row for row in range(1, len(told)) if told[row] != told[row - 1]), default=0)

    def path(self, spec: WorldSpec, frames: list[int]) -> CameraPath:
        """The cameras of some of the segment's pixel frames."""
        return path_of([self.walkers[frame] for frame in frames], spec.lens)


@dataclass(frozen=True)
class Plan:
    """The canonical history of a segment: its prefix, key latents, and the next prefix. float32 [C, h, w], [3, C, h, w].

    last: the latent that the boundary stands for; None in logs older than cuts: the timeline's.
    """

    segment: int
    prefix: Float
    keys: Float
    boundary: Float
    last: int | None = None


@dataclass(frozen=True)
class Memory:
    """What the walk needs to know of a memory revision: how far one may go, and the movement's scale."""

    revision: int
    clearance: Clearance
    scale: float
    static_points: int
    dynamic_points: int


@dataclass(frozen=True)
class Chunk:
    """A finished piece of video, as stored and sent."""

    index: int
    segment: int
    latent: int
    first_frame: int
    frames: int
    width: int
    height: int
    video: bytes
    path: CameraPath
    keys: Keys
    control_sequence: int
    latent_sha256: str
    stage_ms: dict[str, float]
