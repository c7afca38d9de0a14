"""OpenTelemetry for one process: traces and metrics to an OTLP collector, if there is one.

A tracer is installed even without a collector, so that logs carry trace ids and the trace context travels on. A collector
that is away must never hold a process: export happens in the background, and the shutdown has a bound.
"""

from __future__ import annotations

import os
import socket
import threading

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from teleworld import __version__
from teleworld.telemetry import logs

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
SHUTDOWN_SECONDS = 2.0


class Telemetry:
    """The providers of a process. `shutdown` flushes and ends them."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider | None) -> None:
        self._tracers = tracers
        self._meters = meters

    def shutdown(self, seconds: float = SHUTDOWN_SECONDS) -> bool:
        """Export what is left, for at most `seconds`. False when the time was not enough and data may be lost."""
        ending = threading.Thread(target=self._end, name="telemetry-shutdown", daemon=True)
        ending.start()
        ending.join(seconds)
        return not ending.is_alive()

    def _end(self) -> None:
        self._tracers.shutdown()
        if self._meters is not None:
            self._meters.shutdown()


def start(service: str, endpoint: str | None = None, log_level: str = "INFO") -> Telemetry:
    """Configure logs, traces and metrics of this process, once.

    endpoint: `http://host:port` of an OTLP gRPC collector; None reads OTEL_EXPORTER_OTLP_ENDPOINT, and without that nothing
    is exported. Sampling, batching and intervals follow the standard OTEL_ variables.
    """
    logs.configure(service, log_level)
    address = endpoint or os.environ.get(ENDPOINT_VARIABLE)
    resource = Resource.create(
        {
            "service.name": f"teleworld-{service}",
            "service.namespace": "teleworld",
            "service.version": __version__,
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    if not address:
        # Ids travel and are logged; spans that nobody will read are not recorded, which a busy gateway would feel.
        tracers = TracerProvider(resource=resource, sampler=ALWAYS_OFF, shutdown_on_exit=False)
        trace.set_tracer_provider(tracers)
        return Telemetry(tracers, None)
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    trace.set_tracer_provider(tracers)
    plaintext = not address.startswith("https://")
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address, insecure=plaintext)))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=address, insecure=plaintext))
    meters = MeterProvider(resource=resource, metric_readers=[reader], shutdown_on_exit=False)
    metrics.set_meter_provider(meters)
    return Telemetry(tracers, meters)
