"""One valid object of each kind that crosses a process, small and with distinct values."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from teleworld.rpc.held import Held
from teleworld.world.camera import CameraPath, pose
from teleworld.world.collision import Clearance
from teleworld.world.timeline import ChainMode, Group, Timeline
from teleworld.world.work import (
    BridgeRequest,
    BridgeResult,
    DecodeRequest,
    DecodeResult,
    EmbedRequest,
    EncodeRequest,
    EncodeResult,
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

C, H, W = 3, 16, 24
RANDOM = np.random.default_rng(7)
DIGEST = "d" * 64
TIMELINE = Timeline.of(6, ChainMode.T_C)
STAGES = {"plan": 1.5, "encode": 0.25}


def context(world: str = "w", epoch: int = 3, weights: str = DIGEST) -> TaskContext:
    return TaskContext(world, epoch, segment=2, task="w/2/P", attempt=1, seed=2**63 + 5, weights=weights)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def pictures(count: int) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, H, W, 3), dtype=np.uint8)


def path(frames: int) -> CameraPath:
    poses = np.stack([pose(0.1 * n, -0.5, 0.2 * n, 0.3 * n, 0.05 * n) for n in range(frames)])
    return CameraPath(poses, np.tile([66.7, 80.0, W / 2, H / 2], (frames, 1)))


def guidance(*indices: int) -> Guidance:
    n = len(indices)
    mask = np.where(RANDOM.random((n * 4, H, W)) < 0.5, np.uint8(255), np.uint8(0))
    coverage = RANDOM.random((n, H // 8, W // 8), dtype=np.float32)
    return Guidance(indices, pictures(n * 4), mask, floats(n, C, H // 8, W // 8), coverage)


def latents(n: int) -> np.ndarray:
    return floats(n, C, H // 8, W // 8)


PROMPT = Prompt("a corridor \N{SNOWMAN}", floats(5, 8))
CLEARANCE = Clearance((-1.25, 3.5), 0.25, RANDOM.random((5, 7)) < 0.3)

EMBED = EmbedRequest(DIGEST, "a corridor")
ENCODE = EncodeRequest(context(), pictures(1)[0])
ENCODED = EncodeResult(latents(1)[0], STAGES)
PLAN = PlanRequest(context(), TIMELINE, latents(1)[0], guidance(2, 4, 6), PROMPT)
PLANNED = LatentsResult((2, 4, 6), latents(3), STAGES)
POPULATE = PopulateRequest(context(), TIMELINE, Group.SECOND_HALF, latents(5), guidance(5), PROMPT)
POPULATE_ALONE = PopulateRequest(
    context(), Timeline.of(6, ChainMode.AUTOREGRESSIVE), 4, latents(4), guidance(5), PROMPT
)
POPULATED = LatentsResult((5,), latents(1), STAGES)
BRIDGE = BridgeRequest(context(), TIMELINE, latents(1)[0], latents(3), guidance(2, 4, 6))
BRIDGED = BridgeResult(pictures(3), latents(1)[0], STAGES)
GUIDE = GuideRequest(context(), revision=4, indices=(2, 3), path=path(8), own_view_only=True)
GUIDED = GuideResult(guidance(2, 3), STAGES)
RECONSTRUCT = ReconstructRequest(context(), base=-1, pictures=pictures(2), path=path(2), frames=(0, 2**40))
RECONSTRUCTED = ReconstructResult(5, CLEARANCE, 2.75, 1234, 56, STAGES)
DECODE = DecodeRequest(context(), 17, 3, latents(3), "ab" * 32, guidance(2, 3))
DECODE_FIRST = DecodeRequest(context(), 0, 1, latents(1), "", None)
DECODED = DecodeResult(b"\0\0\0\1video", 4, 2 * W, 2 * H, STAGES)


def equal(a: Any, b: Any) -> bool:
    """Deep equality of dataclasses that hold arrays: same types, same dtypes, same bits, wherever those are."""
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray | Held) and isinstance(b, np.ndarray | Held):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)
