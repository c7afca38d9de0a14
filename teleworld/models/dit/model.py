"""The diffusion transformer: Wan2.1's architecture, run group by group against a cache of what is visible.

A *group* is a set of latents denoised jointly. Three kinds of tokens pass through the same blocks: noisy latents,
clean latents (t = 0) and guidance (t = 0, an embedding of its own). Clean and guidance tokens run once and leave keys
and values behind; guidance attends to guidance alone. Concatenating those with a group's own tokens is the paper's
frame-dimension conditioning (Eq. 5) with the guidance half computed once instead of at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teleworld.models.dit.blocks import Block, Head, PictureEmbedding
from teleworld.models.dit.config import DiTConfig, Parametrization
from teleworld.models.dit.kv_cache import KVCache
from teleworld.models.dit.rope import rotations_for
from teleworld.models.initial import start_at_zero
from teleworld.models.parallel import WHOLE, Sharding
from teleworld.world.errors import InvalidInput


def time_frequencies(timestep: Tensor, dim: int) -> Tensor:
    """Cosines then sines of timesteps [...] in [0, 1000] -> [..., dim]."""
    half = dim // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angles = timestep.to(torch.float64).unsqueeze(-1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


def _each(embedding: nn.Conv3d, x: Tensor) -> Tensor:
    """A patch embedding of x [B, C, F, h, w], outside of training sample by sample: how a convolution adds up depends on the
    size of its batch, in torch 2 on a CPU as the only one of this network's operations. So several worlds can share a call and
    have the bits of calls of their own.
    """
    if len(x) == 1 or torch.is_grad_enabled():
        return embedding(x)
    return torch.cat([embedding(sample) for sample in x.split(1)])


@dataclass(frozen=True, eq=False)
class _Entry:
    """Tokens before the first block. x [B, L, dim], time [B, F, dim], modulation [B, F, 6, dim], rotation [L, D / 2]."""

    x: Tensor
    time: Tensor
    modulation: Tensor
    rotation: Tensor
    grid: tuple[int, int, int]


class DiT(nn.Module):
    """Wan2.1's transformer. Timesteps are 1000 times the noise level sigma."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        inputs = config.channels + config.extra_channels
        self.patch_embedding = nn.Conv3d(inputs, dim, config.patch, stride=config.patch)
        self.guidance_embedding = (
            nn.Conv3d(config.guidance_channels, dim, config.patch, stride=config.patch)
            if config.guidance_channels
            else None
        )
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.frequency_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_emb = PictureEmbedding(config) if config.picture_dim else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)
        self.sharding: Sharding = WHOLE
        if config.parametrization is Parametrization.GUIDED_RESIDUAL:
            start_at_zero(self.head.head)

    def shard_over(self, sharding: Sharding) -> DiT:
        """Divide sequences as `sharding` says, from now on; what all ranks are given and answer stays the same.

        Caches made before are of another form. Raises InvalidInput if this configuration cannot be divided.
        """
        sharding.check(self.config.heads)
        if self.config.mixing and sharding.ranks > 1:
            raise InvalidInput("mixing", "feed-forwards that mix neighbouring tokens need all tokens on one rank")
        self.sharding = self.head.sharding = sharding
        for block in self.layers:
            block.sharding = sharding
        return self

    @property
    def layers(self) -> tuple[Block, ...]:
        """The transformer's blocks, first to last."""
        return tuple(cast(Block, block) for block in self.blocks)

    def read_text(self, embedding: Tensor, picture: Tensor | None = None) -> KVCache:
        """Keys and values for every layer's cross-attention.

        embedding: a prompt's token embeddings [B, T, text_dim]; T below `text_length` is padded with zeros, as Wan2.1 was
        trained. picture: [B, P, picture_dim], which a configuration with pictures needs.
        """
        if (picture is None) != (self.img_emb is None):
            raise InvalidInput(
                "picture", "this configuration " + ("takes none" if picture is not None else "needs one")
            )
        missing = self.config.text_length - embedding.shape[1]
        context = self.text_embedding(F.pad(embedding, (0, 0, 0, max(missing, 0))))
        tokens = None if picture is None or self.img_emb is None else self.img_emb(picture)
        return KVCache(tuple(block.cross_attn.context(context, tokens) for block in self.layers))

    def read_guidance(self, guidance: Tensor, indices: Sequence[int], text: KVCache) -> KVCache:
        """Keys and values of guidance [B, guidance_channels, F, h, w] for the latents `indices` (1-based in the segment)."""
        if self.guidance_embedding is None:
            raise ValueError("this configuration has no guidance tokens")
        tokens = _each(self.guidance_embedding, guidance)
        return self._read(tokens, indices, text, None)

    def read_clean(
        self,
        latents: Tensor,
        indices: Sequence[int],
        text: KVCache,
        visible: KVCache | None,
        extra: Tensor | None = None,
    ) -> KVCache:
        """Keys and values of clean latents [B, C, F, h, w] at t = 0; extra: as in `forward`."""
        return self._read(_each(self.patch_embedding, self._widen(latents, extra)), indices, text, visible)

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        indices: Sequence[int],
        text: KVCache,
        visible: KVCache | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """The head's prediction [B, C, F, h, w] for a group.

        noisy: [B, C, F, h, w]. timestep: [B, F] in [0, 1000]. indices: the F latents' 1-based numbers in their segment.
        visible: caches of the clean latents and guidance that the group sees. extra: [B, extra_channels, F, h, w]; None: zeros.
        """
        tokens = _each(self.patch_embedding, self._widen(noisy, extra))
        entry = self._enter(tokens, timestep, indices)
        x = entry.x
        for number, block in enumerate(self.blocks):
            seen = None if visible is None else visible.layers[number]
            x, _ = block(x, entry.modulation, entry.rotation, entry.grid, text.layers[number], seen)
        values = self.head(x, entry.time, entry.grid[1] * entry.grid[2])
        values = self.sharding.whole(values, math.prod(entry.grid))
        values = values.reshape(-1, *entry.grid, *self.config.patch, self.config.channels)
        return values.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(noisy.shape)

    def predict_clean(
        self,
        noisy: Tensor,
        sigma: Tensor,
        indices: Sequence[int],
        text: KVCache,
        visible: KVCache | None,
        guidance: Tensor | None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """The clean latents [B, C, F, h, w] behind noisy ones at noise level `sigma` [B] in [0, 1].

        A guided residual weighs two tellings of them: `guess_clean`, off by the variance `guess_variance`, and the noisy
        latents' own, (1 - sigma) clean + sigma noise. At level 1 the guess stands alone; near 0 the noisy latents do, which
        hold detail that a small network cannot carry through its width. It is the preconditioning of EDM (Karras et al.
        2022, table 1) on the flow's line, about a guess instead of zero.

        guidance: [B, C + 1, F, h, w], the guidance latents and their coverage; read by guided residuals alone.
        extra: [B, extra_channels, F, h, w] of a velocity configuration (Wan2.1 I2V: mask and picture latents).
        Latents and levels may be float32 where the network computes in less: bfloat16 cannot tell 937.5 from 936.
        """
        level = sigma.view(-1, 1, 1, 1, 1)
        if self.config.parametrization is Parametrization.GUIDED_RESIDUAL:
            guess = self.guess_clean(noisy, sigma, indices, text, visible, guidance)
            prior, measured = level**2, (1 - level) * self.config.guess_variance
            return (prior * guess + measured * noisy) / (prior + (1 - level) * measured)
        seen = noisy.to(self.patch_embedding.weight.dtype)
        return noisy - level * self(seen, self._timestep(sigma, indices), indices, text, visible, extra)

    def guess_clean(
        self,
        noisy: Tensor,
        sigma: Tensor,
        indices: Sequence[int],
        text: KVCache,
        visible: KVCache | None,
        guidance: Tensor | None,
    ) -> Tensor:
        """What a guided residual makes of its inputs (see `predict_clean`) by itself: the guidance and what it lacks."""
        seen = noisy.to(self.patch_embedding.weight.dtype)
        residual = self(seen, self._timestep(sigma, indices), indices, text, visible, guidance)
        return residual if guidance is None else residual + guidance[:, :-1]

    @staticmethod
    def _timestep(sigma: Tensor, indices: Sequence[int]) -> Tensor:
        return (1000 * sigma)[:, None].expand(-1, len(indices))

    def _widen(self, latents: Tensor, extra: Tensor | None) -> Tensor:
        if not self.config.extra_channels:
            return latents
        if extra is None:
            extra = latents.new_zeros(len(latents), self.config.extra_channels, *latents.shape[2:])
        return torch.cat([latents, extra], dim=1)

    def _enter(self, tokens: Tensor, timestep: Tensor, indices: Sequence[int]) -> _Entry:
        frames, height, width = tokens.shape[2:]
        x = tokens.flatten(2).transpose(1, 2)
        time = self.time_embedding(time_frequencies(timestep, self.config.frequency_dim).type_as(x))
        rotation = rotations_for(indices, height, width, self.config.head_dim, self.config.rope_theta).to(x.device)
        return _Entry(
            x=self.sharding.shard(x),
            time=time,
            modulation=self.time_projection(time).unflatten(-1, (6, -1)),
            rotation=self.sharding.shard(rotation, dim=0),
            grid=(frames, height, width),
        )

    def _read(self, tokens: Tensor, indices: Sequence[int], text: KVCache, visible: KVCache | None) -> KVCache:
        """Keys and values of tokens at t = 0; what the last block would do beyond its own is left out."""
        entry = self._enter(tokens, tokens.new_zeros(1, len(indices)), indices)  # one time for all samples
        *blocks, last = self.layers
        x, layers = entry.x, []
        for number, block in enumerate(blocks):
            seen = None if visible is None else visible.layers[number]
            x, own = block(x, entry.modulation, entry.rotation, entry.grid, text.layers[number], seen)
            layers.append(own)
        layers.append(last.read(x, entry.modulation, entry.rotation, entry.grid[1] * entry.grid[2]))
        return KVCache(tuple(layers))
