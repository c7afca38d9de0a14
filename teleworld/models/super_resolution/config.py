"""The shape of a super-resolution network."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from teleworld.world.errors import CheckpointError, InvalidInput

# Low-resolution pixels per cell of the feature grid, and per token of the attention, along each axis.
CELL = 2
TOKEN = 8


@dataclass(frozen=True)
class SuperResolutionConfig:
    """Sizes of the streaming super-resolution network.

    scale: enlargement along each axis, a power of two. channels: width of the feature grid, one cell for 2x2
    low-resolution pixels. blocks: convolution blocks before and after the attention. head_channels: width of the
    decoder's last layers, at low resolution.

    token_channels, heads, layers: the attention, one token for 8x8 low-resolution pixels. block: side of a square
    block of tokens, the unit of locality. past_frames: earlier frames whose keys and values are kept. top_blocks: how
    many of the (past_frames + 1) * 9 neighbouring blocks a block of queries attends to.

    guided: whether the network sees the rendered 4D memory beside its input.
    """

    scale: int = 2
    channels: int = 48
    blocks: tuple[int, int] = (1, 2)
    head_channels: int = 16
    token_channels: int = 64
    heads: int = 2
    layers: int = 1
    block: int = 4
    past_frames: int = 4
    top_blocks: int = 8
    guided: bool = False

    def __post_init__(self) -> None:
        for name in ("channels", "head_channels", "token_channels", "heads", "layers", "block", "top_blocks"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"config.{name}", "must be at least 1")
        if self.past_frames < 0:
            raise InvalidInput("config.past_frames", "must not be negative")
        if self.scale not in (2, 4):
            raise InvalidInput("config.scale", f"must be 2 or 4, got {self.scale}")
        if self.token_channels % self.heads:
            raise InvalidInput("config.token_channels", f"must be a multiple of {self.heads} heads")

    def to_json(self) -> str:
        """For a checkpoint's metadata."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> SuperResolutionConfig:
        """Inverse of `to_json`. Raises CheckpointError for anything else."""
        try:
            fields = json.loads(text)
            return cls(**{**fields, "blocks": tuple(fields["blocks"])})
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError("config", "is not the configuration of a super-resolution network") from error
