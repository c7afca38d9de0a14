"""Workers by their weights: a fleet is those that compute with one set, under a dispatcher of their own.

A world is pinned to the weights that it was born with. During a rolling upgrade there are two fleets: worlds that run stay with
theirs until it drains away, new worlds go to the newest one that has a worker in every pool.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from teleworld.rpc.convert.common import ModelDescription
from teleworld.runtime.dispatcher import Dispatcher
from teleworld.scheduling.tasks import BATCHED, Pool
from teleworld.world.errors import Unavailable
from teleworld.world.spec import learn


@dataclass
class Fleet:
    """The workers, by address, that compute with `model`'s weights."""

    model: ModelDescription
    dispatcher: Dispatcher
    pools: dict[str, Pool] = field(default_factory=dict)

    def away(self) -> list[Pool]:
        """The pools without a worker."""
        return [pool for pool in Pool if pool not in self.pools.values()]


class Fleets:
    """All fleets, oldest first. digest: new worlds are born with these weights; empty takes the newest whole fleet."""

    def __init__(self, make: Callable[[], Dispatcher], digest: str = "") -> None:
        self._make = make
        self._digest = digest
        self._fleets: dict[str, Fleet] = {}

    def __iter__(self) -> Iterator[Fleet]:
        return iter(tuple(self._fleets.values()))

    def join(self, address: str, pool: Pool, port: Any, model: ModelDescription, slots: int) -> None:
        """A worker serves with `model`."""
        fleet = self._fleets.get(model.weights_digest)
        if fleet is None or not fleet.pools:
            # A fleet that comes back is as new as one that comes for the first time.
            fleet = self._fleets.pop(model.weights_digest, None) or Fleet(model, self._make())
            self._fleets[model.weights_digest] = fleet
        if model.spec is not None:
            learn(model.spec)
        fleet.pools[address] = pool
        batches = {kind: model.batches.get(kind.value, 1) for kind in BATCHED.get(pool, ())}
        fleet.dispatcher.join(address, pool, port, slots, batches)

    def leave(self, address: str) -> bool:
        """A worker is gone. Whether it was there."""
        for fleet in self:
            if fleet.pools.pop(address, None) is not None:
                fleet.dispatcher.leave(address)
                return True
        return False

    def port(self, pool: Pool, avoid: Collection[str] = (), digest: str = "") -> tuple[str, Any]:
        """A worker of `pool` and its port, for a question outside of any world's tasks; of the weights `digest`, or the newest.

        Raises Unavailable.
        """
        for fleet in reversed(list(self)):
            if digest in ("", fleet.model.weights_digest):
                with suppress(Unavailable):
                    return fleet.dispatcher.port(pool, avoid)
        raise Unavailable(f"no {pool.value} is ready")

    def joined(self, pool: Pool) -> int:
        """Workers of a pool, of all fleets."""
        return sum(joined is pool for fleet in self for joined in fleet.pools.values())

    def of(self, digest: str) -> Fleet | None:
        """The fleet with these weights, if each pool of it has a worker."""
        fleet = self._fleets.get(digest)
        return fleet if fleet is not None and not fleet.away() else None

    def newest(self) -> Fleet | None:
        """The fleet that new worlds go to."""
        if self._digest:
            return self.of(self._digest)
        whole = [fleet for fleet in self if not fleet.away()]
        return whole[-1] if whole else None

    def missing(self) -> list[Pool]:
        """The pools that the fleet of new worlds still lacks."""
        fleets = list(self)
        wanted = self._fleets.get(self._digest) if self._digest else (fleets[-1] if fleets else None)
        return wanted.away() if wanted is not None else list(Pool)
