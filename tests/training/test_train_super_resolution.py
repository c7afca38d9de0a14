"""Training of super-resolution: degradations lose detail and nothing else, and a run learns, exports and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig, load_super_resolution
from teleworld.training.dataset import Episode
from teleworld.training.degradation import cosine_basis, degrade, is_faithful, patch_loss
from teleworld.training.recording.episode import EpisodeArrays
from teleworld.training.recording.manifest import Manifest, write_episode
from teleworld.training.super_resolution import (
    Adversaries,
    SuperResolutionTraining,
    as_pixels,
    draw_clips,
    halve,
    measure,
    reconstruction_loss,
    step_loss,
    train_super_resolution,
)

SMALL = SuperResolutionConfig(channels=16, blocks=(1, 1), head_channels=8, token_channels=16)
SETTINGS = SuperResolutionTraining(minutes=0.01, batch=2, frames=4, crop=(32, 32), critic_from=0.5, seed=1)


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    """A checked wall that slides by: fine enough to lose detail, plain enough to be learnt in seconds."""
    frames = 12
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


def clips(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 4, 32, 40, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_cosine_basis_is_orthonormal() -> None:
    basis = cosine_basis(8)
    assert torch.allclose(basis @ basis.T, torch.eye(8), atol=1e-6)


def test_patch_loss_blurs_within_patches_and_keeps_their_means() -> None:
    pixels = 0.5 * clips()
    spoiled = patch_loss(pixels, np.random.default_rng(0))
    assert spoiled.diff(dim=-1).abs().mean() < 0.8 * pixels.diff(dim=-1).abs().mean()

    def means(video: Tensor) -> Tensor:
        return video.reshape(2, 3, 4, 4, 8, 5, 8).mean((2, 4, 6))

    assert (means(spoiled) - means(pixels)).abs().max() < 0.05


def test_degradations_are_reproducible_and_differ_by_clip() -> None:
    pixels = clips(1).repeat(6, 1, 1, 1, 1)
    first, second = (degrade(pixels, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == pixels.shape and first.abs().max() <= 1
    assert len({float(clip.sum()) for clip in first}) > 3


def test_a_codec_that_lost_its_way_is_recognised() -> None:
    vae = PatchVAE(PatchVAEConfig(channels=768, widths=(8, 8, 8), depths=(1, 1, 1))).eval()  # keeps all there is
    pixels = clips(1)
    assert is_faithful(vae, pixels)
    vae.basis[::2] = 0
    assert not is_faithful(vae, pixels)


def test_clips_lie_on_the_codec_grid(episode: Episode) -> None:
    target = draw_clips([episode], SETTINGS, np.random.default_rng(0))
    assert target.shape == (2, 3, 4, 64, 64)
    stored = as_pixels(episode.rgb[None])
    low = halve(target[:1])
    close = [
        float((cut - kind).abs().max())
        for kind in (low, low.flip(-1))
        for start in range(9)
        for y in range(0, 65, 8)
        for x in range(0, 129, 8)
        for cut in [stored[:, :, start : start + 4, y : y + 32, x : x + 32]]
    ]
    assert min(close) < 2 / 127.5


def test_blur_costs_more_than_its_error(episode: Episode) -> None:
    """A shift of brightness and a blur of equal absolute error: the loss minds the blur more."""
    target = as_pixels(episode.rgb_high[:4][None])
    blurred = torch.nn.functional.avg_pool3d(target, (1, 5, 5), 1, (0, 2, 2), count_include_pad=False)
    shifted = target + (blurred - target).abs().mean()
    assert reconstruction_loss(blurred, target, 0.3, 0.15) > 1.3 * reconstruction_loss(shifted, target, 0.3, 0.15)


def test_network_and_critic_do_not_pull_on_each_other() -> None:
    pair = Adversaries(SMALL)
    low, target = clips(), torch.nn.functional.interpolate(clips(), scale_factor=(1, 2, 2))
    pair.judge(pair.network.upscale(low)[:, :, 0], low[:, :, 0]).mean().backward()
    assert all(parameter.grad is None for parameter in pair.critic.parameters())
    assert any(parameter.grad is not None for parameter in pair.network.parameters())
    loss, figures = step_loss(pair, low, target, SETTINGS, adversarial=True)
    loss.backward()
    assert all(parameter.grad is not None for parameter in pair.critic.parameters())
    assert set(figures) == {"loss", "deceit", "critic"}


def test_steps_on_one_clip_beat_bicubic_on_it(episode: Episode) -> None:
    torch.manual_seed(0)
    pair = Adversaries(SMALL).train()
    optimiser = torch.optim.AdamW(pair.network.parameters(), lr=5e-3)
    target = draw_clips([episode], SETTINGS, np.random.default_rng(0))
    low = halve(target)
    losses = []
    for _ in range(40):
        loss, figures = step_loss(pair, low, target, SETTINGS, adversarial=False)
        losses.append(figures["loss"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.9 * losses[0]  # the first is bicubic enlargement


def test_measures_compare_with_bicubic(episode: Episode) -> None:
    figures = measure(SuperResolution(SMALL).eval(), [episode], lambda low: low, windows=1, frames=4)
    assert figures["psnr"] == pytest.approx(figures["psnr_bicubic"], abs=0.01)
    assert figures["sharpness"] == pytest.approx(figures["sharpness_bicubic"], abs=0.01) and figures["sharpness"] < 1
    dark = measure(SuperResolution(SMALL).eval(), [episode], lambda low: low - 0.5, windows=1, frames=4)
    assert dark["psnr_bicubic"] < figures["psnr_bicubic"]


def test_a_run_exports_and_resumes(episode: Episode, tmp_path: Path) -> None:
    export = tmp_path / "models" / "sr.safetensors"

    def train() -> SuperResolution:
        return train_super_resolution(
            tmp_path / "run",
            lambda: [episode],
            SETTINGS,
            SMALL,
            export,
            evaluate=lambda network, vae: {"scale": float(network.scale)},
        )

    trained = train()
    figures = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert figures["scale"] == 2 and figures["step"] > 0
    shipped = load_super_resolution(export)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(shipped.parameters(), trained.parameters(), strict=True))
    # The time is spent: a second start goes straight to the export of the same weights.
    again = train()
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), trained.parameters(), strict=True))
