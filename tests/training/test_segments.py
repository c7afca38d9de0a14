"""Training samples beside a simulated memory: from recorded depth, and from depth that a network measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from teleworld.memory.fusion import Observation
from teleworld.memory.points import Field
from teleworld.training.dataset import Episode
from teleworld.training.segments import FRAMES, Corruption, build, load_sets, simulate
from teleworld.world.camera import CameraPath

START = 3


def test_a_memory_of_exact_depth_shows_a_frame_it_was_made_from(wall: Episode) -> None:
    guidance, mask = simulate(wall, START, np.random.default_rng(0), Corruption(clean=1.0))
    assert guidance.shape == (FRAMES, 96, 160, 3) and mask.shape == guidance.shape[:3] and mask.all()
    # The camera stands, and of equal surfels the oldest stays.
    alike = [(np.abs(guidance.astype(int) - wall.rgb[frame]) <= 8).mean() for frame in range(START + 1)]
    assert max(alike) > 0.95 > 1.2 * min(alike)


def test_measured_key_frames_are_seen_beside_the_memory_that_the_earlier_ones_made(wall: Episode) -> None:
    revisions = []

    def half_blind(field: Field, pictures: NDArray[np.uint8], path: CameraPath, frames: tuple[int, ...]) -> Observation:
        revisions.append(field.revision)
        depth = np.ones(pictures.shape[:3], np.float32)
        depth[:, :, 80:] = 0
        return Observation(pictures, depth, (depth > 0).astype(np.float32), depth < 0, path, frames)

    mask = simulate(wall, START, np.random.default_rng(1), Corruption(clean=1.0), half_blind)[1]
    assert revisions == sorted(set(revisions)) and revisions
    assert mask[:, :, :79].all() and not mask[:, :, 81:].any()


def test_sets_are_made_once_and_read_back(wall: Episode, tmp_path: Path) -> None:
    assert build([wall], tmp_path, stride=2) == 2
    assert build([wall], tmp_path, stride=2) == 0
    (made,) = load_sets([wall], tmp_path)
    pictures, guidance, mask, caption = made.read(1)
    assert caption == "A wall." and guidance.shape == (FRAMES, 96, 160, 3) and set(np.unique(mask)) <= {0, 255}
    assert (pictures == wall.rgb[made.starts[1] : made.starts[1] + FRAMES + 1]).all()
