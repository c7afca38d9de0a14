"""Sizes of the geometry network: one architecture, from the nano model to VGGT's own width and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from teleworld.world.errors import InvalidInput


@dataclass(frozen=True)
class SaliencyGroups:
    """The attention pairs whose Gram statistics make each group: shallow (semantics), middle (motion), deep (prior)."""

    shallow: tuple[int, ...]
    middle: tuple[int, ...]
    deep: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        return iter((self.shallow, self.middle, self.deep))


@dataclass(frozen=True)
class GeometryConfig:
    """A geometry network.

    stem_channels: widths of the convolutional stem at full, 1/2, 1/4, ... resolution; their number sets `patch`.
    width, heads, pairs: of the transformer; a pair is one frame-attention and one global-attention block.
    registers: register tokens a frame, beside its camera token.
    layer_scale: initial value of LayerScale. rope_base: of the 2-D rotary embedding.
    head_channels: widths of the depth head from patch resolution up to full; one more than the stem has levels.
    depth_bins: steps of log-depth that the head chooses among before it refines; 0 = it answers at once.
    saliency_width: width of the head that turns Gram maps into dynamic-mask logits.
    groups: the pairs whose global queries and keys are read for saliency.
    suppressed_pairs: where the keys of dynamic image tokens are dropped in the second pass (the paper's layers 1-5).
    suppress_above: a token is dropped when the mean dynamic probability of its patch exceeds this (the paper's alpha).
    tolerance: relative depth error that the reported confidence speaks about.
    """

    stem_channels: tuple[int, ...] = (16, 32, 64)
    width: int = 128
    heads: int = 2
    mlp_ratio: float = 3.0
    pairs: int = 3
    registers: int = 4
    layer_scale: float = 0.2
    rope_base: float = 100.0
    head_channels: tuple[int, ...] = (64, 64, 32, 16)
    depth_bins: int = 24
    saliency_width: int = 24
    groups: SaliencyGroups = SaliencyGroups((0,), (1,), (2,))
    suppressed_pairs: tuple[int, ...] = (1,)
    suppress_above: float = 0.3
    tolerance: float = 0.3

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise InvalidInput("geometry.heads", "width / heads must be whole and a multiple of 4 (two rotary axes)")
        if len(self.head_channels) != len(self.stem_channels) + 1:
            raise InvalidInput("geometry.head_channels", f"expected {len(self.stem_channels) + 1} widths")
        named = [pair for group in self.groups for pair in group] + list(self.suppressed_pairs)
        if any(not group for group in self.groups) or any(not 0 <= pair < self.pairs for pair in named):
            raise InvalidInput("geometry.groups", f"groups and suppressed pairs must name pairs 0..{self.pairs - 1}")

    @property
    def patch(self) -> int:
        """Pixels along one side of a patch token."""
        return 1 << len(self.stem_channels)


NANO_GEOMETRY = GeometryConfig()

# The width, depth and saliency layers published for VGGT and VGGT4D, behind a convolutional stem instead of DINOv2.
VGGT_GEOMETRY = GeometryConfig(
    stem_channels=(32, 64, 128, 256),
    width=1024,
    heads=16,
    mlp_ratio=4.0,
    pairs=24,
    layer_scale=0.01,
    head_channels=(256, 256, 128, 64, 32),
    saliency_width=64,
    groups=SaliencyGroups((0, 3, 4, 5, 6, 7), (17, 18, 19, 20, 21), (18, 19)),
    suppressed_pairs=(1, 2, 3, 4, 5),
)
