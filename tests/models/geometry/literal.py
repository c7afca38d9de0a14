"""VGGT4D written out literally: slow, dense, one product after the other. What the fast code is compared with."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from teleworld.models.geometry.vggt.config import SaliencyLayers


def gram(
    frame: int, sources: list[int], left: dict[int, Tensor], right: dict[int, Tensor], layers: tuple[int, ...]
) -> Tensor:
    """Every product [layers, heads, sources, P, P], nothing averaged."""
    return torch.stack(
        [
            torch.stack(
                [
                    torch.stack([left[layer][frame, head] @ right[layer][source, head].T for source in sources])
                    for head in range(left[layer].shape[1])
                ]
            )
            for layer in layers
        ]
    )


def to_unit(values: Tensor) -> Tensor:
    return (values - values.min()) / (values.max() - values.min() + 1e-6)


def dynamic_map(q: dict[int, Tensor], k: dict[int, Tensor], layers: SaliencyLayers, window: tuple[int, ...]) -> Tensor:
    """The five factors, each from its own products. Every frame needs a frame in its window."""
    frames, maps = q[0].shape[0], []
    for t in range(frames):
        sources = [t + offset for offset in window if 0 <= t + offset < frames]
        m1 = gram(t, sources, q, q, layers.early_mean).mean(dim=(0, 1, 2, 4))
        v1 = gram(t, sources, q, q, layers.late_deviation).mean(dim=(0, 1, 2)).std(dim=-1)
        m2 = gram(t, sources, q, q, layers.late_mean).mean(dim=(0, 1, 2, 4))
        m3 = gram(t, sources, k, k, layers.first).mean(dim=(0, 1, 2, 4))
        v3 = gram(t, sources, q, k, layers.first).mean(dim=(0, 1, 2)).std(dim=-1)
        maps.append(to_unit((1 - to_unit(m1)) * (1 - to_unit(v1)) * to_unit(m2) * (1 - to_unit(m3)) * to_unit(v3)))
    return torch.stack(maps)


def between(values: np.ndarray, thresholds: tuple[float, ...], bins: int) -> float:
    """The variance between the classes into which thresholds part the histogram."""
    counts, edges = np.histogram(values, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    whole = np.average(centres, weights=counts)
    classes = np.digitize(centres, np.array(thresholds) + 1e-12)
    total = 0.0
    for number in range(len(thresholds) + 1):
        weight = counts[classes == number].sum()
        if weight:
            total += weight * (np.average(centres[classes == number], weights=counts[classes == number]) - whole) ** 2
    return total / counts.sum()


def otsu(values: np.ndarray, classes: int, bins: int) -> float:
    """The largest variance between classes that any thresholds reach: every choice, tried."""
    edges = np.histogram(values, bins)[1]
    centres = (edges[:-1] + edges[1:]) / 2
    return max(between(values, chosen, bins) for chosen in itertools.combinations(centres[:-1], classes - 1))


def attention_without(x: Tensor, attention: torch.nn.Module, rotary: object, dropped: list[int]) -> Tensor:
    """Self-attention over [T, D], query by query, head by head, with the dropped tokens' keys and values really gone."""
    count, width = x.shape
    heads = attention.heads
    projected = attention.qkv(x).view(count, 3, heads, width // heads)
    q, k, v = projected[:, 0], projected[:, 1], projected[:, 2]
    q = rotary(attention.q_norm(q).transpose(0, 1)[None])[0].transpose(0, 1)
    k = rotary(attention.k_norm(k).transpose(0, 1)[None])[0].transpose(0, 1)
    left = [token for token in range(count) if token not in dropped]
    rows = []
    for token in range(count):
        mixed = []
        for head in range(heads):
            weight = torch.softmax(k[left, head] @ q[token, head] / (width // heads) ** 0.5, dim=0)
            mixed.append(weight @ v[left, head])
        rows.append(torch.cat(mixed))
    return attention.proj(torch.stack(rows))
