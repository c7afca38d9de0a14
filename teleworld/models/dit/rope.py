"""Rotary position embedding over (frame, row, column) at explicit frame indices (Wan2.1: 44 + 42 + 42 of 128 values)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a table first built while sampling must also serve a later training step
def rotations(frames: tuple[int, ...], height: int, width: int, head_dim: int, theta: float) -> Tensor:
    """Unit complex numbers [F*h*w, head_dim / 2] for tokens in (frame, row, column) order; frames are 0-based indices."""
    spatial = 2 * (head_dim // 6)
    axes = (head_dim - 2 * spatial, spatial, spatial)
    positions = (torch.tensor(frames), torch.arange(height), torch.arange(width))
    angles = []
    for size, position in zip(axes, positions, strict=True):
        frequency = theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles.append(torch.outer(position.to(torch.float64), frequency))
    grid = (len(frames), height, width)
    table = torch.cat(
        [
            angles[0][:, None, None].expand(*grid, -1),
            angles[1][None, :, None].expand(*grid, -1),
            angles[2][None, None].expand(*grid, -1),
        ],
        dim=-1,
    ).reshape(-1, head_dim // 2)
    return torch.polar(torch.ones_like(table), table).to(torch.complex64)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn neighbouring pairs of x [B, L, heads, D] by `rotation` [L, D / 2]."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation[None, :, None]).flatten(-2).type_as(x)


def rotations_for(indices: Sequence[int], height: int, width: int, head_dim: int, theta: float) -> Tensor:
    """`rotations` for the 1-based latent indices of a segment."""
    return rotations(tuple(index - 1 for index in indices), height, width, head_dim, theta)
