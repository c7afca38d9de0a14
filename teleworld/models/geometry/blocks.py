"""The transformer of the geometry network: attention within a frame, attention across frames, in turn.

Tokens are [B, S, T, D]: S frames, T = 1 camera token + registers + h*w patch tokens (row-major). A frame block attends
within each frame, a global block over all frames. Both can drop the keys of some image tokens while keeping every
query, which is how dynamic content is kept out of the geometry (paper 3.3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from teleworld.models.geometry.config import GeometryConfig


class Rotary2D(nn.Module):
    """2-D rotary embedding: half of each head turns with the row of a patch, half with its column.

    Camera and register tokens stand at position 0, patches at row + 1, column + 1. Frames share positions: what tells
    them apart is their camera token and the rays of their patches.
    """

    frequencies: Tensor

    def __init__(self, head_dim: int, base: float) -> None:
        super().__init__()
        quarter = head_dim // 4
        self.register_buffer("frequencies", base ** -(torch.arange(quarter) / quarter), persistent=False)

    def tables(self, specials: int, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, head_dim / 2] for T = specials + rows * columns tokens."""
        row = torch.arange(1, rows + 1).repeat_interleave(columns)
        column = torch.arange(1, columns + 1).repeat(rows)
        places = torch.cat([torch.zeros(specials, 2), torch.stack([row, column], 1).float()])
        angles = (places.to(self.frequencies.device)[:, :, None] * self.frequencies).flatten(1)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the first half of each head of x [..., T, head_dim] against the second by tables [T, head_dim / 2]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


class AttentionBlock(nn.Module):
    """Pre-norm self-attention (per-head LayerNorm on q and k, 2-D RoPE) and MLP, each behind LayerScale."""

    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        width, hidden = config.width, round(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // config.heads)
        self.k_norm = nn.LayerNorm(width // config.heads)
        self.out = nn.Linear(width, width)
        self.scale1 = nn.Parameter(torch.full((width,), config.layer_scale))
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.scale2 = nn.Parameter(torch.full((width,), config.layer_scale))

    def forward(
        self, x: Tensor, tables: tuple[Tensor, Tensor], keep: Tensor | None, repeats: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, repeats * T, D] -> (x, q, k), with q and k [N, heads, repeats * T, head_dim] after norm and RoPE.

        `tables` are of one frame's T tokens, `repeats` the frames in a row. `keep` bool [N, repeats * T] is false for
        tokens whose keys are dropped.
        """
        count, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(count, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        cosines, sines = (table.repeat(repeats, 1) if repeats > 1 else table for table in tables)
        q, k = rotate(self.q_norm(q), cosines, sines), rotate(self.k_norm(k), cosines, sines)
        mask = None if keep is None else keep[:, None, None, :].expand(-1, 1, tokens, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.scale1 * self.out(mixed.transpose(1, 2).reshape(count, tokens, width))
        x = x + self.scale2 * self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return x, q, k


class AttentionPair(nn.Module):
    """One frame block, then one global block."""

    def __init__(self, config: GeometryConfig) -> None:
        super().__init__()
        self.frame = AttentionBlock(config)
        self.glob = AttentionBlock(config)

    def forward(
        self, tokens: Tensor, tables: tuple[Tensor, Tensor], keep: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """tokens [B, S, T, D], keep bool [B, S, T] or None -> (tokens, q, k).

        q and k [B, S, heads, T, head_dim] are the global block's.
        """
        batch, frames, count, width = tokens.shape
        within, _, _ = self.frame(
            tokens.reshape(batch * frames, count, width), tables, None if keep is None else keep.flatten(0, 1), 1
        )
        across, q, k = self.glob(
            within.view(batch, frames * count, width), tables, None if keep is None else keep.flatten(1), frames
        )
        heads = q.shape[1]
        split = lambda x: x.view(batch, heads, frames, count, -1).transpose(1, 2)  # noqa: E731
        return across.view(batch, frames, count, width), split(q), split(k)
