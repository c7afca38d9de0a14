"""Training of the small Stream-VAE: principal components by an eigenproblem, then the guided decoder by gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.generation.model import save_network
from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.models.stream_vae.patch import PatchVAE, PatchVAEConfig
from teleworld.training.dataset import Episode
from teleworld.training.loop import Run
from teleworld.training.muon import MuonAdamW


@dataclass(frozen=True)
class VAETraining:
    """Settings of a run. chunks: four-frame chunks of a sample behind its still first frame. crop: (height, width).
    guided: how often the memory's picture is there. texture, energy: see `decoder_loss`."""

    minutes: float = 60.0
    batch: int = 3
    chunks: int = 2
    crop: tuple[int, int] = (64, 96)
    learning_rate: float = 2e-3
    guided: float = 0.6
    texture: float = 0.2
    energy: float = 1.8
    seed: int = 0


def fit_basis(vae: PatchVAE, episodes: Sequence[Episode], patches: int = 400_000, seed: int = 0) -> float:
    """Set the codec to the principal components of random patches; returns the share of variance that is kept."""
    random = np.random.default_rng(seed)
    per_window = 60
    samples = np.empty((patches // per_window * per_window, 3, 4, 8, 8), np.float32)
    for start in range(0, len(samples), per_window):
        episode = episodes[int(random.integers(len(episodes)))]
        first = int(random.integers(len(episode) - 4))
        window = np.asarray(episode.rgb[first : first + 4], np.float32) / 127.5 - 1
        if random.random() < 0.15:
            window = np.repeat(window[:1], 4, axis=0)
        for offset in range(per_window):
            y, x = random.integers(window.shape[1] - 7), random.integers(window.shape[2] - 7)
            samples[start + offset] = window[:, y : y + 8, x : x + 8].transpose(3, 0, 1, 2)
    values = samples.reshape(len(samples), -1).astype(np.float64)
    mean = values.mean(axis=0)
    variance, vectors = np.linalg.eigh(np.cov(values - mean, rowvar=False))
    order = np.argsort(variance)[::-1][: vae.latent_channels]
    vae.mean.copy_(torch.from_numpy(mean))
    vae.basis.copy_(torch.from_numpy(vectors[:, order].T.copy()))
    vae.scale.copy_(torch.from_numpy(np.sqrt(variance[order])))
    return float(variance[order].sum() / variance.sum())


Windows = Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""Draws (frames uint8 [F, H, W, 3], guidance uint8 [F, H, W, 3], mask uint8 [F, H, W]), F = 1 + 4 * chunks."""


def decoder_loss(out: Tensor, target: Tensor, covered: Tensor, texture: float, energy: float) -> Tensor:
    """Squared error of pictures [B, 3, F, H, W], and what squared error alone would blur.

    `texture` weighs the error of image gradients; `energy` that of their size in 8x8 pixels, whatever its place, where
    the memory shows something (`covered` [B, 1, F, H, W], 0 to 1): there its detail can be taken in place of none.
    """
    loss = 20 * (out - target).square().mean()
    for axis in (-1, -2):
        made, true = out.diff(dim=axis), target.diff(dim=axis)
        loss = loss + texture * (made - true).abs().mean()
        share = F.avg_pool3d(covered.narrow(axis, 0, made.shape[axis]), (1, 8, 8))
        missing = F.avg_pool3d(made.abs(), (1, 8, 8)) - F.avg_pool3d(true.abs(), (1, 8, 8))
        loss = loss + energy * (share * missing.abs()).mean()
    return loss


def train_vae(
    folder: Path,
    episodes: Sequence[Episode],
    windows: Windows,
    evaluate: Callable[[PatchVAE], dict[str, float]],
    settings: VAETraining,
    config: PatchVAEConfig,
    export: Path,
    *,
    every: int = 1000,
) -> None:
    """Train until the time is spent; resumes. Writes averaged weights to `export` at each evaluation."""
    torch.manual_seed(settings.seed)
    vae = _network(config)
    run = Run(folder, vae, learning_rate=settings.learning_rate, total_seconds=60 * settings.minutes, decay=0.995)
    run.optimiser = MuonAdamW([p for p in vae.parameters() if p.requires_grad], settings.learning_rate)
    if not run.resume():
        run.log(variance_kept=fit_basis(vae, episodes))
        run.average = {name: value.detach().clone() for name, value in vae.state_dict().items()}
    random = np.random.default_rng(settings.seed + run.step)
    total = 0.0
    while not run.finished:
        frames, guidance, mask = (_batch(part) for part in zip(*_draw(windows, random, settings), strict=True))
        pixels = frames.float() / 127.5 - 1
        latents = vae.encode(pixels)
        guided = torch.from_numpy(random.random(len(frames)) < settings.guided).view(-1, 1, 1, 1, 1)
        shown = guided * torch.ones_like(mask)
        shown[:, :, 0] = 0
        hint = DecoderGuidance(guidance.float() / 127.5 - 1, shown.float())
        covered = shown * mask.float() / 255
        loss = decoder_loss(vae.decode(latents, hint), pixels, covered, settings.texture, settings.energy)
        run.update(loss)
        total += float(loss.detach())
        if run.step % 100 == 0:
            run.log(loss=total / 100)
            total = 0.0
        if run.step % every == 0 or run.finished:
            averaged = _network(config)
            averaged.load_state_dict(run.average)
            run.log(**evaluate(averaged.eval()))
            save_network(export, "vae", averaged, step=str(run.step))
    run.save()


def _network(config: PatchVAEConfig) -> PatchVAE:
    vae = PatchVAE(config)
    vae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave this overload out
    return vae


def _draw(
    windows: Windows, random: np.random.Generator, settings: VAETraining
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    samples = []
    for _ in range(settings.batch):
        frames, guidance, mask = windows(random)
        height, width = settings.crop
        y = 8 * random.integers((frames.shape[1] - height) // 8 + 1)
        x = 8 * random.integers((frames.shape[2] - width) // 8 + 1)
        cut = (slice(None), slice(y, y + height), slice(x, x + width))
        flip = slice(None, None, -1) if random.random() < 0.5 else slice(None)
        samples.append((frames[cut][:, :, flip], guidance[cut][:, :, flip], mask[cut][:, :, flip, None]))
    return samples


def _batch(parts: Sequence[np.ndarray]) -> Tensor:
    """[F, H, W, C] arrays -> [B, C, F, H, W] uint8."""
    return torch.from_numpy(np.stack(parts)).permute(0, 4, 1, 2, 3).contiguous()


def psnr(first: Tensor, second: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / F.mse_loss(first, second)))
