"""What the diffusion transformer generates a group from, while it trains: the same reading as when it samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from teleworld.generation.conditioning import visible_context
from teleworld.models.dit import DiT, KVCache
from teleworld.world.timeline import Timeline


@dataclass(frozen=True, eq=False)
class Condition:
    """What a group is generated from. context [B, C, n, h, w]: clean latents of `timeline.visible(group)`, in its order;
    guidance [B, C + 1, F, h, w]; text [B, T, D]."""

    timeline: Timeline
    group: int
    context: Tensor
    guidance: Tensor
    text: Tensor

    def guess(self, dit: DiT, noisy: Tensor, sigma: Tensor) -> Tensor:
        """`dit`'s own guess at the clean latents [B, C, F, h, w] behind `noisy` at levels `sigma` [B], which is what it
        learns."""
        text, cache = self._read(dit, self.text)
        return dit.guess_clean(noisy, sigma, self._members, text, cache, self.guidance)

    def denoise(self, dit: DiT, noisy: Tensor, sigma: Tensor, read: bool = True) -> Tensor:
        """The same weighed against `noisy` (`DiT.predict_clean`), as samplers use it; `read` False hides the text."""
        text, cache = self._read(dit, self.text if read else torch.zeros_like(self.text))
        return dit.predict_clean(noisy, sigma, self._members, text, cache, self.guidance)

    @property
    def _members(self) -> tuple[int, ...]:
        return self.timeline.members(self.group)

    def _read(self, dit: DiT, embedding: Tensor) -> tuple[KVCache, KVCache | None]:
        """Keys and values of the text, and of context and guidance."""
        text = dit.read_text(embedding)
        visible = [visible_context(dit, self.timeline, self.group, self.context, text)]
        if dit.config.guidance_channels:
            visible.append(dit.read_guidance(self.guidance, self._members, text))
        return text, KVCache.joined(visible)
