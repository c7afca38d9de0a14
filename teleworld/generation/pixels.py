"""Pictures at the boundary (uint8) and inside the networks (float in [-1, 1])."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from teleworld.models.stream_vae.base import DecoderGuidance
from teleworld.world.work import Bytes, Guidance


def to_pixels(frames: Bytes) -> Tensor:
    """uint8 [F, H, W, 3] -> float32 [1, 3, F, H, W] in [-1, 1]."""
    return pixels_tensor(torch.from_numpy(np.ascontiguousarray(frames)))


def pixels_tensor(frames: Tensor) -> Tensor:
    """`to_pixels` of a tensor."""
    return frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_frames(pixels: Tensor) -> Bytes:
    """float [1, 3, F, H, W] -> uint8 [F, H, W, 3]."""
    return frames_tensor(pixels).cpu().numpy()


def frames_tensor(pixels: Tensor) -> Tensor:
    """`to_frames`, on the device of the pixels."""
    return ((pixels[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous()


def decoder_guidance(guidance: Guidance, row: int) -> DecoderGuidance:
    """The rendered memory for one latent: row `row` of `guidance.indices`."""
    return hint_from(torch.from_numpy(guidance_of(guidance, row)))


def guidance_of(guidance: Guidance, row: int) -> Bytes:
    """Pictures uint8 [4, H, W, 3] of the frames of one latent: row `row` of `guidance.indices`."""
    return np.ascontiguousarray(guidance.pixels[4 * row : 4 * row + 4])


def hint_from(pictures: Tensor) -> DecoderGuidance:
    """Guidance pictures uint8 [F, H, W, 3], as a decoder takes them.

    What was filled is a hint like what was seen: where the network kept it, its detail belongs to the picture; where it did
    not, the latents say so. Without it, all that is made up would be as soft as a latent alone decodes.
    """
    pixels = pixels_tensor(pictures)
    return DecoderGuidance(pixels, torch.ones_like(pixels[:, :1]))


def coverage(mask: Tensor, stride: int = 8) -> Tensor:
    """Share of seen pixels of each latent cell: uint8 mask [n * 4, H, W] of 0 or 255 -> float32 [1, 1, n, h, w], h = H / stride."""
    frames, height, width = mask.shape
    cells = (mask.float() / 255).reshape(frames // 4, 4, height // stride, stride, width // stride, stride)
    return cells.mean(dim=(1, 3, 5))[None, None]
