"""A recording that is made up in a moment."""

from __future__ import annotations

import numpy as np
import pytest

from teleworld.training.dataset import Episode
from teleworld.training.recording.episode import EpisodeArrays
from teleworld.training.recording.manifest import Manifest, write_episode
from teleworld.training.segments import FRAMES


@pytest.fixture(scope="session")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    """A checked wall that slides by: fine enough to lose detail, plain enough to be learnt in seconds."""
    frames = FRAMES + 4
    y, x = np.mgrid[:192, :320]
    high = np.stack(
        [np.stack([(((x + 2 * t) // 5 + y // 7) % 2) * 200, (x + t) % 256, y], axis=-1) for t in range(frames)]
    ).astype(np.uint8)
    arrays = EpisodeArrays(
        rgb192=high,
        rgb96=high.reshape(frames, 96, 2, 160, 2, 3).mean((2, 4)).astype(np.uint8),
        depth=np.ones((frames, 96, 160), np.float16),
        dynamic=np.zeros((frames, 96, 20), np.uint8),
        camera_to_world=np.tile(np.eye(4), (frames, 1, 1)),
        intrinsics=np.tile(np.float32([66.67, 80, 80, 48]), (frames, 1)),
        keys=np.zeros(frames, np.uint8),
        captions=("A wall.",),
    )
    folder = tmp_path_factory.mktemp("data") / "train" / "MAP01_0"
    write_episode(folder, arrays, Manifest("MAP01", 0, "train", frames, "none", "", "", 0.0, frames, arrays.captions))
    return Episode(folder)
