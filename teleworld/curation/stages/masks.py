"""Masks of what moves by itself, per frame: `masks.npz` with `dynamic` packed bits uint8 [F, H, ceil(W / 8)] and `size`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from teleworld.curation.clips import Clip
from teleworld.curation.flow import motions
from teleworld.curation.pipeline import Decision, Verdict

FILE = "masks.npz"


@dataclass(frozen=True)
class MotionMasks:
    """residual: picture widths between two frames from which on a pixel moves by itself. smallest: least size of a moving
    region in pixels. A recording's own masks are taken as they are."""

    width: int = 320
    residual: float = 0.006
    smallest: int = 60

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Write the masks; always keeps."""
        if (episode := clip.episode) is not None:
            masks = episode.dynamic(clip.span)
        else:
            masks = self._by_flow(clip.read(None, self.width)[0])
        np.savez_compressed(folder / FILE, dynamic=np.packbits(masks, axis=-1), size=np.array(masks.shape))
        return Decision(Verdict.KEEP, {"moving": float(masks.mean())})

    def _by_flow(self, pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
        masks = []
        for motion in motions(pictures):
            raw = (motion.residual > self.residual * pictures.shape[2]).astype(np.uint8)
            closed = cv2.morphologyEx(cv2.morphologyEx(raw, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
            count, regions, sizes, _ = cv2.connectedComponentsWithStats(closed)
            large = [number for number in range(1, count) if sizes[number, cv2.CC_STAT_AREA] >= self.smallest]
            masks.append(np.isin(regions, large))
        masks.append(masks[-1] if masks else np.zeros(pictures.shape[1:3], bool))
        return np.stack(masks)


def read_masks(folder: Path) -> NDArray[np.bool_]:
    """bool [F, H, W] as `MotionMasks` wrote it."""
    with np.load(folder / FILE) as file:
        frames, height, width = file["size"]
        return np.unpackbits(file["dynamic"], axis=-1, count=int(width)).astype(bool).reshape(frames, height, width)
