"""Transformer blocks under VGGT's and DINOv2's public weight names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Rotary:
    """2-D rotary embedding: the first half of a head turns with the row, the second with the column of a patch.

    Within each half the first quarter is turned against the second. Special tokens stand at 0, patches at row + 1,
    column + 1; frames share positions.
    """

    def __init__(
        self, head_dim: int, base: float, specials: int, rows: int, columns: int, device: torch.device
    ) -> None:
        quarter = head_dim // 4
        rates = base ** -(torch.arange(quarter, device=device) / quarter)
        row = torch.arange(1, rows + 1, device=device).repeat_interleave(columns)
        column = torch.arange(1, columns + 1, device=device).repeat(rows)
        places = torch.cat([torch.zeros(specials, 2, device=device), torch.stack([row, column], 1).float()])
        angles = places[:, :, None] * rates  # [T, 2, head_dim / 4]
        self._cosines, self._sines = angles.cos(), angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """x [N, heads, frames * T, head_dim], turned."""
        tokens, halves, quarter = self._cosines.shape
        first, second = x.unflatten(3, (halves, 2, quarter)).unflatten(2, (-1, tokens)).unbind(-2)
        cosines, sines = self._cosines.to(x), self._sines.to(x)
        turned = torch.stack([first * cosines - second * sines, second * cosines + first * sines], dim=-2)
        return turned.flatten(4).flatten(2, 3)


class Attention(nn.Module):
    """Self-attention; `normed` adds a LayerNorm per head on queries and keys."""

    def __init__(self, width: int, heads: int, *, normed: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm: nn.Module = nn.LayerNorm(width // heads) if normed else nn.Identity()
        self.k_norm: nn.Module = nn.LayerNorm(width // heads) if normed else nn.Identity()
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: Rotary | None, keep: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, T, D] -> (x, q, k), q and k [N, heads, T, head_dim] after norm and RoPE.

        `keep` bool [N, T] is false for tokens that nobody may attend to; their queries stay.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        mask = None if keep is None else keep[:, None, None, :].expand(-1, 1, x.shape[1], -1)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).flatten(2)), q, k


class LayerScale(nn.Module):
    """x * gamma."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm attention and MLP, each behind LayerScale."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: int, scale: float, *, normed: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, normed=normed)
        self.ls1 = LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, mlp_ratio * width, width)
        self.ls2 = LayerScale(width, scale)

    def forward(
        self, x: Tensor, rotary: Rotary | None = None, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Attention.forward`."""
        mixed, q, k = self.attn(self.norm1(x), rotary, keep)
        x = x + self.ls1(mixed)
        return x + self.ls2(self.mlp(self.norm2(x))), q, k
