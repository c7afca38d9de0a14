"""A rehearsal of the reconstructor on a throw-away world.

The memory's loops are compiled when they are first called, which takes longer than a task's deadline where no compiled code
is cached yet. The rehearsal calls all of them before the process says that it serves.
"""

from __future__ import annotations

import numpy as np

from teleworld.generation.model import Model
from teleworld.generation.reconstructor import Reconstructor
from teleworld.memory.clearance import free_way
from teleworld.memory.forgetting import forget
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.world.camera import CameraPath, pose
from teleworld.world.timeline import PIXEL_FRAMES_PER_LATENT
from teleworld.world.work import GuideRequest, ReconstructRequest, TaskContext

WORLD = "rehearsal"


def rehearse(model: Model) -> None:
    """Fuse two noise pictures, one after the other, and render the result: from all of the memory, and from one view."""
    core, lens = Reconstructor(model, Memory(LocalMemoryStore())), model.spec.lens
    context = TaskContext(WORLD, epoch=0, segment=0, task=WORLD, attempt=0, seed=0, weights=model.digest)
    pictures = np.random.default_rng(0).integers(0, 256, (2, lens.height, lens.width, 3), np.uint8)
    frames = PIXEL_FRAMES_PER_LATENT
    poses = np.stack([pose(0.0, 0.0, 0.05 * frame, 0.0) for frame in range(frames)])
    path = CameraPath(poses, np.tile(lens.at_pitch(0.0), (frames, 1)))
    for revision in range(2):
        here = slice(revision, revision + 1)
        core.reconstruct(ReconstructRequest(context, revision - 1, pictures[here], path[here], (revision,)))
        for own_view_only in (False, True):
            core.guide(GuideRequest(context, revision, (2,), path, own_view_only))
    b"".join(core.export(WORLD, 1, 1))
    points = core.memory.field_at(WORLD, 0, 1).static
    forget(points, poses[0, :3, 3], len(points) // 2, len(points) // 4, len(points))
    free_way(points, np.zeros(3), np.ones(2))
