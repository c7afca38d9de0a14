"""Fencing at the worker: a gateway that lost a world's lease must not have tasks done for it.

The guard remembers the highest epoch of the worlds it saw last. It forgets the least recently used ones and starts empty,
so it narrows the window in which an old gateway does harm; the store, which checks the lease at each write, closes it.
"""

from __future__ import annotations

from collections import OrderedDict

from teleworld.world.errors import StaleEpoch


class EpochGuard:
    """The highest epoch of each of the last `capacity` worlds. Not thread-safe: used on the event loop alone."""

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._epochs: OrderedDict[str, int] = OrderedDict()

    def check(self, world: str, epoch: int) -> None:
        """Note `epoch`. Raises StaleEpoch if a higher one was seen for `world`."""
        current = self._epochs.get(world, epoch)
        if epoch < current:
            raise StaleEpoch(world, epoch, current)
        self._epochs[world] = epoch
        self._epochs.move_to_end(world)
        if len(self._epochs) > self._capacity:
            self._epochs.popitem(last=False)

    def __len__(self) -> int:
        return len(self._epochs)
