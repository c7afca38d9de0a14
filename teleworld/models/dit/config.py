"""Sizes of the diffusion transformer, from nano to the paper's 18B: one architecture, Wan2.1's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from teleworld.world.errors import InvalidInput


class Parametrization(Enum):
    """What the head predicts: the flow velocity (Wan2.1), or what the guidance lacks of a guess at the clean latent, which
    `DiT.predict_clean` weighs against the noisy one."""

    VELOCITY = "velocity"
    GUIDED_RESIDUAL = "guided_residual"


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a DiT.

    dim, ffn, heads, layers: as in Wan2.1. channels: of a latent; extra_channels: channels concatenated to the noisy
    latent in the patch embedding (Wan2.1 I2V: 20; with guided residuals: guidance latent and coverage). guidance_channels:
    of the guidance tokens that are concatenated on the frame dimension (paper Eq. 5), 0 for none; they carry the frame
    index of the latent they guide. picture_dim: width of the picture embedding that cross-attention reads beside the text
    (Wan2.1 I2V: 1280, of CLIP ViT-H/14), 0 for none. mixing: a depthwise 3x3 convolution inside each feed-forward, so that
    neighbouring tokens agree when few layers see few samples. guess_variance: of the error of a guided residual's guess at
    whitened latents, by which `DiT.predict_clean` weighs it.
    """

    dim: int
    ffn: int
    heads: int
    layers: int
    channels: int = 16
    extra_channels: int = 0
    guidance_channels: int = 0
    patch: tuple[int, int, int] = (1, 2, 2)
    text_dim: int = 4096
    text_length: int = 512
    frequency_dim: int = 256
    rope_theta: float = 10_000.0
    eps: float = 1e-6
    mixing: bool = False
    parametrization: Parametrization = Parametrization.VELOCITY
    guess_variance: float = 0.5
    picture_dim: int = 0

    def __post_init__(self) -> None:
        sizes = (self.dim, self.ffn, self.heads, self.layers, self.channels, self.text_dim, self.text_length)
        if min(*sizes, *self.patch) < 1 or min(self.extra_channels, self.guidance_channels, self.picture_dim) < 0:
            raise InvalidInput("dit", "sizes must be positive")
        if not 0 < self.guess_variance < math.inf:
            raise InvalidInput("dit.guess_variance", "must be more than 0")
        if self.dim % self.heads or self.head_dim % 2:
            raise InvalidInput("dit.heads", f"dim {self.dim} must divide into {self.heads} heads of even width")
        if self.takes_picture and self.extra_channels <= self.channels:
            raise InvalidInput("dit.extra_channels", f"mask and latents of a picture are more than {self.channels}")

    @property
    def head_dim(self) -> int:
        """D of each attention head."""
        return self.dim // self.heads

    @property
    def takes_picture(self) -> bool:
        """Whether the extra channels are a mask and the start picture's latents (Wan2.1 I2V), rather than guidance."""
        return self.extra_channels > 0 and self.parametrization is Parametrization.VELOCITY


WAN_1_3B = DiTConfig(dim=1536, ffn=8960, heads=12, layers=30)
WAN_14B = DiTConfig(dim=5120, ffn=13824, heads=40, layers=40)
WAN_14B_I2V = DiTConfig(dim=5120, ffn=13824, heads=40, layers=40, extra_channels=20, picture_dim=1280)
# The paper tells the total alone: 18B, with guidance concatenated on the frame dimension (Eq. 5). This is the 14B width,
# deepened until it counts that many, and guidance tokens of a latent and its coverage.
WAN_18B = DiTConfig(dim=5120, ffn=13824, heads=40, layers=51, guidance_channels=17)
NANO = DiTConfig(
    dim=192,
    ffn=768,
    heads=3,
    layers=6,
    channels=80,
    extra_channels=81,
    guidance_channels=81,
    text_dim=384,
    text_length=32,
    mixing=True,
    parametrization=Parametrization.GUIDED_RESIDUAL,
)
