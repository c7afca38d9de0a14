"""Where workers may be. Discovery names addresses; whether a worker there is well is found out by `services.gateway.roster`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput


@dataclass(frozen=True)
class Sighting:
    """An address, `host:port`, that belongs to a pool from now on, or not any more."""

    pool: Pool
    address: str
    present: bool = True


class Discovery(Protocol):
    """A source of addresses: an endless series of changes, the present ones first."""

    def sightings(self) -> AsyncIterator[Sighting]: ...


class StaticDiscovery:
    """Addresses that are known from the start and never change."""

    def __init__(self, addresses: Mapping[Pool, Collection[str]]) -> None:
        """Raises InvalidInput naming the pool's setting for an address that is not `host:port`."""
        for pool, listed in addresses.items():
            for address in listed:
                host, _, port = address.rpartition(":")
                if not host or not port.isdecimal():
                    raise InvalidInput(f"{pool.value}_addresses", f"expected host:port, got {address!r}")
        self._addresses = {pool: tuple(dict.fromkeys(listed)) for pool, listed in addresses.items()}

    async def sightings(self) -> AsyncIterator[Sighting]:
        for pool, listed in self._addresses.items():
            for address in listed:
                yield Sighting(pool, address)
        await asyncio.Event().wait()
