"""Locality-constrained sparse attention over a stream of token grids (paper 3.6.3, after FlashVSR).

Tokens lie on a grid [h, w] per frame and are grouped into square blocks. A block of queries looks at the 3x3 blocks
around it in the current frame and in the last few, and of those only at the few whose mean key fits its mean query
best; the choice is made per head. Cost per frame is therefore constant, whatever the picture's size makes of the grid
or however long the stream is, and what is learnt on small crops holds on large pictures: positions enter only as a
learned bias over the offset (frames ago, rows, columns).

Keys and values of past frames live in a StreamState that the caller owns. Frames are taken one at a time, so that
the arithmetic of a frame does not depend on how the stream was cut into chunks. Which blocks are chosen is a hard
decision without gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from teleworld.models.stream_vae.state import StreamState
from teleworld.models.super_resolution.config import SuperResolutionConfig

_NEIGHBOURS = 9
_NEVER = -1e9


class BlockGrid:
    """How a token grid [height, width] falls into blocks, and which blocks are neighbours.

    The grid is padded below and to the right to whole blocks. Tokens in block order are [blocks, side * side].
    neighbours: int64 [blocks, 9], row by row; where the picture ends, any block, and `outside` [blocks, 9] is True.
    padding: bool [blocks, side * side], True for tokens beyond the picture; `padded` says whether there are any.
    """

    def __init__(self, height: int, width: int, side: int, device: torch.device) -> None:
        self.height, self.width, self.side = height, width, side
        self.rows, self.columns = -(-height // side), -(-width // side)
        row, column = torch.arange(self.rows), torch.arange(self.columns)
        around = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2))
        rows = row.repeat_interleave(self.columns)[:, None] + around[:, 0]
        columns = column.repeat(self.rows)[:, None] + around[:, 1]
        inside = (rows >= 0) & (rows < self.rows) & (columns >= 0) & (columns < self.columns)
        self.outside = (~inside).to(device)
        self.neighbours = torch.where(inside, rows * self.columns + columns, 0).to(device)
        self.padding = (self.to_blocks(torch.ones(1, height, width, 1))[0, ..., 0] == 0).to(device)
        self.padded = bool(self.padding.any())

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return self.rows * self.columns

    def to_blocks(self, grid: Tensor) -> Tensor:
        """[B, h, w, C] -> [B, blocks, side * side, C], zeros beyond the picture."""
        batch, _, _, channels = grid.shape
        down, right = self.rows * self.side - self.height, self.columns * self.side - self.width
        if down or right:
            grid = functional.pad(grid, (0, 0, 0, right, 0, down))
        split = grid.reshape(batch, self.rows, self.side, self.columns, self.side, channels)
        return split.transpose(2, 3).reshape(batch, self.blocks, self.side**2, channels)

    def to_grid(self, tokens: Tensor) -> Tensor:
        """[B, blocks, side * side, C] -> [B, h, w, C], padding dropped."""
        batch, _, _, channels = tokens.shape
        split = tokens.reshape(batch, self.rows, self.columns, self.side, self.side, channels).transpose(2, 3)
        grid = split.reshape(batch, self.rows * self.side, self.columns * self.side, channels)
        return grid[:, : self.height, : self.width]


class LocalSparseAttention(nn.Module):
    """One attention layer. Tokens [B, blocks, side * side, C] in, the same out; the residual is the caller's."""

    def __init__(self, config: SuperResolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.token_channels, 3 * config.token_channels)
        self.out = nn.Linear(config.token_channels, config.token_channels)
        reach = 4 * config.block - 1  # offsets -(2 side - 1) .. 2 side - 1 between a token and one of a neighbour block
        self.bias = nn.Parameter(torch.zeros(config.heads, config.past_frames + 1, reach, reach))
        self._offsets: Tensor
        self.register_buffer("_offsets", _offset_table(config.block), persistent=False)

    def forward(self, tokens: Tensor, grid: BlockGrid, state: StreamState, slot: str) -> Tensor:
        """Attend from one frame to itself and the past, and put its keys and values into `state` under `slot`."""
        batch, blocks, size, channels = tokens.shape
        width = channels // self.heads
        heads = self.query_key_value(tokens).reshape(batch, blocks * size, 3, self.heads, width)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [B, heads, blocks * size, width]
        keys = self._with_past(state, f"{slot}.keys", key)
        values = self._with_past(state, f"{slot}.values", value)
        chosen, bias = self._choose(query, keys, grid)
        lead, _, picked = chosen.shape
        # The tokens of the chosen blocks, for each head and block of queries: [lead * blocks, picked * size, width].
        rows = (chosen + torch.arange(lead, device=chosen.device)[:, None, None] * (keys.shape[2] * blocks)).reshape(-1)
        near_keys, near_values = (
            kept.reshape(-1, size * width).index_select(0, rows).reshape(lead * blocks, picked * size, width)
            for kept in (keys, values)
        )
        scaled = query.reshape(lead * blocks, size, width) * width**-0.5
        score = (scaled @ near_keys.transpose(1, 2)).reshape(lead, blocks, size, picked, size) + bias
        weight = score.reshape(lead * blocks, size, picked * size).softmax(-1)
        mixed = (weight @ near_values).reshape(batch, self.heads, blocks, size, width).permute(0, 2, 3, 1, 4)
        return self.out(mixed.reshape(batch, blocks, size, channels))

    def _with_past(self, state: StreamState, slot: str, current: Tensor) -> Tensor:
        """Past and current frames, oldest first: [B, heads, frames, tokens, width]; the newest stay in the state."""
        frame = current[:, :, None]
        past = state.past(slot, frame)
        frames = frame if past is None else torch.cat([past, frame], dim=2)
        if self.config.past_frames:
            state.put(slot, frames[:, :, -self.config.past_frames :])
        return frames

    def _choose(self, query: Tensor, keys: Tensor, grid: BlockGrid) -> tuple[Tensor, Tensor]:
        """Pick the blocks that each block of queries attends to; `lead` is B * heads.

        Returns their numbers in (frame, block) order, int64 [lead, blocks, picked], and what is added to the scores
        for position, padding and blocks outside the picture: [lead, blocks, query, picked, key].
        """
        batch, heads, frames, _, width = keys.shape
        blocks, size, lead = grid.blocks, grid.side**2, batch * heads
        mean_query = query.detach().reshape(lead, blocks, size, width).mean(2)
        mean_key = keys.detach().reshape(lead, frames, blocks, size, width).mean(3)
        near = mean_key.index_select(2, grid.neighbours.reshape(-1)).reshape(lead, frames, blocks, _NEIGHBOURS, width)
        near = near.transpose(1, 2).reshape(lead, blocks, frames * _NEIGHBOURS, width)
        outside = grid.outside[:, None].expand(blocks, frames, _NEIGHBOURS).reshape(blocks, -1)
        score = (near @ mean_query[..., None])[..., 0].masked_fill(outside, _NEVER)
        picked = min(self.config.top_blocks, score.shape[-1])
        best = score.topk(picked, dim=-1)
        numbers = grid.neighbours[:, None] + torch.arange(frames, device=keys.device)[:, None] * blocks
        numbers = numbers.reshape(1, blocks, -1).expand(lead, -1, -1).gather(2, best.indices)

        by_offset = self.bias.flatten(2).index_select(2, self._offsets)  # [heads, past_frames + 1, 9 * size * size]
        by_offset = by_offset[:, -frames:].reshape(heads * frames * _NEIGHBOURS, size * size)
        head = torch.arange(lead, device=keys.device) % heads
        rows = (best.indices + head[:, None, None] * (frames * _NEIGHBOURS)).reshape(-1)
        bias = by_offset.index_select(0, rows).reshape(lead, blocks, picked, size, size)
        unseen = (best.values <= _NEVER)[..., None]
        if grid.padded:
            unseen = unseen | grid.padding[numbers % blocks]
        return numbers, (bias + unseen[..., None, :] * _NEVER).transpose(2, 3)


def _offset_table(side: int) -> Tensor:
    """For each (neighbour, query token, key token), the index into the flattened (rows, columns) of the bias: int64."""
    inner = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    around = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)) * side
    offset = around[:, None, None] + inner[None, None, :] - inner[None, :, None] + 2 * side - 1
    return (offset[..., 0] * (4 * side - 1) + offset[..., 1]).reshape(-1)
