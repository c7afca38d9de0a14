"""What a row of the evaluation's table is: a figure of one split, computed from the findings of trials, beside its bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from teleworld.evaluation.metrics import Figure
from teleworld.evaluation.trials import Finding, Trial

Column = list[float]


@dataclass(frozen=True)
class Bar:
    """What a mean has to reach: at least `low`, at most `high`."""

    low: float = -math.inf
    high: float = math.inf

    def met(self, value: float) -> bool:
        """Whether a mean is good enough; NaN is not."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"


class Findings:
    """All findings, by trial."""

    def __init__(self, found: Mapping[Trial, Finding]) -> None:
        self._found = dict(sorted(found.items()))

    def of(self, kind: str, split: str, variant: str = "") -> dict[int, Finding]:
        """By number of the start."""
        wanted = (kind, split, variant)
        return {t.number: found for t, found in self._found.items() if (t.kind, t.split, t.variant) == wanted}

    def column(self, kind: str, split: str, variant: str, name: str) -> Column:
        """A value of every start."""
        return [found.values[name] for found in self.of(kind, split, variant).values()]

    def paired(self, kind: str, split: str, variants: tuple[str, str], names: tuple[str, str]) -> tuple[Column, Column]:
        """Two values of every start for which both are known: (of the first variant and name, of the second)."""
        first, second = (self.of(kind, split, variant) for variant in variants)
        both = [number for number in first if number in second]
        return [first[n].values[names[0]] for n in both], [second[n].values[names[1]] for n in both]


@dataclass(frozen=True)
class Row:
    """One figure of a split. name: its key. unit: of the figure. title: what it says. kinds: of the trials it needs.
    value: from the findings. bar: None where it is there for comparison."""

    name: str
    split: str
    unit: str
    title: str
    kinds: frozenset[str]
    value: Callable[[Findings], Figure]
    bar: Bar | None = None

    @property
    def key(self) -> str:
        """Unique in the table."""
        return f"{self.name}.{self.split}"


def mean(kind: str, split: str, variant: str, name: str) -> Callable[[Findings], Figure]:
    return lambda found: Figure.of(found.column(kind, split, variant, name))


def gain(kind: str, split: str, variants: tuple[str, str], names: tuple[str, str]) -> Callable[[Findings], Figure]:
    def value(found: Findings) -> Figure:
        ours, theirs = found.paired(kind, split, variants, names)
        return Figure.of([one - other for one, other in zip(ours, theirs, strict=True)])

    return value


def share(kind: str, split: str, variant: str, part: str, whole: str) -> Callable[[Findings], Figure]:
    """A ratio of sums, such as the pixels in common over those of the union."""

    def value(found: Findings) -> Figure:
        parts, wholes = (np.array(found.column(kind, split, variant, name)) for name in (part, whole))
        return Figure.resampled(lambda rows: float(parts[rows].sum() / max(wholes[rows].sum(), 1)), len(parts))

    return value
