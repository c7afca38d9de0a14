"""What ranks do in the tests of context parallelism. Importable by spawned processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from teleworld.models.dit import DiT, DiTConfig, KVCache
from teleworld.models.parallel import Sharding, Ulysses

CONFIG = DiTConfig(dim=48, ffn=64, heads=4, layers=3, channels=4, text_dim=8, text_length=5)
HEIGHT, WIDTH = 6, 10  # 15 tokens a latent: a share is no whole number of latents, and not the same on all ranks


def network(seed: int, dtype: torch.dtype) -> DiT:
    """The same random network on every rank."""
    torch.manual_seed(seed)
    made = DiT(CONFIG)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return made.to(dtype).eval()


def segment(dit: DiT) -> tuple[Tensor, ...]:
    """A segment in the planned order: the prefix, the plan that sees it, and a half that sees what Eq. 3 names."""
    dtype = dit.head.head.weight.dtype
    torch.manual_seed(7)
    draw = lambda frames: torch.randn(1, CONFIG.channels, frames, HEIGHT, WIDTH, dtype=dtype)  # noqa: E731
    text = dit.read_text(torch.randn(1, 5, CONFIG.text_dim, dtype=dtype))
    prefix = dit.read_clean(draw(1), (1,), text, None)
    step = torch.full((1, 3), 625.0)
    plan = dit(draw(3), step, (2, 4, 6), text, prefix)
    planned = dit.read_clean(plan, (2, 4, 6), text, prefix)
    half = dit(draw(1), step[:, :1], (3,), text, KVCache.joined([prefix, planned]))
    return plan, half


def segment_on_this_rank(seed: int, dtype: torch.dtype) -> dict[str, Any]:
    """The segment with the sequence divided, and the bytes of a cache here."""
    with torch.no_grad():
        dit = network(seed, dtype).shard_over(Ulysses())
        plan, half = segment(dit)
        text = dit.read_text(torch.zeros(1, 5, CONFIG.text_dim, dtype=dtype))
        cache = dit.read_clean(torch.zeros(1, CONFIG.channels, 2, HEIGHT, WIDTH, dtype=dtype), (1, 2), text, None)
    return {"plan": plan.numpy(), "half": half.numpy(), "cache": cache.nbytes}


def gradients_on_this_rank(seed: int) -> dict[str, np.ndarray]:
    """Gradients of a loss that every rank computes on the whole prediction."""
    dit = network(seed, torch.float64).shard_over(Ulysses())
    return {name: value.numpy() for name, value in gradients(dit, dit.sharding).items()}


def gradients(dit: DiT, sharding: Sharding) -> dict[str, Tensor]:
    """Gradients of the parameters, summed over ranks as data parallel training does."""
    import torch.distributed as dist

    plan, half = segment(dit)
    # Each rank has the whole loss; the exchange hands every rank's copy of it back, so each counts for its share.
    loss = (plan.square().mean() + half.square().mean()) / sharding.ranks
    loss.backward()
    found = {name: value.grad for name, value in dit.named_parameters() if value.grad is not None}
    if sharding.ranks > 1:
        for value in found.values():
            dist.all_reduce(value)
    return found


def round_trip_on_this_rank(length: int) -> tuple[bool, bool]:
    """Whether tokens -> heads -> tokens, and share -> whole, give back what went in."""
    sharding = Ulysses()
    torch.manual_seed(1)
    x = torch.randn(2, length, 4, 3)
    mine = sharding.shard(x)
    (heads,) = sharding.to_heads(mine, length=length)
    share = 4 // sharding.ranks
    expected = x[:, :, sharding.rank * share : (sharding.rank + 1) * share]
    turned = torch.equal(heads, expected) and torch.equal(sharding.to_tokens(heads), mine)
    return turned, torch.equal(sharding.whole(mine, length), x)


def everything_on_this_rank(seed: int) -> dict[str, Any]:
    """All of the above: starting ranks costs more than what they do."""
    return {
        "segments": [segment_on_this_rank(seed, dtype) for dtype in (torch.float64, torch.float32)],
        "gradients": gradients_on_this_rank(seed),
        "round trips": [round_trip_on_this_rank(length) for length in (4, 7, 16)],
    }
