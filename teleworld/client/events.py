"""What the SDK hands out: worlds, and the events of a walk. Plain frozen values, without protobuf types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from teleworld.world.camera import CameraPath
from teleworld.world.endings import EndReason
from teleworld.world.timeline import ChainMode


class WorldState(Enum):
    """What can be done with a world now."""

    CREATING = "creating"
    READY = "ready"
    STREAMING = "streaming"
    FAILED = "failed"


class Pace(Enum):
    """How fast chunks are made: just in time for playback, so that keys bind late, or as fast as the mesh can."""

    REALTIME = "realtime"
    MAX = "max"


class ReceiptState(Enum):
    """What became of a control: the gateway has it, or it is bound to a chunk."""

    RECEIVED = "received"
    APPLIED = "applied"


@dataclass(frozen=True)
class World:
    """A generated world. Model, weights, seed and chain mode are pinned at its birth.

    name: `worlds/{id}`. fps: native frames a second. width, height: of the video, in pixels. chunks: generated so far.
    forked_from: name of the source of a fork, else empty; forked_at_chunk: the last chunk that both share. reanchor: whether
    a live key may end a segment early.
    """

    name: str
    state: WorldState
    model: str
    weights_digest: str
    seed: int
    prompt: str
    chain: ChainMode
    fps: float
    width: int
    height: int
    created: datetime
    chunks: int
    memory_revision: int
    static_points: int
    forked_from: str
    forked_at_chunk: int | None
    reanchor: bool


@dataclass(frozen=True)
class Attached:
    """A stream is open, for the first time or again. fps_target: of playback. next_chunk: the first that will be sent."""

    epoch: int
    fps_target: float
    next_chunk: int
    width: int
    height: int


@dataclass(frozen=True)
class Chunk:
    """One piece of the walk: the pixel frames of one latent.

    index: from 0 without gaps. segment, latent: where on the timeline. first_frame: number of the first picture since the
    world's beginning, the presentation time in units of 1 / fps. video: H.264 Annex B, starting with an IDR picture.
    path: the commanded camera of each picture. control_sequence: of the newest control that it reflects, 0 for none.
    latent_sha256: of the latent's float32 values. stage_ms: milliseconds of the stages that made it. key_to_frame_ms:
    milliseconds inside the gateway from the newest live control to this chunk, if it is the first that reflects one.
    """

    index: int
    segment: int
    latent: int
    first_frame: int
    frames: int
    video: bytes
    path: CameraPath
    control_sequence: int
    latent_sha256: str
    stage_ms: Mapping[str, float]
    key_to_frame_ms: float | None


@dataclass(frozen=True)
class Receipt:
    """What became of the control or prompt `sequence`. chunk: the first that reflects it, once it is applied."""

    sequence: int
    state: ReceiptState
    chunk: int | None


@dataclass(frozen=True)
class Rewound:
    """The store lost chunks that it had acknowledged: what came after `to_chunk` is void, and the walk goes on from there."""

    to_chunk: int


@dataclass(frozen=True)
class End:
    """Why the walk ended. last_chunk: the last one that was sent, if any."""

    reason: EndReason
    message: str
    last_chunk: int | None


Event = Attached | Chunk | Receipt | Rewound
