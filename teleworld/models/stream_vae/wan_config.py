"""The shapes of the published Wan VAEs, and the numbers that normalise their latents."""

from __future__ import annotations

from dataclasses import dataclass

from teleworld.world.errors import InvalidInput

# fmt: off
_WAN21_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)
_WAN21_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)
_WAN22_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
_WAN22_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on


@dataclass(frozen=True)
class WanVAEConfig:
    """The shape of a Wan VAE.

    `base_channels` times each of `multipliers` is the width of a level; between two levels the picture is halved, and
    where `temporal_down` says so the frame rate too. The decoder mirrors it, with one more residual block a level, and is
    `decoder_channels` wide where that is not 0. `residual` (Wan2.2) puts a parameter-free shortcut round each level and
    names layers by level. `patch` (Wan2.2: 2) folds squares of pixels into channels before the first layer.
    `latent_mean` and `latent_std` (one number a channel) normalise: z = (posterior mean - latent_mean) / latent_std.
    """

    base_channels: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    latent_channels: int = 16
    temporal_down: tuple[bool, ...] = (False, True, True)
    latent_mean: tuple[float, ...] = _WAN21_MEAN
    latent_std: tuple[float, ...] = _WAN21_STD
    decoder_channels: int = 0
    residual: bool = False
    patch: int = 1

    def __post_init__(self) -> None:
        sizes = (self.base_channels, self.residual_blocks, self.latent_channels, self.patch, *self.multipliers)
        if min(sizes) < 1 or self.decoder_channels < 0:
            raise InvalidInput("vae", "channels, multipliers and residual blocks must be positive")
        if len(self.temporal_down) != len(self.multipliers) - 1:
            raise InvalidInput("vae.temporal_down", f"needs {len(self.multipliers) - 1} entries, one between levels")
        if not self.residual and any(self.base_channels * multiplier % 2 for multiplier in self.multipliers[1:]):
            raise InvalidInput("vae.base_channels", "every width above the first level must be even")
        for field, numbers in (("latent_mean", self.latent_mean), ("latent_std", self.latent_std)):
            if len(numbers) != self.latent_channels:
                raise InvalidInput(f"vae.{field}", f"needs {self.latent_channels} numbers, got {len(numbers)}")
        if min(self.latent_std) <= 0:
            raise InvalidInput("vae.latent_std", "must be positive")

    @property
    def decoder_base_channels(self) -> int:
        """What `multipliers` multiply in the decoder."""
        return self.decoder_channels or self.base_channels

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level of the encoder, from the picture inwards."""
        return tuple(self.base_channels * multiplier for multiplier in self.multipliers)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of each level of the decoder, from the latent outwards."""
        return tuple(self.decoder_base_channels * multiplier for multiplier in self.multipliers[::-1])

    @property
    def pixel_values(self) -> int:
        """Channels of a picture once its patches are folded."""
        return 3 * self.patch**2


WAN21_VAE = WanVAEConfig()
WAN22_VAE = WanVAEConfig(
    base_channels=160,
    decoder_channels=256,
    latent_channels=48,
    latent_mean=_WAN22_MEAN,
    latent_std=_WAN22_STD,
    residual=True,
    patch=2,
)
