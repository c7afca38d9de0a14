"""The blocks of Wan2.1's transformer, under its public weight names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.attention import attend
from teleworld.models.dit.config import DiTConfig
from teleworld.models.dit.kv_cache import CrossKV, LayerKV
from teleworld.models.dit.rope import rotate
from teleworld.models.initial import start_at_zero
from teleworld.models.parallel import WHOLE, Sharding


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension, computed in fp32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x) * self.weight


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """Layer norm without weights, computed in fp32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps).type_as(x)


class Attention(nn.Module):
    """Projections of one attention; q and k are RMS-normalised over the full width."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in range(4))
        self.norm_q, self.norm_k = (RMSNorm(config.dim, config.eps) for _ in range(2))

    def query(self, x: Tensor) -> Tensor:
        """[B, L, dim] -> [B, L, heads, D]."""
        return self.norm_q(self.q(x)).unflatten(-1, (self.heads, -1))

    def key_value(self, x: Tensor) -> LayerKV:
        """[B, L, dim] -> keys (before RoPE) and values."""
        return LayerKV(
            self.norm_k(self.k(x)).unflatten(-1, (self.heads, -1)), self.v(x).unflatten(-1, (self.heads, -1))
        )


class CrossAttention(Attention):
    """Attention to a prompt and, where the configuration has pictures, to a picture's tokens with keys of their own."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        self.k_img = self.v_img = self.norm_k_img = None
        if config.picture_dim:
            self.k_img, self.v_img = (nn.Linear(config.dim, config.dim) for _ in range(2))
            self.norm_k_img = RMSNorm(config.dim, config.eps)

    def context(self, text: Tensor, picture: Tensor | None) -> CrossKV:
        """Keys and values of text [B, T, dim] and of picture tokens [B, P, dim]."""
        words = self.key_value(text)
        if picture is None or self.k_img is None or self.v_img is None or self.norm_k_img is None:
            return CrossKV(words.keys, words.values)
        keys = self.norm_k_img(self.k_img(picture)).unflatten(-1, (self.heads, -1))
        return CrossKV(words.keys, words.values, LayerKV(keys, self.v_img(picture).unflatten(-1, (self.heads, -1))))

    def forward(self, x: Tensor, context: CrossKV) -> Tensor:
        """[B, L, dim] -> [B, L, dim]."""
        query = self.query(x)
        seen = attend(query, context.keys, context.values)
        if context.picture is not None:
            seen = seen + attend(query, context.picture.keys, context.picture.values)
        return self.o(seen.flatten(2))


class PictureEmbedding(nn.Module):
    """A picture's embedding [B, P, picture_dim] to tokens [B, P, dim]; norms in fp32."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.picture_dim
        self.proj = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, config.dim),
            nn.LayerNorm(config.dim),
        )

    def forward(self, picture: Tensor) -> Tensor:
        return self.proj(picture)


class FeedForward(nn.ModuleList):
    """Linear, GELU (tanh), linear; `mixing` adds a depthwise convolution over neighbouring tokens of a frame."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(
            [nn.Linear(config.dim, config.ffn), nn.GELU(approximate="tanh"), nn.Linear(config.ffn, config.dim)]
        )
        self.mixing = nn.Conv2d(config.ffn, config.ffn, 3, padding=1, groups=config.ffn) if config.mixing else None
        if self.mixing is not None:
            start_at_zero(self.mixing)

    def forward(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """x: [B, F*h*w, dim] of grid (F, h, w)."""
        hidden = self[1](self[0](x))
        if self.mixing is not None:
            frames, height, width = grid
            image = hidden.reshape(-1, height, width, hidden.shape[-1]).permute(0, 3, 1, 2)
            hidden = hidden + self.mixing(image).permute(0, 2, 3, 1).reshape(hidden.shape)
        return self[2](hidden)


class Block(nn.Module):
    """Self-attention over visible tokens, cross-attention to text, feed-forward; AdaLN per latent frame.

    Where the sequence is divided over ranks (`sharding`), L is this rank's share of the tokens, and keys and values are
    those of all tokens for this rank's share of the heads.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.sharding: Sharding = WHOLE
        self.self_attn = Attention(config)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.cross_attn = CrossAttention(config)
        self.ffn = FeedForward(config)
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / config.dim**0.5)

    def forward(
        self,
        x: Tensor,
        modulation: Tensor,
        rotation: Tensor,
        grid: tuple[int, int, int],
        text: CrossKV,
        visible: LayerKV | None,
    ) -> tuple[Tensor, LayerKV]:
        """x [B, L, dim], modulation [B, F, 6, dim] -> the same shape, and this layer's keys (after RoPE) and values."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation.unsqueeze(1) + modulation).unbind(dim=2)
        spread = lambda m: self.sharding.shard(m.repeat_interleave(grid[1] * grid[2], dim=1))  # noqa: E731
        normal = layer_norm(x, self.eps) * (1 + spread(scale1)) + spread(shift1)
        query = rotate(self.self_attn.query(normal), rotation)
        keys, values = self._key_value(normal, rotation)
        query, keys, values = self.sharding.to_heads(query, keys, values, length=math.prod(grid))
        own = LayerKV(keys, values)
        if visible is not None:
            keys, values = torch.cat([visible.keys, keys], dim=1), torch.cat([visible.values, values], dim=1)
        seen = self.sharding.to_tokens(attend(query, keys, values))
        x = x + self.self_attn.o(seen.flatten(2)) * spread(gate1)
        x = x + self.cross_attn(self.norm3(x), text)
        normal = layer_norm(x, self.eps) * (1 + spread(scale2)) + spread(shift2)
        return x + self.ffn(normal, grid) * spread(gate2), own

    def read(self, x: Tensor, modulation: Tensor, rotation: Tensor, tokens: int) -> LayerKV:
        """The keys and values alone, of x with `tokens` tokens a frame: all that a clean pass wants of the last block."""
        shift, scale = (self.modulation.unsqueeze(1) + modulation)[:, :, :2].unbind(dim=2)
        spread = lambda m: self.sharding.shard(m.repeat_interleave(tokens, dim=1))  # noqa: E731
        own = self._key_value(layer_norm(x, self.eps) * (1 + spread(scale)) + spread(shift), rotation)
        return LayerKV(*self.sharding.to_heads(*own, length=modulation.shape[1] * tokens))

    def _key_value(self, normal: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor]:
        own = self.self_attn.key_value(normal)
        return rotate(own.keys, rotation), own.values


class Head(nn.Module):
    """Modulated norm and projection to the values of a patch."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.sharding: Sharding = WHOLE
        self.head = nn.Linear(config.dim, config.channels * config.patch[0] * config.patch[1] * config.patch[2])
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, time: Tensor, tokens: int) -> Tensor:
        """x [B, L, dim] of F*tokens tokens, time [B, F, dim] -> [B, L, patch values]."""
        shift, scale = (self.modulation.unsqueeze(1) + time.unsqueeze(2)).unbind(dim=2)
        spread = lambda m: self.sharding.shard(m.repeat_interleave(tokens, dim=1))  # noqa: E731
        return self.head(layer_norm(x, self.eps) * (1 + spread(scale)) + spread(shift))
