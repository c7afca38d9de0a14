"""The shape of a FlashVSR, the published one first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from teleworld.models.dit.config import WAN_1_3B, DiTConfig
from teleworld.world.errors import InvalidInput

# Tokens of an attention window: latents, rows, columns. 128 pixels a side: latent stride 8, patch 2, window 8.
WINDOW = (2, 8, 8)
PIXELS = 128
FRAMES = 4


@dataclass(frozen=True)
class FlashVSRConfig:
    """A FlashVSR.

    dit: the transformer, Wan2.1's. projection: hidden widths of the projection of low-quality frames. decoder: widths of the
    conditional decoder. prompt_tokens: of the fixed prompt that is part of the weights.

    scale: enlargement along each axis. sparsity: s of the top-k rule; 1.5 is faster, 2.0 steadier. local_range: blocks
    along an axis that a block may attend to, odd; 9 is sharper, 11 steadier. kv_windows: past windows of two latents that
    are kept. first_latents: latents of a stream's first step, even; the published network was trained with 6. colour:
    match each frame's mean and deviation to the low-quality frame's. seed: of the noise that it starts from.
    """

    dit: DiTConfig = field(default_factory=lambda: WAN_1_3B)
    projection: tuple[int, int] = (2048, 3072)
    decoder: tuple[int, int, int, int] = (512, 256, 128, 128)
    prompt_tokens: int = 512
    scale: int = 4
    sparsity: float = 2.0
    local_range: int = 11
    kv_windows: int = 3
    first_latents: int = 6
    colour: Literal["adain", "none"] = "adain"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scale not in (1, 2, 4):
            raise InvalidInput("config.scale", f"must be 1, 2 or 4, got {self.scale}")
        if self.first_latents < WINDOW[0] or self.first_latents % WINDOW[0]:
            raise InvalidInput("config.first_latents", f"must be a multiple of {WINDOW[0]}")
        if self.local_range < 1 or not self.local_range % 2:
            raise InvalidInput("config.local_range", "must be odd and positive")
        if self.kv_windows < 0 or self.sparsity <= 0 or self.prompt_tokens < 1:
            raise InvalidInput("config", "kv_windows, sparsity and prompt_tokens must be positive")
        if self.dit.patch != (1, 2, 2):
            raise InvalidInput("config.dit.patch", "must be (1, 2, 2)")

    def top_blocks(self, height: int, width: int) -> int:
        """How many (query block, key block) pairs a head keeps for one window of height x width pixels."""
        blocks = (height // PIXELS) * (width // PIXELS)
        ratio = self.sparsity * 768 * 1280 / (height * width)  # in this order: rounding decides about a pair
        return int(blocks * blocks * ratio) - 1


FLASH_VSR = FlashVSRConfig()
