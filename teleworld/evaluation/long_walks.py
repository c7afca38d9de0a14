"""What happens over a minute: drift, and whether a place, and who stands in it, is the same when the walk comes back."""

from __future__ import annotations

import numpy as np

from teleworld.evaluation.depth import measure
from teleworld.evaluation.generation import Pair
from teleworld.evaluation.metrics import depth_error, drift, overlap, psnr, sharpness
from teleworld.evaluation.rollout import Roller, Walk
from teleworld.evaluation.routes import Played, Recorded
from teleworld.evaluation.samples import Start, full_turn
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.points import EMPTY_REVISION
from teleworld.memory.store import LocalMemoryStore
from teleworld.world.camera import CameraPath
from teleworld.world.controls import Keys

LOOP_S = 20.0
LAST_S = 10.0


def drift_figures(pair: Pair, fps: float) -> dict[str, float]:
    """Slopes per minute, relative to the mean, of colour mean, contrast and sharpness, beyond those that the true pictures
    have, which a walk through dark and bright rooms has of itself."""
    made, true = drift(pair.walk.frames, fps), drift(pair.truth, fps)
    return {name: slope - true[name] for name, slope in made.items()}


def play(roller: Roller, start: Start, seed: int) -> tuple[dict[str, float], Walk]:
    """A walk by the recording's keys, halted by the walls of the world that is made. Slopes per minute as `drift`; last: gradient
    energy of the last ten seconds over that of the whole recorded walk."""
    spec = roller.model.spec
    held = [Keys(int(keys)) for keys in start.episode.keys[start.span]]
    walk = Walk.of(roller.walk(start.picture, Played(held, spec.gait, spec.lens), roller.prompt(start.caption), seed))
    figures = drift(walk.frames, spec.fps)
    figures["last"] = sharpness(walk.frames[-round(LAST_S * spec.fps) :], start.episode.rgb[start.span])
    return figures, walk


def along_the_walk(pair: Pair, fps: float, every_s: float = 2.0) -> dict[str, list[float]]:
    """By time: `seconds`, `coverage` (share of the pixels that the memory knew), `residual` (AbsRel of the loop's depth)."""
    step = round(every_s * fps)
    walk = pair.walk
    rows: dict[str, list[float]] = {"seconds": [], "coverage": [], "residual": []}
    for first in range(0, len(walk.frames) - step + 1, step):
        keys = [row for row, frame in enumerate(walk.keys) if first < frame <= first + step]
        truth = pair.start.episode.depth(np.array([walk.keys[row] for row in keys]) + pair.start.frame)
        rows["seconds"].append((first + step / 2) / fps)
        rows["coverage"].append(float(walk.mask[first : first + step].mean()))
        rows["residual"].append(depth_error(walk.depth[keys], truth)[0])
    return rows


def revisit(roller: Roller, start: Start, path: CameraPath, seed: int) -> dict[str, float]:
    """`psnr`: dB between the last frame of a path that ends at the camera it began with, and the start picture."""
    *_, last = roller.walk(start.picture, Recorded(path), roller.prompt(start.caption), seed, last_only=True)
    return {"psnr": psnr(last.frames[-1:], start.picture[None])}


def movers_return(roller: Roller, start: Start, frames: int, seed: int) -> dict[str, float]:
    """Whether those who stood in the start picture stand there after a full turn: `common` and `union` of the pixels that
    the network sees moving in the start picture and in the last key frame, which has the same camera; `psnr` there."""
    before = measure(Reconstructor(roller.model, Memory(LocalMemoryStore())), start, [0], EMPTY_REVISION)
    path, prompt = full_turn(start, frames), roller.prompt(start.caption)
    *_, last = roller.walk(start.picture, Recorded(path), prompt, seed, last_only=True)
    common, union = overlap(last.seen.dynamic[-1], before.dynamic[0])
    return {
        "common": common,
        "union": union,
        "psnr": psnr(last.frames[-1:], start.picture[None], start.episode.dynamic(np.array([start.frame]))),
    }
