"""Motion filters: the camera must move, but not shake; and something may be asked to move by itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teleworld.curation.clips import Clip
from teleworld.curation.flow import motions
from teleworld.curation.pipeline import Decision, Verdict


@dataclass(frozen=True)
class CameraMotion:
    """samples, width: of the pictures compared. least, most: mean displacement by the camera in picture widths a second.
    shake: largest share of samples in which the camera could not be followed at all."""

    samples: int = 16
    width: int = 240
    least: float = 0.01
    most: float = 3.0
    shake: float = 0.5

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Reject still and unfollowable cameras."""
        pictures, at = clip.read(self.samples, self.width)
        seconds = np.diff(at) / clip.fps
        speeds = np.array([motion.camera for motion in motions(pictures)]) / self.width / seconds
        lost = float(np.isnan(speeds).mean())
        speed = float(np.nanmedian(speeds)) if lost < 1 else float("nan")
        reason = ""
        if lost > self.shake:
            reason = "the camera cannot be followed"
        elif speed < self.least:
            reason = "the camera hardly moves"
        elif speed > self.most:
            reason = "the camera moves too fast"
        return Decision(
            Verdict.REJECT if reason else Verdict.KEEP,
            {"widths_per_second": np.nan_to_num(speed), "lost": lost},
            reason,
        )


@dataclass(frozen=True)
class MovingObjects:
    """Looks at pairs of neighbouring frames. least: smallest share of pixels that move by themselves in the best pairs;
    0 keeps still scenes and only measures. residual: picture widths between two frames from which on a pixel moves."""

    samples: int = 12
    width: int = 240
    least: float = 0.0
    residual: float = 0.006

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Reject clips in which too little moves."""
        shares = []
        for first in np.linspace(0, clip.frames - 2, min(self.samples, clip.frames - 1)).astype(int):
            pair = Clip(clip.source, clip.start + int(first), 2, clip.fps).read(None, self.width)[0]
            (motion,) = motions(pair)
            shares.append(float((motion.residual > self.residual * self.width).mean()))
        share = float(np.quantile(shares, 0.75))
        enough = share >= self.least
        return Decision(
            Verdict.KEEP if enough else Verdict.REJECT,
            {"moving": share},
            "" if enough else "nothing moves by itself",
        )
