"""Technical quality: sharpness, exposure, contrast and frozen frames, by plain image statistics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from teleworld.curation.clips import Clip
from teleworld.curation.pipeline import Decision, Verdict

WIDTH = 320


@dataclass(frozen=True)
class Quality:
    """samples: frames looked at. size: least height in pixels. blur: least variance of the Laplacian at 320 pixels width.
    dark, bright: bounds of the mean of 0..255. contrast: least standard deviation. frozen: largest share of neighbouring
    samples that do not differ."""

    samples: int = 12
    size: int = 90
    blur: float = 40.0
    dark: float = 20.0
    bright: float = 235.0
    contrast: float = 12.0
    frozen: float = 0.5

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Reject at the first bound that is missed."""
        height = clip.read(1)[0].shape[1]
        pictures, _ = clip.read(self.samples, WIDTH)
        grey = np.stack([cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures])
        changes = np.abs(np.diff(grey.astype(np.float32), axis=0)).mean(axis=(1, 2))
        scores = {
            "height": float(height),
            "blur": float(np.median([cv2.Laplacian(one, cv2.CV_64F).var() for one in grey])),
            "mean": float(grey.mean()),
            "contrast": float(np.median(grey.std(axis=(1, 2)))),
            "frozen": float((changes < 0.3).mean()) if len(changes) else 1.0,
        }
        problems = {
            "too small": scores["height"] < self.size,
            "too dark": scores["mean"] < self.dark,
            "too bright": scores["mean"] > self.bright,
            "blurred": scores["blur"] < self.blur,
            "flat": scores["contrast"] < self.contrast,
            "frozen": scores["frozen"] > self.frozen,
        }
        reason = next((problem for problem, missed in problems.items() if missed), "")
        return Decision(Verdict.REJECT if reason else Verdict.KEEP, scores, reason)
