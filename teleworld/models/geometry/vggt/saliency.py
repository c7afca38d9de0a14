"""VGGT4D's training-free dynamic saliency (arXiv 2511.19971; the paper's 3.3.2): what moves, from attention statistics.

For a frame and the frames of its window take the raw products of queries and keys of patch tokens in global blocks, no
softmax, averaged over blocks, heads and source frames: one matrix [patch, source patch]. Its mean over source patches,
or its deviation over them, is one map; five such maps, each scaled to [0, 1], multiply:

    (1 - mean QQ early) (1 - std QQ late) mean QQ late (1 - mean KK first) std QK first

The average over blocks, heads and frames of products is one product of concatenated and averaged vectors, so no product
is formed more than once; the tests compare with the literal form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from teleworld.models.geometry.vggt.config import SaliencyLayers

_TINY = 1e-6


def scaled(maps: Tensor) -> Tensor:
    """Each map [..., P] to [0, 1]; a constant one becomes 0."""
    low, high = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    return (maps - low) / (high - low + _TINY)


def sources_of(frame: int, frames: int, window: Sequence[int]) -> list[int]:
    """The frames that `frame` is compared with: those of the window that exist.

    A sequence too short for the window (three key frames, say) is compared with all its other frames, and a single frame
    with itself: the published window assumes a video.
    """
    near = [frame + offset for offset in window if 0 <= frame + offset < frames]
    return near or [other for other in range(frames) if other != frame] or [frame]


def dynamic_map(
    queries: Mapping[int, Tensor], keys: Mapping[int, Tensor], layers: SaliencyLayers, window: Sequence[int]
) -> Tensor:
    """Saliency [S, P] in [0, 1] from queries and keys [S, heads, P, head_dim] by global block."""
    frames = next(iter(queries.values())).shape[0]
    q = {name: _concatenated(queries, chosen) for name, chosen in _groups(layers).items()}
    k = _concatenated(keys, layers.first)
    maps = []
    for frame in range(frames):
        near = sources_of(frame, frames, window)
        seen = lambda x: x[near].mean(0)  # noqa: E731, B023 - used before the next turn
        early = _products(q["early"][frame], seen(q["early"])).mean(1)
        late_spread = _products(q["late spread"][frame], seen(q["late spread"])).std(1)
        late = _products(q["late"][frame], seen(q["late"])).mean(1)
        first = _products(k[frame], seen(k)).mean(1)
        first_spread = _products(q["first"][frame], seen(k)).std(1)
        factors = (1 - scaled(early), 1 - scaled(late_spread), scaled(late), 1 - scaled(first), scaled(first_spread))
        maps.append(scaled(torch.stack(factors).prod(0)))
    return torch.stack(maps)


def _groups(layers: SaliencyLayers) -> dict[str, tuple[int, ...]]:
    return {
        "early": layers.early_mean,
        "late spread": layers.late_deviation,
        "late": layers.late_mean,
        "first": layers.first,
    }


def _concatenated(vectors: Mapping[int, Tensor], chosen: Sequence[int]) -> Tensor:
    """[S, P, blocks * heads * head_dim], scaled so that a product of two is the mean over blocks and heads."""
    stacked = torch.stack([vectors[layer] for layer in chosen], dim=1)  # [S, blocks, heads, P, head_dim]
    blocks, heads = stacked.shape[1:3]
    return stacked.permute(0, 3, 1, 2, 4).flatten(2) * (blocks * heads) ** -0.5


def _products(tokens: Tensor, sources: Tensor) -> Tensor:
    return tokens @ sources.T
