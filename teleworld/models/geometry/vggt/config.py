"""Sizes of VGGT, the published 1B configuration first, and what VGGT4D reads in it."""

from __future__ import annotations

from dataclasses import dataclass

from teleworld.world.errors import InvalidInput


@dataclass(frozen=True)
class EncoderConfig:
    """The picture encoder, a DINOv2 with registers. image: side in pixels of the pictures its position table was made for."""

    width: int = 1024
    heads: int = 16
    depth: int = 24
    registers: int = 4
    image: int = 518


@dataclass(frozen=True)
class SaliencyLayers:
    """The global blocks (0-based) whose queries and keys VGGT4D reads, one group a factor of `dynamic_map`."""

    early_mean: tuple[int, ...] = (3, 4, 5, 6, 7)
    late_deviation: tuple[int, ...] = (18, 19)
    late_mean: tuple[int, ...] = (17, 18, 19, 20, 21)
    first: tuple[int, ...] = (0,)

    @property
    def all(self) -> frozenset[int]:
        """Every block that is read."""
        return frozenset(self.early_mean + self.late_deviation + self.late_mean + self.first)


@dataclass(frozen=True)
class VGGTConfig:
    """A VGGT.

    width, heads, depth: of the aggregator; `depth` frame-attention and as many global-attention blocks alternate.
    registers: register tokens a frame beside its camera token. patch: pixels along a patch. layer_scale: initial value.
    rope_base: of the 2-D rotary embedding. trunk, refinements: blocks of the camera head, and how often it refines.
    features, channels: widths of the depth head; taps: the block pairs that it reads. suppressed: the pairs in which the
    keys of dynamic tokens are dropped. window: offsets of the frames that a frame is compared with.
    """

    width: int = 1024
    heads: int = 16
    depth: int = 24
    registers: int = 4
    patch: int = 14
    mlp_ratio: int = 4
    layer_scale: float = 0.01
    rope_base: float = 100.0
    trunk: int = 4
    refinements: int = 4
    features: int = 256
    channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    taps: tuple[int, int, int, int] = (4, 11, 17, 23)
    encoder: EncoderConfig = EncoderConfig()
    saliency: SaliencyLayers = SaliencyLayers()
    suppressed: tuple[int, ...] = (1, 2, 3, 4, 5)
    window: tuple[int, ...] = (-6, -4, -2, 2, 4, 6)

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise InvalidInput("vggt.heads", "width / heads must be whole and a multiple of 4 (two rotary axes)")
        if self.encoder.width != self.width:
            raise InvalidInput("vggt.encoder.width", f"must be the aggregator's {self.width}")
        if self.encoder.image % self.patch:
            raise InvalidInput("vggt.encoder.image", f"must be a multiple of the patch, {self.patch}")
        named = (*self.taps, *self.saliency.all, *self.suppressed)
        if any(not 0 <= pair < self.depth for pair in named):
            raise InvalidInput("vggt.depth", f"taps, saliency and suppressed pairs must lie in 0..{self.depth - 1}")
        if 0 in self.window:
            raise InvalidInput("vggt.window", "a frame cannot be compared with itself")


VGGT_1B = VGGTConfig()
