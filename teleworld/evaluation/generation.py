"""Generated walks beside the engine's own pictures of the same way."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from teleworld.evaluation.camera_control import camera_errors
from teleworld.evaluation.metrics import depth_error, neighbour_correlation, overlap, psnr, seam_ratio, sharpness
from teleworld.evaluation.rollout import Roller, Walk
from teleworld.evaluation.routes import Recorded
from teleworld.evaluation.samples import Start
from teleworld.evaluation.smooth_fill import smoothly_filled
from teleworld.generation.model import Model
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


def generate(roller: Roller, start: Start, seed: int) -> Pair:
    """The walk along the recorded cameras."""
    walk = Walk.of(roller.walk(start.picture, Recorded(start.path), roller.prompt(start.caption), seed))
    return Pair(start, walk, np.array(start.episode.rgb[start.span])[: len(walk.frames)])


def against_engine(pair: Pair, timeline: Timeline, fps: float) -> dict[str, float]:
    """How a walk compares with the truth.

    psnr_*, guidance_*, hole_psnr_*, hole_guidance_*: dB at each horizon, of the generated frame and of the guidance, filled
    smoothly, on all pixels and on those that the memory did not know. sharpness: share of the true gradient energy.
    seam: see `seam_ratio`. depth_abs_rel, depth_scale: of the key frames as the loop measured them. mask_common,
    mask_union: moving pixels, against the engine's own, which move as they like.
    """
    walk, truth = pair.walk, pair.truth
    figures: dict[str, float] = {}
    for horizon in HORIZONS_S:
        at = slice(round(horizon * fps) - 1, round(horizon * fps))
        holes = ~walk.mask[at]
        for name, shown in (("psnr", walk.frames[at]), ("guidance", smoothly_filled(walk.guidance[at], ~holes))):
            figures[f"{name}_{horizon:g}s"] = psnr(shown, truth[at])
            figures[f"hole_{name}_{horizon:g}s"] = psnr(shown, truth[at], holes)
    figures["sharpness"] = sharpness(walk.frames, truth)
    step = timeline.frames_per_segment
    figures["seam"] = seam_ratio(walk.frames, list(range(step, len(walk.frames), step)))
    frames = np.array(walk.keys) + pair.start.frame
    figures["depth_abs_rel"], figures["depth_scale"] = depth_error(walk.depth, pair.start.episode.depth(frames))
    common, union = overlap(walk.dynamic, pair.start.episode.dynamic(frames))
    return figures | {"mask_common": common, "mask_union": union}


def camera_control(pair: Pair) -> dict[str, float]:
    """rotation, direction: degrees between commanded and estimated motion over `CAMERA_STEP` frames, at the size after
    super-resolution, the median of the walk, since the estimator is lost now and then (a flat wall has no unique motion).
    true_rotation, true_direction: the same on the engine's own pictures, which tells what the estimator cannot do better.
    """
    path, made = pair.start.path[slice(1, None)], pair.walk.sharp
    path = CameraPath(path.camera_to_world, path.intrinsics * (made.shape[1] / pair.truth.shape[1]))
    true = np.array(pair.start.episode.rgb_high[pair.start.span])
    figures: dict[str, float] = {}
    for prefix, pictures in (("", made), ("true_", true)):
        found = camera_errors(pictures, path, CAMERA_STEP)
        for name in ("rotation", "direction"):
            values = [getattr(error, name) for error in found if error and np.isfinite(getattr(error, name))]
            figures[f"{prefix}{name}"] = float(np.median(values)) if values else float("nan")
        figures[f"{prefix}found"] = sum(error is not None for error in found) / len(found)
    return figures


def sampled_segment(
    model: Model, timeline: Timeline, start: Start, steps: int
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Two samples of the first segment with `steps` sampling steps.

    Figures: sharpness (share of the true gradient energy), and coherence: the correlation across tokens of the difference of
    the two samples, over that of the true latents; near 0 means that each token is sampled by itself. Arrays: `latents` of
    the first sample and the `true` ones, float32 [n, C, h, w].
    """
    roller = Roller(model.sampled(replace(model.sampling, steps=steps)), timeline)
    path = start.path[slice(0, 1 + timeline.frames_per_segment)]
    prompt = roller.prompt(start.caption)
    first, second = (next(roller.walk(start.picture, Recorded(path), prompt, seed)) for seed in (0, 1))
    true, truth = _true_latents(model, start, len(first.frames)), np.array(start.episode.rgb[start.span])
    token = model.dit.config.patch[-1]
    figures = {
        "sharpness": sharpness(first.frames, truth[: len(first.frames)]),
        "coherence": neighbour_correlation(first.latents - second.latents, token) / neighbour_correlation(true, token),
    }
    return figures, {"latents": first.latents, "true": true}


@torch.inference_mode()
def _true_latents(model: Model, start: Start, frames: int) -> np.ndarray:
    """float32 [n, C, h, w] of the frames behind the start picture."""
    pictures = np.concatenate([start.picture[None], start.episode.rgb[start.span]])[: 1 + frames]
    return model.vae.encode(to_pixels(pictures))[0, :, 1:].transpose(0, 1).numpy()
