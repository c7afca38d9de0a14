"""Training of the geometry network: the samples are true to the geometry, and a run learns, exports and resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from teleworld.models.checkpoint import load_into, load_safetensors
from teleworld.models.geometry import NANO_GEOMETRY, GeometryNetwork, GeometryOutput
from teleworld.training.dataset import Episode
from teleworld.training.geometry import (
    GeometryTraining,
    draw_training_batch,
    evaluate_geometry,
    geometry_loss,
    train_geometry,
    train_step,
)
from teleworld.training.geometry_data import SampleStyle, crop_batch, draw_batch, mirror_pose, render_depth, spoil_depth
from teleworld.training.loop import Run
from teleworld.training.recording.episode import EpisodeArrays
from teleworld.training.recording.manifest import Manifest, write_episode
from teleworld.world.camera import CameraPath, pose, unproject

FRAMES = 40
LENS = np.array([66.67, 80.0, 80.0, 48.0])
SMALL = replace(
    NANO_GEOMETRY, depth_bins=8, stem_channels=(4, 8, 8), width=16, head_channels=(16, 16, 8, 4), saliency_width=4
)
EXACT = SampleStyle(bare=0.0, wrong_pose=0.0, clean=1.0, spoil=0.0, flip=0.0)


def corridor(camera_to_world: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Exact z-depth [96, 160] inside the box |x| < 2, -1 < y < 1.5, |z| < 30 metres."""
    rays = unproject(np.ones((96, 160)), lens, np.eye(4)) @ camera_to_world[:3, :3].T.astype(np.float32)
    eye, low, high = camera_to_world[:3, 3], np.array([-2, -1, -30.0]), np.array([2, 1.5, 30.0])
    with np.errstate(divide="ignore"):
        return np.where(rays > 0, (high - eye) / rays, (low - eye) / rays).min(axis=-1)


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    """A walk down a corridor whose colours tell its depth, past a square that moves."""
    cameras = np.array([pose(0.3, 0.0, 0.25 * t, 0.02 * t) for t in range(FRAMES)])
    lenses = np.tile(LENS, (FRAMES, 1))
    lenses[:, 3] += 3.0 * np.sin(np.arange(FRAMES))
    depth = np.array([corridor(camera, lens) for camera, lens in zip(cameras, lenses, strict=True)])
    dynamic = np.zeros((FRAMES, 96, 160), bool)
    for t in range(FRAMES):
        dynamic[t, 40:60, 20 + 3 * t : 36 + 3 * t] = True
    shade = (255 * np.exp(-depth / 6)).astype(np.uint8)
    rgb = np.stack([shade, 255 - shade, np.where(dynamic, 255, 0).astype(np.uint8)], axis=-1)
    arrays = EpisodeArrays(
        rgb192=np.repeat(np.repeat(rgb, 2, axis=1), 2, axis=2),
        rgb96=rgb,
        depth=depth.astype(np.float16),
        dynamic=np.packbits(dynamic, axis=-1),
        camera_to_world=cameras,
        intrinsics=lenses.astype(np.float32),
        keys=np.zeros(FRAMES, np.uint8),
        captions=("A corridor.",),
    )
    folder = tmp_path_factory.mktemp("data") / "train" / "MAP01_0"
    manifest = Manifest("MAP01", 0, "train", FRAMES, "none", "", "", 0.25, FRAMES, arrays.captions)
    write_episode(folder, arrays, manifest)
    return Episode(folder)


def test_warped_depth_is_the_depth_at_the_new_camera(episode: Episode):
    path = episode.cameras
    source = episode.depth(slice(0, 1))[0]
    seen = render_depth([(source, path.intrinsics[0], path.camera_to_world[0])], path[5:6])[0]
    truth = episode.depth(slice(5, 6))[0]
    known = seen > 0
    assert known.mean() > 0.7
    assert np.median(np.abs(seen - truth)[known] / truth[known]) < 0.03


def test_the_nearest_of_two_sources_wins():
    path = CameraPath(np.eye(4)[None], LENS[None])
    near, far = np.full((96, 160), 2.0, np.float32), np.full((96, 160), 5.0, np.float32)
    for order in ([near, far], [far, near]):
        seen = render_depth([(depth, LENS, np.eye(4)) for depth in order], path)
        np.testing.assert_allclose(seen, 2.0, rtol=1e-6)


def test_spoiled_depth_is_wrong_by_a_few_percent_and_has_holes():
    random = np.random.default_rng(0)
    depth = np.full((96, 160), 4.0, np.float32)
    spoiled = np.stack([spoil_depth(depth, random, 1.0) for _ in range(20)])
    error = np.abs(spoiled[spoiled > 0] / 4.0 - 1)
    assert 0.01 < np.median(error) < 0.08
    assert 0.02 < (spoiled == 0).mean() < 0.5
    assert (depth == 4.0).all()


def test_without_spoiling_the_guidance_agrees_with_the_truth(episode: Episode):
    batch = draw_batch([episode], np.random.default_rng(0), 6, 2, EXACT)
    known = (batch.guidance > 0) & (batch.depth > 0) & ~batch.dynamic
    assert known.float().mean() > 0.4
    assert float(((batch.guidance - batch.depth).abs() / batch.depth)[known].median()) < 0.03


