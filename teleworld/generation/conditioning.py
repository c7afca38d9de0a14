"""The clean context of a group: keys and values of the latents it sees, by the one recipe that every worker follows.

KV never crosses a process. Planner and populator build it in the same order and shapes: {1} alone, then the planned
latents jointly seeing {1}, then the first half seeing all those it was populated from. So a populator that did not plan the
segment holds the same bits as one that did.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from teleworld.models.dit import DiT, KVCache
from teleworld.world.timeline import Group, Timeline
from teleworld.world.work import Float, Guidance


def latents_to_tensor(latents: Float) -> Tensor:
    """float32 [n, C, h, w] -> [1, C, n, h, w]."""
    return torch.from_numpy(np.ascontiguousarray(latents, np.float32)).transpose(0, 1).unsqueeze(0).contiguous()


def tensor_to_latents(latents: Tensor) -> Float:
    """[1, C, n, h, w] -> float32 [n, C, h, w]."""
    return latents[0].transpose(0, 1).contiguous().numpy()


def guidance_to_tensor(guidance: Guidance) -> Tensor:
    """[1, C + 1, n, h, w]: guidance latents, then their coverage."""
    both = np.concatenate([guidance.latents, guidance.coverage[:, None]], axis=1)
    return latents_to_tensor(both)


def visible_context(dit: DiT, timeline: Timeline, group: Group, clean: Tensor, text: KVCache) -> KVCache:
    """KV of `timeline.visible(group)`; clean: [1, C, n, h, w] in that order."""
    order = timeline.visible(group)
    planned = timeline.members(Group.PLAN)
    of = lambda indices: clean[:, :, [order.index(index) for index in indices]]  # noqa: E731
    tokens = (clean.shape[3] // dit.config.patch[1]) * (clean.shape[4] // dit.config.patch[2])
    caches = [dit.read_clean(of((1,)), (1,), text, None)]
    if group is Group.PLAN:
        return caches[0]
    # The end of the plan takes part in the recipe only where it is given: the first half must not see it.
    shown = tuple(index for index in planned if index in order)
    caches.append(dit.read_clean(of(shown), shown, text, caches[0]))
    if group is Group.SECOND_HALF and (first := timeline.members(Group.FIRST_HALF)):
        early = KVCache.joined([caches[0], caches[1].tokens(slice(0, 2 * tokens))])
        caches.append(dit.read_clean(of(first), first, text, early))
    joined = KVCache.joined(caches)
    assert joined is not None
    return joined
