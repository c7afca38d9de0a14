"""Wan's VAEs as a Stream-VAE: the public architectures and weights, with the cache taken out of the network.

`WAN21_VAE` is the published configuration (126.9 M parameters, 16 latent channels, 8x in space, 4x in time), `WAN22_VAE`
that of Wan2.2 5B (704.7 M, 48 channels, 16x in space); small configurations of the same network exist for tests. The state
dict has the names of the public checkpoint; naming.py maps them to diffusers' and back. Encoding returns the mean of the
posterior: nothing here is random.

Memory: at 480 x 832 the decoder's state is 3.5 GiB in fp32 and the encoder's 2.1 GiB (half in bf16), and twice that
while a chunk runs, because the old state stays valid until the chunk has succeeded. A chunk itself costs what its
frames cost, so feed one latent at a time where memory is short. This decoder has no use for guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from teleworld.models.stream_vae.base import DecoderGuidance, StreamVAE
from teleworld.models.stream_vae.state import StreamState
from teleworld.models.stream_vae.wan_blocks import (
    CausalConv3d,
    ChannelNorm,
    Downsample,
    ResidualBlock,
    SpatialAttention,
    StreamSequential,
    Upsample,
)
from teleworld.models.stream_vae.wan_config import WAN21_VAE, WanVAEConfig
from teleworld.models.stream_vae.wan_levels import DownLevel, UpLevel, fold, unfold


class WanStreamVAE(StreamVAE):
    """Wan's causal video VAE. See `StreamVAE` for the shapes; the state's slots are named after the layers."""

    kind = "wan"

    def __init__(self, config: WanVAEConfig = WAN21_VAE) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.latent_channels
        self.spatial_stride = config.patch * 2 ** len(config.temporal_down)
        self.temporal_stride = 2 ** sum(config.temporal_down)
        moments = 2 * config.latent_channels  # the posterior's mean and log-variance
        self.encoder = WanEncoder(config, moments)
        self.conv1 = nn.Conv3d(moments, moments, 1)
        self.conv2 = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = WanDecoder(config)
        for name, layer in self.named_modules():
            if isinstance(layer, CausalConv3d):
                layer.slot = name

    def encode_chunk(self, pixels: Tensor, state: StreamState) -> Tensor:
        """Pixels [B, 3, F, H, W] to normalised latents [B, C, f, h, w]; see `StreamVAE.encode_chunk`."""
        self.check_pixels(pixels, first=state.fresh)
        with state.chunk(self.encoding, pixels.shape[2]) as draft:
            moments = self.conv1(self.encoder(fold(pixels, self.config.patch), draft))
            mean = moments[:, : self.latent_channels]
            return (mean - _per_channel(self.config.latent_mean, mean)) / _per_channel(self.config.latent_std, mean)

    def decode_chunk(self, latents: Tensor, state: StreamState, guidance: DecoderGuidance | None = None) -> Tensor:
        """Normalised latents [B, C, f, h, w] to pixels [B, 3, F, H, W]; see `StreamVAE.decode_chunk`."""
        self.check_shape("latents", latents, self.latent_channels)
        with state.chunk(self.decoding, latents.shape[2]) as draft:
            raw = latents * _per_channel(self.config.latent_std, latents)
            raw = raw + _per_channel(self.config.latent_mean, latents)
            return unfold(self.decoder(self.conv2(raw), draft), self.config.patch).clamp(-1.0, 1.0)


class WanEncoder(nn.Module):
    """Pixels [B, 3, F, H, W] to the posterior's moments before the last projection [B, moments, f, h, w]."""

    def __init__(self, config: WanVAEConfig, moments: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv1 = CausalConv3d(config.pixel_values, config.base_channels, (3, 3, 3))
        layers: list[nn.Module] = []
        for level, (channels, width) in enumerate(pairwise((config.base_channels, *widths))):
            inner: list[nn.Module] = [*_residual_blocks(channels, width, config.residual_blocks)]
            in_time = level < len(config.temporal_down) and config.temporal_down[level]
            if level < len(config.temporal_down):
                inner.append(Downsample(width, in_time=in_time))
            if config.residual:
                halved = level < len(config.temporal_down)
                layers.append(DownLevel(inner, channels, width, in_space=halved, in_time=in_time))
            else:
                layers += inner
        self.downsamples = StreamSequential(*layers)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], moments)

    def forward(self, pixels: Tensor, state: StreamState) -> Tensor:
        """Run the next chunk of the stream."""
        features = self.middle(self.downsamples(self.conv1(pixels, state), state), state)
        return self.head(features, state)


class WanDecoder(nn.Module):
    """Projected latents [B, C, f, h, w] to pixels [B, 3, F, H, W], not yet clamped."""

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        widths = config.decoder_widths
        self.conv1 = CausalConv3d(config.latent_channels, widths[0], (3, 3, 3))
        self.middle = _middle(widths[0])
        layers: list[nn.Module] = []
        channels = widths[0]
        for level, width in enumerate(widths):
            inner: list[nn.Module] = [*_residual_blocks(channels, width, config.residual_blocks + 1)]
            doubled = level < len(config.temporal_down)
            in_time = doubled and config.temporal_down[::-1][level]
            out = width if config.residual or not doubled else width // 2
            if doubled:
                inner.append(Upsample(width, out, in_time=in_time))
            if config.residual:
                layers.append(UpLevel(inner, channels, width, in_space=doubled, in_time=in_time))
            else:
                layers += inner
            channels = out
        self.upsamples = StreamSequential(*layers)
        self.head = _head(channels, config.pixel_values)

    def forward(self, latents: Tensor, state: StreamState) -> Tensor:
        """Run the next chunk of the stream."""
        features = self.upsamples(self.middle(self.conv1(latents, state), state), state)
        return self.head(features, state)


def _residual_blocks(channels: int, width: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels if index == 0 else width, width) for index in range(count)]


def _middle(width: int) -> StreamSequential:
    return StreamSequential(ResidualBlock(width, width), SpatialAttention(width), ResidualBlock(width, width))


def _head(width: int, out_channels: int) -> StreamSequential:
    return StreamSequential(ChannelNorm(width, axes=3), nn.SiLU(), CausalConv3d(width, out_channels, (3, 3, 3)))


def _per_channel(numbers: Sequence[float], like: Tensor) -> Tensor:
    """[C] -> [C, 1, 1, 1], beside `like`. Kept out of the state dict, whose names are the public checkpoint's."""
    return like.new_tensor(numbers).view(-1, 1, 1, 1)
