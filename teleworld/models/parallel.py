"""Ulysses context parallelism: one sequence over several ranks, exactly.

Each rank holds a share of the tokens, [B, L / P, heads, D], through all that works token by token: norms, projections,
cross-attention, feed-forward. Around self-attention one all-to-all turns that into all tokens of a share of the heads,
[B, L, heads / P, D], and another turns it back. Keys and values that stay in a cache stay in the second form, so that
the cache is divided by P too (the paper's training shards it so, 3.5) and later tokens attend to it without any traffic.
Nothing is approximated: each head sees all tokens.

L need not be divisible by P; the number of heads must be. Every rank of the group has to run the same calls in the same
order; one that does not makes the others wait until the group's timeout. A rank that dies fails the collective.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from teleworld.world.errors import InvalidInput


class Sharding:
    """How a sequence is divided over ranks. This one: not at all."""

    ranks: int = 1

    def check(self, heads: int) -> None:
        """Raise InvalidInput unless attention with that many heads can be divided."""

    def shard(self, x: Tensor, dim: int = 1) -> Tensor:
        """This rank's tokens of `x`, which has all tokens along `dim`."""
        return x

    def whole(self, x: Tensor, length: int) -> Tensor:
        """All `length` tokens [B, L, ...] of which each rank has its share [B, L / P, ...], on every rank."""
        return x

    def to_heads(self, *tensors: Tensor, length: int) -> tuple[Tensor, ...]:
        """Tensors [B, L / P, heads, D] of the same shape -> [B, L, heads / P, D], in one exchange."""
        return tensors

    def to_tokens(self, x: Tensor) -> Tensor:
        """Inverse of `to_heads`: [B, L, heads / P, D] -> [B, L / P, heads, D]."""
        return x


WHOLE = Sharding()


class Ulysses(Sharding):
    """Sequences divided over the ranks of `group` (by default: of all processes). Differentiable."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.ranks = dist.get_world_size(group)
        self.rank = dist.get_rank(group)

    def check(self, heads: int) -> None:
        if heads % self.ranks:
            raise InvalidInput("heads", f"{heads} heads cannot be divided over {self.ranks} ranks")

    def shard(self, x: Tensor, dim: int = 1) -> Tensor:
        return x.tensor_split(self.ranks, dim)[self.rank]

    def whole(self, x: Tensor, length: int) -> Tensor:
        sizes = self._sizes(length)
        tail = x.shape[2:].numel() * len(x)
        mine = x.transpose(0, 1).flatten().repeat(self.ranks)
        flat = self._exchange(mine, [sizes[self.rank] * tail] * self.ranks, [size * tail for size in sizes])
        return flat.view(length, len(x), *x.shape[2:]).transpose(0, 1)

    def to_heads(self, *tensors: Tensor, length: int) -> tuple[Tensor, ...]:
        sizes, x = self._sizes(length), torch.stack(tensors)
        count, batch, mine, heads, width = x.shape
        share = count * batch * (heads // self.ranks) * width
        # Ordered by heads, the part for each rank is one piece of memory.
        flat = self._exchange(
            x.permute(3, 0, 1, 2, 4).flatten(), [share * mine] * self.ranks, [share * size for size in sizes]
        )
        parts = flat.split([share * size for size in sizes])
        shaped = [part.view(-1, count, batch, size, width) for part, size in zip(parts, sizes, strict=True)]
        return torch.cat(shaped, dim=3).permute(1, 2, 3, 0, 4).unbind(0)

    def to_tokens(self, x: Tensor) -> Tensor:
        batch, length, share, width = x.shape
        sizes = self._sizes(length)
        unit = batch * share * width
        mine = sizes[self.rank]
        flat = self._exchange(x.transpose(0, 1).flatten(), [unit * size for size in sizes], [unit * mine] * self.ranks)
        parts = flat.view(self.ranks, mine, batch, share, width)
        return parts.permute(2, 1, 0, 3, 4).flatten(2, 3)

    def _sizes(self, length: int) -> list[int]:
        """How many tokens each rank has; the same rule as `Tensor.tensor_split`."""
        return [length // self.ranks + (rank < length % self.ranks) for rank in range(self.ranks)]

    def _exchange(self, flat: Tensor, send: list[int], receive: list[int]) -> Tensor:
        return _Exchange.apply(flat, self._group, send, receive)


class _Exchange(torch.autograd.Function):
    """all_to_all of a flat tensor in pieces; its gradient is the exchange backwards."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, group: dist.ProcessGroup | None, send: list[int], receive: list[int]) -> Tensor:
        ctx.group, ctx.send, ctx.receive = group, send, receive
        result = flat.new_empty(sum(receive))
        dist.all_to_all_single(result, flat.contiguous(), receive, send, group=group)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        result = gradient.new_empty(sum(ctx.send))
        dist.all_to_all_single(result, gradient.contiguous(), ctx.send, ctx.receive, group=ctx.group)
        return result, None, None, None
