"""What Wan2.2's VAE adds to Wan2.1's layers: a shortcut without weights round each level, and pixels folded into channels.

The shortcut carries a level's input past its layers: averaged over what is halved on the way down, repeated over what is
doubled on the way up. At the start of a stream it keeps the same step as the layers: the first frame stands alone.
All tensors are [B, C, F, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as functional
from torch import Tensor, nn

from teleworld.models.stream_vae.state import StreamState
from teleworld.models.stream_vae.wan_blocks import Streamed, StreamSequential
from teleworld.world.errors import InvalidInput


class DownLevel(nn.Module, Streamed):
    """Layers that may halve space and time, and their shortcut."""

    def __init__(
        self, layers: Sequence[nn.Module], channels: int, out_channels: int, *, in_space: bool, in_time: bool
    ) -> None:
        super().__init__()
        self.downsamples = StreamSequential(*layers)
        self._out, self._space, self._time = out_channels, 2 if in_space else 1, 2 if in_time else 1
        if channels * self._space**2 * self._time % out_channels:
            raise InvalidInput("vae.multipliers", f"{channels} channels cannot be averaged to {out_channels}")

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:
        """Run the next frames of the stream."""
        return self.downsamples(frames, state) + self._average(frames)

    def _average(self, frames: Tensor) -> Tensor:
        """Means over groups of (channel, time, row, column) offsets, in this order. A lone first frame follows zeros."""
        frames = functional.pad(frames, (0, 0, 0, 0, -frames.shape[2] % self._time, 0))
        batch, _, count, height, width = frames.shape
        cells = frames.unflatten(2, (-1, self._time)).unflatten(4, (-1, self._space)).unflatten(6, (-1, self._space))
        groups = cells.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)
        return groups.unflatten(1, (self._out, -1)).mean(dim=2)


class UpLevel(nn.Module, Streamed):
    """Layers that may double space and time, and their shortcut; the last level doubles nothing and has none."""

    def __init__(
        self, layers: Sequence[nn.Module], channels: int, out_channels: int, *, in_space: bool, in_time: bool
    ) -> None:
        super().__init__()
        self.upsamples = StreamSequential(*layers)
        self._shortcut = in_space
        self._out, self._time = out_channels, 2 if in_time else 1
        if in_space and out_channels * 4 * self._time % channels:
            raise InvalidInput("vae.multipliers", f"{channels} channels cannot be repeated to {out_channels}")

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:
        """Run the next frames of the stream."""
        passed = self.upsamples(frames, state)
        return passed + self._repeat(frames, alone=state.fresh) if self._shortcut else passed

    def _repeat(self, frames: Tensor, *, alone: bool) -> Tensor:
        """Each value repeated into its (channel, time, row, column) offsets; a lone first frame keeps the last of its times."""
        copies = self._out * 4 * self._time // frames.shape[1]
        cells = frames.repeat_interleave(copies, dim=1).unflatten(1, (self._out, self._time, 2, 2))
        whole = cells.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(2, 3).flatten(3, 4).flatten(4, 5)
        return whole[:, :, self._time - 1 :] if alone else whole


def fold(pixels: Tensor, patch: int) -> Tensor:
    """Pixels [B, 3, F, H, W] to [B, 3 * patch^2, F, H / patch, W / patch]; of a square, columns vary slower than rows."""
    if patch == 1:
        return pixels
    return pixels.unflatten(3, (-1, patch)).unflatten(5, (-1, patch)).permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def unfold(folded: Tensor, patch: int) -> Tensor:
    """Inverse of `fold`."""
    if patch == 1:
        return folded
    squares = folded.unflatten(1, (-1, patch, patch))
    return squares.permute(0, 1, 4, 5, 3, 6, 2).flatten(3, 4).flatten(4, 5)
