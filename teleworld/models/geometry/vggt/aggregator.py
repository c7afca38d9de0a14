"""VGGT's aggregator: DINOv2 patch tokens, then attention within a frame and across frames in turn (VGGT, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.geometry.vggt.blocks import Block, Rotary
from teleworld.models.geometry.vggt.config import VGGTConfig

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


class PatchProjection(nn.Module):
    """Pixels to patch tokens."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, D, h, w]."""
        return self.proj(x)


class DinoEncoder(nn.Module):
    """DINOv2 with registers; its class token and registers are dropped from the answer."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        encoder = config.encoder
        width, side = encoder.width, encoder.image // config.patch
        self.side = side
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, encoder.registers, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # used in pre-training only; published with the weights
        self.patch_embed = PatchProjection(width, config.patch)
        self.blocks = nn.ModuleList(
            Block(width, encoder.heads, config.mlp_ratio, 1.0, eps=1e-6) for _ in range(encoder.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pictures [N, 3, H, W] -> [N, h*w, D]."""
        patches = self.patch_embed(x)
        count, _, rows, columns = patches.shape
        first, table = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        if (rows, columns) != (self.side, self.side):
            grid = table.unflatten(1, (self.side, self.side)).permute(0, 3, 1, 2)
            grid = F.interpolate(grid.float(), (rows, columns), mode="bicubic", antialias=True).to(grid)
            table = grid.flatten(2).transpose(1, 2)
        tokens = torch.cat(
            [
                (self.cls_token + first).expand(count, -1, -1),
                self.register_tokens.expand(count, -1, -1),
                patches.flatten(2).transpose(1, 2) + table,
            ],
            dim=1,
        )
        for block in self.blocks:
            tokens, _, _ = block(tokens)
        return self.norm(tokens)[:, 1 + self.register_tokens.shape[1] :]


@dataclass(frozen=True, eq=False)
class Aggregated:
    """What one pass leaves. taps: [B, S, T, 2D] by pair. features: DINOv2's patch tokens [B, S, h*w, D]. queries, keys:
    [B, S, heads, h*w, head_dim] of the global blocks that saliency reads, after norm and RoPE. grid: (h, w)."""

    taps: dict[int, Tensor]
    features: Tensor
    queries: dict[int, Tensor]
    keys: dict[int, Tensor]
    grid: tuple[int, int]


class Aggregator(nn.Module):
    """See the module's text."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = DinoEncoder(config)
        self.camera_token = nn.Parameter(torch.randn(1, 2, 1, config.width) * 1e-6)
        self.register_token = nn.Parameter(torch.randn(1, 2, config.registers, config.width) * 1e-6)
        block = lambda: Block(config.width, config.heads, config.mlp_ratio, config.layer_scale, normed=True)  # noqa: E731
        self.frame_blocks = nn.ModuleList(block() for _ in range(config.depth))
        self.global_blocks = nn.ModuleList(block() for _ in range(config.depth))

    @property
    def specials(self) -> int:
        """Camera and register tokens, which stand before a frame's patches."""
        return 1 + self.config.registers

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures [B, S, 3, H, W] in [0, 1] -> patch tokens [B, S, h*w, D]."""
        mean, std = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _STD))
        normal = (pictures.flatten(0, 1) - mean) / std
        return self.patch_embed(normal).unflatten(0, pictures.shape[:2])

    def forward(
        self, features: Tensor, grid: tuple[int, int], suppressed: Tensor | None = None, *, salient: bool = True
    ) -> Aggregated:
        """One pass over `encode`'s tokens of a grid (h, w).

        suppressed: bool [B, S, h*w], dynamic tokens whose keys and values are dropped in the pairs `config.suppressed`,
        within frames and across them; camera and register tokens never are. salient: keep what saliency reads.
        """
        batch, frames = features.shape[:2]
        first = torch.arange(frames, device=features.device) > 0
        special = torch.cat([self.camera_token, self.register_token], dim=2)[:, first.long()]
        tokens = torch.cat([special.expand(batch, -1, -1, -1).to(features), features], dim=2)
        count = tokens.shape[2]
        rotary = Rotary(
            self.config.width // self.config.heads, self.config.rope_base, self.specials, *grid, tokens.device
        )
        keep = None if suppressed is None else F.pad(~suppressed, (self.specials, 0), value=True)
        taps, queries, keys = {}, {}, {}
        for pair, (within, across) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            kept = keep if pair in self.config.suppressed else None
            local, _, _ = within(tokens.flatten(0, 1), rotary, None if kept is None else kept.flatten(0, 1))
            local = local.unflatten(0, (batch, frames))
            mixed, q, k = across(local.flatten(1, 2), rotary, None if kept is None else kept.flatten(1))
            tokens = mixed.unflatten(1, (frames, count))
            if pair in self.config.taps or pair == self.config.depth - 1:
                taps[pair] = torch.cat([local, tokens], dim=-1)
            if salient and pair in self.config.saliency.all:
                split = lambda x: x.unflatten(2, (frames, count)).transpose(1, 2)[:, :, :, self.specials :]  # noqa: E731
                queries[pair], keys[pair] = split(q), split(k)
        return Aggregated(taps, features, queries, keys, grid)
