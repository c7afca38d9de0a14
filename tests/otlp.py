"""A real OTLP gRPC receiver for tests: keeps every span and point of a metric that arrives, and lets a test wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2


@dataclass(frozen=True)
class Span:
    """One finished span. Ids are lower-case hex, `parent_id` is empty for a root, times are nanoseconds since 1970."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: tuple[str, ...]
    error: bool

    @property
    def milliseconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e6


@dataclass(frozen=True)
class Point:
    """One point of a metric. kind: `gauge`, `counter`, `histogram`, or `level` for a sum that may fall. exemplars: the ids of
    the traces that it refers to."""

    service: str
    name: str
    unit: str
    kind: str
    labels: dict[str, Any]
    exemplars: tuple[str, ...]


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Listens on a free port while it is entered; `endpoint` is what OTEL_EXPORTER_OTLP_ENDPOINT takes."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._points: list[Point] = []
        self._arrived = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.stop(0).wait()

    @property
    def spans(self) -> list[Span]:
        """What has arrived so far, oldest first."""
        with self._arrived:
            return list(self._spans)

    @property
    def metrics(self) -> set[str]:
        """Names of the metrics that have arrived so far."""
        with self._arrived:
            return {point.name for point in self._points}

    @property
    def points(self) -> list[Point]:
        """All points of metrics that have arrived so far, oldest first."""
        with self._arrived:
            return list(self._points)

    def wait_for(self, enough: Callable[[list[Span]], Any], seconds: float = 15.0) -> Any:
        """The first true value of `enough(spans)`, tried whenever something arrives; fails after `seconds`."""
        end = time.monotonic() + seconds
        with self._arrived:
            while not (result := enough(list(self._spans))):
                if not self._arrived.wait(end - time.monotonic()):
                    raise AssertionError(f"not in {seconds} s; arrived: {sorted({s.name for s in self._spans})}")
            return result

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        spans = [
            _span(_values(resource.resource.attributes).get("service.name", ""), span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._arrived:
            self._spans.extend(spans)
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def keep_points(self, points: list[Point]) -> None:
        with self._arrived:
            self._points.extend(points)
            self._arrived.notify_all()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver

    def Export(
        self, request: metrics_service_pb2.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> metrics_service_pb2.ExportMetricsServiceResponse:
        self._receiver.keep_points(
            [
                point
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                for point in _points(_values(resource.resource.attributes).get("service.name", ""), metric)
            ]
        )
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        error=span.status.code == 2,
    )


def _points(service: str, metric: Any) -> list[Point]:
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind)
    if kind == "sum":
        kind = "counter" if data.is_monotonic else "level"
    return [
        Point(
            service=service,
            name=metric.name,
            unit=metric.unit,
            kind=kind,
            labels=_values(point.attributes),
            exemplars=tuple(exemplar.trace_id.hex() for exemplar in point.exemplars),
        )
        for point in data.data_points
    ]


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")
