"""Samples for the geometry network: key frames of a walk, and what the memory would have rendered for them.

The guidance is the engine's depth of earlier frames, spoiled and warped into the commanded poses, so that the network
meets at training what it meets in the loop: scale errors, bent walls, ghosts of moving things, holes, wrong poses, and
blurred pictures. A share of the samples has no guidance at all: that is how a world starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numba
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from teleworld.training.dataset import Episode
from teleworld.world.camera import Array, CameraPath, pose
from teleworld.world.errors import InvalidInput

Random = np.random.Generator
Depth = NDArray[np.float32]
# A key frame with at least so many moving pixels counts as one that shows something moving.
_MOVING_PIXELS = 30


@dataclass(frozen=True)
class SampleStyle:
    """How samples are drawn and spoiled.

    spacing: frames between neighbouring key frames, at least and at most. past: how many frames back sources lie at
    most. sources: earlier frames that the memory holds, at least and at most. bare: share of samples without guidance.
    moving: share of samples that are sought among frames with moving things. wrong_pose: share with disturbed poses.
    clean: share with undisturbed pictures. open_view: share that must not look at a wall from up close, where one
    picture hardly tells the depth and few walks begin; open_from: the median depth in metres of such a view.
    spoil: strength of the guidance's errors, 1 = up to about 10 %. A walk's own memory is off by 20 to 30 %, since what was
    misjudged from afar is further off the nearer one comes; a network that saw less than that believes its memory too much.
    flip: share that is mirrored.
    """

    spacing: tuple[int, int] = (4, 12)
    past: int = 60
    sources: tuple[int, int] = (1, 4)
    bare: float = 0.15
    moving: float = 0.4
    wrong_pose: float = 0.15
    clean: float = 0.6
    open_view: float = 0.85
    open_from: float = 1.6
    spoil: float = 5.0
    flip: float = 0.5


@dataclass(frozen=True, eq=False)
class GeometryBatch:
    """B samples of S key frames.

    pictures [B, S, 3, H, W] in [-1, 1]; intrinsics [B, S, 4]; camera_to_world [B, S, 4, 4] float64, as commanded;
    guidance [B, S, H, W] metres, 0 = hole; depth [B, S, H, W] true metres, 0 = unknown; dynamic [B, S, H, W] bool;
    correction [B, S, 6], true pose = commanded pose * correction (translation in metres, rotation vector in radians).
    """

    pictures: Tensor
    intrinsics: Tensor
    camera_to_world: Tensor
    guidance: Tensor
    depth: Tensor
    dynamic: Tensor
    correction: Tensor


@numba.njit(cache=True, nogil=True)
def forward_warp(depth, lens, to_target, target_lens, canvas):  # type: ignore[no-untyped-def]
    """Splat a z-depth map [H, W] (0 = unknown) into `canvas` [H, W] of inverse depths, nearest wins.

    lens, target_lens: (fx, fy, cx, cy) of the two cameras. to_target: [4, 4], source camera to target camera. A pixel
    covers as many target pixels as its surface is enlarged, seven across at most.
    """
    height, width = depth.shape
    for v in range(height):
        for u in range(width):
            z = depth[v, u]
            if z <= 0:
                continue
            x, y = (u + 0.5 - lens[2]) / lens[0] * z, (v + 0.5 - lens[3]) / lens[1] * z
            far = to_target[2, 0] * x + to_target[2, 1] * y + to_target[2, 2] * z + to_target[2, 3]
            if far < 0.1:
                continue
            right = to_target[0, 0] * x + to_target[0, 1] * y + to_target[0, 2] * z + to_target[0, 3]
            below = to_target[1, 0] * x + to_target[1, 1] * y + to_target[1, 2] * z + to_target[1, 3]
            column = target_lens[0] * right / far + target_lens[2]
            row = target_lens[1] * below / far + target_lens[3]
            half = min(3.5, 0.55 * max(1.0, z / far))
            first_u, last_u = int(np.floor(column - half + 0.5)), int(np.ceil(column + half - 0.5))
            first_v, last_v = int(np.floor(row - half + 0.5)), int(np.ceil(row + half - 0.5))
            for b in range(max(first_v, 0), min(last_v, height)):
                for a in range(max(first_u, 0), min(last_u, width)):
                    if 1.0 / far > canvas[b, a]:
                        canvas[b, a] = 1.0 / far


def render_depth(sources: Sequence[tuple[Depth, Array, Array]], path: CameraPath) -> Depth:
    """What source frames (depth, intrinsics, camera_to_world) show from `path`: [F, H, W] metres, 0 = hole."""
    height, width = sources[0][0].shape
    canvas = np.zeros((len(path), height, width), np.float32)
    for frame in range(len(path)):
        from_world = np.linalg.inv(path.camera_to_world[frame])
        for depth, lens, camera in sources:
            forward_warp(depth, lens, from_world @ camera, path.intrinsics[frame], canvas[frame])
    return np.divide(1.0, canvas, out=np.zeros_like(canvas), where=canvas > 0)


def spoil_depth(depth: Depth, random: Random, strength: float) -> Depth:
    """Errors that a reconstructed depth map [H, W] has: of scale, bent surfaces, misplaced patches, lost pixels."""
    height, width = depth.shape
    scale = np.exp(np.clip(random.normal(0, 0.03), -0.1, 0.1) * strength)
    bend = _smooth_noise(random, (3, 5), depth.shape) * 0.03 + _smooth_noise(random, (12, 20), depth.shape) * 0.02
    spoiled = depth * (scale * np.exp(np.clip(bend, -0.15, 0.15) * strength)).astype(np.float32)
    for _ in range(random.poisson(1.5 * strength)):
        top, left = random.integers(height - 8), random.integers(width - 8)
        tall, wide = random.integers(3, 24), random.integers(3, 24)
        spoiled[top : top + tall, left : left + wide] *= np.float32(np.exp(random.normal(0, 0.4)))
    lost = random.random() * 0.3
    spoiled[_smooth_noise(random, (24, 40), depth.shape) < np.quantile([-2.0, 2.0], lost)] = 0
    # A reconstructed edge is off by a pixel, the oftener the stronger the errors.
    if random.random() < 0.5 * strength:
        spoiled = np.roll(spoiled, int(random.integers(-1, 2)), axis=int(random.integers(2)))
    return np.ascontiguousarray(spoiled)


def draw_batch(
    episodes: Sequence[Episode], random: Random, samples: int, frames: int, style: SampleStyle = SampleStyle()
) -> GeometryBatch:
    """`samples` samples of `frames` key frames each. Raises InvalidInput when no episode is long enough."""
    drawn = [_draw_sample(episodes, random, frames, style) for _ in range(samples)]
    pictures, lenses, cameras, guidance, depth, dynamic, correction = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*drawn, strict=True)
    )
    seen = pictures.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    clean = torch.from_numpy(random.random(samples) < style.clean)
    spoiled = spoil_pictures(seen, random)
    return GeometryBatch(
        pictures=torch.where(clean[:, None, None, None, None], seen, spoiled).contiguous(),
        intrinsics=lenses.float(),
        camera_to_world=cameras,
        guidance=guidance,
        depth=depth,
        dynamic=dynamic,
        correction=correction.float(),
    )


def crop_batch(batch: GeometryBatch, top: int, left: int, height: int, width: int) -> GeometryBatch:
    """The same cameras with smaller images: the principal points move, nothing else does."""
    cut = lambda part: part[..., top : top + height, left : left + width].contiguous()  # noqa: E731
    return replace(
        batch,
        pictures=cut(batch.pictures),
        intrinsics=batch.intrinsics - torch.tensor([0.0, 0.0, left, top]),
        guidance=cut(batch.guidance),
        depth=cut(batch.depth),
        dynamic=cut(batch.dynamic),
    )


def spoil_pictures(pictures: Tensor, random: Random) -> Tensor:
    """Pictures [B, S, 3, H, W] in [-1, 1] as a generator would draw them: other light, blur, blotches, grain."""
    batch, frames = pictures.shape[:2]
    pick = lambda low, high, *shape: torch.from_numpy(random.uniform(low, high, shape)).float()  # noqa: E731
    gamma = pick(-0.2, 0.2, batch, 1, 1, 1, 1).exp()
    gain = pick(-0.15, 0.1, batch, 1, 1, 1, 1).exp() * pick(-0.06, 0.06, batch, frames, 3, 1, 1).exp()
    light = ((pictures + 1) / 2).pow(gamma) * gain
    flat = light.flatten(0, 1)
    soft = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    coarse = F.interpolate(F.avg_pool2d(flat, 2), scale_factor=2.0, mode="bilinear", align_corners=False)
    sharpness = torch.from_numpy(random.dirichlet([1.0, 1.0, 1.0], batch)).float()
    sharpness = sharpness.repeat_interleave(frames, 0)[:, :, None, None, None]
    mixed = sharpness[:, 0] * flat + sharpness[:, 1] * soft + sharpness[:, 2] * coarse
    noise = torch.from_numpy(random.standard_normal((batch * frames, 3, 12, 20), np.float32))
    blotches = F.interpolate(noise, size=flat.shape[-2:], mode="bilinear", align_corners=False)
    grain = torch.from_numpy(random.standard_normal(mixed.shape, np.float32))
    amount = pick(0, 1, batch * frames, 2, 1, 1, 1)
    mixed = mixed + 0.03 * amount[:, 0] * blotches + 0.015 * amount[:, 1] * grain
    return (mixed * 2 - 1).clamp(-1, 1).unflatten(0, (batch, frames))


def mirror_pose(poses: Array) -> Array:
    """Poses [..., 4, 4] of the world seen in a mirror that swaps left and right (x -> -x)."""
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    return mirror @ poses @ mirror


def _draw_sample(
    episodes: Sequence[Episode], random: Random, frames: int, style: SampleStyle
) -> tuple[NDArray[Any], ...]:
    """The fields of `GeometryBatch` for one sample, in order; pictures still uint8 [S, H, W, 3]."""
    episode, chosen = _key_frames(episodes, random, frames, style)
    path = episode.cameras[chosen]
    depth, dynamic, pictures = episode.depth(chosen), episode.dynamic(chosen), np.array(episode.rgb[chosen])
    correction = np.zeros((frames, 6))
    cameras = path.camera_to_world
    if random.random() < style.wrong_pose:
        cameras, correction = _disturb(cameras, random)
    commanded = CameraPath(cameras, path.intrinsics)
    guidance = np.zeros_like(depth)
    if random.random() >= style.bare:
        guidance = _guidance(episode, chosen, commanded, random, style)
    lenses = path.intrinsics.copy()
    if random.random() < style.flip:
        pictures, depth = pictures[:, :, ::-1].copy(), depth[:, :, ::-1].copy()
        dynamic, guidance = dynamic[:, :, ::-1].copy(), guidance[:, :, ::-1].copy()
        lenses[:, 2] = depth.shape[2] - lenses[:, 2]
        cameras = mirror_pose(cameras)
        correction = correction * [-1, 1, 1, 1, -1, -1]
    return pictures, lenses, cameras, guidance, depth, dynamic, correction


def _key_frames(
    episodes: Sequence[Episode], random: Random, frames: int, style: SampleStyle
) -> tuple[Episode, NDArray[np.int64]]:
    """`_any_key_frames` that, as a rule, end with an open view."""
    tries = 6 if random.random() < style.open_view else 1
    for _ in range(tries):
        episode, chosen = _any_key_frames(episodes, random, frames, style)
        last = episode.depth(chosen[-1:])
        if (last > 0).any() and np.median(last[last > 0]) >= style.open_from:
            break
    return episode, chosen


def _any_key_frames(
    episodes: Sequence[Episode], random: Random, frames: int, style: SampleStyle
) -> tuple[Episode, NDArray[np.int64]]:
    """An episode and ascending frame numbers with gaps of `style.spacing`, the last one chosen first."""
    gaps = random.integers(style.spacing[0], style.spacing[1] + 1, frames - 1)
    back = int(gaps.sum())
    wanted = [episode for episode in episodes if len(episode) > back]
    if not wanted:
        raise InvalidInput("episodes", f"none holds {frames} key frames over {back + 1} frames")
    episode = wanted[random.integers(len(wanted))]
    last = int(random.integers(back, len(episode)))
    if random.random() < style.moving:
        moving = [(candidate, _moving_frames(candidate)) for candidate in wanted]
        moving = [(candidate, places[places >= back]) for candidate, places in moving]
        counts = np.cumsum([len(places) for _, places in moving])
        if counts[-1]:
            draw = int(random.integers(counts[-1]))
            which = int(np.searchsorted(counts, draw, side="right"))
            episode, places = moving[which]
            last = int(places[draw - (counts[which - 1] if which else 0)])
    return episode, np.concatenate([last - np.cumsum(gaps[::-1])[::-1], [last]]).astype(np.int64)


@lru_cache(maxsize=4096)
def _moving_frames(episode: Episode) -> NDArray[np.int64]:
    """The frames of an episode that show something moving."""
    return np.flatnonzero(episode.dynamic(slice(None)).sum(axis=(1, 2)) >= _MOVING_PIXELS)


def _guidance(
    episode: Episode, chosen: NDArray[np.int64], commanded: CameraPath, random: Random, style: SampleStyle
) -> Depth:
    """The memory's depth at the commanded cameras, from frames before the first new key frame."""
    new = int(random.integers(1, len(chosen) + 1))
    before = int(chosen[-new])
    count = int(random.integers(style.sources[0], style.sources[1] + 1))
    past = before - random.integers(style.spacing[0], style.past + 1, count)
    held = np.unique(np.clip(np.concatenate([past, chosen[:-new]]), 0, len(episode) - 1))
    ghosts = random.random() < 0.3
    sources = []
    for frame, depth, dynamic in zip(held, episode.depth(held), episode.dynamic(held), strict=True):
        spoiled = spoil_depth(np.where(dynamic & (not ghosts), np.float32(0), depth), random, style.spoil)
        sources.append((spoiled, episode.cameras.intrinsics[frame], episode.cameras.camera_to_world[frame]))
    return render_depth(sources, commanded)


def _disturb(cameras: Array, random: Random) -> tuple[Array, Array]:
    """Poses [F, 4, 4] as wrongly commanded, and the correction [F, 6] that leads back to the given, true ones."""
    frames = len(cameras)
    shift = np.clip(random.normal(0, 0.08, (frames, 3)), -0.25, 0.25) * [1, 0, 1]
    yaw = np.clip(random.normal(0, 0.015, frames), -0.05, 0.05)
    correction = np.concatenate([shift, np.zeros((frames, 1)), yaw[:, None], np.zeros((frames, 1))], axis=1)
    step = np.array([pose(x, y, z, turn) for (x, y, z), turn in zip(shift, yaw, strict=True)])
    return cameras @ np.linalg.inv(step), correction


def _smooth_noise(random: Random, grid: tuple[int, int], shape: tuple[int, ...]) -> Depth:
    """Unit-variance noise of a coarse grid, enlarged bilinearly to `shape` [H, W]."""
    coarse = torch.from_numpy(random.standard_normal(grid, np.float32))
    return F.interpolate(coarse[None, None], size=shape, mode="bilinear", align_corners=False)[0, 0].numpy()
