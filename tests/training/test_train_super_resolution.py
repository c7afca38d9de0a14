"""Training of super-resolution: degradations lose detail and nothing else, and a run learns, exports and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig, load_super_resolution
from teleworld.training.dataset import Episode
from teleworld.training.degradation import cosine_basis, degrade, is_faithful, patch_loss
from teleworld.training.segments import SegmentSet, build, load_sets
from teleworld.training.super_resolution import (
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
SETTINGS = SuperResolutionTraining(minutes=0.01, batch=2, frames=4, crop=(32, 32), seed=1)


@pytest.fixture(scope="module")
def segments(wall: Episode, tmp_path_factory: pytest.TempPathFactory) -> list[SegmentSet]:
    root = tmp_path_factory.mktemp("segments")
    build([wall], root, stride=2)
    return load_sets([wall], root)


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


def test_clips_lie_on_the_codec_grid_beside_their_guidance(segments: list[SegmentSet]) -> None:
    drawn = draw_clips(segments, SETTINGS, np.random.default_rng(0))
    assert drawn.high.shape == (2, 3, 4, 64, 64)
    one = segments[0]
    clip, hint = halve(drawn.high[:1]), drawn.guidance.pixels[:1]
    places = [
        float((clip - as_pixels(one.episode.rgb[None, frames, rows, columns][:, :, :, ::turn])).abs().max())
        + float((hint - as_pixels(one.guidance[None, row, chunk, rows, columns][:, :, :, ::turn])).abs().max())
        for row, start in enumerate(one.starts)
        for first in range(0, 17, 4)
        for frames, chunk in [(slice(start + first + 1, start + first + 5), slice(first, first + 4))]
        for y in range(0, 65, 8)
        for x in range(0, 129, 8)
        for rows, columns in [(slice(y, y + 32), slice(x, x + 32))]
        for turn in (1, -1)
    ]
    assert min(places) < 2 / 127.5


def test_blur_costs_more_than_its_error(segments: list[SegmentSet]) -> None:
    """A shift of brightness and a blur of equal absolute error: the loss minds the blur more."""
    target = as_pixels(segments[0].episode.rgb_high[:4][None])
    blurred = torch.nn.functional.avg_pool3d(target, (1, 5, 5), 1, (0, 2, 2), count_include_pad=False)
    shifted = target + (blurred - target).abs().mean()
    weights = {"edges": 0.3, "texture": 0.15, "comb": 0.0}
    assert reconstruction_loss(blurred, target, **weights) > 1.3 * reconstruction_loss(shifted, target, **weights)


def test_a_comb_costs_more_than_noise() -> None:
    """Over everything, and also where it changes its sign from one half of a picture to the other."""
    target = torch.zeros(1, 3, 4, 64, 64)
    noise = 0.05 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0)).sign()
    comb = 0.05 * (-1.0) ** torch.arange(64).expand_as(noise)
    turning = torch.cat([comb[..., :32, :], -comb[..., 32:, :]], dim=-2)

    def costs(comb_weight: float) -> list[Tensor]:
        return [reconstruction_loss(out, target, 0.3, 0.15, comb_weight) for out in (comb, turning, noise)]

    # Without the term a comb is the cheaper one: it stands still, and noise flickers.
    assert max(costs(0.0)[:2]) < costs(0.0)[2]
    assert min(costs(5.0)[:2]) > 1.5 * costs(5.0)[2]


def test_steps_on_one_clip_beat_bicubic_on_it(segments: list[SegmentSet]) -> None:
    torch.manual_seed(0)
    network = SuperResolution(SMALL).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    target = draw_clips(segments, SETTINGS, np.random.default_rng(0))
    low = halve(target.high)
    losses = []
    for _ in range(80):
        loss = step_loss(network, low, target, SETTINGS)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.92 * losses[0]  # the first is bicubic enlargement


def test_measures_compare_with_bicubic(segments: list[SegmentSet]) -> None:
    network = SuperResolution(SMALL).eval()
    figures = measure(network, segments, lambda low, hint: low, windows=1, frames=4)
    assert figures["psnr"] == pytest.approx(figures["psnr_bicubic"], abs=0.01) == figures["psnr_unguided"]
    assert figures["sharpness"] == pytest.approx(figures["sharpness_bicubic"], abs=0.01) and figures["sharpness"] < 1
    dark = measure(network, segments, lambda low, hint: low - 0.5, windows=1, frames=4)
    assert dark["psnr_bicubic"] < figures["psnr_bicubic"]


def test_the_codec_sees_the_guidance_of_its_clip() -> None:
    """Degraded by a codec that keeps the mean alone, a clip has the detail that the memory shows, and no other's."""
    torch.manual_seed(0)
    vae = PatchVAE(PatchVAEConfig(channels=4, widths=(8, 8, 8), depths=(1, 1, 1))).eval()
    vae.head.weight.data.normal_(0, 0.1)
    pixels = 0.5 * clips()
    seen = DecoderGuidance(pixels, torch.ones(2, 1, *pixels.shape[2:]))
    half = DecoderGuidance(pixels, seen.mask * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1, 1))

    def spoil(guidance: DecoderGuidance | None) -> Tensor:
        return degrade(pixels, np.random.default_rng(1), vae, 1.0, guidance)

    blind, first, both = spoil(None), spoil(half), spoil(seen)
    assert not torch.equal(both[0], blind[0]) and not torch.equal(both[1], blind[1])
    assert torch.equal(first[0], both[0]) and torch.equal(first[1], blind[1])


def test_a_run_exports_and_resumes(segments: list[SegmentSet], tmp_path: Path) -> None:
    export = tmp_path / "models" / "sr.safetensors"

    def train() -> SuperResolution:
        return train_super_resolution(
            tmp_path / "run",
            lambda: segments,
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
