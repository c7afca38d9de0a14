"""Pictures at the boundary (uint8) and inside the networks (float in [-1, 1])."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.world.work import Bytes, Guidance


def to_pixels(frames: Bytes) -> Tensor:
    """uint8 [F, H, W, 3] -> float32 [1, 3, F, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_frames(pixels: Tensor) -> Bytes:
    """float [1, 3, F, H, W] -> uint8 [F, H, W, 3]."""
    return ((pixels[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def decoder_guidance(guidance: Guidance, row: int) -> DecoderGuidance:
    """The rendered memory for one latent: row `row` of `guidance.indices`."""
    frames = slice(4 * row, 4 * row + 4)
    mask = torch.from_numpy(np.ascontiguousarray(guidance.mask[frames]))[None, None].float() / 255
    return DecoderGuidance(to_pixels(guidance.pixels[frames]), mask)


def coverage(mask: Tensor) -> Tensor:
    """Share of seen pixels of each latent cell: uint8 mask [n * 4, H, W] of 0 or 255 -> float32 [1, 1, n, H / 8, W / 8]."""
    frames, height, width = mask.shape
    cells = (mask.float() / 255).reshape(frames // 4, 4, height // 8, 8, width // 8, 8)
    return cells.mean(dim=(1, 3, 5))[None, None]
