"""Episodes on disk, read back: shapes, units, laziness, and windows that repeat by seed."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from teleworld.training.dataset import Episode, load_split
from teleworld.training.recording.manifest import EpisodeArrays, Manifest, arrays_digest, mean_speed, write_episode
from teleworld.world.controls import Keys
from teleworld.world.errors import InvalidInput, NotFound


def make_episode(frames: int, seed: int) -> EpisodeArrays:
    rng = np.random.default_rng(seed)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = 0.25 * np.arange(frames)
    mask = np.zeros((frames, 96, 160), bool)
    mask[:, 10:20, 33:47] = True
    return EpisodeArrays(
        rgb192=rng.integers(0, 256, (frames, 192, 320, 3), np.uint8),
        rgb96=rng.integers(0, 256, (frames, 96, 160, 3), np.uint8),
        depth=np.full((frames, 96, 160), 2.5, np.float16),
        dynamic=np.packbits(mask, axis=-1),
        camera_to_world=poses,
        intrinsics=np.tile(np.array([66.67, 80, 80, 48], np.float32), (frames, 1)),
        keys=np.full(frames, int(Keys.W), np.uint8),
        captions=("A dim hall.", "A bright yard."),
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, frames in enumerate((12, 5, 8)):
        arrays = make_episode(frames, seed)
        manifest = Manifest(
            "MAP01", seed, "train", frames, "engine", "0", arrays_digest(arrays), mean_speed(arrays), 6, arrays.captions
        )
        write_episode(tmp_path / "train" / f"MAP01_{seed}", arrays, manifest)
    (tmp_path / "train" / ".MAP01_9.partial").mkdir()
    return tmp_path


def test_episode_reads_back_what_was_written(root: Path) -> None:
    written = make_episode(12, 0)
    episode = load_split(root, "train")[0]
    assert len(episode) == 12
    np.testing.assert_array_equal(episode.rgb, written.rgb96)
    np.testing.assert_array_equal(episode.rgb_high[3], written.rgb192[3])
    depth = episode.depth(slice(2, 5))
    assert depth.dtype == np.float32 and depth.shape == (3, 96, 160) and (depth == 2.5).all()
    dynamic = episode.dynamic(slice(0, 2))
    assert dynamic.shape == (2, 96, 160) and dynamic[0].sum() == 140 and dynamic[1, 19, 46]
    assert episode.keys[4] == Keys.W
    episode.cameras.check("cameras", frames=12)
    assert [episode.caption(0), episode.caption(6), episode.caption(11)] == ["A dim hall."] + ["A bright yard."] * 2
    assert episode.manifest.mean_speed == pytest.approx(0.25)


def test_episode_maps_files_instead_of_reading_them(root: Path) -> None:
    episode = load_split(root, "train")[0]
    assert isinstance(episode.rgb_high, np.memmap) and not episode.rgb_high.flags.writeable
    assert len(pickle.dumps(episode)) < 1000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(episode)).rgb, episode.rgb)


def test_unfinished_and_unknown_splits_are_told_apart(root: Path) -> None:
    assert [episode.manifest.seed for episode in load_split(root, "train")] == [0, 1, 2]
    with pytest.raises(NotFound):
        load_split(root, "U")
    with pytest.raises(InvalidInput) as caught:
        load_split(root, "test")
    assert caught.value.field == "split"
    with pytest.raises(NotFound):
        Episode(root / "train" / ".MAP01_9.partial")
