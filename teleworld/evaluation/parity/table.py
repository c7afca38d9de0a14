"""Rows of the parity table: how far a network here is from the public library's, with the same weights and input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One comparison. max_rel: the largest difference over the largest value of the reference. bound: what max_rel may be."""

    module: str
    config: str
    reference: str
    max_abs: float
    max_rel: float
    bound: float
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the difference is within the bound; NaN never is."""
        return self.max_rel <= self.bound


@dataclass(frozen=True)
class Check:
    """A named group of comparisons, run when asked for: what it needs is imported then."""

    name: str
    run: Callable[[], Iterable[Row]]


def compare(
    module: str, config: str, reference: str, ours: Tensor, theirs: Tensor, *, bound: float = 1e-5, note: str = ""
) -> Row:
    """The row of two tensors of one shape."""
    if ours.shape != theirs.shape:
        raise ValueError(f"{module} {config}: {list(ours.shape)} beside {list(theirs.shape)}")
    ours, theirs = ours.double(), theirs.double()
    largest = float((ours - theirs).abs().max())
    return Row(module, config, reference, largest, largest / float(theirs.abs().max()), bound, note)


def run_checks(checks: Iterable[Check]) -> Iterator[Row]:
    """All rows, one after another."""
    for check in checks:
        with torch.inference_mode():
            yield from check.run()


def shake(module: torch.nn.Module, seed: int, amount: float = 0.05) -> None:
    """Make every parameter random, gains and biases too: a layer that is left out cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
