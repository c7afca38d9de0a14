"""What the gateway measures, by OpenTelemetry. Gauges read the gateway's state when they are collected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from teleworld.scheduling.tasks import Pool

if TYPE_CHECKING:
    from services.gateway.worlds import Worlds

_meter = metrics.get_meter("teleworld.gateway")
chunks = _meter.create_counter("teleworld.gateway.chunks", description="Chunks sent")
chunk_ms = _meter.create_histogram(
    "teleworld.gateway.chunk_ms", "ms", "From the binding of a chunk's controls to its journal"
)
key_to_frame_ms = _meter.create_histogram(
    "teleworld.gateway.key_to_frame_ms", "ms", "From the receipt of a live control to the first chunk that reflects it"
)
ends = _meter.create_counter("teleworld.gateway.ends", description="Streams that ended, by reason")


def observe(worlds: Worlds) -> None:
    """Report the state of `worlds` from now on."""

    def depth(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(worlds.dispatcher.scheduler.depth(pool), {"pool": pool.value}) for pool in Pool]

    def workers(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(worlds.roster.joined(pool), {"pool": pool.value}) for pool in Pool]

    def driven(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(len(worlds.drives))]

    def watching(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(len(worlds.spectators))]

    _meter.create_observable_gauge("teleworld.gateway.queue_depth", [depth], description="Tasks that wait for a worker")
    _meter.create_observable_gauge("teleworld.gateway.workers", [workers], description="Workers that serve")
    _meter.create_observable_gauge("teleworld.gateway.streams", [driven], description="Worlds that are driven")
    _meter.create_observable_gauge("teleworld.gateway.spectators", [watching], description="Spectators")
