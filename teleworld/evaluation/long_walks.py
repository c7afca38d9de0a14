"""What happens over a minute: drift, and whether a place is the same when the walk comes back to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from teleworld.evaluation.generation import Pair
from teleworld.evaluation.metrics import Figure, drift, psnr
from teleworld.evaluation.rollout import Roller, Walk
from teleworld.evaluation.samples import Start
from teleworld.world.camera import CameraPath

LOOP_S = 20.0


def drift_figures(pairs: Sequence[Pair], fps: float) -> dict[str, Figure]:
    """Absolute slope per minute of colour mean, contrast and sharpness, beyond the slope that the true pictures have."""
    rows: dict[str, list[float]] = {}
    for pair in pairs:
        made, true = drift(pair.walk.frames, fps), drift(pair.truth, fps)
        for name, slope in made.items():
            rows.setdefault(name, []).append(abs(slope - true[name]))
    return {name: Figure.of(values) for name, values in rows.items()}


def along_the_walk(pairs: Sequence[Pair], fps: float, every_s: float = 2.0) -> dict[str, list[float]]:
    """Coverage and relative depth residual by time: `seconds`, `coverage` (share of seen pixels), `depth` (AbsRel)."""
    step = round(every_s * fps)
    seconds, coverage, residual = [], [], []
    for first in range(0, len(pairs[0].walk.frames) - step + 1, step):
        seconds.append((first + step / 2) / fps)
        coverage.append(float(np.mean([pair.walk.mask[first : first + step].mean() for pair in pairs])))
        errors = []
        for pair in pairs:
            rows = [row for row, frame in enumerate(pair.walk.keys) if first < frame <= first + step]
            truth = pair.start.episode.depth(np.array([pair.walk.keys[row] for row in rows]) + pair.start.frame)
            known = truth > 0
            errors.append(float((np.abs(pair.walk.depth[rows] - truth)[known] / truth[known]).mean()))
        residual.append(float(np.mean(errors)))
    return {"seconds": seconds, "coverage": coverage, "depth": residual}


def revisit(roller: Roller, starts: Sequence[Start], paths: Sequence[CameraPath]) -> Figure:
    """dB between the last frame of each path, which ends at the camera it began with, and the start picture."""
    values = []
    for number, (start, path) in enumerate(zip(starts, paths, strict=True)):
        walk = Walk.of(roller.walk(start.picture, path, roller.prompt(start.caption), number))
        values.append(psnr(walk.frames[-1:], start.picture[None]))
    return Figure.of(values)
