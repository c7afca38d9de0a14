"""What the gateway measures, by OpenTelemetry. Gauges read the gateway's state when they are collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from teleworld.scheduling.policy import Scheduler
from teleworld.scheduling.tasks import Pool
from teleworld.world.identifiers import hashed_tenant

if TYPE_CHECKING:
    from services.gateway.worlds import Worlds

MAX_TENANTS = 100

_meter = metrics.get_meter("teleworld.gateway")
chunks = _meter.create_counter("teleworld.gateway.chunks", "{chunk}", "Chunks sent")
deadlines = _meter.create_counter(
    "teleworld.gateway.chunk.deadlines", "{chunk}", "Chunks by whether they were ready when playback needed them"
)
underruns = _meter.create_counter("teleworld.gateway.underruns", "{underrun}", "Times that a playback ran dry")
chunk_seconds = _meter.create_histogram(
    "teleworld.gateway.chunk.duration", "s", "From the binding of a chunk's controls to its journal"
)
key_to_frame_seconds = _meter.create_histogram(
    "teleworld.gateway.key_to_frame.duration",
    "s",
    "From the receipt of a live control to the first chunk that reflects it",
)
ends = _meter.create_counter("teleworld.gateway.ends", "{stream}", "Streams that ended, by reason")
refused = _meter.create_counter("teleworld.gateway.refused", "{request}", "What admission refused, by reason")
_frames = _meter.create_counter("teleworld.tenant.frames", "{frame}", "Frames sent, by tenant")
_device = _meter.create_counter("teleworld.tenant.device.time", "s", "Device time spent, by tenant and pool")
_labels: dict[str, str] = {}


def label(tenant: str) -> str:
    """A tenant as metrics call it: hashed, and of a bounded number of them; the others together are `others`."""
    if tenant not in _labels and len(_labels) < MAX_TENANTS:
        _labels[tenant] = hashed_tenant(tenant)
    return _labels.get(tenant, "others")


def sent(tenant: str, frames: int, on_time: bool | None) -> None:
    """A chunk was sent. on_time: None where nobody waits for it in real time."""
    chunks.add(1)
    _frames.add(frames, {"tenant": label(tenant)})
    if on_time is not None:
        deadlines.add(1, {"outcome": "met" if on_time else "missed"})
        if not on_time:
            underruns.add(1)


def computed(tenant: str, pool: Pool, seconds: float) -> None:
    """A worker spent device time on a tenant's world."""
    _device.add(seconds, {"tenant": label(tenant), "pool": pool.value})


def observe(worlds: Worlds) -> None:
    """Report the state of `worlds` from now on."""

    fleets = worlds.roster.fleets

    def of_pools(
        read: Callable[[Scheduler, Pool], float], joined: Callable[[Iterable[float]], float]
    ) -> list[Observation]:
        schedulers = [fleet.dispatcher.scheduler for fleet in fleets]
        return [
            Observation(joined([read(one, pool) for one in schedulers] or [0]), {"pool": pool.value}) for pool in Pool
        ]

    def depth(options: CallbackOptions) -> Iterable[Observation]:
        return of_pools(lambda scheduler, pool: scheduler.depth(pool), sum)

    def age(options: CallbackOptions) -> Iterable[Observation]:
        moment = time.monotonic()
        return of_pools(lambda scheduler, pool: scheduler.age(pool, moment), max)

    def workers(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(fleets.joined(pool), {"pool": pool.value}) for pool in Pool]

    def driven(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(len(worlds.drives))]

    def watching(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(len(worlds.spectators))]

    for name, read, unit, description in (
        ("queue_depth", depth, "{task}", "Tasks that wait for a worker"),
        ("queue_age", age, "s", "How long the oldest of them has waited"),
        ("workers", workers, "{worker}", "Workers that serve"),
        ("streams", driven, "{stream}", "Worlds that are driven"),
        ("spectators", watching, "{stream}", "Spectators"),
    ):
        _meter.create_observable_gauge(f"teleworld.gateway.{name}", [read], unit, description)
