"""What tenants use, for metering: frames and device time, as metrics while a world is driven and as one log event at its end."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from services.gateway import metrics
from teleworld.scheduling.tasks import Pool
from teleworld.world.identifiers import tenant_of

_log = logging.getLogger("teleworld.usage")


@dataclass
class _Drive:
    frames: int = 0
    seconds: dict[Pool, float] = field(default_factory=dict)


class Usage:
    """Counts by world while it is driven. Device time is the time of the calls that workers answered, transport included."""

    def __init__(self) -> None:
        self._drives: dict[str, _Drive] = {}

    def spent(self, world: str, pool: Pool, seconds: float) -> None:
        """A worker answered a task."""
        metrics.computed(tenant_of(world), pool, seconds)
        of_pool = self._drives.setdefault(world, _Drive()).seconds
        of_pool[pool] = of_pool.get(pool, 0.0) + seconds

    def sent(self, world: str, frames: int, on_time: bool | None) -> None:
        """A chunk was sent. on_time: None where nobody waits for it in real time."""
        metrics.sent(tenant_of(world), frames, on_time)
        self._drives.setdefault(world, _Drive()).frames += frames

    def close(self, world: str) -> None:
        """The world is not driven any more: write down what it used."""
        if (drive := self._drives.pop(world, None)) is not None:
            seconds = {f"{pool.value}_seconds": round(spent, 3) for pool, spent in drive.seconds.items()}
            _log.info("usage", extra={"tenant": tenant_of(world), "world": world, "frames": drive.frames, **seconds})
