"""Locality-constrained sparse attention, exactly as FlashVSR defines it, without a custom kernel.

Tokens lie in windows of 2 latents x 8 x 8 and each window position is a block of 128 tokens. Which blocks a block attends
to is decided per head: scores of mean query and mean key (after RoPE) over the square root of the width, blocks farther
than half the local range away excluded, softmax over all key blocks; then for each window of queries one threshold over
all its query-key pairs, the (top + 1)-th largest value, above which pairs are kept. So the budget is shared by a window's
query blocks: one that is sure of few keys leaves more to the others, and one may be left with none, which adds nothing.

Memory is bounded by one block of queries at a time. On a GPU a block-sparse kernel would be faster; the choice of blocks
is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from teleworld.models.super_resolution.flashvsr.config import WINDOW


def to_windows(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """[B, f*h*w, heads, D] of a grid (f, h, w) -> [B, heads, windows, blocks, 128, D]."""
    batch, _, heads, width = x.shape
    frames, rows, columns = (size // side for size, side in zip(grid, WINDOW, strict=True))
    split = x.view(batch, frames, WINDOW[0], rows, WINDOW[1], columns, WINDOW[2], heads, width)
    return split.permute(0, 7, 1, 3, 5, 2, 4, 6, 8).reshape(batch, heads, frames, rows * columns, -1, width)


def from_windows(x: Tensor, grid: tuple[int, int, int]) -> Tensor:
    """Inverse of `to_windows`."""
    batch, heads, _, _, _, width = x.shape
    frames, rows, columns = (size // side for size, side in zip(grid, WINDOW, strict=True))
    split = x.view(batch, heads, frames, rows, columns, *WINDOW, width)
    return split.permute(0, 2, 5, 3, 6, 4, 7, 1, 8).reshape(batch, -1, heads, width)


def neighbours(rows: int, columns: int, local_range: int, device: torch.device) -> Tensor:
    """Which blocks are near which: bool [blocks, blocks]. The range is not moved inwards at the picture's edge."""
    row = torch.arange(rows, device=device).repeat_interleave(columns)
    column = torch.arange(columns, device=device).repeat(rows)
    reach = local_range // 2
    return ((row[:, None] - row).abs() <= reach) & ((column[:, None] - column).abs() <= reach)


def choose(q: Tensor, k: Tensor, near: Tensor, top: int) -> Tensor:
    """The kept pairs, bool [B, heads, windows, blocks, key windows * blocks].

    q [B, heads, windows, blocks, 128, D], k the same with key windows; near: `neighbours`; top: pairs a window keeps.
    """
    batch, heads, windows, blocks = q.shape[:4]
    mean_q, mean_k = q.mean(4), k.mean(4).flatten(2, 3)
    scores = torch.einsum("bhwnd,bhmd->bhwnm", mean_q, mean_k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~near.repeat(1, k.shape[2]), -torch.inf)
    flat = scores.softmax(-1).flatten(3)
    rank = min(max(top, 0), flat.shape[-1] - 1) + 1
    threshold = flat.topk(rank, dim=-1).values[..., -1:]
    return (flat > threshold).view(batch, heads, windows, blocks, -1)


def attend_to(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor) -> Tensor:
    """Attention of each block of queries to its chosen blocks of keys; shapes as in `choose`, the answer like q."""
    batch, heads, windows, blocks, size, width = q.shape
    keys, values = (x.reshape(batch * heads, -1, size, width) for x in (k, v))
    queries = q.reshape(batch * heads, windows * blocks, size, width)
    pairs = chosen.reshape(batch * heads, windows * blocks, -1)
    out = torch.zeros_like(queries)
    counts = pairs.sum(-1)
    lead = torch.arange(batch * heads, device=q.device)[:, None]
    for block in range(windows * blocks):
        most = int(counts[:, block].max())
        if not most:
            continue
        # The chosen blocks of each head first; heads that chose fewer have the rest masked.
        picked = pairs[:, block].int().argsort(dim=-1, descending=True, stable=True)[:, :most]
        real = torch.arange(most, device=q.device) < counts[:, block, None]
        mask = real.repeat_interleave(size, dim=1)[:, None, :]
        mask = mask | (counts[:, block] == 0)[:, None, None]
        near_keys, near_values = (x[lead, picked].flatten(1, 2) for x in (keys, values))
        mixed = F.scaled_dot_product_attention(queries[:, block], near_keys, near_values, attn_mask=mask)
        out[:, block] = mixed * (counts[:, block] > 0)[:, None, None]
    return out.view(q.shape)
