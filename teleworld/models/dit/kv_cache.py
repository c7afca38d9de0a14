"""Keys and values of clean latents and of guidance, per layer, so that they are computed once.

Visibility is expressed by what a caller puts into the cache, not by a mask (MMPL): a group attends to itself and to
everything cached. Keys are stored after RoPE. The cache belongs to one task; it never crosses a process.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerKV:
    """Keys and values [B, L, heads, D] of one layer."""

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, eq=False)
class CrossKV(LayerKV):
    """Keys and values of a prompt for one layer's cross-attention, and of a picture's tokens beside it (Wan2.1 I2V)."""

    picture: LayerKV | None = None


@dataclass(frozen=True, eq=False)
class KVCache:
    """What one set of tokens left behind in each layer."""

    layers: tuple[LayerKV, ...]

    @classmethod
    def joined(cls, caches: Iterable[KVCache]) -> KVCache | None:
        """The caches one behind the other, in the given order; None if there are none."""
        caches = tuple(caches)
        if len(caches) < 2:
            return caches[0] if caches else None
        return cls(
            tuple(
                LayerKV(torch.cat([kv.keys for kv in layer], dim=1), torch.cat([kv.values for kv in layer], dim=1))
                for layer in zip(*(cache.layers for cache in caches), strict=True)
            )
        )

    def tokens(self, chosen: slice) -> KVCache:
        """The same layers for some of the tokens."""
        return KVCache(tuple(LayerKV(kv.keys[:, chosen], kv.values[:, chosen]) for kv in self.layers))

    @property
    def nbytes(self) -> int:
        """Bytes of all layers."""
        return sum(t.numel() * t.element_size() for kv in self.layers for t in (kv.keys, kv.values))
