"""Gauges of what a worker holds in memory beside its weights: caches, and the 4D memory that it has at hand.

Whoever makes such a thing says how to measure it; it is measured whenever metrics are collected, for as long as it lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar
from weakref import WeakKeyDictionary

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

Holder = TypeVar("Holder")
_meter = metrics.get_meter("teleworld.worker")


class Sizes:
    """A gauge in bytes with one label. Holders are kept weakly; those with the same value of the label are added up."""

    def __init__(self, name: str, label: str, description: str) -> None:
        self._label = label
        self._holders: WeakKeyDictionary[object, Callable[[object], Mapping[str, int]]] = WeakKeyDictionary()
        _meter.create_observable_gauge(name, [self._observe], "By", description)

    def track(self, holder: Holder, measure: Callable[[Holder], Mapping[str, int]]) -> None:
        """Report what `measure` says of `holder`, bytes by value of the label, from another thread. It must not refer to the
        holder by itself, or the holder would live for ever."""
        self._holders[holder] = measure  # type: ignore[assignment]

    def _observe(self, options: CallbackOptions) -> Iterable[Observation]:
        held: Counter[str] = Counter()
        for holder, measure in list(self._holders.items()):
            held.update(measure(holder))
        return [Observation(nbytes, {self._label: value}) for value, nbytes in held.items()]


caches = Sizes("teleworld.worker.cache.size", "cache", "Bytes that caches hold")
memory = Sizes("teleworld.memory.size", "kind", "Bytes of 4D memory that this process has at hand")
