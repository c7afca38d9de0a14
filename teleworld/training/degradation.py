"""What a small Stream-VAE and a long walk do to pictures, imitated: training inputs for super-resolution and the DiT.

A network that only ever saw clean averages would sharpen the decoder's artefacts as faithfully as its detail. So most
inputs lose detail the way a patch codec loses it (few coefficients of 4-frame 8x8 patches, on the codec's own grid),
and a share of them goes through the real Stream-VAE when its weights are at hand. All functions take and give pixels
[B, 3, F, H, W] in [-1, 1]; all but `blur` and `fade` with F a multiple of 4 and H, W multiples of 8, cut on the codec's grid.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE

_FRAMES = 4
_PATCH = 8
# Opponent axes (light, blue - yellow, red - green), orthonormal: codecs keep light far better than colour.
_OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [0.5, 0.5, -1.0], [1.0, -1.0, 0.0]])
_OPPONENT = _OPPONENT / _OPPONENT.norm(dim=1, keepdim=True)


def degrade(
    pixels: Tensor,
    random: np.random.Generator,
    vae: StreamVAE | None = None,
    vae_share: float = 0.5,
    guidance: DecoderGuidance | None = None,
) -> Tensor:
    """Degrade each clip of the batch in its own way.

    With a `vae`, clips take its round trip, beside the memory's `guidance`, with probability `vae_share` (their first
    frame then stands for the picture before the stream's first chunk). One clip in eight stays clean.
    """
    clips = []
    for number in range(len(pixels)):
        one = slice(number, number + 1)
        clip = pixels[one]
        if random.random() < 0.125:
            clips.append(clip)
        elif vae is not None and random.random() < vae_share:
            hint = None if guidance is None else DecoderGuidance(guidance.pixels[one], guidance.mask[one])
            clips.append(vae_round_trip(clip, vae, hint))
        else:
            clips.append(_photometric(patch_loss(clip, random), random))
    return torch.cat(clips)


def vae_round_trip(pixels: Tensor, vae: StreamVAE, guidance: DecoderGuidance | None = None) -> Tensor:
    """Encode and decode F frames as the chunks after a still first frame, of which the memory shows nothing."""
    still = torch.cat([pixels[:, :, :1], pixels], dim=2)
    hint = None if guidance is None else guidance.behind_still()
    with torch.no_grad():
        return vae.decode(vae.encode(still), hint)[:, :, 1:].clamp(-1, 1)


def is_faithful(vae: StreamVAE, pixels: Tensor, least_db: float = 20.0) -> bool:
    """Whether the round trip still shows the clip: a codec in the middle of its own training may not."""
    error = functional.mse_loss(vae_round_trip(pixels, vae), pixels).item()
    return error < 4 * 10 ** (-least_db / 10)


def patch_loss(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Keep some low frequencies of each 4-frame 8x8 patch, as a linear codec of random strength would."""
    batch, _, frames, height, width = pixels.shape
    values = torch.einsum("dc,bcfhw->bdfhw", _OPPONENT.to(pixels), pixels)
    patches = values.reshape(batch, 3, frames // _FRAMES, _FRAMES, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
    time, space = cosine_basis(_FRAMES).to(pixels), cosine_basis(_PATCH).to(pixels)
    spectrum = torch.einsum("bdntiyjx,st,vy,ux->bdnsivju", patches, time, space, space)
    spectrum = spectrum * _kept(random).to(pixels)[None, :, None, :, None, :, None, :]
    patches = torch.einsum("bdnsivju,st,vy,ux->bdntiyjx", spectrum, time, space, space)
    values = patches.reshape(batch, 3, frames, height, width)
    return torch.einsum("dc,bdfhw->bcfhw", _OPPONENT.to(pixels), values).clamp(-1, 1)


def cosine_basis(size: int) -> Tensor:
    """The orthonormal DCT-II matrix, float32 [frequency, position]."""
    at = (torch.arange(size) + 0.5) * math.pi / size
    basis = torch.cos(torch.arange(size)[:, None] * at)
    basis[0] *= math.sqrt(0.5)
    return basis * math.sqrt(2 / size)


def _kept(random: np.random.Generator) -> Tensor:
    """How much of each frequency survives: float32 [3, 4, 8, 8] for (colour axis, time, rows, columns)."""
    time, rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(8.0), torch.arange(8.0), indexing="ij")
    distance = (rows**2 + columns**2 + (random.uniform(1.0, 2.5) * time) ** 2).sqrt()
    reach = random.uniform(3.0, 8.0)
    axes = torch.tensor([reach, reach * random.uniform(0.4, 0.9), reach * random.uniform(0.4, 0.9)])
    softness = random.uniform(0.3, 1.2)
    return torch.sigmoid((axes[:, None, None, None] - distance) / softness)


def _photometric(pixels: Tensor, random: np.random.Generator) -> Tensor:
    """Sometimes a little blur, noise, gain and colour shift, the same for all frames of a clip."""
    if random.random() < 0.4:
        pixels = blur(pixels, random.uniform(0.3, 0.8))
    if random.random() < 0.3:
        seed = torch.Generator().manual_seed(int(random.integers(2**31)))
        pixels = pixels + random.uniform(0, 0.03) * torch.randn(pixels.shape, generator=seed)
    if random.random() < 0.3:
        shift = torch.from_numpy(random.normal(0, 0.01, (1, 3, 1, 1, 1)).astype(np.float32))
        pixels = (pixels + 1) * random.normal(1, 0.015) - 1 + shift
    return pixels.clamp(-1, 1)


def fade(pixels: Tensor, contrast: float) -> Tensor:
    """So much of the contrast of each clip's colours."""
    middle = pixels.mean(dim=(2, 3, 4), keepdim=True)
    return middle + contrast * (pixels - middle)


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """A Gaussian of so many pixels over [B, C, F, H, W]."""
    reach = max(2, math.ceil(2.5 * sigma))
    at = torch.arange(-reach, reach + 1.0)
    kernel = torch.exp(-(at**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    batch, channels, frames, height, width = pixels.shape
    flat = functional.pad(pixels.reshape(-1, 1, height, width), (reach,) * 4, mode="replicate")
    flat = functional.conv2d(functional.conv2d(flat, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return flat.reshape(batch, channels, frames, height, width)
