"""Locality-constrained sparse attention written out: dense scores, a mask token by token. What the real one must equal."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def place_of(token: int, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    frame, rest = divmod(token, grid[1] * grid[2])
    return frame, *divmod(rest, grid[2])


def block_of(token: int, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """(window, block row, block column) of a token."""
    frame, row, column = place_of(token, grid)
    return frame // 2, row // 8, column // 8


def kept_pairs(
    q: Tensor, k: Tensor, grid: tuple[int, int, int], key_grid: tuple[int, int, int], local_range: int, top: int
) -> set[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Of one head: which block of queries sees which block of keys. q [Lq, D], k [Lk, D]."""
    members: list[dict[tuple[int, int, int], list[int]]] = [{}, {}]
    for which, size, here in ((0, len(q), grid), (1, len(k), key_grid)):
        for token in range(size):
            members[which].setdefault(block_of(token, here), []).append(token)
    kept = set()
    for window in range(grid[0] // 2):
        shares = {}
        for asking, tokens in members[0].items():
            if asking[0] != window:
                continue
            scores = {}
            for asked, others in members[1].items():
                if max(abs(asking[1] - asked[1]), abs(asking[2] - asked[2])) <= local_range // 2:
                    scores[asked] = float(q[tokens].mean(0) @ k[others].mean(0)) / math.sqrt(q.shape[1])
            largest = max(scores.values())
            total = sum(math.exp(score - largest) for score in scores.values())
            for asked in members[1]:
                shares[asking, asked] = math.exp(scores[asked] - largest) / total if asked in scores else 0.0
        ranked = sorted(shares.values(), reverse=True)
        threshold = ranked[min(top, len(ranked) - 1)]
        kept |= {pair for pair, share in shares.items() if share > threshold}
    return kept


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: tuple[int, int, int],
    key_grid: tuple[int, int, int],
    local_range: int,
    top: int,
) -> Tensor:
    """[Lq, heads, D] from q [Lq, heads, D], k and v [Lk, heads, D]; a query that sees nothing answers zero."""
    asking = [block_of(token, grid) for token in range(len(q))]
    asked = [block_of(token, key_grid) for token in range(len(k))]
    mine, theirs = sorted(set(asking)), sorted(set(asked))
    rows, columns = (
        torch.tensor([mine.index(block) for block in asking]),
        torch.tensor([theirs.index(b) for b in asked]),
    )
    heads = []
    for head in range(q.shape[1]):
        kept = kept_pairs(q[:, head], k[:, head], grid, key_grid, local_range, top)
        blocks = torch.tensor([[(one, other) in kept for other in theirs] for one in mine])
        seen = blocks[rows][:, columns]  # token by token
        scores = (q[:, head] @ k[:, head].T / math.sqrt(q.shape[2])).masked_fill(~seen, -torch.inf)
        heads.append(torch.nan_to_num(scores.softmax(-1)) @ v[:, head])
    return torch.stack(heads, dim=1)
