"""Depth of key frames: the recording's own, or measured by the geometry network of a model.

Writes `depth.npz`: `frames` [n] (indices in the clip) and `depth` float16 [n, H, W], z-depth, 0 where unknown. A measured depth
speaks of the network's own lens; it is as good as the model card says.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch

from teleworld.curation.clips import Clip
from teleworld.curation.pipeline import Decision, Verdict
from teleworld.generation.model import Model, load_model
from teleworld.generation.pixels import to_pixels
from teleworld.models.geometry.mirrored import infer_mirrored

FILE = "depth.npz"


@dataclass(frozen=True)
class Depth:
    """every: seconds between the frames measured. model: whose geometry network."""

    every: float = 0.5
    model: str = "nano"

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Write the depth; always keeps."""
        count = max(2, round(clip.seconds / self.every))
        if (episode := clip.episode) is not None:
            at = np.unique(np.linspace(0, clip.frames - 1, count).astype(int))
            depth, sure = episode.depth(at + clip.start), 1.0
        else:
            pictures, at = clip.read(count)
            depth, sure = _measure(_model(self.model), pictures)
        np.savez_compressed(folder / FILE, frames=at, depth=depth.astype(np.float16))
        return Decision(Verdict.KEEP, {"median": float(np.median(depth[depth > 0])), "confidence": sure})


@lru_cache(maxsize=1)
def _model(name: str) -> Model:
    return load_model(name)


@torch.inference_mode()
def _measure(model: Model, pictures: np.ndarray) -> tuple[np.ndarray, float]:
    lens = model.spec.lens
    depths, sure = [], []
    for picture in pictures:
        small = cv2.resize(picture, (lens.width, lens.height), interpolation=cv2.INTER_AREA)
        estimate = infer_mirrored(
            model.geometry,
            to_pixels(small[None])[0].transpose(0, 1),
            torch.from_numpy(lens.at_pitch(0.0))[None],
            torch.eye(4, dtype=torch.float64)[None],
            torch.zeros(1, lens.height, lens.width),
        )
        depths.append(estimate.depth[0].numpy())
        sure.append(float(estimate.confidence.mean()))
    return np.stack(depths), float(np.mean(sure))
