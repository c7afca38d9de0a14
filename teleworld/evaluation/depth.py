"""How well the geometry network measures recorded frames: alone, and along a walk beside its own growing memory."""

from __future__ import annotations

import numpy as np
import torch

from teleworld.evaluation.metrics import depth_error, overlap
from teleworld.evaluation.rollout import EPOCH, WORLD
from teleworld.evaluation.samples import Start
from teleworld.generation.model import Model
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.fusion import Observation
from teleworld.memory.memory import Memory
from teleworld.memory.points import EMPTY_REVISION
from teleworld.memory.store import LocalMemoryStore

KEY_EVERY = 8


def measure(reconstructor: Reconstructor, start: Start, keys: list[int], revision: int) -> Observation:
    """What the network sees in the true frames `keys` (counted from the start picture) beside the memory's `revision`."""
    pictures = np.array(start.episode.rgb[np.array(keys) + start.frame])
    field = reconstructor.memory.field_at(WORLD, EPOCH, revision)
    return reconstructor.measure_recorded(field, pictures, start.path[keys], tuple(keys))


@torch.inference_mode()
def real_frames(model: Model, start: Start) -> dict[str, float]:
    """Errors on true frames. first_abs_rel, first_scale: of the start picture alone. abs_rel, scale: of the key frames of
    the walk, two at a time, measured beside the memory that the earlier ones made. mask_common, mask_union: moving pixels."""
    reconstructor = Reconstructor(model, Memory(LocalMemoryStore()))
    keys = [0, *range(KEY_EVERY, start.frames + 1, KEY_EVERY)]
    batches = [keys[:1], *(keys[i : i + 2] for i in range(1, len(keys) - 1, 2))]
    errors: list[tuple[float, float]] = []
    common = union = 0
    for revision, batch in enumerate(batches, start=EMPTY_REVISION):
        frames = np.array(batch) + start.frame
        seen = measure(reconstructor, start, batch, revision)
        reconstructor.memory.fuse_and_append(WORLD, EPOCH, revision, seen)
        errors.append(depth_error(seen.depth, start.episode.depth(frames)))
        both = overlap(seen.dynamic, start.episode.dynamic(frames))
        common, union = common + both[0], union + both[1]
    abs_rel, scale = np.array(errors[1:]).T
    return {
        "first_abs_rel": errors[0][0],
        "first_scale": errors[0][1],
        "abs_rel": float(abs_rel.mean()),
        "scale": float(scale.mean()),
        "mask_common": common,
        "mask_union": union,
    }