def test_a_mirrored_sample_is_a_consistent_world(episode: Episode):
    path, source = episode.cameras, episode.depth(slice(0, 1))[0]
    lenses = path.intrinsics * [1, 1, -1, 1] + [0, 0, 160, 0]
    mirrored = CameraPath(mirror_pose(path.camera_to_world), lenses)
    straight = render_depth([(source, path.intrinsics[0], path.camera_to_world[0])], path[6:7])
    turned = render_depth([(source[:, ::-1].copy(), lenses[0], mirrored.camera_to_world[0])], mirrored[6:7])
    both = (straight > 0) & (turned[:, :, ::-1] > 0)
    assert both.mean() > 0.7
    np.testing.assert_allclose(straight[both], turned[:, :, ::-1][both], rtol=0.05)


def test_the_correction_leads_from_the_commanded_to_the_true_pose(episode: Episode):
    style = replace(EXACT, wrong_pose=1.0)
    batch = draw_batch([episode], np.random.default_rng(3), 4, 2, style)
    true = episode.cameras.camera_to_world
    for commanded, correction in zip(batch.camera_to_world.flatten(0, 1), batch.correction.flatten(0, 1), strict=True):
        x, y, z, _, yaw, _ = correction.tolist()
        restored = commanded.numpy() @ pose(x, y, z, yaw)
        assert np.abs(true - restored).max(axis=(1, 2)).min() < 1e-5
        assert abs(yaw) > 0 and y == 0


def test_a_crop_is_the_same_view_through_a_smaller_image(episode: Episode):
    batch = draw_batch([episode], np.random.default_rng(0), 1, 2, EXACT)
    cropped = crop_batch(batch, 16, 40, 64, 96)
    poses = batch.camera_to_world[0].numpy()
    for frame in range(2):
        whole = unproject(batch.depth[0, frame].numpy(), batch.intrinsics[0, frame].double().numpy(), poses[frame])
        part = unproject(cropped.depth[0, frame].numpy(), cropped.intrinsics[0, frame].double().numpy(), poses[frame])
        np.testing.assert_allclose(part, whole[16:80, 40:136], atol=1e-4)
    assert cropped.pictures.shape == (1, 2, 3, 64, 96)


def test_the_same_random_state_draws_the_same_batch(episode: Episode):
    first, second = (draw_batch([episode], np.random.default_rng(7), 2, 3) for _ in range(2))
    assert torch.equal(first.pictures, second.pictures) and torch.equal(first.guidance, second.guidance)


def test_steps_reduce_the_loss(episode: Episode, tmp_path: Path):
    torch.manual_seed(0)
    settings = GeometryTraining(frames=2, lengths=(1.0,), learning_rate=1e-2)
    network, random = GeometryNetwork(SMALL), np.random.default_rng(0)
    run = Run(tmp_path, network, learning_rate=settings.learning_rate, total_seconds=1e9)
    losses = []
    for _ in range(40):
        batch = draw_training_batch([episode], random, settings)
        losses.append(train_step(run, network, batch, random, settings)["depth"])
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_unsure_where_wrong_and_sure_where_right(episode: Episode):
    batch = draw_batch([episode], np.random.default_rng(0), 1, 1, EXACT)
    truth = batch.depth.log()
    sure, unsure = torch.full_like(truth, 50.0), torch.full_like(truth, 2.0)
    blank = torch.zeros(1, 1, 96, 160), torch.zeros(1, 1, 6), torch.zeros(0), None
    loss = lambda depth, confidence: geometry_loss(GeometryOutput(depth, confidence, *blank), batch, False)[0]  # noqa: E731
    assert loss(truth, sure) < loss(truth, unsure)
    assert loss(truth + 0.5, sure) > loss(truth + 0.5, unsure)


def test_a_run_exports_averaged_weights_and_resumes(episode: Episode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[float] = []
    monkeypatch.setattr(Run, "finished", property(lambda run: run.step >= 3))

    def evaluate(network: GeometryNetwork) -> dict[str, float]:
        figures = evaluate_geometry(network, [episode], windows=2, frames=2)
        seen.append(figures["abs_rel_guided"])
        return figures

    settings = GeometryTraining(minutes=0.01, frames=2, lengths=(0.5, 0.5))
    export = tmp_path / "out" / "geometry.safetensors"
    train_geometry(tmp_path / "run", lambda: [episode], evaluate, settings, export, SMALL)
    tensors, metadata = load_safetensors(export)
    network = GeometryNetwork(SMALL)
    load_into(network, tensors, strict=True)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert evaluate(network.eval())["abs_rel_guided"] == pytest.approx(seen[0], rel=0.02)

    monkeypatch.setattr(Run, "finished", property(lambda run: run.step >= 5))
    train_geometry(tmp_path / "run", lambda: [episode], evaluate, settings, export, SMALL)
    assert (metadata["step"], load_safetensors(export)[1]["step"]) == ("3", "5")
