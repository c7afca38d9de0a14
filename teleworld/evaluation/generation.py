"""Generated walks beside the engine's own pictures of the same way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from teleworld.evaluation.camera_control import camera_error
from teleworld.evaluation.metrics import (
    Figure,
    depth_error,
    frechet,
    neighbour_correlation,
    overlap,
    psnr,
    seam_ratio,
    sharpness,
)
from teleworld.evaluation.rollout import Roller, Walk
from teleworld.evaluation.samples import Start
from teleworld.generation.model import Model, Sampling
from teleworld.generation.pixels import to_pixels
from teleworld.world.camera import CameraPath
from teleworld.world.timeline import Timeline

HORIZONS_S = (0.5, 1.0, 2.0)
CAMERA_STEP = 4


@dataclass(frozen=True, eq=False)
class Pair:
    """A generated walk and the true frames uint8 [F, H, W, 3] of the same cameras."""

    start: Start
    walk: Walk
    truth: np.ndarray


def generate(roller: Roller, starts: Sequence[Start]) -> list[Pair]:
    """One walk from each start; the seed is its place in the list."""
    pairs = []
    for number, start in enumerate(starts):
        walk = Walk.of(roller.walk(start.picture, start.path, roller.prompt(start.caption), number))
        pairs.append(Pair(start, walk, np.array(start.episode.rgb[start.span])[: len(walk.frames)]))
    return pairs


def against_engine(pairs: Sequence[Pair], fps: float, boundaries: Sequence[int]) -> dict[str, Figure | float]:
    """How the walks compare with the truth.

    psnr_*, guidance_*, hole_*, hole_guidance_*: dB at each horizon, of the generated frame and of the filled guidance it
    was given. sharpness: share of the true gradient energy. seam: see `seam_ratio`. depth_abs_rel: of the key frames as
    the loop measured them. mask_iou: of moving pixels.
    """
    rows: dict[str, list[float]] = {}
    common = union = 0
    for pair in pairs:
        walk, truth = pair.walk, pair.truth
        for horizon in HORIZONS_S:
            at = slice(round(horizon * fps) - 1, round(horizon * fps))
            holes = ~walk.mask[at]
            for name, shown in (("psnr", walk.frames), ("guidance", walk.guidance)):
                rows.setdefault(f"{name}_{horizon:g}s", []).append(psnr(shown[at], truth[at]))
                rows.setdefault(f"hole_{name}_{horizon:g}s", []).append(psnr(shown[at], truth[at], holes))
        rows.setdefault("sharpness", []).append(sharpness(walk.frames, truth))
        rows.setdefault("seam", []).append(seam_ratio(walk.frames, list(boundaries)))
        frames = np.array(walk.keys) + pair.start.frame
        error, scale = depth_error(walk.depth, pair.start.episode.depth(frames))
        rows.setdefault("depth_abs_rel", []).append(error)
        rows.setdefault("depth_scale", []).append(scale)
        both = overlap(walk.dynamic, pair.start.episode.dynamic(frames))
        common, union = common + both[0], union + both[1]
    return {name: Figure.of(values) for name, values in rows.items()} | {"mask_iou": common / max(union, 1)}


def camera_control(pairs: Sequence[Pair]) -> dict[str, Figure]:
    """Degrees between commanded and estimated motion over `CAMERA_STEP` frames, at the size after super-resolution.

    Each walk counts by its median, since the estimator is lost now and then (a flat wall has no unique motion). true_*:
    the same on the engine's own pictures, which tells what the estimator cannot do better.
    """
    rows: dict[str, list[float]] = {}
    for pair in pairs:
        path, made = pair.start.path[slice(1, None)], pair.walk.sharp
        path = CameraPath(path.camera_to_world, path.intrinsics * (made.shape[1] / pair.truth.shape[1]))
        true = np.array(pair.start.episode.rgb_high[pair.start.span])
        for prefix, pictures in (("", made), ("true_", true)):
            found = [
                camera_error(pictures, path, first, first + CAMERA_STEP)
                for first in range(0, len(made) - CAMERA_STEP, CAMERA_STEP)
            ]
            for name in ("rotation", "direction"):
                values = [getattr(error, name) for error in found if error and np.isfinite(getattr(error, name))]
                rows.setdefault(f"{prefix}{name}", []).append(float(np.median(values)) if values else float("nan"))
    return {name: Figure.of(values) for name, values in rows.items()}


def sampling_steps(
    model: Model, timeline: Timeline, starts: Sequence[Start], steps: Sequence[int]
) -> dict[str, Figure | float]:
    """Samples of the first segment by number of steps: sharpness (share of the true gradient energy), variance of the latents
    over the true one's, Fréchet distance of latent cells from the true ones, and the correlation between neighbouring
    cells of the difference of two samples, over that of the true latents (a sample is coherent when it is not small)."""
    figures: dict[str, Figure | float] = {}
    true = [_true_latents(model, timeline, start) for start in starts]
    for count in steps:
        roller = Roller(model.sampled(Sampling(count, model.sampling.shift)), timeline)
        walks = [
            [next(roller.walk(s.picture, _first(s, timeline), roller.prompt(s.caption), seed)) for seed in (0, 1)]
            for s in starts
        ]
        one = np.stack([first.latents for first, _ in walks])
        figures[f"sharpness_{count}"] = Figure.of(
            [
                sharpness(first.frames, np.array(start.episode.rgb[start.span])[: len(first.frames)])
                for (first, _), start in zip(walks, starts, strict=True)
            ]
        )
        figures[f"variance_{count}"] = float(one.var() / np.stack(true).var())
        figures[f"frechet_{count}"] = frechet(_cells(one), _cells(np.stack(true)))
        figures[f"coherence_{count}"] = Figure.of(
            [
                neighbour_correlation(first.latents - second.latents) / neighbour_correlation(latents)
                for (first, second), latents in zip(walks, true, strict=True)
            ]
        )
    return figures


def _first(start: Start, timeline: Timeline) -> CameraPath:
    return start.path[slice(0, 1 + timeline.frames_per_segment)]


@torch.inference_mode()
def _true_latents(model: Model, timeline: Timeline, start: Start) -> np.ndarray:
    """float32 [n, C, h, w] of the frames that the first segment shows."""
    pictures = np.concatenate([start.picture[None], start.episode.rgb[start.span]])[: 1 + timeline.frames_per_segment]
    return model.vae.encode(to_pixels(pictures))[0, :, 1:].transpose(0, 1).numpy()


def _cells(latents: np.ndarray) -> np.ndarray:
    """[..., C, h, w] -> [cells, C]."""
    return np.moveaxis(latents, -3, -1).reshape(-1, latents.shape[-3])
