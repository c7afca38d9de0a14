"""A walk along commanded cameras is the walk that the engine makes when its keys lead along them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from teleworld.evaluation.generation import sampled_segment
from teleworld.evaluation.rollout import Roller, Walk
from teleworld.evaluation.routes import Played, Recorded
from teleworld.generation.inprocess import InProcessEngine
from teleworld.generation.model import Model, load_model
from teleworld.memory.memory import Memory
from teleworld.memory.store import LocalMemoryStore
from teleworld.runtime.records import WorldRecord
from teleworld.world.camera import CameraPath
from teleworld.world.controls import Keys, schedule
from teleworld.world.latents import latent_digest
from teleworld.world.timeline import ChainMode, Timeline
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    root: Path = write_tiny_model(tmp_path_factory.mktemp("models"))
    return load_model("nano", root)


@pytest.mark.parametrize("remember", [True, False])
async def test_the_same_cameras_give_the_same_latents(model: Model, remember: bool) -> None:
    picture = np.random.default_rng(3).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    timeline = Timeline.of(model.spec.latents, ChainMode.T_B)
    roller = Roller(model, timeline, remember=remember)
    prompt = roller.prompt("a hall")
    record = WorldRecord("w", "nano", model.digest, 7, ChainMode.T_B, prompt, picture, 0.0, "r")
    keys = schedule([Keys.W | Keys.RIGHT] * 60, 4)
    count = 1 + 2 * timeline.chunks_per_segment
    async with InProcessEngine(model, Memory(LocalMemoryStore())) as engine:
        chunks = [chunk async for chunk in engine.walk(record, keys, count, remember=remember)]
    path = CameraPath(
        *(np.concatenate([getattr(chunk.path, name) for chunk in chunks]) for name in ("camera_to_world", "intrinsics"))
    )
    segments = list(roller.walk(picture, Recorded(path), prompt, 7))
    # The last segment's planned but unshown latent looks beyond the path, which keys would have continued.
    latents = [latent_digest(latent) for segment in segments[:1] for latent in segment.latents]
    assert latents == [chunk.latent_sha256 for chunk in chunks[1 : 1 + len(latents)]]
    # Played, the same keys lead there too.
    held = [Keys.W | Keys.RIGHT] * (2 * timeline.frames_per_segment)
    played = roller.walk(picture, Played(held, model.spec.gait, model.spec.lens), prompt, 7)
    latents = [latent_digest(latent) for segment in played for latent in segment.latents]
    assert latents == [chunk.latent_sha256 for chunk in chunks[1:]]
    walk = Walk.of(segments)
    frames = 2 * timeline.frames_per_segment
    assert walk.frames.shape == walk.guidance.shape == (frames, 96, 160, 3)
    assert walk.sharp.shape == (frames, 192, 320, 3) and walk.mask.shape == (frames, 96, 160)
    assert len(walk.keys) == len(walk.depth) == 2 * len(timeline.key_frames)
    assert all(first < second for first, second in itertools.pairwise(walk.keys))


def test_steps_are_compared_on_the_same_start(model: Model) -> None:
    class Still:
        """A recording in which nothing moves."""

        rgb = np.random.default_rng(1).integers(0, 255, (40, 96, 160, 3), dtype=np.uint8)

    class Here:
        episode = Still()
        frame, frames, caption = 0, 24, "a hall"
        picture = Still.rgb[0]
        span = slice(1, 25)
        path = CameraPath(np.repeat(np.eye(4)[None], 25, axis=0), np.repeat([[66.67, 80.0, 80.0, 48.0]], 25, axis=0))

    timeline = Timeline.of(model.spec.latents, ChainMode.T_B)
    (one, first), (two, second) = (sampled_segment(model, timeline, Here(), steps) for steps in (1, 2))  # type: ignore[arg-type]
    assert set(one) == {"sharpness", "coherence"} and np.isfinite([*one.values(), *two.values()]).all()
    assert first["latents"].shape == first["true"].shape == (timeline.chunks_per_segment, *model.spec.latent_shape)
    assert np.array_equal(first["true"], second["true"]) and not np.array_equal(first["latents"], second["latents"])
