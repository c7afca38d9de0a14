"""Wan2.1's VAE as a Stream-VAE: the public architecture and weights, with the cache taken out of the network.

`WAN21_VAE` is the published configuration (126.9 M parameters, 16 latent channels, 8x in space, 4x in time); small
configurations of the same network exist for tests. The state dict has the names of the public checkpoint; naming.py
maps them to diffusers' and back. Encoding returns the mean of the posterior: nothing here is random.

Memory: at 480 x 832 the decoder's state is 3.5 GiB in fp32 and the encoder's 2.1 GiB (half in bf16), and twice that
while a chunk runs, because the old state stays valid until the chunk has succeeded. A chunk itself costs what its
frames cost, so feed one latent at a time where memory is short. This decoder takes no guidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
from teleworld.world.errors import InvalidInput

_ENCODER = "wan.encoder"
_DECODER = "wan.decoder"

# fmt: off
_WAN21_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
_WAN21_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
# fmt: on


@dataclass(frozen=True)
class WanVAEConfig:
    """The shape of a Wan2.1 VAE.

    `base_channels` times each of `multipliers` is the width of a level; between two levels the picture is halved, and
    where `temporal_down` says so the frame rate too. The decoder mirrors it, with one more residual block a level.
    `latent_mean` and `latent_std` (one number a channel) normalise: z = (posterior mean - latent_mean) / latent_std.
    """

    base_channels: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    latent_channels: int = 16
    temporal_down: tuple[bool, ...] = (False, True, True)
    latent_mean: tuple[float, ...] = _WAN21_MEAN
    latent_std: tuple[float, ...] = _WAN21_STD

    def __post_init__(self) -> None:
        if min(self.base_channels, self.residual_blocks, self.latent_channels, *self.multipliers) < 1:
            raise InvalidInput("vae", "channels, multipliers and residual blocks must be positive")
        if len(self.temporal_down) != len(self.multipliers) - 1:
            raise InvalidInput("vae.temporal_down", f"needs {len(self.multipliers) - 1} entries, one between levels")
        if any(self.base_channels * multiplier % 2 for multiplier in self.multipliers[1:]):
            raise InvalidInput("vae.base_channels", "every width above the first level must be even")
        for field, numbers in (("latent_mean", self.latent_mean), ("latent_std", self.latent_std)):
            if len(numbers) != self.latent_channels:
                raise InvalidInput(f"vae.{field}", f"needs {self.latent_channels} numbers, got {len(numbers)}")
        if min(self.latent_std) <= 0:
            raise InvalidInput("vae.latent_std", "must be positive")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level, from the picture inwards."""
        return tuple(self.base_channels * multiplier for multiplier in self.multipliers)


WAN21_VAE = WanVAEConfig()


class WanStreamVAE(StreamVAE):
    """Wan2.1's causal video VAE. See `StreamVAE` for the shapes; the state's slots are named after the layers."""

    def __init__(self, config: WanVAEConfig = WAN21_VAE) -> None:
        super().__init__()
        self.config = config
        self.latent_channels = config.latent_channels
        self.spatial_stride = 2 ** len(config.temporal_down)
        self.temporal_stride = 2 ** sum(config.temporal_down)
        moments = 2 * config.latent_channels  # the posterior's mean and log-variance
        self.encoder = WanEncoder(config, moments)
        self.conv1 = nn.Conv3d(moments, moments, 1)
        self.conv2 = nn.Conv3d(config.latent_channels, config.latent_channels, 1)
        self.decoder = WanDecoder(config)
        for name, layer in self.named_modules():
            if isinstance(layer, CausalConv3d):
                layer.slot = name

    def new_encoder_state(self) -> StreamState:
        """The state of a stream that has encoded nothing yet."""
        return StreamState(_ENCODER)

    def new_decoder_state(self) -> StreamState:
        """The state of a stream that has decoded nothing yet."""
        return StreamState(_DECODER)

    def encode_chunk(self, pixels: Tensor, state: StreamState) -> Tensor:
        """Pixels [B, 3, F, H, W] to normalised latents [B, C, f, h, w]; see `StreamVAE.encode_chunk`."""
        self.check_pixels(pixels, first=state.fresh)
        with state.chunk(_ENCODER, pixels.shape[2]) as draft:
            moments = self.conv1(self.encoder(pixels, draft))
            mean = moments[:, : self.latent_channels]
            return (mean - _per_channel(self.config.latent_mean, mean)) / _per_channel(self.config.latent_std, mean)

    def decode_chunk(self, latents: Tensor, state: StreamState, guidance: DecoderGuidance | None = None) -> Tensor:
        """Normalised latents [B, C, f, h, w] to pixels [B, 3, F, H, W]; see `StreamVAE.decode_chunk`."""
        if guidance is not None:
            raise InvalidInput("guidance", "Wan2.1's decoder takes none")
        self.check_shape("latents", latents, self.latent_channels)
        with state.chunk(_DECODER, latents.shape[2]) as draft:
            raw = latents * _per_channel(self.config.latent_std, latents)
            raw = raw + _per_channel(self.config.latent_mean, latents)
            return self.decoder(self.conv2(raw), draft).clamp(-1.0, 1.0)


class WanEncoder(nn.Module):
    """Pixels [B, 3, F, H, W] to the posterior's moments before the last projection [B, moments, f, h, w]."""

    def __init__(self, config: WanVAEConfig, moments: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv1 = CausalConv3d(3, config.base_channels, (3, 3, 3))
        layers: list[nn.Module] = []
        for level, (channels, width) in enumerate(pairwise((config.base_channels, *widths))):
            layers += _residual_blocks(channels, width, config.residual_blocks)
            if level < len(config.temporal_down):
                layers.append(Downsample(width, in_time=config.temporal_down[level]))
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
        widths = config.widths[::-1]
        self.conv1 = CausalConv3d(config.latent_channels, widths[0], (3, 3, 3))
        self.middle = _middle(widths[0])
        layers: list[nn.Module] = []
        channels = widths[0]
        for level, width in enumerate(widths):
            layers += _residual_blocks(channels, width, config.residual_blocks + 1)
            channels = width
            if level < len(config.temporal_down):
                layers.append(Upsample(width, in_time=config.temporal_down[::-1][level]))
                channels = width // 2
        self.upsamples = StreamSequential(*layers)
        self.head = _head(channels, 3)

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
