"""Tiny autoencoders of the TAEHV form (taew2_1 for Wan2.1's latents): a fraction of the full VAE's time and memory.

Where latency matters more than the last detail this decoder stands in for Wan's: 11.3 M parameters, causal, and its only
memory is each block's own input of one step before. Its latents are the normalised ones. Frames are worked on one by one
inside, so that streamed and whole are the same sums. Module and parameter names are those of the public checkpoint,
including the gaps in its numbering; pixels are [0, 1] inside and [-1, 1] outside.

Latent 1 stands for one frame here as everywhere. The public network decodes it to four and drops three; for the encoder
the first frame is repeated four times, so that later latents cover the same frames as Wan's own encoder's do. Encode with
Wan's VAE where its weights are at hand: a tiny encoder is not what the transformer was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.stream_vae.state import StreamState
from teleworld.world.errors import InvalidInput

_BLOCKS = 3


@dataclass(frozen=True)
class TinyVAEConfig:
    """channels: C of the latent. widths: of the decoder's levels from the latent outwards. encoder_width: of all of the encoder."""

    channels: int = 16
    widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    encoder_width: int = 64

    def __post_init__(self) -> None:
        if min(self.channels, self.encoder_width, *self.widths) < 1:
            raise InvalidInput("vae", "channels and widths must be positive")


TAEW21 = TinyVAEConfig()


class Squash(nn.Module):
    """Keep outliers of a latent within (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


class MemBlock(nn.Module):
    """Three convolutions on a frame's features and those of the frame before, beside a skip."""

    slot: str

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:
        """[B, F, D, H, W] -> the same shape; before the first frame come zeros."""
        past = state.past(self.slot, frames[:, :1])
        past = torch.zeros_like(frames[:, :1]) if past is None else past
        state.put(self.slot, frames[:, -1:])
        before = torch.cat([past, frames[:, :-1]], dim=1)
        mixed = self.conv(torch.cat([frames, before], dim=2).flatten(0, 1)).unflatten(0, frames.shape[:2])
        return torch.relu(mixed + frames)


class Pool(nn.Module):
    """`stride` frames to one: [B, F, D, H, W] -> [B, F / stride, D, H, W]."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width * stride, width, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        groups = frames.unflatten(1, (-1, self.stride)).flatten(2, 3)
        return self.conv(groups.flatten(0, 1)).unflatten(0, groups.shape[:2])


class Grow(nn.Module):
    """One frame to `stride`: [B, F, D, H, W] -> [B, F * stride, D, H, W]."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        grown = self.conv(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return grown.unflatten(2, (self.stride, -1)).flatten(1, 2)


class FrameSequential(nn.Sequential):
    """Layers in order on [B, F, D, H, W]; those on pictures are applied to each frame."""

    def forward(self, frames: Tensor, state: StreamState) -> Tensor:  # type: ignore[override]
        for layer in self:
            if isinstance(layer, MemBlock):
                frames = layer(frames, state)
            elif isinstance(layer, Pool | Grow):
                frames = layer(frames)
            else:
                frames = layer(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return frames


class TinyStreamVAE(StreamVAE):
    """A TAEHV-style autoencoder. See `StreamVAE` for the shapes."""

    kind = "tiny"

    def __init__(self, config: TinyVAEConfig = TAEW21) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.channels
        self.encoder = FrameSequential(*_encoder(config))
        self.decoder = FrameSequential(*_decoder(config))
        for name, layer in self.named_modules():
            if isinstance(layer, MemBlock):
                layer.slot = name

    def encode_chunk(self, pixels: Tensor, state: StreamState) -> Tensor:
        self.check_pixels(pixels, first=state.fresh)
        with state.chunk(self.encoding, pixels.shape[2]) as draft:
            if state.fresh:
                pixels = pixels.expand(-1, -1, self.temporal_stride, -1, -1)
            return self.encoder((pixels.transpose(1, 2) + 1) / 2, draft).transpose(1, 2)

    def decode_chunk(self, latents: Tensor, state: StreamState, guidance: DecoderGuidance | None = None) -> Tensor:
        self.check_shape("latents", latents, self.latent_channels)
        with state.chunk(self.decoding, latents.shape[2]) as draft:
            frames = self.decoder(latents.transpose(1, 2), draft)
            shown = frames[:, self.temporal_stride - 1 if state.fresh else 0 :]
            return shown.transpose(1, 2).clamp(0, 1) * 2 - 1


def _encoder(config: TinyVAEConfig) -> list[nn.Module]:
    width = config.encoder_width
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for stride in (2, 2, 1):
        layers += [Pool(width, stride), nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)]
        layers += [MemBlock(width) for _ in range(_BLOCKS)]
    return [*layers, nn.Conv2d(width, config.channels, 3, padding=1)]


def _decoder(config: TinyVAEConfig) -> list[nn.Module]:
    widths = config.widths
    layers: list[nn.Module] = [Squash(), nn.Conv2d(config.channels, widths[0], 3, padding=1), nn.ReLU()]
    for level, stride in enumerate((1, 2, 2)):
        layers += [MemBlock(widths[level]) for _ in range(_BLOCKS)]
        layers += [nn.Upsample(scale_factor=2), Grow(widths[level], stride)]
        layers.append(nn.Conv2d(widths[level], widths[level + 1], 3, padding=1, bias=False))
    return [*layers, nn.ReLU(), nn.Conv2d(widths[3], 3, 3, padding=1)]
