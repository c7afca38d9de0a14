"""The diffusion transformer: Wan2.1's architecture, run group by group against a cache of what is visible.

A *group* is a set of latents denoised jointly. Three kinds of tokens pass through the same blocks: noisy latents,
clean latents (t = 0) and guidance (t = 0, an embedding of its own). Clean and guidance tokens run once and leave keys
and values behind; guidance attends to guidance alone. Concatenating those with a group's own tokens is the paper's
frame-dimension conditioning (Eq. 5) with the guidance half computed once instead of at every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from teleworld.models.dit.blocks import Block, Head
from teleworld.models.dit.config import DiTConfig, Parametrization
from teleworld.models.dit.kv_cache import KVCache, LayerKV
from teleworld.models.dit.rope import rotations_for


def time_frequencies(timestep: Tensor, dim: int) -> Tensor:
    """Cosines then sines of timesteps [...] in [0, 1000] -> [..., dim]."""
    half = dim // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float64, device=timestep.device) / half)
    angles = timestep.to(torch.float64).unsqueeze(-1) * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


class DiT(nn.Module):
    """Wan2.1's transformer. Timesteps are 1000 times the noise level sigma."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        inputs = config.channels + config.extra_channels
        self.patch_embedding = nn.Conv3d(inputs, dim, config.patch, stride=config.patch)
        self.guidance_embedding = (
            nn.Conv3d(config.guidance_channels, dim, config.patch, stride=config.patch) if config.guidance_channels else None
        )
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.frequency_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.head = Head(config)
        if config.parametrization is Parametrization.GUIDED_RESIDUAL:
            nn.init.zeros_(self.head.head.weight)
            nn.init.zeros_(self.head.head.bias)

    def read_text(self, embedding: Tensor) -> KVCache:
        """Keys and values of a prompt's token embeddings [B, T, text_dim] for every layer's cross-attention."""
        context = self.text_embedding(embedding)
        return KVCache(tuple(block.cross_attn.key_value(context) for block in self.blocks))

    def read_guidance(self, guidance: Tensor, indices: Sequence[int], text: KVCache) -> KVCache:
        """Keys and values of guidance [B, guidance_channels, F, h, w] for the latents `indices` (1-based in the segment)."""
        if self.guidance_embedding is None:
            raise ValueError("this configuration has no guidance tokens")
        tokens = self.guidance_embedding(guidance)
        return self._run(tokens, guidance.new_zeros(len(guidance), len(indices)), indices, text, None)[1]

    def read_clean(self, latents: Tensor, indices: Sequence[int], text: KVCache, visible: KVCache | None) -> KVCache:
        """Keys and values of clean latents [B, C, F, h, w] at t = 0."""
        still = latents.new_zeros(len(latents), len(indices))
        return self._run(self.patch_embedding(self._widen(latents, None)), still, indices, text, visible)[1]

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
        visible: caches of clean latents and guidance that the group may see. extra: [B, extra_channels, F, h, w], zeros if None.
        """
        frames, height, width = noisy.shape[2], noisy.shape[3], noisy.shape[4]
        tokens = self.patch_embedding(self._widen(noisy, extra))
        x, _, time = self._run(tokens, timestep, indices, text, visible)
        pt, ph, pw = self.config.patch
        grid = (frames // pt, height // ph, width // pw)
        values = self.head(x, time, grid[1] * grid[2])
        values = values.reshape(-1, *grid, pt, ph, pw, self.config.channels)
        return values.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(noisy.shape)

    def predict_clean(
        self,
        noisy: Tensor,
        sigma: Tensor,
        indices: Sequence[int],
        text: KVCache,
        visible: KVCache | None,
        guidance: Tensor | None,
    ) -> Tensor:
        """The clean latents [B, C, F, h, w] behind noisy ones at noise level `sigma` [B] in [0, 1].

        guidance: [B, C + 1, F, h, w], the guidance latents and their coverage; read by guided residuals alone.
        """
        timestep = (1000 * sigma)[:, None].expand(-1, len(indices))
        if self.config.parametrization is Parametrization.VELOCITY:
            return noisy - sigma.view(-1, 1, 1, 1, 1) * self(noisy, timestep, indices, text, visible)
        residual = self(noisy, timestep, indices, text, visible, guidance)
        return residual if guidance is None else residual + guidance[:, :-1]

    def _widen(self, latents: Tensor, extra: Tensor | None) -> Tensor:
        if not self.config.extra_channels:
            return latents
        if extra is None:
            extra = latents.new_zeros(len(latents), self.config.extra_channels, *latents.shape[2:])
        return torch.cat([latents, extra], dim=1)

    def _run(
        self, tokens: Tensor, timestep: Tensor, indices: Sequence[int], text: KVCache, visible: KVCache | None
    ) -> tuple[Tensor, KVCache, Tensor]:
        grid = (tokens.shape[2], tokens.shape[3], tokens.shape[4])
        x = tokens.flatten(2).transpose(1, 2)
        time = self.time_embedding(time_frequencies(timestep, self.config.frequency_dim).type_as(x))
        modulation = self.time_projection(time).unflatten(-1, (6, -1))
        rotation = rotations_for(indices, grid[1], grid[2], self.config.head_dim, self.config.rope_theta)
        layers: list[LayerKV] = []
        for number, block in enumerate(self.blocks):
            seen = None if visible is None else visible.layers[number]
            x, own = block(x, modulation, rotation, grid, text.layers[number], seen)
            layers.append(own)
        return x, KVCache(tuple(layers)), time
