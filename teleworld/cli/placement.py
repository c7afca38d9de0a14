"""Which worker processes a local mesh consists of, and which devices each of them has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from teleworld.scheduling.costs import CostTable, Setup
from teleworld.scheduling.tasks import Pool
from teleworld.world.errors import InvalidInput

SERVICES = tuple(pool.value for pool in Pool)


@dataclass(frozen=True)
class WorkerProcess:
    """A process of `python -m services.<service>` under a name, with variables of its own beside the mesh's."""

    name: str
    service: str
    variables: Mapping[str, str]


def computing(populators: int) -> list[WorkerProcess]:
    """Workers that compute: one of each service, and so many populators."""
    placed = []
    for service in SERVICES:
        count = populators if service == Pool.POPULATOR.value else 1
        names = [service] if count == 1 else [f"{service}-{number}" for number in range(1, count + 1)]
        placed += [WorkerProcess(name, service, {}) for name in names]
    return placed


def emulated(table: CostTable, setup: str | None, folder: Path) -> list[WorkerProcess]:
    """Workers that hold the devices of a set-up of the cost table, by default its first one.

    The devices that only one pool uses are held by one process of its service, which has a slot for each. A device that
    several pools share is held by a process of each service, with a common clock below `folder`. Raises InvalidInput.
    """
    chosen = _setup(table, setup)
    devices = chosen.devices
    placed = []
    for pool in Pool:
        own = sum(served == (pool,) for served in devices)
        if own:
            variables = {"TELEWORLD_EMULATED_DEVICES": str(own)}
            if (ranks := chosen.ranks.get(pool, 1)) > 1:
                variables["TELEWORLD_EMULATED_RANKS"] = str(ranks)
            placed.append(WorkerProcess(pool.value, pool.value, variables))
        shared = [number for number, served in enumerate(devices) if pool in served and len(served) > 1]
        for number in shared:
            clock = {"TELEWORLD_EMULATED_CLOCK": str(folder / f"device-{number}.clock")}
            name = pool.value if not own and len(shared) == 1 else f"{pool.value}-on-{number}"
            placed.append(WorkerProcess(name, pool.value, clock))
    return placed


def _setup(table: CostTable, name: str | None) -> Setup:
    if name is None:
        return next(iter(table.setups.values()))
    try:
        return table.setups[name]
    except KeyError:
        known = ", ".join(table.setups)
        raise InvalidInput("setup", f"{table.name} has no {name!r}; it has: {known}") from None
