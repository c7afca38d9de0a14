"""How well the geometry network measures recorded frames: alone, and along a walk beside its own growing memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from teleworld.evaluation.metrics import Figure, depth_error, overlap
from teleworld.evaluation.rollout import EPOCH, WORLD
from teleworld.evaluation.samples import Start
from teleworld.generation.model import Model
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.world.work import ReconstructRequest, TaskContext

KEY_EVERY = 8


@torch.inference_mode()
def real_frames(model: Model, starts: Sequence[Start]) -> dict[str, Figure | float]:
    """Errors on true frames. first_*: of the first picture alone; *: of the key frames of a walk, two at a time, measured
    beside the memory that the earlier ones made. mask_iou: of moving pixels, over all of them together."""
    alone: list[float] = []
    alone_scale: list[float] = []
    errors: list[float] = []
    scales: list[float] = []
    common = union = 0
    for start in starts:
        reconstructor = Reconstructor(model, Memory(LocalMemoryStore()))
        keys = [0, *range(KEY_EVERY, start.frames + 1, KEY_EVERY)]
        for revision, batch in enumerate([keys[:1], *(keys[i : i + 2] for i in range(1, len(keys) - 1, 2))], start=-1):
            frames = np.array(batch) + start.frame
            request = ReconstructRequest(
                TaskContext(WORLD, EPOCH, 0, "evaluation", 1, 0, model.digest),
                revision,
                np.array(start.episode.rgb[frames]),
                start.path[batch],
                tuple(batch),
            )
            seen = reconstructor.measure(reconstructor.memory.field_at(WORLD, EPOCH, revision), request)
            reconstructor.memory.fuse_and_append(WORLD, EPOCH, revision, seen)
            error, scale = depth_error(seen.depth, start.episode.depth(frames))
            (alone if revision < 0 else errors).append(error)
            (alone_scale if revision < 0 else scales).append(scale)
            both = overlap(seen.dynamic, start.episode.dynamic(frames))
            common, union = common + both[0], union + both[1]
    return {
        "first_abs_rel": Figure.of(alone),
        "first_scale": Figure.of(alone_scale),
        "abs_rel": Figure.of(errors),
        "scale": Figure.of(scales),
        "mask_iou": common / max(union, 1),
    }
