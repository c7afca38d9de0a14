"""Training of the streaming super-resolution: degraded clips beside the memory's guidance in, the recorded high-resolution
frames as target.

Squared or absolute error alone teaches a small network to blur. Three terms work against that: differences of neighbouring
pixels in space and time; the local energy of those differences (texture of the right strength even where its exact place
cannot be known); and the mean of what differs within 2x2 pixels, since the cheapest way to such energy is a comb. Figures to
watch are PSNR against bicubic enlargement and sharpness (gradient energy relative to the target); pictures decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.super_resolution import SuperResolution, SuperResolutionConfig, save_super_resolution
from teleworld.training.degradation import degrade, is_faithful
from teleworld.training.loop import Run
from teleworld.training.segments import FRAMES, SegmentSet
from teleworld.training.vae import psnr

_GRID = 8


@dataclass(frozen=True)
class SuperResolutionTraining:
    """Settings of a run.

    minutes: wall time in all, over resumptions. batch, frames, crop: clips of a step, their frames (a multiple of 4)
    and low-resolution size (height, width). edges, texture, comb: weights of the loss terms beside the plain distance.
    unguided: share of steps that see nothing of the memory. evaluate_every: seconds.
    """

    minutes: float = 60.0
    batch: int = 2
    frames: int = 8
    crop: tuple[int, int] = (64, 64)
    learning_rate: float = 7e-4
    edges: float = 0.3
    texture: float = 0.3
    comb: float = 5.0
    vae_share: float = 0.7
    unguided: float = 0.25
    evaluate_every: float = 480.0
    seed: int = 0


def reconstruction_loss(out: Tensor, target: Tensor, edges: float, texture: float, comb: float) -> Tensor:
    """Charbonnier distance, plus weighted terms on edges, on texture energy and on a comb. Both [B, 3, F, H, W]."""
    loss = ((out - target).square() + 1e-4).sqrt().mean()
    for axis in (-1, -2):
        ours, theirs = out.diff(dim=axis), target.diff(dim=axis)
        loss = loss + edges * (ours - theirs).abs().mean()
        loss = loss + texture * (_energy(ours) - _energy(theirs)).abs().mean()
    loss = loss + comb * _comb(out - target)
    return loss + edges * (out.diff(dim=2) - target.diff(dim=2)).abs().mean()


def _energy(difference: Tensor) -> Tensor:
    """Mean absolute value over 8x8 patches."""
    return functional.avg_pool3d(difference.abs(), (1, 8, 8), (1, 4, 4))


def _comb(error: Tensor) -> Tensor:
    """How much the four pixels of a 2x2 block differ in the mean of a window of 32x32: textures hardly do, a comb does."""
    places = functional.pixel_unshuffle(error.transpose(1, 2).flatten(0, 1), 2).unflatten(1, (-1, 4))
    means = functional.avg_pool3d(places, (1, 16, 16), (1, 8, 8))
    return (means - means.mean(dim=2, keepdim=True)).abs().mean()


@dataclass(frozen=True, eq=False)
class Clips:
    """high [B, 3, F, 2 * H, 2 * W] in [-1, 1]: recorded; guidance: what the memory shows of the same frames, at [H, W]."""

    high: Tensor
    guidance: DecoderGuidance


def draw_clips(sets: Sequence[SegmentSet], settings: SuperResolutionTraining, random: np.random.Generator) -> Clips:
    """Clips cut on the codec's grid, half of them mirrored."""
    height, width = settings.crop
    drawn = []
    for _ in range(settings.batch):
        one = sets[int(random.integers(len(sets)))]
        high, guidance = draw_window(one, settings.frames, random)
        y = _GRID * random.integers((guidance.shape[1] - height) // _GRID + 1)
        x = _GRID * random.integers((guidance.shape[2] - width) // _GRID + 1)
        turn = slice(None, None, -1) if random.random() < 0.5 else slice(None)
        cut, cut_high = (
            (slice(None), slice(by * y, by * (y + height)), slice(by * x, by * (x + width))) for by in (1, 2)
        )
        drawn.append((high[cut_high][:, :, turn], guidance[cut][:, :, turn]))
    return as_clips(*(np.stack(parts) for parts in zip(*drawn, strict=True)))


def draw_window(
    one: SegmentSet, frames: int, random: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`frames` (a multiple of 4) of a random segment: (pictures [F, 2 * H, 2 * W, 3], guidance [F, H, W, 3])."""
    row = int(random.integers(len(one)))
    chunk = int(random.integers((FRAMES - frames) // 4 + 1))
    start = int(one.starts[row]) + 4 * chunk + 1
    guidance, _ = one.shown(row, slice(4 * chunk, 4 * chunk + frames))
    return np.array(one.episode.rgb_high[start : start + frames]), guidance


def as_clips(high: NDArray[np.uint8], guidance: NDArray[np.uint8]) -> Clips:
    """From uint8 arrays [B, F, H, W, 3]."""
    hint = as_pixels(guidance)
    return Clips(as_pixels(high), DecoderGuidance(hint, torch.ones_like(hint[:, :1])))


def as_pixels(frames: np.ndarray) -> Tensor:
    """uint8 [B, F, H, W, 3] -> float32 [B, 3, F, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def halve(pixels: Tensor) -> Tensor:
    """The 2x2 average that the recordings' low-resolution pictures are."""
    return functional.avg_pool3d(pixels, (1, 2, 2))


def train_super_resolution(
    folder: Path,
    segments: Callable[[], Sequence[SegmentSet]],
    settings: SuperResolutionTraining,
    config: SuperResolutionConfig,
    export: Path,
    *,
    vae: Callable[[], StreamVAE | None] = lambda: None,
    evaluate: Callable[[SuperResolution, StreamVAE | None], dict[str, float]] | None = None,
) -> SuperResolution:
    """Train until the time is spent, resuming what `folder` holds; the averaged network is returned.

    `segments` and `vae` are asked at the start and at each evaluation, because recordings grow and codecs improve
    while this runs; a codec that does not show a clip faithfully is not used. Averaged weights are written to `export`
    then, and at the end.
    """
    torch.manual_seed(settings.seed)
    network = SuperResolution(config).train()
    run = Run(folder, network, learning_rate=settings.learning_rate, total_seconds=60 * settings.minutes)
    run.resume()
    random = np.random.default_rng([settings.seed, run.step])
    recordings = segments()
    codec = _usable(vae(), recordings, settings)
    evaluated = run.seconds
    total = 0.0
    while not run.finished:
        clips = draw_clips(recordings, settings, random)
        hint = clips.guidance
        if random.random() < settings.unguided:
            hint = DecoderGuidance(hint.pixels, torch.zeros_like(hint.mask))
        low = degrade(halve(clips.high), random, codec, settings.vae_share, hint)
        loss = step_loss(network, low, replace(clips, guidance=hint), settings)
        run.update(loss, clip=1.0)
        total += loss.item() / 100
        if run.step % 100 == 0:
            run.log(loss=total)
            total = 0.0
        if run.seconds - evaluated > settings.evaluate_every:
            evaluated = run.seconds
            recordings = segments()
            codec = _usable(vae(), recordings, settings)
            _export(run, config, codec, export, evaluate)
    run.save()
    return _export(run, config, codec, export, evaluate)


def step_loss(network: SuperResolution, low: Tensor, clips: Clips, settings: SuperResolutionTraining) -> Tensor:
    """The loss of one step. low: the clips' frames as they came out of degradation, [B, 3, F, H, W]."""
    out = network.upscale(low, clips.guidance)
    return reconstruction_loss(out, clips.high, settings.edges, settings.texture, settings.comb)


def averaged_network(run: Run, config: SuperResolutionConfig) -> SuperResolution:
    """The network with the run's averaged weights, for evaluation."""
    network = SuperResolution(config)
    network.load_state_dict(run.average)
    return network.eval()


def _usable(
    vae: StreamVAE | None, segments: Sequence[SegmentSet], settings: SuperResolutionTraining
) -> StreamVAE | None:
    clips = halve(draw_clips(segments, settings, np.random.default_rng(settings.seed)).high)
    return vae if vae is not None and is_faithful(vae, clips) else None


def _export(
    run: Run,
    config: SuperResolutionConfig,
    vae: StreamVAE | None,
    export: Path,
    evaluate: Callable[[SuperResolution, StreamVAE | None], dict[str, float]] | None,
) -> SuperResolution:
    network = averaged_network(run, config)
    figures = evaluate(network, vae) if evaluate else {}
    run.log(**figures)
    export.parent.mkdir(parents=True, exist_ok=True)
    notes = {name: f"{value:.4f}" for name, value in figures.items()}
    save_super_resolution(export, network, {"kind": "super_resolution", "step": str(run.step), **notes})
    return network


def measure(
    network: SuperResolution,
    segments: Sequence[SegmentSet],
    spoil: Callable[[Tensor, DecoderGuidance], Tensor],
    *,
    windows: int = 12,
    frames: int = 8,
    seed: int = 5,
) -> dict[str, float]:
    """Compare with bicubic enlargement on whole frames of `segments`, low resolution passed through `spoil`.

    psnr, psnr_unguided, psnr_bicubic: in dB of pixels in [-1, 1]; unguided: the network without the memory. sharpness and
    so on: gradient energy over the target's.
    """
    random = np.random.default_rng(seed)
    sums: dict[str, float] = {}
    with torch.inference_mode():
        for _ in range(windows):
            one = segments[int(random.integers(len(segments)))]
            clips = as_clips(*(part[None] for part in draw_window(one, frames, random)))
            target, low = clips.high, spoil(halve(clips.high), clips.guidance)
            cubic = functional.interpolate(low[0].transpose(0, 1), scale_factor=network.scale, mode="bicubic")
            shown = {
                "": network.upscale(low, clips.guidance),
                "_unguided": network.upscale(low),
                "_bicubic": cubic.transpose(0, 1)[None].clamp(-1, 1),
            }
            for name, picture in shown.items():
                figures = {"psnr": psnr(picture, target), "sharpness": _sharpness(picture, target)}
                for figure, value in figures.items():
                    sums[f"{figure}{name}"] = sums.get(f"{figure}{name}", 0.0) + value / windows
    return sums


def _sharpness(picture: Tensor, target: Tensor) -> float:
    ratios = [picture.diff(dim=axis).abs().mean() / target.diff(dim=axis).abs().mean() for axis in (-1, -2)]
    return float(sum(ratios)) / 2
