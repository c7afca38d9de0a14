"""A sentence per clip from what was measured: how the camera moves, how much moves by itself, and the recording's own words.

Writes `caption.txt`. It describes motion, not things: a vision-language model that does is a stage of your own (`module:Class`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teleworld.curation.clips import Clip
from teleworld.curation.pipeline import Decision, Verdict
from teleworld.curation.stages.cameras import FILE as CAMERAS
from teleworld.curation.stages.masks import FILE as MASKS
from teleworld.curation.stages.masks import read_masks

FILE = "caption.txt"


@dataclass(frozen=True)
class Captions:
    """turn: degrees over the clip from which on the camera turns. busy: share of moving pixels from which on much moves."""

    turn: float = 15.0
    busy: float = 0.05

    def judge(self, clip: Clip, folder: Path) -> Decision:
        """Write the caption; always keeps."""
        parts = []
        if (episode := clip.episode) is not None and (words := episode.caption(clip.start + clip.frames // 2)):
            parts.append(words.rstrip(". "))
        if (folder / CAMERAS).exists():
            with np.load(folder / CAMERAS) as file:
                parts.append(self._camera(file["camera_to_world"]))
        if (folder / MASKS).exists():
            parts.append(self._objects(float(read_masks(folder).mean())))
        caption = ". ".join(part[:1].upper() + part[1:] for part in parts) + "."
        (folder / FILE).write_text(caption + "\n", encoding="utf-8")
        return Decision(Verdict.KEEP, {"words": len(caption.split())})

    def _camera(self, poses: NDArray[np.float64]) -> str:
        forward = poses[:, :3, 2]
        yaw = np.unwrap(np.arctan2(forward[:, 0], forward[:, 2]))
        turned = float(np.degrees(yaw[-1] - yaw[0]))
        steps = np.diff(poses[:, :3, 3], axis=0)
        size = float(np.abs(steps).sum())
        names = []
        if size > 1e-6:
            local = np.einsum("fij,fi->fj", poses[:-1, :3, :3], steps).sum(axis=0)
            side, ahead = float(local[0]), float(local[2])
            if max(abs(side), abs(ahead)) > 0.3 * size:
                along = ("forward" if ahead > 0 else "backward") if abs(ahead) >= abs(side) else "sideways"
                names.append(f"moves {along}")
        if abs(turned) >= self.turn:
            names.append(f"turns {'right' if turned > 0 else 'left'}")
        return "the camera " + (" and ".join(names) if names else "wanders")

    def _objects(self, share: float) -> str:
        if share < 0.002:
            return "nothing else moves"
        return "much moves by itself" if share >= self.busy else "something small moves by itself"
