"""The traces of one running world: one trace a segment, its tasks as children, and a span a chunk that links to them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from teleworld.runtime.records import Chunk
from teleworld.scheduling.policy import Assignment
from teleworld.world.errors import TeleWorldError

tracer = trace.get_tracer("teleworld.runtime")


class WorldSpans:
    """Spans of the segments that are under way. Never made current outside of a task."""

    def __init__(self, world: str) -> None:
        self._world = world
        self._segments: dict[int, Span] = {}
        self._links: dict[int, list[Link]] = {}
        self._bound_at: dict[int, int] = {}

    def bound(self, segment: int) -> None:
        """The segment's controls are being bound: its trace begins."""
        if segment not in self._segments:
            self._segments[segment] = tracer.start_span(
                "segment",
                context=trace.set_span_in_context(trace.INVALID_SPAN),
                attributes={"teleworld.world": self._world, "teleworld.segment": segment},
            )
            self._bound_at[segment] = time.time_ns()

    @contextmanager
    def task(self, assignment: Assignment) -> Iterator[Span]:
        """The span of one task, from the moment it became ready; a child of its segment's span."""
        task = assignment.task
        span = tracer.start_as_current_span(
            f"task {task.kind.value}",
            context=self._inside(task.segment),
            kind=SpanKind.INTERNAL,
            start_time=time.time_ns() - int(assignment.waited * 1e9),
            attributes={
                "teleworld.world": task.world,
                "teleworld.segment": task.segment,
                "teleworld.task": task.name,
                "teleworld.worker": assignment.worker,
                "teleworld.attempt": assignment.attempt,
                "teleworld.wait_ms": assignment.waited * 1000,
            },
        )
        with span as current:
            self._links.setdefault(task.segment, []).append(Link(current.get_span_context()))
            try:
                yield current
            except TeleWorldError as error:
                current.set_status(Status(StatusCode.ERROR, error.reason))
                raise

    def chunk(self, chunk: Chunk, *, last: bool) -> None:
        """The span of a delivered chunk, from the binding of its controls on. After the segment's `last` the trace ends."""
        if chunk.segment not in self._segments:
            return
        tracer.start_span(
            "chunk",
            context=self._inside(chunk.segment),
            links=self._links.get(chunk.segment, []),
            start_time=self._bound_at[chunk.segment],
            attributes={
                "teleworld.world": self._world,
                "teleworld.segment": chunk.segment,
                "teleworld.chunk": chunk.index,
                "teleworld.latent": chunk.latent,
            },
        ).end()
        if last:
            self._segments.pop(chunk.segment).end()
            self._links.pop(chunk.segment, None)
            self._bound_at.pop(chunk.segment, None)

    def close(self) -> None:
        """End what is open."""
        for span in self._segments.values():
            span.end()
        self._segments.clear()

    def _inside(self, segment: int) -> Context | None:
        span = self._segments.get(segment)
        return trace.set_span_in_context(span) if span else None
