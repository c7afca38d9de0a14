"""The clean context of a group: keys and values of the latents it sees, by the one recipe that every worker follows.

KV never crosses a process. Planner and populator build it in the same order and shapes: {1} alone, then the planned
latents jointly seeing {1}, then the first half seeing all those it was populated from, and so on for any other order of
groups. So a populator that did not plan the segment holds the same bits as one that did.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from teleworld.models.dit import DiT, KVCache
from teleworld.world.timeline import Timeline
from teleworld.world.work import Float, Guidance


def latents_to_tensor(latents: Float) -> Tensor:
    """float32 [n, C, h, w] -> [1, C, n, h, w]."""
    return torch.from_numpy(np.ascontiguousarray(latents, np.float32)).transpose(0, 1).unsqueeze(0).contiguous()


def tensor_to_latents(latents: Tensor) -> Float:
    """[1, C, n, h, w] -> float32 [n, C, h, w]."""
    return latents[0].transpose(0, 1).float().contiguous().cpu().numpy()


def guidance_to_tensor(guidance: Guidance) -> Tensor:
    """[1, C + 1, n, h, w]: guidance latents, then their coverage."""
    both = np.concatenate([guidance.latents, guidance.coverage[:, None]], axis=1)
    return latents_to_tensor(both)


def visible_context(
    dit: DiT, timeline: Timeline, group: int, clean: Tensor, text: KVCache, extra: Tensor | None = None
) -> KVCache:
    """KV of `timeline.visible(group)`; clean: [1, C, n, h, w] in that order; extra: their extra channels (see `DiT`).

    Group after group is read, as it was made: seeing what it saw then, so far as it is given. What is hidden from `group`
    takes part nowhere: the first half must not see the end of the plan, not even through its neighbours.
    """
    order = timeline.visible(group)
    tokens = (clean.shape[3] // dit.config.patch[1]) * (clean.shape[4] // dit.config.patch[2])
    read: list[tuple[tuple[int, ...], KVCache]] = []
    for earlier in sorted({timeline.group_of(index) for index in order}):
        shown = tuple(index for index in order if timeline.group_of(index) == earlier)
        wanted = timeline.visible(earlier)
        parts = (_part(cache, held, wanted, tokens) for held, cache in read)
        seen = KVCache.joined(part for part in parts if part is not None)
        rows = [order.index(index) for index in shown]
        beside = None if extra is None else extra[:, :, rows]
        read.append((shown, dit.read_clean(clean[:, :, rows], shown, text, seen, beside)))
    joined = KVCache.joined([cache for _, cache in read])
    assert joined is not None
    return joined


def _part(cache: KVCache, held: tuple[int, ...], wanted: tuple[int, ...], tokens: int) -> KVCache | None:
    """The keys and values of those latents that are wanted, of a cache that holds `held`, `tokens` each."""
    rows = [row for row, index in enumerate(held) if index in wanted]
    if len(rows) == len(held):
        return cache
    return KVCache.joined(cache.tokens(slice(row * tokens, (row + 1) * tokens)) for row in rows)
