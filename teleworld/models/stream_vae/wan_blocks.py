"""The layers of Wan's causal video VAEs, written to run on any chunk of a stream.

A temporal layer keeps the tail of its inputs in the session's `StreamState` and puts it before the next chunk, where a
layer run on the whole sequence would see those same frames. At the start of a stream zeros stand in for it, which is
the causal padding the weights were trained with. Streamed and whole are then the same sums, to the last frame.

Module and parameter names are those of the public Wan2.1 checkpoint, including the gaps in its numbering.
All tensors are [B, C, F, H, W].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from teleworld.models.stream_vae.state import StreamState


class CausalConv3d(nn.Conv3d):
    """A convolution centred in space and causal in time: output frame t sees input frames t - history .. t.

    `history` is how many earlier frames precede a chunk; left out, it is the kernel's length less one.
    `slot` is where they are kept; the network that owns the layer sets it to the layer's own name.
    """

    slot: str

    def __init__(
        self,
        channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        *,
        time_stride: int = 1,
        history: int | None = None,
    ) -> None:
        padding = (0, kernel[1] // 2, kernel[2] // 2)
        super().__init__(channels, out_channels, kernel, stride=(time_stride, 1, 1), padding=padding)
        self.history = kernel[0] - 1 if history is None else history

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:  # type: ignore[override]
        """Convolve the next frames of the stream and remember their tail."""
        if self.history:
            past = state.past(self.slot, frames)
            if past is None:
                batch, channels, _, height, width = frames.shape
                past = frames.new_zeros(batch, channels, self.history, height, width)
            frames = torch.cat([past, frames], dim=2)
            self.remember(frames, state)
        return super().forward(frames)

    def remember(self, frames: Tensor, state: StreamState) -> None:
        """Keep the last `history` frames for the next chunk."""
        state.put(self.slot, frames[:, :, -self.history :])


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of each position, with a gain. `axes` counts the axes after C."""

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))
        self.scale = channels**0.5

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, ...] -> the same shape."""
        return functional.normalize(features, dim=1) * self.scale * self.gamma


class Streamed:
    """A layer that has a memory: its `forward` takes the state of the stream beside the frames."""


class StreamSequential(nn.Sequential, Streamed):
    """Layers in order; those that have a memory are handed the state."""

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:  # type: ignore[override]
        """Run the next frames of the stream through all layers."""
        for layer in self:
            frames = layer(frames, state) if isinstance(layer, Streamed | CausalConv3d) else layer(frames)
        return frames


class ResidualBlock(nn.Module, Streamed):
    """Two causal convolutions beside a shortcut."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.residual = StreamSequential(
            ChannelNorm(channels, axes=3),
            nn.SiLU(),
            CausalConv3d(channels, out_channels, (3, 3, 3)),
            ChannelNorm(out_channels, axes=3),
            nn.SiLU(),
            nn.Identity(),  # the public numbering has a dropout here, which does nothing when serving
            CausalConv3d(out_channels, out_channels, (3, 3, 3)),
        )
        self.shortcut = CausalConv3d(channels, out_channels, (1, 1, 1)) if channels != out_channels else None

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:
        """[B, C, F, H, W] -> [B, out, F, H, W]."""
        skip = frames if self.shortcut is None else self.shortcut(frames, state)
        return skip + self.residual(frames, state)


class SpatialAttention(nn.Module):
    """Single-head attention over the positions of each frame by itself; it has no memory."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, axes=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """[B, C, F, H, W] -> the same shape."""
        return frames + per_frame(self._attend, frames)

    def _attend(self, image: Tensor) -> Tensor:
        # One head, so the head axis of [N, 1, H*W, C] is there for the attention kernel alone.
        tokens = self.to_qkv(self.norm(image)).flatten(2).transpose(1, 2).unsqueeze(1)
        query, key, value = tokens.chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.squeeze(1).transpose(1, 2).reshape(image.shape))


class Downsample(nn.Module, Streamed):
    """Halve the height and width, and with `in_time` the frame rate as well.

    The first frame of a stream stands alone: it passes in time unchanged and then counts as the past of the next ones.
    """

    def __init__(self, channels: int, *, in_time: bool) -> None:
        super().__init__()
        # Padded at the right and bottom only, as the weights were trained.
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2))
        self.time_conv = CausalConv3d(channels, channels, (3, 1, 1), time_stride=2, history=1) if in_time else None

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:
        """[B, C, F, H, W] -> [B, C, F', H/2, W/2]; with `in_time` F' = 1 for the stream's first frame, then F/2."""
        frames = per_frame(self.resample, frames)
        if self.time_conv is None:
            return frames
        if state.fresh:
            self.time_conv.remember(frames, state)
            return frames
        return self.time_conv(frames, state)


class Upsample(nn.Module, Streamed):
    """Double the height and width, and with `in_time` the frame rate as well.

    The first frame of a stream stands alone: it is not doubled, and the frames after it do not see it in time.
    """

    def __init__(self, channels: int, out_channels: int, *, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="nearest-exact"), nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if in_time else None

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:
        """[B, C, F, H, W] -> [B, out, F', 2H, 2W]; with `in_time` F' = 2F, less one at the start of a stream."""
        if self.time_conv is not None:
            alone = 1 if state.fresh else 0
            first, later = frames[:, :, :alone], frames[:, :, alone:]
            if later.shape[2]:
                later = _interleave(self.time_conv(later, state))
            frames = torch.cat([first, later], dim=2)
        return per_frame(self.resample, frames)


def per_frame(image_layer: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Apply a layer on images [N, C, H, W] to every frame of [B, C, F, H, W]."""
    batch, _, count = frames.shape[:3]
    images = image_layer(frames.transpose(1, 2).flatten(0, 1))
    return images.unflatten(0, (batch, count)).transpose(1, 2)


def _interleave(frames: Tensor) -> Tensor:
    """[B, 2C, F, H, W] -> [B, C, 2F, H, W]: the two halves of the channels are the even and the odd frames."""
    return frames.unflatten(1, (2, -1)).permute(0, 2, 3, 1, 4, 5).flatten(2, 3)
